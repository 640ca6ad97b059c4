"""The codebook: K fine codes fitted out of core on the features of the fit shards.

A sample of fixed size gives the metric and starts the codes (k-means in memory), then full passes over every
embedding refine them (Lloyd 1982). A pass streams the stores window by window, so memory does not
depend on the archive; partial sums are added in the order of the windows, so the result does not depend on
threads, nor on workers of a cluster.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from sass.cluster.kmeans import BLOCK, lloyd, nearest, seeds, sums
from sass.cluster.metric import Metric, fit_metric
from sass.config import Codebook, Dask
from sass.errors import SassError
from sass.files import digest, replacing
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.manifest import Outcome, digests, run_archive, scenes_of
from sass.progress import Progress, progress
from sass.run import Run
from sass.store import FeatureStore
from sass.workers import LOCAL, Workers

STARTED = 15
"""Passes over the sample that start the codes."""


@dataclass(frozen=True)
class Codes:
    """A fitted codebook.

    ``metric``, in which distances are taken; ``codes (K, D)`` float32, in it; ``sizes (K)`` int64, embeddings
    nearest to each; ``spread``, mean squared distance to the nearest code; ``sample (S, D)`` float32, a draw
    of embeddings in random order, in the metric too.
    """

    metric: Metric
    codes: np.ndarray
    sizes: np.ndarray
    spread: float
    sample: np.ndarray

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        arrays = {
            "offset": self.metric.offset,
            "matrix": self.metric.matrix,
            "codes": self.codes,
            "sizes": self.sizes,
            "sample": self.sample.astype(np.float16),
        }
        with replacing(path) as temporary:
            # not save_file: its own temporary file would stay where it is killed
            temporary.write_bytes(save(arrays, {"sass": json.dumps({"spread": self.spread})}))

    @classmethod
    def load(cls, path: Path) -> "Codes":
        """Read what `save` wrote."""
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()["sass"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return cls(
            Metric(held["offset"], held["matrix"]),
            held["codes"],
            held["sizes"],
            about["spread"],
            held["sample"].astype(np.float32),
        )


def codebook_archive(
    run: Run, fit: list[str], settings: Codebook, threads: int, dask: Dask = LOCAL
) -> Outcome:
    """Bring the codes up to date with the features of the fit shards."""
    made_by = [stage_fingerprint("codebook"), settings.model_dump(mode="json"), fit]
    return run_archive(
        run,
        "codebook",
        digest(made_by, digests(run, "features", fit)),
        lambda: fit_codebook(run, fit, settings, threads, dask),
    )


def fit_codebook(run: Run, fit: list[str], settings: Codebook, threads: int, dask: Dask = LOCAL) -> Codes:
    """Fit the codes on the features of the fit shards and write them."""
    pieces = _pieces(run, fit)
    total = sum(valid for *_, valid in pieces)
    if total < settings.codes:
        raise SassError(
            f"{total} embeddings in the fit shards cannot make {settings.codes} codes; lower codebook.codes"
        )
    if settings.sample < settings.codes:
        raise SassError(
            f"a sample of {settings.sample} embeddings cannot start {settings.codes} codes; "
            "raise codebook.sample or lower codebook.codes"
        )
    first = FeatureStore(run.features(pieces[0][0]))
    with Workers(run, threads, dask) as workers, Progress("codebook", settings.refine + 2) as passes:

        def over_pieces(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            passes.reach(passes.done + 1)
            done = workers.map(work, items, total * first.stride**2 / 1e6)
            return progress(done, len(pieces), "pass")

        drawn = _draw(run, pieces, total, settings, over_pieces)
        metric = fit_metric(drawn, first.parts, settings.weights)
        random = np.random.default_rng([settings.seed, 0])
        sample = random.permutation(metric.apply(drawn))
        with threadpool_limits(1):  # several threads add in an order of their own
            codes = lloyd(sample, seeds(sample, settings.codes, random), STARTED)
        for _ in range(settings.refine):
            moved, sizes, _ = _full_pass(run, pieces, metric, codes, over_pieces)
            held = sizes > 0  # a code that nothing is nearest to stays where it is
            codes[held] = (moved[held] / sizes[held, None]).astype(np.float32)
        _, sizes, spread = _full_pass(run, pieces, metric, codes, over_pieces)
    fitted = Codes(metric, codes, sizes, spread / total, sample)
    fitted.save(run.codebook)
    return fitted


Piece = tuple[str, Window, int]
"""A scene, one Zarr shard of its features, and about how many embeddings of it have data."""
OverPieces = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Maps a function over pieces, in their order: on threads, or on workers."""


def _pieces(run: Run, fit: list[str]) -> list[Piece]:
    pieces: list[Piece] = []
    expected = None
    for shard in fit:
        for scene, record in sorted(scenes_of(run, "features", shard).items()):
            store, length = FeatureStore(run.features(scene)), record["shape"][0]
            expected = expected or length
            if length != expected:
                raise SassError(
                    f"scene {scene} has embeddings of length {length}, those before it of {expected}; "
                    "one codebook needs one length, so make them alike for all scenes"
                )
            for window in tiles(store.shape, store.embedding.shards[1]):
                valid = int(store.read_valid(window).sum())
                if valid:
                    pieces.append((scene, window, valid))
    if not pieces:
        raise SassError(
            f"no features stand in the fit shards {', '.join(fit)}: run `sass features` on them first"
        )
    return pieces


def _vectors(run: Run, piece: Piece) -> np.ndarray:
    scene, window, _ = piece
    values, valid = FeatureStore(run.features(scene)).read(window)
    return np.ascontiguousarray(values[:, valid].T)


def _draw(
    run: Run, pieces: list[Piece], total: int, settings: Codebook, over_pieces: OverPieces
) -> np.ndarray:
    """Draw embeddings evenly over the valid area."""
    share = min(settings.sample / total, 1.0)
    upto = np.floor(np.cumsum([valid for *_, valid in pieces]) * share)
    wanted = np.diff(upto, prepend=0).astype(int).tolist()
    asked = [(i, n, piece) for i, (n, piece) in enumerate(zip(wanted, pieces)) if n]
    return np.concatenate(list(over_pieces(partial(_drawn, run, settings.seed), asked)))


def _drawn(run: Run, seed: int, asked: tuple[int, int, Piece]) -> np.ndarray:
    number, wanted, piece = asked
    vectors = _vectors(run, piece)
    chosen = np.random.default_rng([seed, 1, number]).permutation(len(vectors))[:wanted]
    return vectors[np.sort(chosen)]


Sums = tuple[np.ndarray, np.ndarray, float]
"""Sums ``(K, D)`` and sizes ``(K)`` of the codes, and the sum of squared distances."""


def _full_pass(
    run: Run, pieces: list[Piece], metric: Metric, codes: np.ndarray, over_pieces: OverPieces
) -> Sums:
    """Assign every embedding once."""
    moved, sizes, spread = np.zeros(codes.shape), np.zeros(len(codes), np.int64), 0.0
    for m, n, d in over_pieces(partial(_assigned, run, metric, codes), pieces):
        moved += m
        sizes += n
        spread += d
    return moved, sizes, spread


def _assigned(run: Run, metric: Metric, codes: np.ndarray, piece: Piece) -> Sums:
    k, vectors = len(codes), _vectors(run, piece)
    moved, sizes, spread = np.zeros(codes.shape), np.zeros(k, np.int64), 0.0
    for start in range(0, len(vectors), BLOCK):
        block = metric.apply(vectors[start : start + BLOCK])
        first, distance = nearest(block, codes)
        moved += sums(block, first, k)
        sizes += np.bincount(first, minlength=k)
        spread += float(distance.sum(dtype=np.float64))
    return moved, sizes, spread
