"""What the report tells of scenes that follow others of their footprint."""

from dataclasses import dataclass

import numpy as np
from rasterio.enums import Resampling

from sass.colours import UNCHANGED
from sass.manifest import scenes_of
from sass.report.collect import Klass, open_map
from sass.report.figures import Draw, Table, confusion
from sass.report.images import Rgba, paint_classes
from sass.run import Run

TOLD = 6
"""Transitions named on the page of a scene, largest first."""
COLUMNS = ["scene", "before", "pixels", "changed", "sure", "sure_changed", "confidence"]


@dataclass(frozen=True)
class Change:
    """What has become of a scene since the one before it."""

    scene: str
    before: str
    counts: np.ndarray
    """Pixels by class before and class after, int64 ``(n, n)``."""
    sure: np.ndarray
    """Those of which both maps are sure."""
    confidence: float

    @property
    def changed(self) -> float:
        """Share of the pixels with data in both maps whose class is another."""
        return _off_diagonal(self.counts)

    @property
    def sure_changed(self) -> float:
        """The same of the sure pixels alone."""
        return _off_diagonal(self.sure)

    @property
    def sure_share(self) -> float:
        """Share of pixels that are sure."""
        return float(self.sure.sum() / max(self.counts.sum(), 1))

    def largest(self) -> list[tuple[int, int, int, int]]:
        """Return class before, class after, pixels and sure pixels of the largest transitions."""
        moved = self.counts - np.diag(np.diag(self.counts))
        order = np.argsort(-moved, axis=None, kind="stable")[:TOLD]
        pairs = [divmod(int(at), len(moved)) for at in order]
        return [(a, b, int(moved[a, b]), int(self.sure[a, b])) for a, b in pairs if moved[a, b]]


def changes_of(run: Run, shards: list[str]) -> list[Change]:
    """Read what `sass change` wrote down of some shards, by scene."""
    found = []
    for shard in shards:
        for scene, record in scenes_of(run, "change", shard).items():
            counts = np.zeros((2, record["classes"], record["classes"]), np.int64)
            for a, b, pixels, sure in record["transitions"]:
                counts[:, a, b] = pixels, sure
            found.append(Change(scene, record["before"], *counts, record["confidence"]))
    return sorted(found, key=lambda change: change.scene)


def change_table(changes: list[Change]) -> Table:
    """Return a row for each scene that follows another."""
    rows = [
        [c.scene, c.before, int(c.counts.sum()), c.changed, c.sure_share, c.sure_changed, c.confidence]
        for c in changes
    ]
    return COLUMNS, rows


def transition_figure(changes: list[Change], classes: list[Klass]) -> tuple[Draw, Table]:
    """Heat map of what has become of each class, over all scenes that follow others."""
    names = [k.name for k in classes]
    return confusion(names, names, sum(change.counts for change in changes), "before", "after")


def change_picture(run: Run, scene: str, classes: list[Klass], size: tuple[int, int]) -> Rgba:
    """Paint a change map of height and width ``size``: grey, or the colour of what a pixel has become."""
    with open_map(run.changes(scene) / "change.tif") as source:
        values = source.read(1, out_shape=size, resampling=Resampling.mode).astype(np.int32)
        values[values == source.nodata] = -1
    became = np.where(values > 0, (values - 1) % len(classes) + 1, values)
    return paint_classes(became, {0: UNCHANGED} | {k.id + 1: k.colour for k in classes})


def _off_diagonal(counts: np.ndarray) -> float:
    return float(1 - np.trace(counts) / max(counts.sum(), 1)) if counts.any() else 0.0
