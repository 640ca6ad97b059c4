"""Segment: one meaning everywhere, and maps in which windows and threads leave no trace."""

import json

import numpy as np
import pytest
import rasterio
from builders import add_codes, add_features, add_maps, class_map, confidence_map, make_run, ramps
from scipy import ndimage
from scipy.spatial.distance import cdist

from sass.classmap import label_changes, without_specks
from sass.cluster.classes import Classes
from sass.cluster.codebook import Codes
from sass.cluster.hierarchy import cut
from sass.config import Segment
from sass.errors import SassError
from sass.features import Features, features_shard
from sass.files import file_digest, read_json
from sass.grid import Window, tiles
from sass.model.interface import load_encoder
from sass.run import Run
from sass.scores import Classifier
from sass.segment import segment_shard
from sass.store import FeatureStore

SHAPE = (390, 310)
CROP = (slice(64, 320), slice(32, 288))  # at multiples of the encoder's alignment


def scene_pixels() -> tuple[np.ndarray, np.ndarray]:
    bands, valid = ramps(SHAPE), np.ones(SHAPE, bool)
    valid[100:150, 200:260] = False
    valid[380:, :40] = False
    return np.where(valid, bands, 0).astype(np.uint8), valid


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Give a run in which one raster stands under two ids, in two shards, and a crop of it under a third."""
    bands, valid = scene_pixels()
    made = make_run(
        tmp_path_factory.mktemp("run"),
        {
            "s00000": {"a": (bands, valid), "b": ramps((200, 150), 1)},
            "s00001": {"crop": (bands[(slice(None), *CROP)], valid[CROP]), "twin": (bands, valid)},
        },
        fit=["s00000"],
    )
    add_features(made, ["s00000", "s00001"], window=256)
    add_codes(made, ["s00000"])
    add_maps(made, ["s00000", "s00001"], window=128)
    return made


def remade(run: Run, **settings) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return classes, confidence and record of scene ``a`` under other settings."""
    add_maps(run, ["s00000"], **settings)
    record = read_json(run.manifest("segment", "s00000"))["scenes"]["a"]
    return class_map(run, "a"), confidence_map(run, "a"), record


# ---- one meaning


def test_the_same_raster_has_the_same_classes_in_any_shard(run):
    add_maps(run, ["s00000"], window=128)
    for name in ("segments.tif", "confidence.tif"):
        assert (run.segments("a") / name).read_bytes() == (run.segments("twin") / name).read_bytes()


def test_a_crop_has_the_classes_of_the_whole_away_from_its_border(run):
    encoder, _ = load_encoder(run.encoder)
    border = encoder.halo + 8  # and two embeddings of interpolation
    away = (slice(border, 256 - border), slice(border, 256 - border))
    add_maps(run, ["s00000"], window=128)
    whole, part = class_map(run, "a")[CROP], class_map(run, "crop")
    assert np.array_equal(whole[away], part[away])
    assert len(np.unique(part[away])) >= 4
    assert (whole != part).mean() < 0.2  # near the border the surroundings are missing: some labels differ


def test_codes_stand_beside_the_map_and_agree_with_it(run):
    add_maps(run, ["s00000"], window=128)
    codes, store = Codes.load(run.codebook), FeatureStore(run.features("a"))
    values, valid = store.read(Window(0, 0, *store.shape))
    vectors = codes.metric.apply(values.reshape(len(values), -1).T)
    expected = cdist(vectors, codes.codes).argmin(1).reshape(store.shape)
    with rasterio.open(run.segments("a") / "codes.tif") as raster:
        found, stride = raster.read(1), int(raster.tags(1)["stride"])
        assert raster.nodata == 255 and stride == store.stride
        assert raster.transform.a == stride * 10 and raster.transform.c == 500_000
    assert ((found == 255) == ~valid).all()
    assert (found == expected)[valid].mean() > 0.999  # but for ties of rounding
    classes = Classes.of_tree(read_json(run.hierarchy), 5).of_code
    middle = class_map(run, "a")[stride // 2 :: stride, stride // 2 :: stride]
    inside = valid[: middle.shape[0], : middle.shape[1]] & (middle != 255)
    assert (classes[expected][: middle.shape[0], : middle.shape[1]] == middle)[inside].mean() > 0.9


# ---- maps


def test_every_valid_pixel_has_a_class_and_no_other(run):
    classes, confidence, record = remade(run, window=128)
    _, valid = scene_pixels()
    assert np.array_equal(classes != 255, valid)
    assert np.array_equal(confidence != 255, valid)
    assert set(np.unique(classes[valid])) == set(range(5))
    assert record["counts"] == {str(c): int((classes == c).sum()) for c in range(5)}
    assert record["confidence"] == pytest.approx(confidence[valid].mean() / 254, abs=1e-6)
    assert record["classes"] == 5


def test_each_pixel_has_the_class_of_the_code_nearest_to_its_interpolated_embedding(run):
    classes, _, _ = remade(run, window=128)
    store = FeatureStore(run.features("a"))
    codes, tree = Codes.load(run.codebook), read_json(run.hierarchy)
    of_code = cut(tree["merges"], tree["sizes"], 5, tree["smallest"])
    values = store.embedding[:].astype(np.float64)
    rng = np.random.default_rng(0)
    wrong = 0
    for y, x in rng.integers((160, 20), (370, 300), (400, 2)):  # where all four neighbours have data
        fy, fx = (y + 0.5) / 4 - 0.5, (x + 0.5) / 4 - 0.5
        embedding = [ndimage.map_coordinates(band, [[fy], [fx]], order=1)[0] for band in values]
        mapped = codes.metric.apply(np.array(embedding))
        wrong += classes[y, x] != of_code[((codes.codes - mapped) ** 2).sum(1).argmin()]
    assert wrong == 0


def test_scores_of_stored_embeddings_are_those_in_the_metric(run):
    codes, tree = Codes.load(run.codebook), read_json(run.hierarchy)
    classes = cut(tree["merges"], tree["sizes"], 5, tree["smallest"])
    grouped = Classifier.of(codes, Classes.of_tree(tree, 5))
    vectors = (
        FeatureStore(run.features("a")).read(Window(10, 10, 6, 7))[0].reshape(len(grouped.weights.T), -1)
    )
    mapped = (vectors.T - codes.metric.offset) @ codes.metric.matrix.astype(np.float64)
    distance = ((mapped[:, None] - codes.codes) ** 2).sum(2)[:, np.argsort(classes, kind="stable")]
    scores = (grouped.weights @ vectors - grouped.bias[:, None]).T
    np.testing.assert_allclose((mapped**2).sum(1)[:, None] - 2 * scores, distance, atol=1e-6)
    assert grouped.bounds.tolist() == [0, *np.cumsum(np.bincount(classes))]


def test_windows_leave_no_trace(run):
    reference = remade(run, window=64)
    for window in (128, 192, 512):
        classes, confidence, record = remade(run, window=window)
        assert np.array_equal(classes, reference[0])
        assert np.array_equal(confidence, reference[1])
        assert record["counts"] == reference[2]["counts"]


@pytest.mark.parametrize("smooth", [1, 10, 63])
def test_windows_leave_no_trace_where_classes_are_averaged(run, smooth, monkeypatch):
    plain, _, _ = remade(run, window=512, smooth=0)
    reference, trust, _ = remade(run, window=512, smooth=smooth)
    monkeypatch.setattr("sass.segment.SHARES", 40_000)  # windows are divided for want of memory
    classes, confidence, _ = remade(run, window=192, smooth=smooth)
    assert np.array_equal(classes, reference)
    assert np.array_equal(confidence, trust)
    assert (classes != plain).any()  # it does something at every radius
    _, valid = scene_pixels()
    assert np.array_equal(classes != 255, valid)


@pytest.mark.parametrize("area", [3, 30, 80])
def test_windows_leave_no_trace_where_specks_are_removed(run, area):
    # as many classes as codes: patches of every size, side by side
    reference, _, _ = remade(run, classes=12, window=512, min_area=area)
    classes, _, _ = remade(run, classes=12, window=64, min_area=area)
    assert np.array_equal(classes, reference)
    plain, _, _ = remade(run, classes=12, window=512)
    small = speck_sizes(plain, area)
    assert small
    left = speck_sizes(classes, area)
    assert len(left) < len(small) / 5  # what is left has only small neighbours, or was made by two that met


def speck_sizes(classes: np.ndarray, area: int) -> list[int]:
    """Return the sizes of patches smaller than an area."""
    sizes = []
    for value in np.unique(classes[classes != 255]):
        labelled, _ = ndimage.label(classes == value)
        sizes += [n for n in np.bincount(labelled.ravel())[1:].tolist() if n < area]
    return sizes


def test_threads_change_no_byte(run):
    digests = []
    for threads in (1, 4):
        (run.manifest("segment", "s00000").with_suffix("") / "a.json").unlink(missing_ok=True)
        add_maps(run, ["s00000"], threads=threads, window=64, min_area=9, smooth=8)
        digests.append(file_digest(run.segments("a")))
    assert digests[0] == digests[1]


def test_another_number_of_classes_needs_only_the_maps_and_is_nested(run):
    five, _, _ = remade(run, window=128)
    before = {name: file_digest(run.features(name)) for name in ("a", "b")} | {
        "codes": file_digest(run.codebook)
    }
    assert features_shard(run, "s00000", Features(window=256), threads=1).kept == ["a", "b"]
    outcome = segment_shard(run, "s00000", Segment(classes=8, window=128), threads=1)
    assert outcome.computed == ["a", "b"]
    assert {name: file_digest(run.features(name)) for name in ("a", "b")} | {
        "codes": file_digest(run.codebook)
    } == before
    eight = class_map(run, "a")
    _, valid = scene_pixels()
    pairs = set(zip(eight[valid].tolist(), five[valid].tolist()))
    assert len(pairs) == 8  # each of the eight lies in one of the five
    assert segment_shard(run, "s00000", Segment(classes=8, window=128), threads=1).kept == ["a", "b"]


def test_more_classes_than_codes_are_refused(run):
    with pytest.raises(SassError, match=r"13 classes cannot be made of 12 codes; lower segment\.classes"):
        segment_shard(run, "s00000", Segment(classes=13), threads=1)


def test_many_classes_need_two_bytes(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((200, 160))}})
    add_features(run, ["s00000"])
    add_codes(run, ["s00000"], codes=300)
    add_maps(run, ["s00000"], classes=300)
    classes = class_map(run, "a")
    assert classes.dtype == np.uint16
    assert 255 in classes  # a class like any other
    assert classes.max() < 300


def test_confidence_is_low_where_classes_meet_and_high_far_from_there(run):
    classes, confidence, _ = remade(run, window=128)
    _, valid = scene_pixels()
    assert confidence[valid].max() <= 254
    edge = np.zeros(SHAPE, bool)
    edge[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    edge[:, :-1] |= classes[:, 1:] != classes[:, :-1]
    edge[1:] |= classes[1:] != classes[:-1]
    edge[:-1] |= classes[1:] != classes[:-1]
    far = ~ndimage.binary_dilation(edge, iterations=4) & valid
    assert confidence[edge & valid].mean() < confidence[far].mean() / 3
    assert np.median(confidence[edge & valid]) < 20


# ---- specks, by hand


def grid(text: str) -> np.ndarray:
    """Read a map drawn in digits; a dot is no data."""
    rows = [line.strip() for line in text.strip().splitlines()]
    return np.array([[255 if c == "." else int(c) for c in row] for row in rows], np.uint8)


def test_a_speck_takes_the_class_most_common_along_its_border():
    before = grid("""
        000001111
        000001111
        002201111
        000001111
        000003311
        ..4444444
        .44444444
    """)
    after = grid("""
        000001111
        000001111
        000001111
        000001111
        000001111
        ..4444444
        .44444444
    """)
    assert np.array_equal(without_specks(before, 4, 255), after)
    assert np.array_equal(without_specks(before, 2, 255), before)


def test_specks_have_no_vote_and_an_island_in_nodata_stays():
    before = grid("""
        0000000.2
        0123000..
        0000000.3
        00000005.
    """)
    after = grid("""
        0000000.2
        0000000..
        0000000.3
        00000000.
    """)
    assert np.array_equal(without_specks(before, 3, 255), after)


def test_specks_are_connected_by_edges_not_by_corners():
    before = grid("""
        00000
        01000
        00100
        00010
        00000
    """)
    assert (without_specks(before, 2, 255) == 0).all()


@pytest.mark.parametrize("area", [3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_specks_in_windows_with_twice_the_area_around_them_equal_the_whole(seed, area):
    classes = noise((90, 110), seed)
    whole, out = without_specks(classes, area, 255), np.empty_like(classes)
    for window in tiles(classes.shape, 16):
        outer = window.grown(2 * area, classes.shape)
        out[window.slices] = without_specks(classes[outer.slices], area, 255)[window.inside(outer)]
    assert (whole != classes).any()
    assert np.array_equal(out, whole)


def test_specks_of_a_map_are_those_of_the_whole_scene(run, monkeypatch):
    maps = {"a": noise(SHAPE, 3), "b": noise((200, 150), 3)}

    def classify(features, mask, window, *rest):
        codes = np.zeros(window.cells(4).shape, np.uint8)
        return maps[mask.path.stem][window.slices], np.full(window.shape, 9, np.uint8), codes

    monkeypatch.setattr("sass.segment.classify", classify)
    for area in (2, 3, 4, 5):
        classes, _, _ = remade(run, window=64, min_area=area)
        assert np.array_equal(classes, without_specks(maps["a"], area, 255))


def noise(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Make a map with patches of all sizes and forms, four classes and some pixels without data."""
    rng = np.random.default_rng(seed)
    classes = (ndimage.gaussian_filter(rng.normal(size=shape), 1.2) * 9).astype(int) % 4
    return np.where(rng.random(shape) < 0.03, 255, classes).astype(np.uint8)


# ---- seams, by hand


def count(classes: np.ndarray, grids: tuple[int, ...], window: int = 100) -> dict[str, list[int]]:
    """Count label changes window by window."""
    total = {"across": np.zeros(2, np.int64), "inside": np.zeros(2, np.int64)}
    for part in tiles(classes.shape, window):
        origin = Window(max(part.y - 1, 0), max(part.x - 1, 0), 0, 0)
        piece = classes[origin.y : part.y + part.height, origin.x : part.x + part.width]
        for kind, pairs in label_changes(piece, origin, part, grids, classes.shape, 255, stride=4).items():
            total[kind] += pairs
    return {kind: pairs.tolist() for kind, pairs in total.items()}


def test_seams_by_hand():
    classes = grid("""
        0011
        0011
        2.11
    """)
    # tiles of 2: one line between columns 1 and 2, one between rows 1 and 2
    # columns: (0,1) differs twice in two rows; the third row has no data there
    # rows: (0,2) differs, (0, no data) is no pair, (1,1) twice does not
    assert count(classes, (2,)) == {"across": [2 + 1, 2 + 3], "inside": [0, (2 + 3) + 4]}
    assert count(classes, (100,)) == {"across": [0, 0], "inside": [0, 0]}  # no border, nothing to compare


@pytest.mark.parametrize("window", [1, 3, 5, 8, 13])
def test_seams_are_counted_once_whatever_the_window(window):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (21, 17)).astype(np.uint8)
    classes[4:7, 5:9] = 255
    whole = count(classes, (4, 6))
    assert count(classes, (4, 6), window) == whole
    assert 0 < whole["across"][1] < whole["inside"][1]


def test_seams_are_compared_with_the_lines_eight_pixels_beside_them():
    classes = np.zeros((1, 100), np.uint8)
    classes[0, 24:] = 1  # a change 8 before the border of tiles of 32, at 32
    classes[0, 50:] = 2  # far from any border
    classes[0, 96:] = 3  # on the last border
    assert count(classes, (32,)) == {"across": [1, 3], "inside": [1, 5]}  # 104 lies beyond the scene


def test_the_seams_of_a_finished_map_are_those_of_its_labels(run):
    classes, _, record = remade(run, window=128)
    # features were made by 256, the map by 128
    assert record["seam"] == count(classes, (256, 128), 1000)
    across, inside = (np.divide(*record["seam"][kind]) for kind in ("across", "inside"))
    assert 0.5 < across / inside < 2  # no more changes on the lines of the tiles than elsewhere


def test_the_item_beside_the_maps_counts_the_same_pixels(run):
    _, _, record = remade(run, window=128)
    item = json.loads((run.segments("a") / "item.json").read_text())
    listed = {str(c["value"]): c["count"] for c in item["assets"]["segments"]["classification:classes"]}
    assert listed == record["counts"]
