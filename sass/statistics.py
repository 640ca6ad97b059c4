"""Histograms of bands, merged over scenes, and the frozen statistics that every pixel is normalised by."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sass.config import Normalize
from sass.errors import SassError
from sass.files import digest, read_json, write_json
from sass.fingerprint import stage_fingerprint
from sass.manifest import Outcome, digests, run_archive, scenes_of
from sass.run import Run
from sass.store import SceneStore

BINS = 65536
"""Bins of a histogram, for every dtype."""
DARK = 0.001
"""Quantile taken for the darkest value of an archive; a few pixels darker than all others are errors."""
FARTHEST = 8
"""The darkest value is taken to lie no more than this many spreads below the median."""


def bin_of(pixels: np.ndarray) -> np.ndarray:
    """Return the histogram bin of each pixel.

    Integers of up to 16 bits have a bin each. All others fall into the bin of the upper half of their
    float32 pattern, made to rise with the value: 128 bins for each power of two, over the whole range,
    so that histograms of any two scenes can be added.
    """
    if _exact(pixels.dtype):
        return np.subtract(pixels, min(np.iinfo(pixels.dtype).min, 0), dtype=np.int64)
    bits = np.ascontiguousarray(pixels, dtype=np.float32).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (rising >> 16).astype(np.int64)


def bin_values(dtype: np.dtype) -> np.ndarray:
    """Return the value each bin stands for, float64 ``(BINS,)``; NaN where a bin holds no finite value.

    It is the middle of the bin, but 0 for the bins of 0 and of subnormal numbers.
    """
    bins = np.arange(BINS, dtype=np.uint32)
    if _exact(dtype):
        return bins.astype(np.float64) + min(np.iinfo(dtype).min, 0)
    rising = (bins << 16) | np.uint32(1 << 15)
    bits = np.where(rising >> 31, rising & np.uint32(0x7FFFFFFF), ~rising)
    values = bits.astype(np.uint32).view(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(np.nan)).astype(np.float64)
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, 0.0, values)


def _exact(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.integer) and np.dtype(dtype).itemsize <= 2


@dataclass(frozen=True)
class Histogram:
    """Counts by value, values rising: the form in which histograms of different dtypes are added."""

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_bins(cls, counts: np.ndarray, dtype: np.dtype) -> "Histogram":
        """Read one band's bins."""
        held = np.flatnonzero(counts)
        return cls._gathered(bin_values(dtype)[held], counts[held])

    def __add__(self, other: "Histogram") -> "Histogram":
        return self._gathered(
            np.concatenate([self.values, other.values]), np.concatenate([self.counts, other.counts])
        )

    @classmethod
    def _gathered(cls, values: np.ndarray, counts: np.ndarray) -> "Histogram":
        distinct, where = np.unique(values, return_inverse=True)
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, where, counts.astype(np.int64))
        return cls(distinct, total)

    def quantile(self, q: float) -> float:
        """Return the smallest value that at least a share ``q`` of the pixels do not exceed."""
        rising = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(rising, q * rising[-1], side="left")])

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        mean = np.average(self.values, weights=self.counts)
        return float(np.sqrt(np.average((self.values - mean) ** 2, weights=self.counts)))

    def scale(self, quantiles: tuple[float, float]) -> float:
        """Return half the distance of two quantiles, never 0."""
        low, high = (self.quantile(q) for q in quantiles)
        # nearly constant, a band has no quantile distance; one that is constant says nothing at any scale
        return (high - low) / 2 or self.deviation or 1.0


def logarithm(pixels: np.ndarray, dark: np.ndarray | float, soft: np.ndarray | float) -> np.ndarray:
    """Replace pixels, in place, by ``log(1 + max(x - dark, 0) / soft)``.

    Radiance is light times reflectance, and a logarithm makes a sum of that product. What the air adds, the
    value of the darkest objects, is taken off before (Chavez 1988, Remote Sensing of Environment 24, 459).
    Up to about ``soft`` above it the curve is straight: the noise of the darkest pixels is not blown up.

    Parameters
    ----------
    pixels
        Floats of any shape, in units of the rasters.
    dark, soft
        To be broadcast with them, in the same units; ``soft`` is above 0.

    Returns
    -------
    numpy.ndarray
        ``pixels``, from 0.
    """
    pixels -= dark
    np.maximum(pixels, 0, out=pixels)
    pixels /= soft
    pixels += 1  # numpy has a fast log, and no fast log1p; what is lost are differences of 1e-7
    return np.log(pixels, out=pixels)


@dataclass(frozen=True)
class Statistics:
    """Frozen statistics of the bands of an archive, each float32 ``(band,)``.

    ``median``, ``spread`` (half the distance of two quantiles), ``low`` and ``high`` (2nd and 98th
    percentile, for display) are in units of the pixels, and so are ``dark`` and ``soft`` of the `logarithm`,
    which are None where pixels are scaled as they are. ``scale`` is in units of what is scaled, ``clip`` in
    scales.
    """

    names: tuple[str, ...]
    median: np.ndarray
    dark: np.ndarray | None
    soft: np.ndarray | None
    scale: np.ndarray
    spread: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clip: float

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read ``statistics.json``."""
        return cls.from_json(read_json(path))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Statistics":
        """Read the content of ``statistics.json``."""
        keys = ("median", "dark", "soft", "scale", "spread", "low", "high")
        columns = {k: [band[k] for band in tree["bands"]] for k in keys}
        arrays = {k: None if None in held else np.array(held, np.float32) for k, held in columns.items()}
        return cls(tuple(band["name"] for band in tree["bands"]), clip=float(tree["clip"]), **arrays)

    def linear(self) -> "Statistics":
        """Return what scales pixels as they are, without a logarithm."""
        return replace(self, dark=None, soft=None, scale=self.spread)

    def given_to(self, normalisation: tuple[list[float], list[float]] | None) -> "Statistics":
        """Return what scales pixels for an encoder: these, or the offset and scale of each band it brings.

        There is no logarithm then and nothing is cut off: that is not how the weights of others were made.
        """
        if normalisation is None:
            return self
        offset, scale = (np.array(row, np.float32) for row in normalisation)
        return replace(self.linear(), median=offset, scale=scale, clip=np.inf)

    def apply(self, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Normalise pixels ``(band, y, x)`` to float32; pixels without data become 0, the median."""
        shape = (len(self.names), 1, 1)
        z, median = pixels.astype(np.float32), self.median.reshape(shape)
        with np.errstate(over="ignore"):  # infinity is cut off like all that is large
            if self.dark is not None:
                dark, soft = self.dark.reshape(shape), self.soft.reshape(shape)
                z, median = logarithm(z, dark, soft), logarithm(median.copy(), dark, soft)
            z -= median
            z /= self.scale.reshape(shape)
        np.clip(z, -self.clip, self.clip, out=z)
        z *= valid
        return z


def normalize_archive(run: Run, fit: list[str], settings: Normalize) -> Outcome:
    """Bring the statistics of the fit shards up to date."""
    made_by = [stage_fingerprint("normalize"), settings.model_dump(mode="json"), fit]
    return run_archive(
        run,
        "normalize",
        digest(made_by, digests(run, "ingest", fit)),
        lambda: normalize(run, fit, settings),
    )


def normalize(run: Run, fit: list[str], settings: Normalize) -> dict[str, Any]:
    """Merge the histograms of all scenes of the fit shards and freeze their statistics.

    One encoder needs the same bands everywhere: scenes whose number of bands is not the commonest one are not
    fitted on, and the features stage sets them aside.

    Raises
    ------
    SassError
        No scene stands in the fit shards.
    """
    records = {scene: r for shard in fit for scene, r in sorted(scenes_of(run, "ingest", shard).items())}
    (common, _), *_ = Counter(r["bands"] for r in records.values()).most_common(1) or [(0, 0)]
    sources = {scene: r["digest"] for scene, r in sorted(records.items()) if r["bands"] == common}
    merged: list[Histogram] = []
    names: list[str] = []
    for scene in sources:
        store = SceneStore(run.scene(scene))
        names = names or store.band_names
        counts = store.group["histogram"][:]
        bands = [Histogram.of_bins(band, store.bands.dtype) for band in counts]
        merged = [a + b for a, b in zip(merged, bands)] if merged else bands
    if not sources:
        raise SassError(
            f"no scene of the fit shards {', '.join(fit)} could be ingested, so nothing can be fitted. "
            "manifests/ingest/ names the reasons; mend the scenes, or fit on other shards "
            "(catalog.fit_shards)."
        )
    tree = {
        "bands": [{"name": name, **_band(histogram, settings)} for name, histogram in zip(names, merged)],
        "clip": settings.clip,
        "from": {"shards": fit, "scenes": sources},
    }
    write_json(run.statistics, tree)
    return tree


def _band(histogram: Histogram, settings: Normalize) -> dict[str, float | int | None]:
    median, spread = histogram.quantile(0.5), histogram.scale(settings.quantiles)
    dark, soft, scale = None, None, spread
    if settings.transform == "log":
        # where a value that means "no data" is not declared, it must not become the zero of all others
        dark = max(histogram.quantile(DARK), median - FARTHEST * spread)
        distances = ((value - dark) / 8 for value in (median, histogram.quantile(settings.quantiles[1])))
        # a band most of whose pixels are the darkest still needs a unit
        soft = next(unit for unit in (*distances, histogram.deviation, 1.0) if unit > 0)
        bent = logarithm(histogram.values.copy(), dark, soft)
        scale = Histogram(bent, histogram.counts).scale(settings.quantiles)
    return {
        "median": median,
        "dark": dark,
        "soft": soft,
        "scale": scale,
        "spread": spread,
        "low": histogram.quantile(0.02),
        "high": histogram.quantile(0.98),
        "pixels": int(histogram.counts.sum()),
    }
