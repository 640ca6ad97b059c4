"""Train: the encoder of a run, from the tiles of its fit shards."""

import json
import os

from sass.config import Model, Train
from sass.errors import SassError
from sass.fingerprint import stage_fingerprint
from sass.manifest import digest, file_digest, read_json, replacing
from sass.model.encoder import save_encoder
from sass.model.train import TrainingError, train
from sass.run import Run
from sass.statistics import Statistics
from sass.tiles import TileSampler


def train_encoder(run: Run, fit: list[str], model: Model, settings: Train, threads: int) -> None:
    """Train the encoder and write ``model/encoder.safetensors``.

    A training that was killed goes on from its last checkpoint, unless code, settings or scenes have changed.
    Of several processes that torchrun started, the first one writes.

    Raises
    ------
    SassError
        The loss is not finite any more.
    """
    statistics = read_json(run.statistics)
    sections = model.model_dump(mode="json"), settings.model_dump(mode="json")
    key = digest(stage_fingerprint("train"), sections, statistics)
    frozen, scenes = Statistics.from_json(statistics), statistics["from"]["scenes"]
    sampler = TileSampler(run, fit, scenes, frozen, 2 * settings.crop, settings.seed)
    try:
        encoder = train(
            sampler,
            len(statistics["bands"]),
            statistics["clip"],
            *sections,
            checkpoint=run.checkpoint,
            log=run.training_log,
            key=key,
            threads=threads,
        )
    except TrainingError as error:
        raise SassError(str(error)) from None
    if os.environ.get("RANK", "0") != "0":
        return
    with replacing(run.encoder) as path:
        save_encoder(path, encoder, sections[0], statistics)
    print(json.dumps({"encoder": file_digest(run.encoder), "halo": encoder.halo}))
