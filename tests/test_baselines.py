import subprocess
import sys

import numpy as np
import pytest
from affine import Affine

from sass import baselines
from sass.baselines import Baseline, fit_baselines, load_baselines, pixel_features
from sass.config import Evaluate, Model
from sass.errors import SassError
from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.grid import Window, tiles
from sass.run import Run
from sass.statistics import Statistics
from sass.store import SceneStore, create_scene

SMALL = Model(widths=[8, 8], blocks=1, dim=8)
PIXEL_KINDS = ["raw", "blurred", "deviation"]


def make_run(root, scenes: dict[str, tuple[np.ndarray, np.ndarray]], labels: int = 1) -> Run:
    """Make a run of one fit shard from pixels ``(band, y, x)`` and masks ``(y, x)``."""
    run = Run(root)
    records = {}
    for scene, (pixels, valid) in scenes.items():
        names = [f"b{i}" for i in range(len(pixels))]
        place = Georeference(None, Affine.identity())
        group = create_scene(run.scene(scene), pixels.shape, "uint8", names, place, 16, 64, bins=4)
        group["bands"][:] = pixels * valid
        group["valid"][:] = valid.astype(np.uint8)
        records[scene] = {"fingerprint": "f", "digest": f"pixels of {scene}", "valid": int(valid.sum())}
    manifest = {"stage": "ingest", "shard": "s0", "scenes": records, "failed": {}}
    write_json(run.manifest("ingest", "s0"), manifest)
    entry = {"fit": True, "scenes": len(scenes), "labels": labels, "pixels": 1}
    write_json(run.catalog, {"shards": {"s0": entry}})
    band = {"median": 100.0, "dark": 55.0, "soft": 6.0, "scale": 0.6, "spread": 40.0}
    band |= {"low": 0.0, "high": 255.0, "pixels": 1}
    write_json(run.statistics, {"bands": [{"name": n, **band} for n in names], "clip": 4.0, "from": {}})
    return run


def patches(seed: int, shape=(90, 70)) -> tuple[np.ndarray, np.ndarray]:
    """Make a dark smooth half and a bright rough one in two bands, with a hole."""
    rng = np.random.default_rng(seed)
    rough = np.arange(shape[1]) >= shape[1] // 2
    pixels = np.where(rough, rng.integers(120, 220, (2, *shape)), rng.integers(60, 66, (2, *shape)))
    valid = np.ones(shape, bool)
    valid[20:31, 5:50] = False
    return pixels.astype(np.uint8), valid


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, {"a": patches(0), "b": patches(1, (64, 48))})


def fit(run, kinds, classes=2, sample=2000, seed=0) -> dict[str, Baseline]:
    fit_baselines(run, ["s0"], Evaluate(baselines=kinds, sample=sample, seed=seed), classes, SMALL)
    return load_baselines(run.baselines)


def whole(store) -> Window:
    return Window(0, 0, *store.shape)


@pytest.mark.parametrize("kind", [*PIXEL_KINDS, "random"])
def test_tiles_equal_the_whole(run, kind):
    baseline = fit(run, [kind], classes=4)[kind]
    statistics, store = Statistics.load(run.statistics), SceneStore(run.scene("a"))
    expected = baseline.predict(store, statistics, whole(store))
    for size, origin in [(32, (0, 0)), (13, (5, 2))]:
        tiled = np.full(store.shape, -9)
        for tile in tiles(store.shape, size, origin):
            tiled[tile.slices] = baseline.predict(store, statistics, tile)
        np.testing.assert_array_equal(tiled, expected)


def test_the_logarithm_is_for_the_encoder_alone(run):
    fits = [fit(run, [*PIXEL_KINDS, "random"])]
    tree = read_json(run.statistics)
    tree["bands"] = [band | {"dark": None, "soft": None, "scale": band["spread"]} for band in tree["bands"]]
    write_json(run.statistics, tree)
    fits.append(fit(run, [*PIXEL_KINDS, "random"]))
    for kind in PIXEL_KINDS:
        log, linear = (each[kind] for each in fits)
        np.testing.assert_array_equal(log.centroids, linear.centroids)
        np.testing.assert_array_equal(log.scale, linear.scale)
    assert not np.array_equal(fits[0]["random"].centroids, fits[1]["random"].centroids)


@pytest.mark.parametrize("kind", PIXEL_KINDS)
def test_two_surfaces_are_told_apart_and_holes_stay_open(run, kind):
    baseline = fit(run, [kind])[kind]
    store = SceneStore(run.scene("b"))
    classes = baseline.predict(store, Statistics.load(run.statistics), whole(store))
    valid = store.read_valid(whole(store))
    assert (classes[~valid] == -1).all()
    left, right = classes[:, :16][valid[:, :16]], classes[:, 32:][valid[:, 32:]]
    assert set(left) | set(right) == {0, 1}
    assert set(left).isdisjoint(right)


def test_random_classes_are_the_nearest_centroids_of_interpolated_features(run):
    baseline = fit(run, ["random"], classes=3)["random"]
    statistics, store = Statistics.load(run.statistics), SceneStore(run.scene("b"))
    tile = Window(8, 8, 20, 24)
    planes, _, window = baseline.features.read(store, statistics, tile)
    features = np.stack([baseline.features.at_pixels(plane, tile, window) for plane in planes])
    distances = ((features[None] - baseline.centroids[:, :, None, None]) ** 2).sum(axis=1)
    two = np.sort(distances, axis=0)[:2]
    clear = (two[1] - two[0] > 1e-5) & store.read_valid(tile)
    assert clear.mean() > 0.4
    predicted = baseline.predict(store, statistics, tile)
    np.testing.assert_array_equal(predicted[clear], distances.argmin(axis=0)[clear])


def test_interpolation_keeps_a_plane_straight(run):
    features = fit(run, ["random"])["random"].features
    window, tile = Window(8, 16, 40, 32), Window(13, 22, 20, 15)
    centres = [4 * np.arange(n // 4) + 1.5 for n in window.shape]
    plane = (centres[0][:, None] + 10 * centres[1]).astype(np.float32)
    y, x = np.arange(13, 33) - window.y, np.arange(22, 37) - window.x
    np.testing.assert_allclose(features.at_pixels(plane, tile, window), y[:, None] + 10 * x, rtol=1e-6)


@pytest.mark.parametrize("kind", ["blurred", "deviation"])
def test_pixels_without_data_do_not_bleed_into_features(kind):
    z, valid = np.ones((1, 40, 40), np.float32), np.ones((40, 40), bool)
    valid[10:30, 10:20] = False
    features = pixel_features(kind, 1, {}, 0).function(z * valid, valid)[:, valid]
    np.testing.assert_allclose(features[0], 1, rtol=1e-6)
    np.testing.assert_allclose(features[1:], 0, atol=1e-6)


def test_deviation_is_that_of_the_window():
    z = np.random.default_rng(0).normal(size=(2, 31, 33)).astype(np.float32)
    features = pixel_features("deviation", 2, {}, 0).function(z, np.ones((31, 33), bool))
    np.testing.assert_array_equal(features[:2], z)
    np.testing.assert_allclose(features[2:, 15, 16], z[:, 8:23, 9:24].std(axis=(1, 2)), rtol=1e-5)


def test_equal_work_gives_equal_bytes_and_another_seed_does_not(run):
    kinds = [*PIXEL_KINDS, "random"]
    fit(run, kinds, classes=3)
    first = run.baselines.read_bytes()
    fit(run, kinds[::-1], classes=3)
    assert run.baselines.read_bytes() == first
    fit(run, kinds, classes=3, seed=1)
    assert run.baselines.read_bytes() != first


def test_scenes_give_pixels_by_valid_area(tmp_path):
    pixels, valid = patches(0)
    empty = np.zeros_like(valid)
    run = make_run(tmp_path, {"a": (pixels, valid), "b": (pixels, empty), "c": patches(1, (45, 35))})
    areas = {"a": int(valid.sum()), "c": int(patches(1, (45, 35))[1].sum())}
    quotas = baselines._quotas(run, ["s0"], sample=10**6)
    assert sum(n for n, _ in quotas.values()) == pytest.approx(sum(areas.values()), abs=2)
    # pixels are dealt in portions of 1024
    assert {s: n for s, (n, _) in quotas.items()} == pytest.approx(areas, abs=1024)


def test_a_small_sample_reads_few_windows_of_many_scenes(tmp_path):
    run = make_run(tmp_path, {f"s{i}": patches(i, (32, 32)) for i in range(12)})
    assert len(baselines._quotas(run, ["s0"], sample=2048)) == 2


def test_the_sample_has_the_size_asked_for(run):
    features = pixel_features("raw", 2, {}, 0)
    points = baselines._points(run, baselines._quotas(run, ["s0"], 1000), 0, features)
    assert points.shape[1] == 2
    assert 800 < len(points) < 1200  # each pixel is drawn by chance: 5 standard deviations are 150


def test_without_a_label_there_is_nothing_to_fit(tmp_path):
    run = make_run(tmp_path, {"a": patches(0)}, labels=0)
    assert fit(run, PIXEL_KINDS) == {}


def test_too_few_pixels_are_refused(tmp_path):
    pixels, valid = patches(0, (8, 8))
    valid[:] = False
    valid[0, :3] = True
    run = make_run(tmp_path, {"a": (pixels, valid)})
    with pytest.raises(SassError, match=r"only 3 pixels were drawn to fit baselines of 5 classes"):
        fit(run, ["raw"], classes=5)


def test_no_valid_pixel_is_refused(tmp_path):
    pixels, valid = patches(0, (8, 8))
    run = make_run(tmp_path, {"a": (pixels, np.zeros_like(valid))})
    with pytest.raises(SassError, match="no scene of the fit shards s0 holds a valid pixel"):
        fit(run, ["raw"])


def test_pixel_baselines_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from sass.baselines import pixel_features; "
        "[pixel_features(kind, 3, {}, 0) for kind in ('raw', 'blurred', 'deviation')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
