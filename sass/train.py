"""Train: the encoder of a run, from the tiles of its fit shards; a frozen one is only written down."""

import contextlib
import importlib.util
import inspect
import json
import math
import os
from pathlib import Path

from torch import nn

from sass.config import Model, Train
from sass.errors import SassError
from sass.files import digest, file_digest, read_json, replacing
from sass.fingerprint import stage_fingerprint
from sass.grid import ceil_to
from sass.manifest import Outcome, run_archive
from sass.model.device import computing_device
from sass.model.interface import EncoderError, make_encoder, save_encoder
from sass.model.objective import Sass
from sass.model.train import TrainingError, train
from sass.progress import Progress
from sass.run import Run
from sass.statistics import Statistics
from sass.tiles import TileSampler


def train_archive(run: Run, fit: list[str], model: Model, settings: Train, threads: int) -> Outcome:
    """Bring the encoder up to date with the statistics, which name the scenes it is trained on.

    A frozen encoder is always written again: that takes no time, and its weights may have changed.
    """
    writes = os.environ.get("RANK", "0") == "0"
    if model.frozen and writes:
        run.archive_record("train").unlink(missing_ok=True)
    made_by = [stage_fingerprint("train"), model.model_dump(mode="json"), settings.model_dump(mode="json")]
    return run_archive(
        run,
        "train",
        digest(made_by, fit, file_digest(run.statistics), _code_of(model.encoder)),
        lambda: train_encoder(run, fit, model, settings, threads),
        writes=writes,
    )


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
    statistics = read_json(run.statistics)
    section = model.model_dump(mode="json")
    try:
        encoder = make_encoder([band["name"] for band in statistics["bands"]], section, settings.seed)
        if not model.frozen:
            encoder = _trained(encoder, run, fit, section, settings, statistics, threads, objective)
    except (EncoderError, TrainingError) as error:
        raise SassError(str(error)) from error
    if os.environ.get("RANK", "0") != "0":
        return
    with replacing(run.encoder) as path:
        save_encoder(path, encoder, section, statistics)
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
    if os.environ.get("RANK", "0") == "0":
        computing_device("train")
    sampler = TileSampler(run, fit, statistics["from"]["scenes"], frozen, 2 * settings.crop, settings.seed)
    with Progress("train", settings.steps) as bar:
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
            place=sampler.place,
            show=lambda row: bar.reach(row["step"], f"loss {row['loss']:.3f}"),
        )


def _code_of(encoder: str) -> str | None:
    """Return the digest of the file that builds an encoder of the user's own; None where there is none."""
    place = encoder.rpartition(":")[0]
    if not place.endswith(".py"):
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(place) if place else None
            place = spec.origin if spec else ""
    return file_digest(Path(place)) if place and Path(place).is_file() else None


def objective_identity(objective: type) -> list[str] | None:
    """Return what tells an objective from others: its name and its file's digest; None for this package's."""
    if objective is Sass:
        return None  # the stage's fingerprint holds its code
    return [objective.__module__, objective.__qualname__, file_digest(Path(inspect.getfile(objective)))]
