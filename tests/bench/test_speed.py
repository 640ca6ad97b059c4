"""The benchmark of speed: its rows, and that the limits do the work that stages do."""

import json
import math

import numpy as np
import pytest
import rasterio
import torch
import zarr
from scenes import make_geotiff

import bench.memory
from bench import limits
from bench.machine import command
from bench.parts import least, parts_of
from bench.ratio import Pairs, Row, alternated, table
from bench.scenes import side_of, write_scene
from bench.speed import main
from bench.stages import Subject
from bench.users import OTHERS, beside, there
from bench.workers import growth_of_scenes
from sass.cli import main as sass
from sass.run import Run

TINY = {
    "model": {"widths": [8, 16], "blocks": 1, "dim": 8},
    "train": {"steps": 4, "batch": 2, "crop": 32, "pool": 4, "points": 64},
    "features": {"window": 256},
    "codebook": {"codes": 12, "sample": 2000, "refine": 1},
    "hierarchy": {"trees": 2},
}
WORDS = [word for name, keys in TINY.items() for word in ("--set", f"{name}={json.dumps(keys)}")]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "made.tif", 0.1)


def test_one_command_prints_a_table_for_each_stage_and_writes_its_rows(tmp_path, capsys):
    names = ("ingest", "training", "features", "codebook", "segment", "whole", "plan")
    only = [word for name in names for word in ("--only", name)]
    where = ["--into", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    main([*where, "--megapixels", "0.1", "--times", "1", "--threads", "1", *only, *WORDS])
    printed = capsys.readouterr().out
    for name in names:
        assert f"### {name}\n" in printed
        rows = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert rows
        for row in rows:
            assert {"stage", "metric", "value", "limit", "reach", "ok", "commit", "date"} <= row.keys()
            assert math.isfinite(row["value"])
            if row["reach"] is not None:
                assert row["ok"] is (
                    row["value"] >= row["reach"] if row["at"] == ">=" else row["value"] <= row["reach"]
                )
    assert not (tmp_path / "work").exists()


def test_a_ratio_is_the_median_of_pairs_and_a_lower_bound_is_kept_from_above():
    pairs = Pairs(ours=[2.0, 4.0, 2.0], bare=[1.0, 3.0, 1.8])
    row = pairs.row("ingest", "speed", "copy", (10, "Mpx"), reach=0.7)
    assert row.value == 0.75 and row.spread == (0.5, 0.9, 3) and row.ok
    assert (row.ours, row.bare, row.unit) == (5.0, 10 / 1.8, "Mpx/s")
    assert not Row("memory", "peak", 2100, "2 GiB", 2048, "<=").ok
    assert "| 0.75 | >= 0.7 | yes |" in table([row])


def test_things_are_done_in_turn_and_warmed_first():
    done = []
    pairs = alternated(lambda: done.append("ours"), lambda: done.append("bare") or 3.0, 2)
    assert done == ["ours", "bare"] * 3
    assert pairs.bare == [3.0, 3.0]  # its own seconds, where it returns some
    assert len(pairs.ours) == 2


def test_made_scenes_are_always_the_same_and_compress_like_real_ones(scene, tmp_path):
    again = write_scene(tmp_path / "again.tif", 0.1)
    with rasterio.open(scene) as one, rasterio.open(again) as other:
        pixels = one.read()
        assert one.shape == (side_of(0.1),) * 2 and one.dtypes == ("uint16",) * 4
        np.testing.assert_array_equal(pixels, other.read())
        assert 0.01 < (pixels == 0).all(0).mean() < 0.05  # beside the orbit
    share = scene.stat().st_size / pixels.nbytes
    assert 0.6 < share < 0.9  # of NAIP and Landsat, deflate leaves 0.73 to 0.83


def test_the_limit_of_ingest_writes_the_pixels_that_ingest_does(scene, tmp_path):
    limits.copy_raster(scene, tmp_path / "copy.zarr", threads=2)
    assert sass(["scan", str(scene), "--into", str(tmp_path / "run")]) == 0
    assert sass(["ingest", str(tmp_path / "run"), "--threads", "2"]) == 0
    ours = zarr.open_array(tmp_path / "run" / "scenes" / "made.zarr" / "bands")
    copy = zarr.open_array(tmp_path / "copy.zarr")
    assert (ours.chunks, ours.shards) == (copy.chunks, copy.shards)
    np.testing.assert_array_equal(ours[:], copy[:])


def test_the_limit_of_segment_writes_the_nearest_code_of_every_pixel(tmp_path):
    random = np.random.default_rng(0)
    vectors, codes = random.random((32 * 40, 5), np.float32), random.random((7, 5), np.float32)
    of_code = np.array([0, 0, 1, 1, 2, 2, 2], np.uint8)
    limits.write_nearest(vectors, codes, of_code, 40, tmp_path, threads=2)
    with rasterio.open(tmp_path / "segments.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        classes = raster.read(1)
    distances = ((vectors[:, None] - codes) ** 2).sum(2)
    nearest = of_code[distances.argmin(1)].reshape(32, 40)
    np.testing.assert_array_equal(classes, np.concatenate([nearest, nearest[:8]]))


def test_the_limit_of_the_codebook_passes_as_often_as_it_is_told():
    vectors = np.random.default_rng(0).random((3000, 6), np.float32)
    model = limits.cluster_in_memory(vectors, 8, batch=500, passes=3, threads=1)
    assert model.n_steps_ == 3 * 3000 // 500
    assert len(model.labels_) == 3000


@pytest.mark.parametrize("name", ["pixels", "dask", "grass"])
def test_what_people_do_with_pixels_tells_the_same_land_apart(tmp_path, name):
    _, needed, cluster = OTHERS[name]
    if not there(needed):
        pytest.skip(f"{needed} is not installed")
    left, right = np.full((3, 40, 20), 50), np.full((3, 40, 20), 200)
    image = np.concatenate([left, right], axis=2) + np.random.default_rng(0).integers(-5, 6, (3, 40, 40))
    labels = np.repeat([[1, 2]], 40, axis=0).repeat(20, axis=1)
    make_geotiff(tmp_path / "scenes" / "a.tif", data=image)
    make_geotiff(tmp_path / "labels" / "a.tif", data=labels[None], nodata=None)
    places = [str(tmp_path / "scenes"), "--labels", str(tmp_path / "labels")]
    assert sass(["scan", *places, "--into", str(tmp_path / "run")]) == 0
    (found,) = cluster(Run(tmp_path / "run"), 2)
    assert len(np.unique(found[:, :20])) == len(np.unique(found[:, 20:])) == 1
    assert found[0, 0] != found[0, 39]


def test_what_people_do_instead_stands_beside_each_other():
    units = {"wall_s": 2.0, "cpu_s": 3.0, "peak_mb": 90.0, "accuracy": 0.5, "miou": 0.25}
    rows = [Row("peers", f"k-means: {key}", value, "") for key, value in units.items()]
    assert "| k-means | 2 s | 3 s | 90 MiB | 50.0% | 25.0% |" in beside(rows)


def test_cost_by_scenes_and_workers_is_a_row_each_and_a_curve(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.workers.SCENES", (1, 2))
    monkeypatch.setattr("bench.workers.WORKERS", (1,))
    subject = Subject(tmp_path, 0.05, times=1, threads=1, layers=[TINY])
    rows = growth_of_scenes(subject, tmp_path / "growth.svg", megapixels=0.05)
    assert [row.metric for row in rows] == ["1 scenes, workers: 1", "2 scenes, workers: 1"]
    assert rows[0].value == 1 and rows[1].bare == 2 * rows[0].ours
    curve = (tmp_path / "growth.svg").read_text()
    assert "scenes of 0.05 megapixels" in curve and "1 worker" in curve


def test_the_parts_of_a_stage_can_be_done_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.parts.SIDE", 256)
    parts = parts_of(Subject(tmp_path, 0.1, times=1, threads=1, layers=[TINY]))
    assert list(parts) == ["ingest", "features", "codebook, one pass", "segment"]
    for works in parts.values():
        assert all(least(work, 1) >= 0 for work in works.values())


def test_memory_and_files_of_a_command_are_seen():
    hold = "held = bytearray(200 << 20); files = [tempfile.TemporaryFile() for _ in range(40)]"
    taken, _ = command("-c", f"import tempfile, time; {hold}; time.sleep(0.2)")
    assert 200 < taken["peak_mb"] < 300
    assert 40 < taken["files"] < 60


def test_memory_is_measured_of_every_stage_by_its_command(tmp_path, monkeypatch):
    """The commands run in this process, so that they cost little; what they take is made up."""
    called = []

    def here(*words):
        called.append(words[2])
        assert sass([str(word) for word in words[2:]]) == 0
        return {"peak_mb": 100.0 * (1 + called.count(words[2])), "files": 7}, ""

    monkeypatch.setattr(bench.memory, "command", here)
    threads = torch.get_num_threads()
    subject = Subject(tmp_path, 0.1, times=1, threads=1, layers=[TINY])
    rows = {row.metric: row for row in bench.memory.memory(subject, 0.05, 0.1)}
    torch.set_num_threads(threads)
    assert rows["segment, 0.1 Mpx"].value == 300
    assert rows["segment, 0.1 Mpx to 0.05"].value == 1.5 and not rows["segment, 0.1 Mpx to 0.05"].ok
    assert {name.split(",")[0] for name in rows} == {
        "ingest", "normalize", "train", "features", "codebook", "hierarchy", "segment",
    }  # fmt: skip
