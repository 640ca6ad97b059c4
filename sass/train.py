"""Train: the encoder of a run, from the tiles of its fit shards; a frozen one is only written down."""

import inspect
import json
import math
import os
from pathlib import Path

from torch import nn

from sass.config import Model, Train
from sass.errors import SassError
from sass.fingerprint import stage_fingerprint
from sass.grid import ceil_to
from sass.manifest import digest, file_digest, read_json, record_archive, replacing
from sass.model.interface import EncoderError, make_encoder, save_encoder
from sass.model.objective import Sass
from sass.model.train import TrainingError, train
from sass.run import Run
from sass.statistics import Statistics
from sass.tiles import TileSampler


def train_encoder(
    run: Run, fit: list[str], model: Model, settings: Train, threads: int, objective: type = Sass
) -> None:
    """Train the encoder, unless it is frozen, and write ``model/encoder.safetensors``.

    What is asked of the embeddings is an objective (`sass.model.objective`), ours unless another is given.
    A training that was killed goes on from its last checkpoint, unless code, settings or scenes have changed.
    Of several processes that torchrun started, the first one writes.

    Raises
    ------
    SassError
        The encoder that the configuration names cannot be built or does not fit, or the loss is not finite
        any more.
    """
    first = os.environ.get("RANK", "0") == "0"
    if first:
        # from here on the files change, and an interrupted training is no damage
        run.archive_record("train").unlink(missing_ok=True)
    statistics = read_json(run.statistics)
    section = model.model_dump(mode="json")
    try:
        encoder = make_encoder([band["name"] for band in statistics["bands"]], section, settings.seed)
        if not model.frozen:
            encoder = _trained(encoder, run, fit, section, settings, statistics, threads, objective)
    except (EncoderError, TrainingError) as error:
        raise SassError(str(error)) from error
    if not first:
        return
    with replacing(run.encoder) as path:
        save_encoder(path, encoder, section, statistics)
    record_archive(run, "train")
    print(json.dumps({"encoder": file_digest(run.encoder), "halo": encoder.halo}))


def _trained(
    encoder: nn.Module,
    run: Run,
    fit: list[str],
    model: dict,
    settings: Train,
    statistics: dict,
    threads: int,
    objective: type,
) -> nn.Module:
    step = math.lcm(16, encoder.alignment)
    if settings.crop % encoder.alignment:
        raise SassError(
            f"train.crop {settings.crop} is no multiple of the alignment {encoder.alignment} of "
            f"model.encoder {model['encoder']!r}, which could not embed a view; set it to "
            f"{ceil_to(settings.crop, step)}"
        )
    section = settings.model_dump(mode="json")
    frozen = Statistics.from_json(statistics).given_to(encoder.normalisation)
    sampler = TileSampler(run, fit, statistics["from"]["scenes"], frozen, 2 * settings.crop, settings.seed)
    return train(
        sampler,
        encoder,
        frozen.clip,
        section,
        checkpoint=run.checkpoint,
        log=run.training_log,
        key=digest(stage_fingerprint("train"), model, section, statistics, objective_identity(objective)),
        threads=threads,
        objective=objective,
    )


def objective_identity(objective: type) -> list[str] | None:
    """Return what tells an objective from others: its name and its file's digest; None for this package's."""
    if objective is Sass:
        return None  # the stage's fingerprint holds its code
    return [objective.__module__, objective.__qualname__, file_digest(Path(inspect.getfile(objective)))]
