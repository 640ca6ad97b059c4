"""Each stage beside its limit, in one process, on the same made scene with the default configuration."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import limits
from bench.ratio import Pairs, Row, alternated
from bench.scenes import side_of, write_scene
from sass.cluster.classes import load_classes
from sass.cluster.codebook import STARTED, Codes, _vectors, fit_codebook
from sass.cluster.hierarchy import build_hierarchy
from sass.cluster.kmeans import BLOCK
from sass.config import Config
from sass.features import features_shard
from sass.grid import Window, tiles
from sass.ingest import ingest_shard
from sass.model.interface import load_encoder, make_encoder
from sass.model.objective import Sass
from sass.model.train import _new_state
from sass.run import Run
from sass.scan import scan
from sass.segment import segment_shard
from sass.settings import load
from sass.statistics import Statistics, normalize
from sass.store import FeatureStore
from sass.tiles import TileSampler
from sass.train import train_encoder
from sass.windows import widest

SHARD = "s00000"
SMALL_TRAINING = {
    "model": {"widths": [32, 64], "blocks": 1, "dim": 32},
    "train": {"batch": 16, "crop": 64, "pool": 128, "points": 1024}
    | {"steps": 41, "refresh": 20, "checkpoint": 20},
}
"""What a CPU trains in seconds, renewed and kept oftener than by default; a GPU trains the default."""


@dataclass
class Subject:
    """A run over one made scene, on which stages are measured.

    Attributes
    ----------
    folder
        Where scenes and runs are written.
    megapixels
        Size of the scene.
    times
        Pairs of a ratio.
    threads
        Threads of a stage and of its limit.
    layers
        Layers of configuration over the default.
    """

    folder: Path
    megapixels: float
    times: int
    threads: int
    layers: list[dict[str, Any]] = field(default_factory=list)
    pairs: dict[str, Pairs] = field(default_factory=dict)
    """What was measured, by stage, for the sum over all."""
    alone: dict[str, float] = field(default_factory=dict)
    """Seconds of stages that have no limit."""

    @cached_property
    def config(self) -> Config:
        """The configuration."""
        return load(*self.layers)

    @cached_property
    def run(self) -> Run:
        """The run, with a catalog of one scene; what an earlier measurement left is removed."""
        root = self.folder / "run"
        shutil.rmtree(root, ignore_errors=True)
        scan(Run(root), [str(self.raster)], settings=self.config.catalog)
        return Run(root)

    @cached_property
    def raster(self) -> Path:
        """The scene."""
        return write_scene(self.folder / "scenes" / f"made-{self.megapixels:g}.tif", self.megapixels)

    @property
    def scene(self) -> str:
        """Its id."""
        return self.raster.stem

    @property
    def megapixels_held(self) -> tuple[float, str]:
        """What a stage does, for its speed."""
        return side_of(self.megapixels) ** 2 / 1e6, "Mpx"

    def anew(self, stage: str, payload: Path, work: Callable[[], Any]) -> Callable[[], float]:
        """Return a function that makes the payload of a stage on the shard again and returns the seconds."""

        def made_again() -> float:
            shutil.rmtree(self.run.manifest(stage, SHARD).parent, ignore_errors=True)
            shutil.rmtree(payload, ignore_errors=True)
            started = time.perf_counter()
            work()
            return time.perf_counter() - started

        return made_again

    def compare(self, stage: str, ours: Callable, bare: Callable) -> Pairs:
        """Measure a stage and its limit in turn."""
        self.pairs[stage] = alternated(ours, bare, self.times)
        return self.pairs[stage]


def ingest(subject: Subject) -> list[Row]:
    """Mask, histogram, digest and record beside a bare copy."""
    run, target = subject.run, subject.folder / "copy.zarr"

    def bare() -> float:
        shutil.rmtree(target, ignore_errors=True)
        started = time.perf_counter()
        limits.copy_raster(subject.raster, target, subject.threads)
        return time.perf_counter() - started

    work = subject.anew(
        "ingest",
        run.scene(subject.scene),
        lambda: ingest_shard(run, SHARD, subject.config.ingest, subject.threads),
    )
    pairs = subject.compare("ingest", work, bare)
    return [pairs.row("ingest", "speed", "copy_raster", subject.megapixels_held, reach=0.85)]


class Ticking(Sass):
    """The objective of SASS, noting when each step asks it for its terms."""

    ticks: list[float] = []  # noqa: RUF012 (the loop makes the object)

    def terms(self, seen: Any, teacher: Any) -> dict[str, torch.Tensor]:
        """As `Sass.terms`."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())
        return super().terms(seen, teacher)


def training(subject: Subject) -> list[Row]:
    """Steps of the loop, with tiles from Zarr, beside steps on one batch."""
    cuda = torch.cuda.is_available()
    config = load(*subject.layers, *([] if cuda else [SMALL_TRAINING, *subject.layers]))
    run, steps = subject.run, config.train.steps if not cuda else 200
    statistics = normalize(run, [SHARD], config.normalize)
    settings = config.train.model_copy(update={"steps": steps})
    section = settings.model_dump(mode="json")
    model = config.model.model_dump(mode="json")

    def ours() -> float:
        run.checkpoint.unlink(missing_ok=True)
        Ticking.ticks.clear()
        train_encoder(run, [SHARD], config.model, settings, subject.threads, Ticking)
        return Ticking.ticks[-1] - Ticking.ticks[0]

    device = torch.device("cuda" if cuda else "cpu")
    frozen = Statistics.from_json(statistics)
    sampler = TileSampler(run, [SHARD], statistics["from"]["scenes"], frozen, 2 * settings.crop, 0)
    held = torch.from_numpy(np.stack([sampler(i) for i in range(settings.batch)])).to(device)
    encoder = make_encoder([band["name"] for band in statistics["bands"]], model, 0)
    state = _new_state(encoder, section, device, Sass)

    def bare() -> float:
        started = time.perf_counter()
        limits.step_on_held_batch(state, held, frozen.clip, section, steps - 1)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    pairs = subject.compare("training", ours, bare)
    done = (steps - 1, "steps")
    return [
        pairs.row("training", "speed", "step_on_held_batch", done, reach=0.9),
        Row(
            "training",
            "views",
            2 * settings.batch * (steps - 1) / float(np.median(pairs.ours)),
            "",
            unit="views/s",
            note=f"{settings.crop} x {settings.crop} pixels, widths {config.model.widths}",
        ),
    ]


def features(subject: Subject) -> list[Row]:
    """Embeddings from Zarr to Zarr beside the encoder alone."""
    run, config = subject.run, subject.config
    statistics = normalize(run, [SHARD], config.normalize)
    frozen = config.model.model_copy(update={"frozen": True})
    train_encoder(run, [SHARD], frozen, config.train, subject.threads)
    encoder, _ = load_encoder(run.encoder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.to(device, memory_format=torch.channels_last)
    side, shape = config.features.window, (len(statistics["bands"]) + 1, side_of(subject.megapixels))
    side = min(side, shape[1] // encoder.alignment * encoder.alignment)
    tile = torch.randn(1, shape[0], side, side).to(device, memory_format=torch.channels_last)
    times = max(round((shape[1] / side) ** 2), 1)

    def bare() -> float:
        started = time.perf_counter()
        limits.encode_held_tiles(encoder, tile, times)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * (shape[1] / side) ** 2 / times

    work = subject.anew(
        "features",
        run.features(subject.scene),
        lambda: features_shard(run, SHARD, config.features, subject.threads),
    )
    pairs = subject.compare("features", work, bare)
    reach = 0.8 if device.type == "cuda" else 0.85
    wide = max(widest(subject.threads), config.features.window)
    return [
        pairs.row("features", "speed", "encode_held_tiles", subject.megapixels_held, reach=reach),
        Row("features", "halo", 2 * encoder.halo / wide, "useful pixels of a column", 0.15, "<=",
            note=f"halo {encoder.halo} on both sides of {wide}"),
    ]  # fmt: skip


def codebook(subject: Subject) -> list[Row]:
    """Codes fitted out of core beside k-means in memory."""
    run, settings = subject.run, subject.config.codebook
    stored = _held_vectors(run, subject.scene)
    fitted = fit_codebook(run, [SHARD], settings, subject.threads)
    vectors = fitted.metric.apply(stored)
    share = min(settings.sample / len(vectors), 1)
    passes = round(STARTED * share + settings.refine)
    made: dict[int | None, Any] = {}

    def bare(passes: int | None) -> Callable[[], None]:
        def cluster() -> None:
            made[passes] = limits.cluster_in_memory(vectors, settings.codes, BLOCK, passes, subject.threads)

        return cluster

    ours = lambda: fit_codebook(run, [SHARD], settings, subject.threads) and None  # noqa: E731
    done = len(vectors) / 1e6, "10^6 vectors"
    equal = subject.compare("codebook", ours, bare(passes))
    default = alternated(ours, bare(None), subject.times)
    said = f"{len(vectors)} of length {vectors.shape[1]}, {settings.codes} codes"
    return [
        equal.row("codebook", "speed, as many passes", "cluster_in_memory", done, reach=0.9, note=said),
        default.row("codebook", "speed, stopped early", "cluster_in_memory, passes=None", done),
        Row("codebook", "spread, as many passes", fitted.spread / (made[passes].inertia_ / len(vectors)),
            "cluster_in_memory", 1.0, "<=", note="mean squared distance to the nearest code"),
        Row("codebook", "spread, stopped early", fitted.spread / (made[None].inertia_ / len(vectors)),
            "cluster_in_memory, passes=None"),
    ]  # fmt: skip


def _held_vectors(run: Run, scene: str) -> np.ndarray:
    store = FeatureStore(run.features(scene))
    pieces = tiles(store.shape, store.embedding.shards[1])
    return np.concatenate([_vectors(run, (scene, window, 0)) for window in pieces])


def segment(subject: Subject) -> list[Row]:
    """Maps, confidence and seams beside an argmax of a product for every pixel."""
    run, settings = subject.run, subject.config.segment
    started = time.perf_counter()
    build_hierarchy(run, subject.config.hierarchy)
    subject.alone["hierarchy"] = time.perf_counter() - started
    codes, side, target = Codes.load(run.codebook), side_of(subject.megapixels), subject.folder / "bare"
    target.mkdir(exist_ok=True)
    store = FeatureStore(run.features(subject.scene))
    values, _ = store.read(Window(0, 0, *(min(length, 64) for length in store.shape)))
    few = codes.metric.apply(values.reshape(len(values), -1).T)
    vectors = np.resize(few, (32 * side, few.shape[1]))  # of a strip of 32 rows
    of_code = load_classes(run, settings.classes).of_code.astype(np.uint8)
    pairs = subject.compare(
        "segment",
        subject.anew(
            "segment",
            run.segments(subject.scene),
            lambda: segment_shard(run, SHARD, settings, subject.threads),
        ),
        lambda: limits.write_nearest(vectors, codes.codes, of_code, side, target, subject.threads),
    )
    return [pairs.row("segment", "speed", "write_nearest", subject.megapixels_held, reach=0.8)]


def whole(subject: Subject) -> list[Row]:
    """Say how near all stages together come to the sum of their limits; some have none and add to ours."""
    ours = sum(float(np.median(pairs.ours)) for pairs in subject.pairs.values()) + sum(subject.alone.values())
    bare = sum(float(np.median(pairs.bare)) for pairs in subject.pairs.values())
    said = f"{', '.join(subject.pairs)}; with {', '.join(subject.alone)} on our side"
    return [Row("whole", "speed", bare / ours, "all limits", 0.7, ours=ours, bare=bare, unit="s", note=said)]
