import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from sass import evaluate
from sass.baselines import fit_baselines
from sass.cog import new_codes
from sass.config import Evaluate, Model
from sass.errors import SassError, SceneError
from sass.evaluate import code_reader, count_scene, evaluate_shard, format_table, score_archive
from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.grid import Window
from sass.run import Run
from sass.store import create_scene

REFEREE = Path(__file__).parents[2] / "shared" / "referee" / "referee.py"


def grid(x: float = 0, y: float = 0, scale: float = 1) -> Affine:
    """Return the grid of the maps, moved by x and y of its pixels, with pixels of another size."""
    return Affine(30 * scale, 0, 600_000 + 30 * x, 0, -30 * scale, 4_000_000 - 30 * y)


HERE = grid()
UTM = "EPSG:32617"
SAME_UTM = (
    'PROJCS["made here",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",-81],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1]]'
)
PLAIN = Evaluate(baselines=[])
SEAM = {"across": [3, 100], "inside": [40, 2000]}


def write(path: Path, array: np.ndarray, crs=UTM, transform=HERE, nodata=None) -> Path:
    """Write one band, or several ``(band, y, x)``; ``crs`` None writes no georeference."""
    bands = array if array.ndim == 3 else array[None]
    place = {} if crs is None else {"crs": crs, "transform": transform}
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", nodata=nodata, **size, **place) as raster:
            raster.write(bands)
    return path


def write_codes(path: Path, codes: np.ndarray, stride: int = 1) -> Path:
    """Write the codes of embeddings, as `segment` does."""
    with new_codes(
        path, codes.shape, Georeference(CRS.from_string(UTM), grid(scale=stride)), 254, stride
    ) as raster:
        raster.write(codes.astype(np.uint8))
    return path


def label_map(seed: int = 0, shape=(60, 80), classes: int = 4) -> np.ndarray:
    """Make blobs of label ids, uint8."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, classes, (-(-shape[0] // 4), -(-shape[1] // 4))), np.ones((4, 4)))[
        : shape[0], : shape[1]
    ].astype(np.uint8)


def make_run(root: Path, shards: dict[str, dict[str, tuple[np.ndarray, Path | None]]]) -> Run:
    """Make a segmented run from maps and paths of label rasters, by shard and scene."""
    run = Run(root)
    index = {}
    for shard, scenes in shards.items():
        segments, pixels, labels = {}, {}, {}
        for scene, (classes, label) in scenes.items():
            write(run.segments(scene) / "segments.tif", classes, nodata=255)
            write_codes(run.segments(scene) / "codes.tif", classes)
            segments[scene] = {"fingerprint": "s", "digest": f"map of {scene}", "seam": SEAM}
            pixels[scene] = {"fingerprint": "p", "digest": f"pixels of {scene}", "valid": classes.size}
            if label is not None:
                labels[scene] = label_entry(label)
        for stage, records in (("segment", segments), ("ingest", pixels)):
            manifest = {"stage": stage, "shard": shard, "scenes": records, "failed": {}}
            write_json(run.manifest(stage, shard), manifest)
        write_json(run.catalog_labels(shard), {"shard": shard, "scenes": labels})
        index[shard] = {"fit": True, "scenes": len(scenes), "labels": len(labels), "pixels": 1}
    write_json(run.catalog, {"shards": index})
    return run


def label_entry(path: Path) -> dict:
    if not path.exists():
        return {"path": str(path), "size": 1, "modified": 1}
    return {"path": str(path), "size": path.stat().st_size, "modified": path.stat().st_mtime_ns}


def scored(run: Run, settings: Evaluate = PLAIN) -> dict:
    shards = sorted(read_json(run.catalog)["shards"])
    for shard in shards:
        evaluate_shard(run, shard, settings)
    return score_archive(run, shards, settings)


def count(tmp_path: Path, classes: np.ndarray, labels: Path, ignore=(255,)) -> dict:
    segments = write(tmp_path / "segments.tif", classes, nodata=255)
    return count_scene(segments, labels, {}, list(ignore))["segments"]


def test_codes_are_counted_at_the_pixels_below_their_embeddings(tmp_path):
    truth = label_map(1)  # blocks of 4 pixels, as wide as an embedding
    codes = np.arange(15 * 20, dtype=np.uint8).reshape(15, 20) % 50
    codes[0, 0] = 255
    run = make_run(tmp_path / "run", {"s0": {"a": (truth, write(tmp_path / "a.tif", truth))}})
    write_codes(run.segments("a") / "codes.tif", codes, stride=4)
    scored(run)
    rows = read_json(run.manifest("evaluate", "s0"))["scenes"]["a"]["codes"]
    counts = {(label, code): pixels for label, code, pixels in rows}
    full = np.kron(np.where(codes == 255, -1, codes.astype(int)), np.ones((4, 4), int))
    assert counts == Counter(zip(truth.ravel().tolist(), full.ravel().tolist()))
    with code_reader(run.segments("a") / "codes.tif") as read:
        part = read(Window(5, 10, 9, 3))
    assert np.array_equal(part, full[5:14, 10:13])


def test_perfect_maps_score_1_over_the_whole_archive(tmp_path):
    truth = {f"scene{i}": label_map(i) for i in range(3)}
    new_ids = np.array([7, 0, 3, 1], np.uint8)
    rows = {scene: (new_ids[t], write(tmp_path / f"{scene}.tif", t)) for scene, t in truth.items()}
    first, *others = rows
    run = make_run(tmp_path / "run", {"s0": {first: rows[first]}, "s1": {k: rows[k] for k in others}})
    metrics = scored(run, Evaluate(baselines=[], class_names={0: "water", 2: "wood"}))
    assert metrics["accuracy"] == metrics["miou"] == metrics["kappa"] == 1
    assert metrics["matching"] == {"7": "water", "0": "1", "3": "wood", "1": "3"}
    assert metrics["iou"] == {"water": 1, "1": 1, "wood": 1, "3": 1}
    assert metrics["scenes"] == {s: {"accuracy": 1.0, "miou": 1.0, "pixels": 4800} for s in truth}
    assert metrics["seam"] == {"across": 0.03, "inside": 0.02, "ratio": 1.5}
    assert read_json(run.metrics) == metrics


def test_scenes_are_scored_by_the_match_of_the_archive(tmp_path):
    truth = label_map(0, classes=2)
    label = write(tmp_path / "label.tif", truth)
    # two scenes call things one way, the third the other way round: it is wrong, not matched for itself
    rows = {"a": (truth, label), "b": (truth, label), "c": (1 - truth, label)}
    run = make_run(tmp_path / "run", {"s0": rows})
    metrics = scored(run)
    assert [metrics["scenes"][s]["accuracy"] for s in "abc"] == [1, 1, 0]
    assert metrics["accuracy"] == 2 / 3


def test_pixels_without_a_class_are_errors_and_unlabelled_ones_are_not_scored(tmp_path):
    truth = label_map(0)
    answer = truth.copy()
    answer[:15] = 255
    truth[:, :20] = 255
    run = make_run(tmp_path / "run", {"s0": {"a": (answer, write(tmp_path / "label.tif", truth))}})
    metrics = scored(run)
    assert metrics["pixels"] == 60 * 60
    assert metrics["answered"] == metrics["accuracy"] == 0.75
    assert sum(metrics["confusion"]["unanswered"]) == 15 * 60


def test_nodata_of_the_label_raster_is_not_scored(tmp_path):
    truth = label_map(0)
    counts = count(tmp_path, truth, write(tmp_path / "label.tif", truth, nodata=0))
    assert {label for label, _ in counts} == {1, 2, 3}


@pytest.mark.parametrize("code", [SAME_UTM, "EPSG:26917"], ids=["custom WKT", "another datum"])
def test_the_same_grid_under_another_crs_code(tmp_path, code):
    truth = label_map(0)
    counts = count(tmp_path, truth, write(tmp_path / "label.tif", truth, crs=code))
    assert sum(counts.values()) == truth.size
    assert all(label == cluster for label, cluster in counts)


def test_a_coarser_grid_is_read_by_nearest_neighbour(tmp_path):
    truth = label_map(0)  # blobs of 4 x 4 pixels, so that a grid of 4 times the pixel holds the same
    label = write(tmp_path / "label.tif", truth[::4, ::4], transform=grid(scale=4))
    counts = count(tmp_path, truth, label)
    assert counts == {(i, i): int((truth == i).sum()) for i in range(4)}


def test_a_label_raster_of_part_of_the_scene_scores_that_part(tmp_path):
    truth = label_map(0)
    part = write(tmp_path / "label.tif", truth[12:40, 20:50], transform=grid(20, 12))
    counts = count(tmp_path, truth, part)
    assert sum(counts.values()) == 28 * 30
    assert all(label == cluster for label, cluster in counts)


def test_a_projection_apart_is_read_where_the_pixel_centres_fall(tmp_path):
    from rasterio.warp import transform

    truth = label_map(3)
    lonlat = Affine(0.0004, 0, -79.9, 0, -0.0004, 36.14)
    label = write(tmp_path / "label.tif", truth, crs="EPSG:4326", transform=lonlat)
    answer = label_map(4, (150, 160))
    y, x = np.indices(answer.shape) + 0.5
    lon, lat = transform(UTM, "EPSG:4326", (HERE.c + 30 * x).ravel(), (HERE.f - 30 * y).ravel())
    row = np.floor((lonlat.f - np.array(lat)) / 0.0004).astype(int)
    column = np.floor((np.array(lon) - lonlat.c) / 0.0004).astype(int)
    held = (row >= 0) & (row < truth.shape[0]) & (column >= 0) & (column < truth.shape[1])
    assert 0.1 < held.mean() < 0.9
    by_hand = Counter(zip(truth[row[held], column[held]].tolist(), answer.ravel()[held].tolist()))
    counts = Counter(count(tmp_path, answer, label))
    # places are right to a thousandth of a pixel, so about that share may fall on the other side of an edge
    assert (counts - by_hand).total() + (by_hand - counts).total() < 0.004 * held.sum()


@pytest.mark.parametrize("window", [64, 1000])
def test_windows_make_no_difference(tmp_path, monkeypatch, window):
    truth = label_map(0, (300, 260))
    answer = label_map(1, (300, 260), 6)
    answer[:40, :70] = 255
    label = write(tmp_path / "label.tif", truth, crs="EPSG:26917", transform=grid(-3.3, 5.2, 1.7))
    monkeypatch.setattr(evaluate, "WINDOW", 97)
    expected = count(tmp_path, answer, label)
    monkeypatch.setattr(evaluate, "WINDOW", window)
    assert count(tmp_path, answer, label) == expected


def test_rasters_without_georeference_are_laid_over_each_other(tmp_path):
    truth = label_map(0)
    counts = count(tmp_path, truth, write(tmp_path / "label.tif", truth, crs=None))
    assert sum(counts.values()) == truth.size


def test_float_labels_of_whole_numbers_are_ids_and_nan_is_no_label(tmp_path):
    truth = label_map(0)
    values = truth.astype(np.float32)
    values[:30] = np.nan
    counts = count(tmp_path, truth, write(tmp_path / "label.tif", values))
    assert sum(counts.values()) == truth.size // 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p, r"cannot be opened .* put it back"),
        (lambda p: p.write_bytes(b"no raster") and p, "cannot be opened"),
        (lambda p: write(p, label_map(0, (60, 81)), crs=None), r"60 x 81 pixels and the scene 60 x 80"),
        (lambda p: write(p, label_map(0) + np.float32(0.5)), r"holds \d\.5, which is no label id"),
        (lambda p: write(p, np.full((60, 80), np.inf, np.float32)), "holds inf, which is no label id"),
        (lambda p: write(p, np.zeros((3, 60, 80), np.uint8)), "has 3 bands, so it holds colours"),
        (lambda p: write(p, label_map(0), transform=grid(500)), "covers no pixel"),
    ],
    ids=["missing", "unreadable", "other shape", "fractions", "infinite", "colours", "elsewhere"],
)
def test_a_wrong_label_raster_is_named_with_a_remedy(tmp_path, make, message):
    path = tmp_path / "wrong.tif"
    make(path)
    with pytest.raises(SceneError, match=message) as caught:
        count(tmp_path, label_map(0), path)
    assert "wrong.tif" in str(caught.value)


def test_a_label_raster_cut_short_is_named(tmp_path):
    path = write(tmp_path / "label.tif", label_map(0))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SceneError, match=r"label\.tif cannot be (read|opened).*(fetch it again|mend it)"):
        count(tmp_path, label_map(0), path)


def test_a_scene_with_a_wrong_label_raster_is_set_aside_and_the_others_are_scored(tmp_path):
    truth = label_map(0)
    good = write(tmp_path / "good.tif", truth)
    rows = {"a": (truth, good), "b": (truth, tmp_path / "gone.tif"), "c": (truth, None)}
    run = make_run(tmp_path / "run", {"s0": rows})
    outcome = evaluate_shard(run, "s0", PLAIN)
    assert outcome.computed == ["a"]
    assert list(outcome.failed) == ["b"]
    assert "gone.tif" in outcome.failed["b"]
    assert (run.segments("b") / "segments.tif").exists()
    assert list(score_archive(run, ["s0"], PLAIN)["scenes"]) == ["a"]


def test_only_what_changed_is_counted_again(tmp_path):
    truth = label_map(0)
    label = write(tmp_path / "label.tif", truth)
    run = make_run(tmp_path / "run", {"s0": {"a": (truth, label), "b": (truth, label)}})
    assert evaluate_shard(run, "s0", PLAIN).computed == ["a", "b"]
    before = run.manifest("evaluate", "s0").read_bytes()
    assert evaluate_shard(run, "s0", PLAIN).kept == ["a", "b"]

    # moved with its size and time: the same label raster
    entries = read_json(run.catalog_labels("s0"))
    moved = label.rename(tmp_path / "moved.tif")
    entries["scenes"] = {scene: label_entry(moved) for scene in "ab"}
    write_json(run.catalog_labels("s0"), entries)
    assert evaluate_shard(run, "s0", PLAIN).kept == ["a", "b"]
    assert run.manifest("evaluate", "s0").read_bytes() == before

    segments = read_json(run.manifest("segment", "s0"))
    segments["scenes"]["b"]["digest"] = "another map"
    write_json(run.manifest("segment", "s0"), segments)
    assert evaluate_shard(run, "s0", PLAIN).computed == ["b"]

    del entries["scenes"]["a"]
    write_json(run.catalog_labels("s0"), entries)
    assert evaluate_shard(run, "s0", PLAIN).kept == ["b"]
    assert not (run.root / "evaluation" / "a.json").exists()
    assert (run.segments("a") / "segments.tif").exists()


def test_tables_for_people_hold_the_same_counts(tmp_path):
    truth = label_map(0)
    run = make_run(tmp_path / "run", {"s0": {"a": (truth, write(tmp_path / "label.tif", truth))}})
    evaluate_shard(run, "s0", Evaluate(baselines=[], class_names={i: f"kind {i}" for i in range(4)}))
    shown = read_json(run.root / "evaluation" / "a.json")["segments"]
    assert shown["labels"] == ["kind 0", "kind 1", "kind 2", "kind 3"]
    assert np.array(shown["counts"]).diagonal().sum() == truth.size


def test_shards_without_labels_need_no_counting(tmp_path):
    truth = label_map(0)
    labelled = {"a": (truth, write(tmp_path / "label.tif", truth))}
    run = make_run(tmp_path / "run", {"s0": labelled, "s1": {"b": (truth, None)}})
    evaluate_shard(run, "s0", PLAIN)
    assert score_archive(run, ["s0", "s1"], PLAIN)["accuracy"] == 1


def test_without_labels_the_scores_are_null_and_the_seams_stand(tmp_path):
    run = make_run(tmp_path / "run", {"s0": {"a": (label_map(0), None)}})
    metrics = scored(run, Evaluate())  # baselines are asked for, but nothing is there to compare
    assert [metrics[k] for k in ("accuracy", "miou", "baselines", "scenes")] == [None, None, {}, {}]
    assert metrics["seam"]["ratio"] == 1.5
    assert "no scores" in format_table(metrics)


def test_baselines_are_scored_beside_the_maps(tmp_path):
    truth = label_map(0, classes=2)
    run = make_run(tmp_path / "run", {"s0": {"a": (truth, write(tmp_path / "label.tif", truth))}})
    settings = Evaluate(baselines=["raw", "blurred"], sample=1000)
    with pytest.raises(SassError, match="fit the baselines first"):
        evaluate_shard(run, "s0", settings)

    # raw pixels tell the two labels apart without a fault, but for a strip without data
    place = Georeference(None, Affine.identity())
    group = create_scene(run.scene("a"), (1, 60, 80), "uint8", ["grey"], place, 16, 64, bins=4)
    valid = np.ones((60, 80), np.uint8)
    valid[:6] = 0
    group["bands"][:] = ((50 + 100 * truth) * valid)[None]
    group["valid"][:] = valid
    band = {"median": 100.0, "dark": 0.0, "soft": 10.0, "scale": 0.5, "spread": 50.0}
    band |= {"name": "grey", "low": 0.0, "high": 255.0, "pixels": 1}
    write_json(run.statistics, {"bands": [band], "clip": 4.0, "from": {}})
    ingested = read_json(run.manifest("ingest", "s0"))
    ingested["scenes"]["a"]["valid"] = int(valid.sum())
    write_json(run.manifest("ingest", "s0"), ingested)
    fit_baselines(run, ["s0"], settings, 2, Model())

    metrics = scored(run, settings)
    assert metrics["accuracy"] == 1
    assert metrics["baselines"]["raw"]["accuracy"] == 0.9
    assert metrics["baselines"]["raw"]["many_to_one"]["uses_labels"]
    assert 0.5 < metrics["baselines"]["blurred"]["accuracy"] < 0.9
    text = format_table(metrics)
    assert "SASS" in text
    raw = next(line for line in text.splitlines() if "raw pixels" in line)
    assert raw.split()[-2] == "90.00%"
    assert format_table(read_json(run.metrics)) == text


@pytest.mark.skipif(not REFEREE.exists(), reason="no ../shared/referee beside the checkout")
def test_maps_on_disk_get_the_score_of_the_referee(tmp_path):
    rows = {}
    for i in range(3):
        truth, answer = label_map(i, classes=5), label_map(10 + i, classes=7)
        agree = np.random.default_rng(i).random(truth.shape) < 0.6
        answer = np.where(agree, truth, answer).astype(np.uint8)
        answer[:9, i:40] = 255
        truth[30:40, 3:20] = 255
        rows[f"scene{i}"] = (answer, write(tmp_path / "labels" / f"scene{i}.tif", truth))
    first, *others = rows
    run = make_run(tmp_path / "run", {"s0": {first: rows[first]}, "s1": {k: rows[k] for k in others}})
    metrics = scored(run)
    arguments = ["--pred", run.root / "segments", "--labels", tmp_path / "labels", "--classes", "5"]
    command = [sys.executable, REFEREE, *arguments, "--json", tmp_path / "out.json"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = json.loads((tmp_path / "out.json").read_text())
    for key in ("accuracy", "miou", "pixels", "answered"):
        assert metrics[key] == theirs[key], key
    assert [metrics["iou"][str(i)] for i in range(5)] == theirs["iou"]
    assert metrics["many_to_one"] == {**theirs["many_to_one"], "uses_labels": True}
