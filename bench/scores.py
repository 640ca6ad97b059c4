"""What features hold, told by labels: codes named by their commonest label, and a linear probe.

Both look at embeddings as they are stored and clustered, joined by colour where the configuration says so,
each against the label of the pixel at its centre. They use labels, and stand in columns of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from sass.catalog import load_index, load_labels
from sass.cluster.codebook import Codes
from sass.cluster.kmeans import nearest
from sass.grid import Window, tiles
from sass.labels import label_reader, opened
from sass.metrics import NO_LABEL, Counts, confusion, label_ids, many_to_one, merge, scores
from sass.run import Run
from sass.store import FeatureStore

SIDE = 256
"""Side in embeddings of the window that is looked at at a time."""
DRAWN = 20_000
"""Embeddings that a probe is fitted on, over all scenes of its half."""

Scores = dict[str, float | None]
"""``accuracy`` and ``miou``, fractions."""


@dataclass(frozen=True)
class Labelled:
    """The labelled scenes of a run that has been segmented; label ids in ``ignore`` are passed over."""

    run: Run
    ignore: list[int]

    @property
    def scenes(self) -> dict[str, Path]:
        """Scene id to label raster, sorted."""
        shards = load_index(self.run)
        found = {scene: Path(label.path) for s in shards for scene, label in load_labels(self.run, s).items()}
        return dict(sorted(found.items()))

    def read(self, scene: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield embeddings that have a label, float32 ``(N, D)``, and their labels ``(N,)``, by windows."""
        store, path = FeatureStore(self.run.features(scene)), self.run.segments(scene) / "segments.tif"
        with opened(path, "map") as grid, label_reader(self.scenes[scene], grid) as read_labels:
            for window in tiles(store.shape, SIDE):
                vectors, valid = store.read(window)
                sides = (window.y, window.x, window.height, window.width)
                pixels = Window(*(store.stride * side for side in sides)).cut(grid.shape)
                rows, columns = (
                    np.minimum(np.arange(n) * store.stride + store.stride // 2, side - 1)
                    for n, side in zip(window.shape, pixels.shape)
                )
                labels = read_labels(pixels)[np.ix_(rows, columns)]
                kept = valid & ~np.isin(labels, [NO_LABEL, *self.ignore])
                yield np.ascontiguousarray(vectors[:, kept].T), labels[kept]


def named_codes(labelled: Labelled) -> Scores:
    """Score the fine codes of a run, each named by its commonest label."""
    codes = Codes.load(labelled.run.codebook)
    counts: Counts = {}
    for scene in labelled.scenes:
        for vectors, labels in labelled.read(scene):
            counts = merge(counts, confusion(labels, nearest(codes.metric.apply(vectors), codes.codes)[0]))
    result = many_to_one(counts, label_ids(counts, {}))
    return {key: result[key] for key in ("accuracy", "miou")}


def linear_probe(labelled: Labelled, seed: int) -> Scores:
    """Score a logistic regression that is fitted on one half of the scenes, on the other half.

    The first half is every second scene by id, the same for all seeds: other halves would differ by more than
    encoders do. Embeddings are drawn by the seed and standardised. Without two scenes, or two labels in the
    half that is fitted on, there is no score.
    """
    random = np.random.default_rng(seed)
    scenes = list(labelled.scenes)
    fitted_on, scored_on = scenes[1::2], scenes[::2]
    drawn = [_drawn(labelled, scene, -(-DRAWN // len(fitted_on)), random) for scene in fitted_on]
    labels = np.concatenate([part for _, part in drawn]) if drawn else np.empty(0)
    if len(np.unique(labels)) < 2:
        return {"accuracy": None, "miou": None}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    with threadpool_limits(1):  # several threads add in an order of their own
        probe.fit(np.concatenate([part for part, _ in drawn]), labels)
    counts: Counts = {}
    for scene in scored_on:
        for vectors, truth in labelled.read(scene):
            if len(truth):
                counts = merge(counts, confusion(truth, probe.predict(vectors)))
    ids = label_ids(counts, {})
    result = scores(counts, {label: label for label in ids}, ids)
    return {key: result[key] for key in ("accuracy", "miou")}


def _drawn(
    labelled: Labelled, scene: str, wanted: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to ``wanted`` embeddings of a scene, and their labels."""
    parts = list(labelled.read(scene))
    vectors, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    chosen = np.sort(random.permutation(len(labels))[:wanted])
    return vectors[chosen], labels[chosen]
