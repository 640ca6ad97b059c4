"""The whole workflow on a small made archive: fresh, more scenes, ready embeddings, broken scenes.

What each kind of change makes anew is in ``test_increments``.
"""

import json
import os
import shutil

import numpy as np
import pytest
import rasterio
from small_archive import SIDE
from snake import sass, snakemake

from sass.catalog import load_index, load_shard
from sass.files import read_json
from sass.run import Run


def test_a_fresh_run_leaves_everything_that_is_promised(fresh):
    archive, done, _ = fresh
    assert done.code == 0, done.text
    run = archive.run
    for path in (run.catalog, run.statistics, run.encoder, run.training_log, run.codebook, run.hierarchy):
        assert path.is_file(), path
    for scene in ("first", "second", "third", "fourth"):
        assert run.scene(scene).is_dir() and run.features(scene).is_dir()
        assert sorted(path.name for path in run.segments(scene).iterdir()) == [
            "codes.tif",
            "confidence.tif",
            "item.json",
            "segments.qml",
            "segments.tif",
            "segments.tif.aux.xml",
        ]
    assert (run.report / "index.html").is_file()
    metrics = read_json(run.metrics)
    assert 0 < metrics["accuracy"] <= 1
    assert set(metrics["scenes"]) == {"first", "second", "third"}
    assert set(metrics["baselines"]) == {"raw"}
    shards = {"ingest": 2, "features": 2, "segment": 2, "evaluate": 2}
    once = ("normalize", "train", "codebook", "hierarchy", "baselines", "metrics", "report", "complete")
    assert done.jobs == shards | dict.fromkeys(once, 1)
    for stage, jobs in done.jobs.items():
        assert len(list((run.root / "logs" / stage).glob("*.log"))) == jobs
        assert len(list((run.benchmarks / stage).glob("*.tsv"))) == jobs


def test_statistics_come_from_the_fit_scenes_only(archive):
    statistics = read_json(archive.run.statistics)
    assert set(statistics["from"]["scenes"]) == {"first", "second"}


def test_a_new_scene_is_computed_alone_with_what_stands(archive):
    run = archive.run
    frozen = [run.statistics, run.encoder, run.codebook, run.hierarchy, run.baselines]
    before = [path.stat().st_mtime_ns for path in frozen]
    archive.make_scene("fifth", seed=5)
    archive.scan()
    (shard,) = [name for name in load_index(run) if "fifth" in load_shard(run, name)]
    assert not load_index(run)[shard].fit

    done = snakemake(archive.folder)
    assert done.code == 0, done.text
    steps = ("ingest", "features", "segment", "evaluate", "metrics", "report", "complete")
    assert done.jobs == dict.fromkeys(steps, 1)
    for stage in steps[:4]:
        said = (run.root / "logs" / stage / f"{shard}.log").read_text()
        kept = 1 if stage == "evaluate" else 2
        assert f"{stage} {shard}: 1 computed, {kept} up to date, 0 set aside" in said
    assert [path.stat().st_mtime_ns for path in frozen] == before
    assert "fifth" in read_json(run.metrics)["scenes"]
    again = snakemake(archive.folder)
    assert again.code == 0 and again.jobs == {} and "Nothing to be done" in again.text


def test_embeddings_that_are_there_already_are_mapped_without_an_encoder(archive):
    run = archive.run
    shutil.copytree(run.root / "features", archive.folder / "embeddings")
    run.encoder.unlink()
    done = snakemake(archive.folder, "features={source: 'embeddings/{scene}.zarr', appearance: false}")
    assert done.code == 0, done.text
    once = ("codebook", "hierarchy", "metrics", "report", "complete")
    assert done.jobs == {"features": 2, "segment": 2, "evaluate": 2} | dict.fromkeys(once, 1)
    assert not run.encoder.exists()
    page = (run.report / "index.html").read_text()
    assert "embeddings that were there already were clustered" in page and "Training" not in page


def test_broken_scenes_are_named_and_stop_nothing_else(archive):
    for seed, scene in enumerate(("cut-short", "empty", "good"), start=4):
        archive.make_scene(scene, seed)
    cut_short, empty = archive.raster("cut-short"), archive.raster("empty")
    os.truncate(cut_short, cut_short.stat().st_size // 2)
    with rasterio.open(empty, "r+") as raster:
        raster.write(np.zeros((3, SIDE, SIDE), np.uint8))
    archive.scan()  # headers are in order

    done = snakemake(archive.folder)
    assert done.code != 0
    for scene in ("cut-short", "empty"):
        assert f"set aside: {scene}: ingest: " in done.text
    run = archive.run
    assert (run.segments("good") / "segments.tif").is_file()
    assert not run.segments("empty").exists()
    assert not (run.root / "manifests" / "complete.json").exists()
    assert {"first", "second", "third", "good"} == set(read_json(run.metrics)["scenes"])
    page = (run.report / "index.html").read_text()
    assert "cut-short" in page and "empty" in page

    again = snakemake(archive.folder)
    assert again.code != 0 and again.jobs == {"complete": 1}  # still so, and nothing is computed to say it

    for path in (cut_short, empty):
        path.unlink()
    archive.scan()
    assert snakemake(archive.folder).code == 0
    assert json.loads((run.root / "manifests" / "complete.json").read_text())


def contents_of(run: Run) -> dict[str, bytes]:
    """Return every file of a run, but not how long its jobs took, which the pages of the report show too."""
    files = (path for path in run.root.rglob("*") if path.is_file())
    named = {path.relative_to(run.root).as_posix(): path for path in files}
    timed = ("benchmarks/", "logs/", "report/", "manifests/report/")
    kept = {name for name in named if not name.startswith(timed)} | {"report/metrics.json"}
    return {name: named[name].read_bytes() for name in sorted(kept)}


def test_what_a_repair_removes_is_computed_again_and_nothing_else(archive):
    run = archive.run
    before = contents_of(run)
    chunk = run.scene("third") / "bands" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    os.truncate(run.segments("third") / "segments.tif", 100)
    run.manifest("evaluate", "s00001").unlink()
    assert snakemake(archive.folder, "-n").jobs.keys() <= {"evaluate", "metrics", "report", "complete"}

    looked = sass(archive.folder, "verify", "run", "--repair")
    assert looked.code == 4, looked.text
    for fault in (
        "fault: ingest, scene third: scenes/third.zarr/bands/c/0/0/0 has other bytes than were written",
        "fault: segment, scene third: segments/third/segments.tif ends after 100 of",
        "fault: evaluate, shard s00001: manifests/evaluate/s00001.json is missing",
    ):
        assert fault in looked.text
    done = snakemake(archive.folder)
    assert done.code == 0, done.text
    steps = ("ingest", "features", "segment", "evaluate")
    assert done.jobs == dict.fromkeys((*steps, "metrics", "report", "complete"), 1)
    for stage, said in zip(steps, ("1 computed, 1", "0 computed, 2", "1 computed, 1", "0 computed, 1")):
        log = (run.root / "logs" / stage / "s00001.log").read_text()
        assert f"{stage} s00001: {said} up to date" in log
    assert contents_of(run) == before
    assert sass(archive.folder, "verify", "run").code == 0


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("scenes/first.zarr/zarr.json", "ingest"),
        ("statistics.json", "normalize"),
        ("model/encoder.safetensors", "train"),
        ("codebook/hierarchy.json", "hierarchy"),
        ("report/metrics.json", "metrics"),
    ],
)
def test_the_workflow_asks_for_what_a_repair_has_removed(archive, file, rule):
    (archive.run.root / file).write_text("{")
    looked = sass(archive.folder, "verify", "run", "--repair")
    assert looked.code == 4 and file in looked.text
    plan = snakemake(archive.folder, "-n")
    assert plan.code == 0 and plan.jobs[rule] == 1, plan.text


def test_snakemake_makes_its_own_report(archive):
    done = snakemake(archive.folder, "--report", "snakemake.html")
    assert done.code == 0, done.text
    page = (archive.folder / "snakemake.html").read_text()
    assert "metrics.json" in page and "index.html" in page
