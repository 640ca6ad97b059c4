"""Train: the encoder of a run, from the tiles of its fit shards."""

import json

from sass.config import Model, Train
from sass.fingerprint import stage_fingerprint
from sass.manifest import digest, file_digest, read_json, replacing
from sass.model.encoder import save_encoder
from sass.model.train import train
from sass.run import Run
from sass.statistics import Statistics
from sass.tiles import TileSampler


def train_encoder(run: Run, fit: list[str], model: Model, settings: Train, threads: int) -> None:
    """Train the encoder and write ``model/encoder.safetensors``.

    A training that was killed goes on from its last checkpoint, unless code, settings or scenes have changed.
    """
    statistics = read_json(run.statistics)
    sections = model.model_dump(mode="json"), settings.model_dump(mode="json")
    key = digest(stage_fingerprint("train"), sections, statistics)
    sampler = TileSampler(run, fit, Statistics.from_json(statistics), 2 * settings.crop, settings.seed)
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
    with replacing(run.encoder) as path:
        save_encoder(path, encoder, sections[0], statistics)
    print(json.dumps({"encoder": file_digest(run.encoder), "halo": encoder.halo}))
