"""What the maps are compared with: k-means on simple features of pixels, and on an encoder with random weights.

Each baseline is fitted on pixels drawn over the fit scenes, with as many clusters as the maps have classes,
and gives each pixel its nearest centroid. It works by windows as the maps do: every feature says how far
around a pixel it looks, so that a scene in tiles equals the scene whole. Without torch, all but ``random`` work.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.ndimage import correlate1d
from threadpoolctl import threadpool_limits

from sass import config
from sass.errors import SassError
from sass.grid import Window, ceil_to, tiles
from sass.manifest import file_digest, read_json, replacing, scenes_of
from sass.run import Run
from sass.statistics import Statistics
from sass.store import SceneStore

BLUR = 9
"""Side in pixels of the window that ``blurred`` averages over."""
SPREAD = 15
"""Side in pixels of the window that ``deviation`` takes the standard deviation in."""
TILE = 256
"""Side in pixels of the windows that the fit sample is drawn from."""
DENSITY = 1 / 256
"""Share of a window's pixels that is drawn at least: a sparser draw would read much to take little."""


@dataclass(frozen=True)
class PixelFeatures:
    """Features of the pixels of a window.

    Attributes
    ----------
    function
        Maps normalised pixels, float32 ``(band, y, x)``, and their mask, bool ``(y, x)``, to float32
        ``(feature, y / stride, x / stride)``.
    halo
        Pixels around a pixel that its features depend on.
    alignment
        The window must start and end at multiples of this many pixels.
    stride
        Pixels per feature, along an axis.
    """

    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    halo: int = 0
    alignment: int = 1
    stride: int = 1

    def window(self, tile: Window, shape: tuple[int, int]) -> Window:
        """Return what must be read for a tile; it may end beyond a scene of ``shape``, up to the alignment."""
        # interpolation between the features needs one more of them on each side
        outer = tile.grown(self.halo + (self.stride if self.stride > 1 else 0), shape)
        y, x = (v // self.alignment * self.alignment for v in (outer.y, outer.x))
        y1 = ceil_to(outer.y + outer.height, self.alignment)
        x1 = ceil_to(outer.x + outer.width, self.alignment)
        return Window(y, x, y1 - y, x1 - x)

    def read(self, store: SceneStore, statistics: Statistics, tile: Window) -> tuple[np.ndarray, np.ndarray, Window]:
        """Read a tile of a scene.

        Returns
        -------
        features
            float32 ``(feature, y / stride, x / stride)`` of the window around the tile.
        valid
            The tile's mask, bool ``(y, x)``.
        window
            The window, in pixels of the scene.
        """
        outer = self.window(tile, store.shape)
        held = outer.cut(store.shape)
        pixels, valid = store.read(held)
        beyond = [(0, outer.height - held.height), (0, outer.width - held.width)]
        z = np.pad(statistics.apply(pixels, valid), [(0, 0), *beyond])
        mask = np.pad(valid, beyond)
        return self.function(z, mask), mask[tile.inside(outer)], outer

    def at_pixels(self, plane: np.ndarray, tile: Window, window: Window) -> np.ndarray:
        """Return a plane ``(y / stride, x / stride)`` over ``window`` at each pixel of ``tile``, bilinear."""
        if self.stride == 1:
            return plane[tile.inside(window)]
        for axis, (origin, length) in enumerate([(tile.y - window.y, tile.height), (tile.x - window.x, tile.width)]):
            # pixel p lies at (p + 1/2) / stride - 1/2 between the centres of the features
            place = (np.arange(origin, origin + length) + 0.5) / self.stride - 0.5
            place = np.clip(place, 0, plane.shape[axis] - 1).astype(np.float32)
            lower = np.minimum(place.astype(int), max(plane.shape[axis] - 2, 0))
            upper = np.minimum(lower + 1, plane.shape[axis] - 1)
            weight = np.expand_dims(place - lower, 1 - axis)
            plane = plane.take(lower, axis) * (1 - weight) + plane.take(upper, axis) * weight
        return plane


def pixel_features(kind: str, bands: int, model: dict[str, Any], seed: int) -> PixelFeatures:
    """Return the features of a kind of baseline; ``model`` and ``seed`` make the encoder of ``random``."""
    if kind == "raw":
        return PixelFeatures(lambda z, valid: z)
    if kind == "blurred":
        return PixelFeatures(lambda z, valid: _mean(z, valid, BLUR).astype(np.float32), halo=BLUR // 2)
    if kind == "deviation":
        return PixelFeatures(_with_deviation, halo=SPREAD // 2)
    from sass.features import embed
    from sass.model.encoder import build_encoder

    encoder = build_encoder(bands, model, seed).eval()
    return PixelFeatures(
        lambda z, valid: embed(encoder, z, valid), encoder.halo, encoder.alignment, encoder.stride
    )


def _with_deviation(z: np.ndarray, valid: np.ndarray) -> np.ndarray:
    variance = _mean(z**2, valid, SPREAD) - _mean(z, valid, SPREAD) ** 2
    return np.concatenate([z, np.sqrt(np.maximum(variance, 0)).astype(np.float32)])


def _mean(z: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """Average over a square window, float64 ``(band, y, x)``, of the pixels that hold data."""
    ones = np.ones(side)

    def total(array: np.ndarray) -> np.ndarray:
        # each sum is taken by itself (no running sum), so it does not depend on where the window starts
        rows = correlate1d(array, ones, axis=-2, output=np.float64, mode="constant")
        return correlate1d(rows, ones, axis=-1, mode="constant")

    return total(z * valid) / np.maximum(total(valid.astype(np.float64)), 1)


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline: ``centroids (n, feature)`` and ``scale (feature,)``, float32; features are divided by the scale."""

    features: PixelFeatures
    centroids: np.ndarray
    scale: np.ndarray

    def predict(self, store: SceneStore, statistics: Statistics, tile: Window) -> np.ndarray:
        """Return the class of each pixel of a tile, int32 ``(y, x)``; -1 where the scene has no data."""
        features, valid, window = self.features.read(store, statistics, tile)
        features = features / self.scale.reshape(-1, 1, 1)
        nearest = np.zeros(tile.shape, np.int32)
        least = np.full(tile.shape, np.inf, np.float32)
        for n, centroid in enumerate(self.centroids):
            # the squared distance less |f|^2, which is equal for all centroids. It is linear in f, so that
            # interpolating it is interpolating f
            plane = np.full(features.shape[1:], np.sum(centroid**2), np.float32)
            for weight, feature in zip(centroid, features):
                plane -= 2 * weight * feature
            distance = self.features.at_pixels(plane, tile, window)
            closer = distance < least
            nearest[closer] = n
            np.minimum(least, distance, out=least)
        nearest[~valid] = -1
        return nearest


@dataclass(frozen=True)
class _Sampled:
    """The scenes of the fit shards and how many pixels each of them gives."""

    run: Run
    quotas: dict[str, tuple[int, int]]
    seed: int

    @cached_property
    def statistics(self) -> Statistics:
        return Statistics.load(self.run.statistics)

    def windows(self) -> Iterator[tuple[SceneStore, Window, np.ndarray]]:
        """Give windows and the pixels taken from each, bool ``(y, x)``; the same at each call."""
        for scene, (quota, valid) in self.quotas.items():
            store = SceneStore(self.run.scene(scene))
            covering = list(tiles(store.shape, TILE))
            rng = np.random.default_rng([self.seed, *scene.encode()])
            share = max(quota / max(valid, 1), DENSITY)
            missing = quota
            for i in rng.permutation(len(covering)):
                if missing <= 0:
                    break
                tile = covering[i]
                taken = store.read_valid(tile) & (rng.random(tile.shape) < share)
                missing -= int(taken.sum())
                if taken.any():
                    yield store, tile, taken

    def features(self, features: PixelFeatures) -> np.ndarray:
        """Return the features of the sample, float32 ``(pixel, feature)``."""
        parts = []
        for store, tile, taken in self.windows():
            planes, _, window = features.read(store, self.statistics, tile)
            parts.append(np.stack([features.at_pixels(plane, tile, window)[taken] for plane in planes], axis=1))
        return np.concatenate(parts)


def fit_baselines(run: Run, shards: list[str], settings: config.Evaluate, classes: int, model: config.Model) -> None:
    """Fit the baselines on about ``settings.sample`` pixels of the fit shards and write ``RUN/baselines``.

    Scenes give pixels in proportion to their valid area. If no scene of the archive has labels, there is
    nothing to compare, and the file written holds no baseline.

    Parameters
    ----------
    shards
        The fit shards.
    classes
        Number of clusters of each baseline: as many as the maps have classes.
    model
        The architecture of the encoder with random weights.

    Raises
    ------
    SassError
        Fewer pixels than classes could be drawn.
    """
    labelled = any(row["labels"] for row in read_json(run.catalog)["shards"].values())
    kinds = sorted(settings.baselines) if labelled else []
    tensors: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"kinds": kinds, "model": model.model_dump(), "seed": settings.seed}
    if kinds:
        about["statistics"] = file_digest(run.statistics)
        sample = _Sampled(run, _quotas(run, shards, settings), settings.seed)
        about["bands"] = len(sample.statistics.names)
    for kind in kinds:
        points = sample.features(pixel_features(kind, about["bands"], about["model"], settings.seed))
        scale = np.ones(points.shape[1], np.float32)
        if kind == "deviation":
            # a feature that never varies says nothing at any scale
            scale = np.where((spread := points.std(axis=0, dtype=np.float64)) > 0, spread, 1).astype(np.float32)
        tensors[f"{kind}.scale"] = scale
        tensors[f"{kind}.centroids"] = _k_means(points / scale, classes, settings.seed)
    with replacing(run.baselines) as temporary:
        save_file(tensors, temporary, metadata={"sass": json.dumps(about, sort_keys=True)})


def _quotas(run: Run, shards: list[str], settings: config.Evaluate) -> dict[str, tuple[int, int]]:
    """Share the sample out: scene to pixels to draw and pixels it has, in the order of the ids."""
    valid = {scene: record["valid"] for shard in shards for scene, record in scenes_of(run, "ingest", shard).items()}
    area = sum(valid.values())
    if area == 0:
        raise SassError(
            f"no scene of the fit shards {', '.join(shards)} holds a valid pixel, so no baseline can be fitted. "
            "manifests/ingest/ names the reasons; mend the scenes, or fit on other shards (catalog.fit_shards)."
        )
    rising = [0]
    for _, pixels in sorted(valid.items()):
        rising.append(rising[-1] + pixels)
    # rounding the running total keeps the sum, so that many small scenes are not all rounded away
    upto = [min(settings.sample, area) * pixels // area for pixels in rising]
    return {scene: (b - a, valid[scene]) for scene, a, b in zip(sorted(valid), upto, upto[1:])}


def _k_means(points: np.ndarray, classes: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    if len(points) < classes:
        raise SassError(
            f"only {len(points)} pixels were drawn to fit baselines of {classes} classes; raise evaluate.sample, or "
            "leave the baselines out (evaluate.baselines: [])"
        )
    with threadpool_limits(1):  # several threads add in an order of their own
        fitted = MiniBatchKMeans(n_clusters=classes, n_init=3, random_state=seed).fit(points)
    return np.ascontiguousarray(fitted.cluster_centers_, dtype=np.float32)


def load_baselines(path: Path) -> dict[str, Baseline]:
    """Read what `fit_baselines` wrote: the baselines by kind."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["sass"])
        return {
            kind: Baseline(
                pixel_features(kind, about["bands"], about["model"], about["seed"]),
                file.get_tensor(f"{kind}.centroids"),
                file.get_tensor(f"{kind}.scale"),
            )
            for kind in about["kinds"]
        }
