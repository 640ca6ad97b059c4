"""What the maps are compared with: k-means on simple features of pixels, or of a random encoder.

Each baseline is fitted on pixels drawn over the fit scenes, with as many clusters as the maps have classes,
and gives each pixel its nearest centroid. It works by windows as the maps do: every feature says how far
around a pixel it looks, so that a scene in tiles equals the scene whole. Only ``random`` needs torch.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from scipy.ndimage import correlate1d
from threadpoolctl import threadpool_limits

from sass.catalog import load_index
from sass.config import Evaluate, Model
from sass.errors import SassError
from sass.files import digest, file_digest, replacing
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, ceil_to, tiles
from sass.manifest import Outcome, digests, run_archive, scenes_of
from sass.run import Run
from sass.statistics import Statistics
from sass.store import SceneStore

BLUR = 9
"""Side in pixels of the window that ``blurred`` averages over."""
SPREAD = 15
"""Side in pixels of the window that ``deviation`` takes the standard deviation in."""
TILE = 256
"""Side in pixels of the windows that the fit sample is drawn from."""
DENSITY = 1 / 64
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
    linear
        Whether pixels are scaled as they are, as is commonly done, or as for the encoder of the maps.
    """

    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    halo: int = 0
    alignment: int = 1
    stride: int = 1
    linear: bool = True

    def window(self, tile: Window, shape: tuple[int, int]) -> Window:
        """Return the window to read for a tile; the alignment may take it beyond a scene of ``shape``."""
        between = self.stride if self.stride > 1 else 0  # interpolation needs one more feature on each side
        outer = tile.grown(self.halo + between, shape)
        y, x = (v // self.alignment * self.alignment for v in (outer.y, outer.x))
        y1 = ceil_to(outer.y + outer.height, self.alignment)
        x1 = ceil_to(outer.x + outer.width, self.alignment)
        return Window(y, x, y1 - y, x1 - x)

    def read(
        self, store: SceneStore, statistics: Statistics, tile: Window
    ) -> tuple[np.ndarray, np.ndarray, Window]:
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
        scales = statistics.linear() if self.linear else statistics
        z = np.pad(scales.apply(pixels, valid), [(0, 0), *beyond])
        mask = np.pad(valid, beyond)
        return self.function(z, mask), mask[tile.inside(outer)], outer

    def at_pixels(self, plane: np.ndarray, tile: Window, window: Window) -> np.ndarray:
        """Return a plane ``(y / stride, x / stride)`` over ``window`` at each pixel of ``tile``, bilinear."""
        if self.stride == 1:
            return plane[tile.inside(window)]
        for axis, part in enumerate(tile.inside(window)):
            # pixel p lies at (p + 1/2) / stride - 1/2 between the centres of the features
            place = (np.arange(part.start, part.stop) + 0.5) / self.stride - 0.5
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
    import torch

    from sass.model.encoder import build_encoder
    from sass.windows import embed

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = build_encoder(bands, model, seed).eval().to(device, memory_format=torch.channels_last)
    function = partial(embed, encoder)
    return PixelFeatures(function, encoder.halo, encoder.alignment, encoder.stride, linear=False)


def _with_deviation(z: np.ndarray, valid: np.ndarray) -> np.ndarray:
    wide = z.astype(np.float64)
    variance = _mean(wide**2, valid, SPREAD) - _mean(wide, valid, SPREAD) ** 2
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
    """A fitted baseline: ``centroids (n, feature)``, float32, of features divided by ``scale (feature,)``."""

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


def _sampled(
    run: Run, quotas: dict[str, tuple[int, int]], seed: int
) -> Iterator[tuple[SceneStore, Window, np.ndarray]]:
    """Give windows of the scenes and the pixels taken from each, bool ``(y, x)``; the same at each call."""
    for scene, (quota, valid) in quotas.items():
        store = SceneStore(run.scene(scene))
        covering = list(tiles(store.shape, TILE))
        rng = np.random.default_rng([seed, *scene.encode()])
        share = max(quota / valid, DENSITY)
        missing = quota
        for i in rng.permutation(len(covering)):
            if missing <= 0:
                break
            tile = covering[i]
            taken = store.read_valid(tile) & (rng.random(tile.shape) < share)
            missing -= int(taken.sum())
            if taken.any():
                yield store, tile, taken


def _points(run: Run, quotas: dict[str, tuple[int, int]], seed: int, features: PixelFeatures) -> np.ndarray:
    """Return the features of the sample, float32 ``(pixel, feature)``."""
    statistics = Statistics.load(run.statistics)
    parts = []
    for store, tile, taken in _sampled(run, quotas, seed):
        planes, _, window = features.read(store, statistics, tile)
        parts.append(np.stack([features.at_pixels(plane, tile, window)[taken] for plane in planes], axis=1))
    return np.concatenate(parts)


def baselines_archive(run: Run, fit: list[str], settings: Evaluate, classes: int, model: Model) -> Outcome:
    """Bring the baselines up to date with the fit shards and their statistics; see `fit_baselines`."""
    made_by = [
        stage_fingerprint("baselines"),
        settings.model_dump(mode="json", include={"baselines", "sample", "seed"}),
        model.model_dump(mode="json"),
        classes,
        fit,
        digests(run, "ingest", fit),
        file_digest(run.statistics),
        any(info.labels for info in load_index(run).values()),
    ]
    return run_archive(
        run,
        "baselines",
        digest(made_by),
        lambda: fit_baselines(run, fit, settings, classes, model),
    )


def fit_baselines(run: Run, shards: list[str], settings: Evaluate, classes: int, model: Model) -> None:
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
    labelled = any(info.labels for info in load_index(run).values())
    kinds = sorted(settings.baselines) if labelled else []
    about: dict[str, Any] = {"kinds": kinds, "model": model.model_dump(), "seed": settings.seed}
    tensors: dict[str, np.ndarray] = {}
    if kinds:
        # the digest is never read: with it, the file changes when what it was fitted on does
        about["statistics"] = file_digest(run.statistics)
        about["bands"] = len(Statistics.load(run.statistics).names)
        quotas = _quotas(run, shards, settings.sample)
    for kind in kinds:
        features = pixel_features(kind, about["bands"], about["model"], settings.seed)
        points = _points(run, quotas, settings.seed, features)
        spread = points.std(axis=0, dtype=np.float64) if kind == "deviation" else np.ones(points.shape[1])
        # a feature that never varies says nothing at any scale
        scale = np.where(spread > 0, spread, 1).astype(np.float32)
        tensors[f"{kind}.scale"] = scale
        tensors[f"{kind}.centroids"] = _k_means(points / scale, classes, settings.seed)
    with replacing(run.baselines) as temporary:
        # not save_file: its own temporary file would stay where it is killed
        temporary.write_bytes(save(tensors, {"sass": json.dumps(about, sort_keys=True)}))


def _quotas(run: Run, shards: list[str], sample: int) -> dict[str, tuple[int, int]]:
    """Share the sample out by valid area: scene to pixels to draw and pixels it has, in the order of the ids.

    The sample is dealt in portions of what one window gives, so that the windows read stay as few in an
    archive of very many scenes.
    """
    records = {scene: record for shard in shards for scene, record in scenes_of(run, "ingest", shard).items()}
    valid = {scene: record["valid"] for scene, record in sorted(records.items()) if record["valid"]}
    area = sum(valid.values())
    if area == 0:
        raise SassError(
            f"no scene of the fit shards {', '.join(shards)} holds a valid pixel, so no baseline can be "
            "fitted; mend the scenes named in manifests/ingest/, or fit on other shards (catalog.fit_shards)"
        )
    wanted = min(sample, area)
    portions = ceil(wanted / (TILE**2 * DENSITY))
    quotas, below, dealt = {}, 0, 0
    for scene, pixels in valid.items():
        below += pixels
        portion = portions * below // area - dealt
        dealt += portion
        if portion:
            quotas[scene] = (ceil(wanted * portion / portions), pixels)
    return quotas


def _k_means(points: np.ndarray, classes: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    if len(points) < classes:
        raise SassError(
            f"only {len(points)} pixels were drawn to fit baselines of {classes} classes; raise "
            "evaluate.sample, or leave the baselines out (evaluate.baselines: [])"
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
