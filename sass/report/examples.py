"""What a class looks like: example chips and band values, from a few full-resolution windows."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from rasterio.windows import Window as RasterWindow
from scipy.ndimage import binary_erosion, uniform_filter

from sass.cog import CONFIDENCE_STEPS
from sass.colours import Colour
from sass.grid import Window, tiles
from sass.report.collect import Scene, open_map
from sass.report.images import Rgba, Stretch, paint_classes, read_map
from sass.run import Run
from sass.store import SceneStore

OVERVIEW = 512
"""Longest side at which maps are searched for examples, in pixels."""
CHIP = 64
"""Side of an example chip, in pixels of the scene."""
ENLARGE = 3
"""Screen pixels per pixel of a chip, so that the outline stays thin."""
SIGNATURE_SCENES = 64
"""Scenes from which band values are taken, evenly over the archive; the richest of each class joins them."""
SIGNATURE_WINDOWS = 128
"""Windows read from these scenes together, at least one each."""
SIGNATURE_SIDE = 256
"""Side of such a window, in pixels."""


@dataclass(frozen=True)
class Chip:
    """A place that shows a class well."""

    scene: str
    window: Window
    picture: Rgba


def chips(
    run: Run, scenes: list[Scene], class_ids: list[int], count: int, stretch: Stretch
) -> Iterator[tuple[int, list[Chip]]]:
    """Cut example chips of each class: places that it fills with high confidence.

    Nothing is drawn by chance: the best place of each of the scenes with most of the class comes first,
    then the second best ones, and so on.
    """
    by_id = {scene.id: scene for scene in scenes}

    @functools.lru_cache(maxsize=64)
    def maps(scene: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(read_map(run, by_id[scene], name, OVERVIEW) for name in ("segments", "confidence"))

    for k in class_ids:
        holders = sorted((s for s in scenes if s.counts.get(k)), key=lambda s: (-s.counts[k], s.id))[:count]
        best = {}
        for holder in holders:
            classes, confidence = maps(holder.id)
            here = classes == k
            best[holder.id] = _places(np.where(here, np.maximum(confidence, 0) + 1.0, 0), here, holder.shape)
        yield k, [Chip(name, w, _cut(run, name, w, k, stretch)) for name, w in _in_turn(best, count)]


def unsure(
    run: Run, scenes: list[Scene], count: int, stretch: Stretch, colours: dict[int, Colour]
) -> list[Chip]:
    """Cut the places where maps are least sure, from the scenes that are: each an image beside its map."""
    known = [scene for scene in scenes if scene.confidence is not None]
    least = sorted(known, key=lambda s: (s.confidence, s.id))[:count]
    worst = {}
    for scene in least:
        confidence = read_map(run, scene, "confidence", OVERVIEW)
        here = confidence >= 0
        worst[scene.id] = _places(np.where(here, CONFIDENCE_STEPS + 1.0 - confidence, 0), here, scene.shape)
    found = []
    for name, window in _in_turn(worst, count):
        pixels, valid = SceneStore(run.scene(name)).read(window)
        photo = stretch.apply(pixels[list(stretch.bands)], valid)
        pair = np.hstack([photo, paint_classes(read_segments(run, name, window), colours)])
        found.append(Chip(name, window, pair.repeat(ENLARGE, 0).repeat(ENLARGE, 1)))
    return found


def _in_turn(windows: dict[str, Iterator[Window]], count: int) -> list[tuple[str, Window]]:
    """Take the best place of each scene, then the second best ones, and so on."""
    ranked = {name: list(islice(each, count)) for name, each in windows.items()}
    turns = [(rank, name, w) for name, held in ranked.items() for rank, w in enumerate(held)]
    return [(name, w) for _, name, w in sorted(turns, key=lambda turn: turn[0])[:count]]


def _places(value: np.ndarray, here: np.ndarray, shape: tuple[int, int]) -> Iterator[Window]:
    """Yield windows of a scene of ``shape`` that have most of a value, no two centres closer than a chip.

    Parameters
    ----------
    value
        Of each pixel of an overview, ``(y, x)``.
    here
        Where the centre of a window may lie.
    """
    scale = max(shape) / max(value.shape)
    side = max(1, round(CHIP / scale))
    score = uniform_filter(value.astype(float), side, mode="constant")
    score[~here] = 0
    while score.max(initial=0) > 0:
        y, x = np.unravel_index(score.argmax(), score.shape)
        height, width = min(CHIP, shape[0]), min(CHIP, shape[1])
        top = min(max(round((y + 0.5) * scale - height / 2), 0), shape[0] - height)
        left = min(max(round((x + 0.5) * scale - width / 2), 0), shape[1] - width)
        yield Window(top, left, height, width)
        score[max(y - side, 0) : y + side + 1, max(x - side, 0) : x + side + 1] = 0


def _cut(run: Run, scene: str, window: Window, k: int, stretch: Stretch) -> Rgba:
    """Return a chip, enlarged, with a light line on a dark one around the class."""
    pixels, valid = SceneStore(run.scene(scene)).read(window)
    inside = read_segments(run, scene, window) == k
    photo = stretch.apply(pixels[list(stretch.bands)], valid)
    picture, inside = (a.repeat(ENLARGE, 0).repeat(ENLARGE, 1) for a in (photo, inside))
    # where the class runs off the chip there is no border of it
    core = binary_erosion(inside, iterations=2, border_value=1)
    picture[inside & ~core] = (255, 255, 255, 255)
    picture[core & ~binary_erosion(core, border_value=1)] = (20, 24, 28, 255)
    return picture


def read_segments(run: Run, scene: str, window: Window) -> np.ndarray:
    """Read classes of a window as int32 ``(y, x)``; -1 where there is no data."""
    with open_map(run.segments(scene) / "segments.tif") as source:
        pixels = source.read(1, window=RasterWindow(window.x, window.y, window.width, window.height))
        return np.where(pixels == source.nodata, -1, pixels.astype(np.int32))


@dataclass(frozen=True)
class Signatures:
    """Band values of each class, in the unit of the rasters."""

    pixels: np.ndarray
    """Pixels looked at, ``(class,)``."""
    mean: np.ndarray
    """float64 ``(class, band)``; NaN for a class not met."""
    spread: np.ndarray
    """Standard deviation, float64 ``(class, band)``."""

    def normalised(self, statistics: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread in spreads of the archive from its median: no band outweighs another."""
        median, unit = (
            np.array([band[key] for band in statistics["bands"]], float) for key in ("median", "spread")
        )
        return (self.mean - median) / unit, self.spread / unit


def signatures(run: Run, scenes: list[Scene], classes: int, statistics: dict[str, Any]) -> Signatures:
    """Take mean and spread of every band in each class, over windows spread evenly over the archive."""
    median = np.array([band["median"] for band in statistics["bands"]], float)
    count = np.zeros(classes, np.int64)
    total, squares = np.zeros((2, classes, len(median)))
    sample = spread_scenes(scenes, classes)
    for scene in sample:
        store = SceneStore(run.scene(scene.id))
        for window in _spread_tiles(scene.shape, max(1, SIGNATURE_WINDOWS // len(sample))):
            pixels, valid = store.read(window)
            segments = read_segments(run, scene.id, window)
            met = valid & (segments >= 0)
            # sums of differences from the median keep their digits, unlike sums of large values
            away = pixels[:, met].astype(float) - median[:, None]
            ids = segments[met]
            count += np.bincount(ids, minlength=classes)
            for b in range(len(median)):
                total[:, b] += np.bincount(ids, away[b], classes)
                squares[:, b] += np.bincount(ids, away[b] ** 2, classes)
    divisor = np.where(count > 0, count, np.nan)[:, None]
    mean = total / divisor
    return Signatures(count, mean + median, np.sqrt(np.maximum(squares / divisor - mean**2, 0)))


def spread_scenes(scenes: Sequence[Scene], classes: int) -> list[Scene]:
    """Return scenes spread evenly over the archive, and the one that has most of each class."""
    picks = np.unique(np.linspace(0, len(scenes) - 1, SIGNATURE_SCENES).round().astype(int))
    chosen = {scenes[i].id: scenes[i] for i in picks}
    for k in range(classes):
        richest = max(scenes, key=lambda s: s.counts.get(k, 0))
        chosen[richest.id] = richest
    return [chosen[name] for name in sorted(chosen)]


def _spread_tiles(shape: tuple[int, int], count: int) -> list[Window]:
    every = list(tiles(shape, SIGNATURE_SIDE))
    if len(every) <= count:
        return every
    inner = np.linspace(0, len(every) - 1, count + 2)[1:-1]
    return [every[i] for i in np.unique(inner.round().astype(int))]
