"""Histograms that can be added over an archive, and the statistics that are frozen from them."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS

from sass.config import Normalize
from sass.errors import SassError
from sass.files import write_json
from sass.georeference import Georeference
from sass.run import Run
from sass.statistics import BINS, Histogram, Statistics, _band, bin_of, bin_values, normalize
from sass.store import create_scene

# 65,536 bins take their time on a busy machine
few = settings(max_examples=30, deadline=None)

EXACT = ["uint8", "int8", "uint16", "int16"]
WIDE = ["int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


def arrays(dtype: str):
    """Draw pixels: all that is finite and that float32, in which everything is computed, can hold."""
    numbers = {}
    if dtype.startswith("float"):
        numbers = {"allow_nan": False, "allow_infinity": False}
    if dtype in ("float32", "float64"):
        numbers |= {"min_value": -(2.0**126), "max_value": 2.0**126}
    return hnp.arrays(dtype, st.integers(1, 40), elements=hnp.from_dtype(np.dtype(dtype), **numbers))


def counted(pixels: np.ndarray) -> np.ndarray:
    return np.bincount(bin_of(pixels), minlength=BINS)


def histogram(pixels: np.ndarray) -> Histogram:
    return Histogram.of_bins(counted(pixels), pixels.dtype)


def same(one: Histogram, other: Histogram) -> bool:
    return np.array_equal(one.values, other.values) and np.array_equal(one.counts, other.counts)


# ------------------------------------------------------------------------------------------------------- bins


@pytest.mark.parametrize("dtype", EXACT)
def test_small_integers_have_a_bin_each(dtype):
    info = np.iinfo(dtype)
    every = np.arange(info.min, info.max + 1).astype(dtype)
    bins = bin_of(every)
    assert bins.min() == 0 and bins.max() < BINS
    assert (np.diff(bins) == 1).all()
    assert np.array_equal(bin_values(np.dtype(dtype))[bins], every)


@pytest.mark.parametrize("dtype", WIDE)
@few
@given(st.data())
def test_bins_of_wide_types_rise_and_stand_for_their_values(dtype, data):
    pixels = np.sort(data.draw(arrays(dtype)))
    bins = bin_of(pixels)
    assert bins.min() >= 0 and bins.max() < BINS
    values = bin_values(pixels.dtype)[bins]
    assert (np.diff(values) >= 0).all()
    exact = pixels.astype(np.float32).astype(np.float64)
    # 128 bins for each power of two: the middle of a bin is at most half a bin, 1/256, off. Values as small
    # as the smallest of float32 are as good as 0.
    close = np.abs(values - exact) <= np.abs(exact) / 256 + 1e-37
    assert close.all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_bins_agree_between_scenes_of_any_size(dtype):
    pixels = np.linspace(0, 100, 50).astype(dtype)
    assert np.array_equal(bin_of(pixels.reshape(5, 10)).ravel(), bin_of(pixels))
    assert np.array_equal(bin_of(pixels[::2]), bin_of(pixels)[::2]), "strided pixels too"


def test_bins_that_hold_no_number_stand_for_none():
    values = bin_values(np.dtype("float32"))
    held = np.isfinite(values)
    assert (np.diff(values[held]) >= 0).all()
    assert np.isnan(values[bin_of(np.array([np.nan, np.inf, -np.inf], np.float32))]).all()
    assert (values[bin_of(np.array([0.0, -0.0], np.float32))] == 0).all()


# ------------------------------------------------------------------------------------------------- histograms


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@few
@given(st.data())
def test_histograms_of_parts_add_up_to_that_of_the_whole(dtype, data):
    a, b, c = (data.draw(arrays(dtype)) for _ in range(3))
    whole = histogram(np.concatenate([a, b, c]))
    assert same((histogram(a) + histogram(b)) + histogram(c), whole)
    assert same(histogram(a) + (histogram(b) + histogram(c)), whole)
    assert same(histogram(c) + histogram(a) + histogram(b), whole)


def test_histograms_of_different_types_add_up_by_value():
    eight, sixteen = np.array([1, 2, 2], "uint8"), np.array([2, 300, -5], "int16")
    both = histogram(eight) + histogram(sixteen)
    assert both.values.tolist() == [-5, 1, 2, 300]
    assert both.counts.tolist() == [1, 1, 3, 1]


@pytest.mark.parametrize("dtype", EXACT)
@few
@given(st.data())
def test_quantiles_are_those_of_the_pixels(dtype, data):
    pixels = data.draw(arrays(dtype))
    # in 64ths, so that a share of the pixels is an exact number
    q = data.draw(st.integers(0, 64)) / 64
    assert histogram(pixels).quantile(q) == np.quantile(pixels, q, method="inverted_cdf")


@few
@given(arrays("float32"), st.integers(0, 64))
def test_quantiles_of_floats_are_off_by_half_a_bin_at_most(pixels, share):
    expected = np.quantile(pixels, share / 64, method="inverted_cdf").astype(np.float64)
    assert histogram(pixels).quantile(share / 64) == pytest.approx(expected, rel=1 / 256, abs=1e-37)


@few
@given(arrays("int16"))
def test_deviation_is_that_of_the_pixels(pixels):
    assert histogram(pixels).deviation == pytest.approx(pixels.astype(np.float64).std(), rel=1e-9, abs=1e-9)


# ------------------------------------------------------------------------------------------------- statistics


def stand(run: Run, shard: str, scenes: dict[str, np.ndarray], names: list[str] | None = None) -> None:
    """Make scene stores that hold no more than the histograms of pixels ``(band, y, x)``."""
    place = Georeference(CRS.from_epsg(32633), Affine.scale(10, -10))
    for name, pixels in scenes.items():
        bands = names or [f"B{b}" for b in range(1, len(pixels) + 1)]
        group = create_scene(run.scene(name), pixels.shape, pixels.dtype.name, bands, place, 16, 16, BINS)
        group["histogram"][:] = np.stack([counted(band.ravel()) for band in pixels]).astype(np.uint64)
    records = {name: {"digest": f"d-{name}", "bands": len(pixels)} for name, pixels in scenes.items()}
    write_json(run.manifest("ingest", shard), {"stage": "ingest", "shard": shard, "scenes": records})


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def test_statistics_are_those_of_all_fit_pixels_at_once(run):
    rng = np.random.default_rng(0)
    parts = {n: rng.normal(m, 30, (2, 20, 20)).astype("int16") for n, m in (("a", 0), ("b", 500), ("c", 90))}
    stand(run, "s0", {"a": parts["a"], "b": parts["b"]})
    stand(run, "s1", {"c": parts["c"]})
    tree = normalize(run, ["s0", "s1"], Normalize(clip=3))
    assert json.loads(run.statistics.read_text()) == tree
    assert tree["from"] == {"shards": ["s0", "s1"], "scenes": {"a": "d-a", "b": "d-b", "c": "d-c"}}
    for number, band in enumerate(tree["bands"]):
        pixels = np.concatenate([part[number].ravel() for part in parts.values()])
        dark, low, median, high = np.quantile(pixels, [0.001, 0.16, 0.5, 0.84], method="inverted_cdf")
        assert (band["median"], band["spread"], band["dark"]) == (median, (high - low) / 2, dark)
        # t(median) is log 9: an eighth of the way from the darkest to the median is the unit
        assert band["soft"] == (median - dark) / 8
        t = [np.log1p((value - dark) / band["soft"]) for value in (low, high)]
        assert band["scale"] == pytest.approx((t[1] - t[0]) / 2)
        assert [band["low"], band["high"]] == list(np.quantile(pixels, [0.02, 0.98], method="inverted_cdf"))
        assert band["pixels"] == pixels.size
    assert Statistics.load(run.statistics).clip == 3


def test_scenes_outside_the_fit_shards_change_nothing(run):
    rng = np.random.default_rng(1)
    stand(run, "s0", {"a": rng.integers(0, 200, (1, 9, 9)).astype("uint8")})
    before = normalize(run, ["s0"], Normalize())
    stand(run, "s1", {"b": np.full((1, 9, 9), 255, "uint8")})
    assert normalize(run, ["s0"], Normalize()) == before


@pytest.mark.parametrize(
    "pixels, scale",
    [
        (np.full(1000, 7, "uint8"), 1.0),  # constant: any scale will do, but not 0
        (np.r_[np.full(990, 7), np.full(10, 107)].astype("uint8"), 100 * np.sqrt(0.01 * 0.99)),
    ],
)
def test_a_band_that_hardly_varies_has_a_scale_all_the_same(run, pixels, scale):
    stand(run, "s0", {"a": pixels.reshape(1, 10, 100)})
    (band,) = normalize(run, ["s0"], Normalize(transform="linear"))["bands"]
    assert band["scale"] == band["spread"] == pytest.approx(scale)
    (band,) = normalize(run, ["s0"], Normalize())["bands"]
    assert band["spread"] == pytest.approx(scale)
    # most of its pixels are the darkest ones, so the deviation is the unit
    assert band["soft"] == pytest.approx(scale)
    bright = np.log1p((pixels[-1] - 7.0) / band["soft"])
    assert band["scale"] == pytest.approx(bright * np.sqrt(0.01 * 0.99) or 1)


def test_where_the_median_is_the_darkest_value_the_high_quantile_gives_the_unit(run):
    pixels = np.repeat([10, 90], [700, 300]).astype("uint8")
    stand(run, "s0", {"a": pixels.reshape(1, 10, 100)})
    (band,) = normalize(run, ["s0"], Normalize())["bands"]
    assert (band["median"], band["dark"], band["soft"]) == (10, 10, 10)


LINEAR = dict.fromkeys(["dark", "soft"])
BAND = {"name": "x", "median": 100, **LINEAR, "scale": 10, "spread": 10, "low": 80, "high": 120}


def test_normalised_pixels_are_clipped_and_empty_ones_are_the_median():
    statistics = Statistics.from_json({"bands": [BAND], "clip": 4})
    pixels = np.array([[[100, 110, 95, 255, 0, 0]]], "uint8")
    valid = np.array([[1, 1, 1, 1, 1, 0]], bool)
    z = statistics.apply(pixels, valid)
    assert z.dtype == np.float32
    assert z.tolist() == [[[0, 1, -0.5, 4, -4, 0]]]


def test_logarithms_of_equal_ratios_are_equally_far_apart():
    band = BAND | {"dark": 20, "soft": 10, "scale": np.log(3)}
    statistics = Statistics.from_json({"bands": [band], "clip": 1.5})
    # above the darkest value and with the unit added: 90 is the median, then 30, 270, 10 twice, 2430
    pixels = np.array([[[100, 40, 280, 20, -7, 2440, 100]]], "int16")
    before = pixels.copy()
    z = statistics.apply(pixels, np.array([[1, 1, 1, 1, 1, 1, 0]], bool))
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, [[[0, -1, 1, -1.5, -1.5, 1.5, 0]]], rtol=1e-6)
    np.testing.assert_array_equal(pixels, before)


def test_an_encoder_that_brings_its_own_scale_and_pixels_as_they_are_get_no_logarithm():
    band = BAND | {"dark": 20, "soft": 10, "scale": 0.5}
    statistics = Statistics.from_json({"bands": [band], "clip": 4})
    pixels, valid = np.array([[[100, 110, 0]]], "uint8"), np.ones((1, 3), bool)
    assert statistics.linear().apply(pixels, valid).tolist() == [[[0, 1, -4]]]
    assert statistics.given_to(([90.0], [2.0])).apply(pixels, valid).tolist() == [[[5, 10, -45]]]
    assert statistics.given_to(None) is statistics


@pytest.mark.parametrize("transform", ["log", "linear"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@few
@given(st.data())
def test_normalised_values_rise_with_the_pixels_from_0_at_the_median(dtype, transform, data):
    fitted, pixels = data.draw(arrays(dtype)), np.sort(data.draw(arrays(dtype)))
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is one for all examples
        run = Run(Path(folder))
        stand(run, "s0", {"a": fitted[None, None]})
        normalize(run, ["s0"], Normalize(transform=transform))
        statistics = Statistics.load(run.statistics)
    z = statistics.apply(pixels[None, None], np.ones((1, pixels.size), bool))
    assert np.isfinite(z).all() and np.abs(z).max() <= 4
    # t is at most log(2^127 / 2^-126): one rounding of it, in scales
    assert (np.diff(z) >= -1e-4 / statistics.scale).all()
    assert statistics.apply(statistics.median.reshape(1, 1, 1), np.ones((1, 1), bool)) == 0


def test_scenes_of_other_band_counts_are_not_fitted_on(run, tmp_path):
    rng = np.random.default_rng(2)
    rgb = {name: rng.integers(0, 200, (3, 9, 9)).astype("uint8") for name in ("b", "c")}
    grey = {name: np.full((1, 9, 9), 255, "uint8") for name in ("a", "z")}
    stand(run, "s0", {**grey, **rgb})
    stand(run, "s1", {"d": rgb["b"] // 2})
    tree = normalize(run, ["s0", "s1"], Normalize())
    assert list(tree["from"]["scenes"]) == ["b", "c", "d"]
    alone = Run(tmp_path / "alone")
    stand(alone, "s0", {**rgb, "d": rgb["b"] // 2})
    assert normalize(alone, ["s0"], Normalize())["bands"] == tree["bands"]


def test_no_scene_to_fit_on_says_where_the_reasons_are(run):
    stand(run, "s0", {})
    with pytest.raises(SassError, match=r"fit shards s0 .* manifests/ingest/ names the reasons"):
        normalize(run, ["s0"], Normalize())


def test_a_value_for_no_data_that_is_not_declared_leaves_the_logarithm_of_the_others_alone():
    values = np.concatenate([np.full(50, -3.4e38), np.linspace(100, 300, 950)])
    distinct, counts = np.unique(values, return_counts=True)
    band = _band(Histogram(distinct, counts), Normalize())
    clean = _band(Histogram(distinct[1:], counts[1:]), Normalize())
    assert -1000 < band["dark"] <= clean["dark"]
    assert 0.25 < band["soft"] / clean["soft"] < 8
