"""The whole workflow on a small made archive: fresh, again, more scenes, other classes, broken scenes."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin
from snake import Done, sass, snakemake

from sass.catalog import load_index, load_shard
from sass.manifest import read_json
from sass.run import Run

SIDE = 128
CONFIG = {
    "catalog": {"shard_size": 2, "hold_out": ["third"]},
    "ingest": {"chunk": 64, "shard": 128},
    "model": {"widths": [8], "blocks": 1, "dim": 8},
    "train": {"steps": 4, "batch": 2, "crop": 32, "pool": 4, "refresh": 2, "points": 64, "checkpoint": 2},
    "features": {"window": 256},
    "codebook": {"codes": 12, "sample": 2000, "epochs": 1, "refine": 1},
    "hierarchy": {"trees": 2},
    "segment": {"classes": 4, "window": 128},
    "evaluate": {"baselines": ["raw"], "sample": 500},
    "report": {"quicklook": 64, "chips": 1},
}
SCORED = ("evaluate", "metrics", "report", "complete")


def make_scene(folder: Path, name: str, seed: int) -> Path:
    """Write a scene of fields in four kinds, three bands, and its label raster."""
    rng = np.random.default_rng(seed)
    kinds = np.kron(rng.integers(0, 4, (8, 8)), np.ones((SIDE // 8, SIDE // 8), int))
    image = 40 * (kinds + 1) + rng.integers(-8, 9, (3, SIDE, SIDE))
    image[:, :16, :16] = 0  # no data
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000 + 2_000 * seed, 5_400_000, 10, 10)}
    for path, bands, nodata in (("archive", image, 0), ("labels", kinds[None], 255)):
        target = folder / path / f"{name}.tif"
        target.parent.mkdir(exist_ok=True)
        with rasterio.open(
            target, "w", "GTiff", SIDE, SIDE, len(bands), dtype="uint8", nodata=nodata, **place
        ) as raster:
            raster.write(bands.astype(np.uint8))
    return folder / "archive" / f"{name}.tif"


@dataclass(frozen=True)
class Archive:
    """Where the first scenes lie, and a folder with a run of them."""

    home: Path
    folder: Path

    @property
    def run(self) -> Run:
        return Run(self.folder / "run")

    def scan(self, *arguments: str | Path) -> Done:
        """Scan the first scenes and what else is asked for, with the labels of the first two."""
        found = [self.home / "archive" / "*.tif", *arguments]
        labels = [self.home / "labels" / f"{name}.tif" for name in ("first", "second")]
        return sass(
            self.folder, "scan", *found, "--labels", labels[0], "--labels", labels[1], "--into", "run"
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Archive, Done]:
    """Run the workflow once, on two scenes to fit on and one held out."""
    folder = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("first", "second", "third")):
        make_scene(folder, name, seed)
    archive = Archive(folder, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    scanned = archive.scan("--config", "config.yaml", "--labels", "labels/third.tif")
    assert scanned.code == 0, scanned.text
    return archive, snakemake(folder)


@pytest.fixture
def archive(finished, tmp_path) -> Archive:
    """Give a copy of the finished run, with Snakemake's memory of it, to change."""
    first, done = finished
    assert done.code == 0, done.text
    for name in ("run", ".snakemake"):
        shutil.copytree(first.folder / name, tmp_path / name)
    return Archive(first.home, tmp_path)


def test_a_fresh_run_leaves_everything_that_is_promised(finished):
    archive, done = finished
    assert done.code == 0, done.text
    run = archive.run
    for path in (run.catalog, run.statistics, run.encoder, run.training_log, run.codebook, run.hierarchy):
        assert path.is_file(), path
    for scene in ("first", "second", "third"):
        assert run.scene(scene).is_dir() and run.features(scene).is_dir()
        assert sorted(path.name for path in run.segments(scene).iterdir()) == [
            "confidence.tif",
            "item.json",
            "segments.tif",
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


def test_statistics_come_from_the_fit_scenes_only(finished):
    statistics = read_json(finished[0].run.statistics)
    assert set(statistics["from"]["scenes"]) == {"first", "second"}


def test_the_same_again_does_nothing(archive):
    done = snakemake(archive.folder)
    assert done.code == 0 and done.jobs == {}
    assert "Nothing to be done" in done.text


def test_a_new_scene_is_computed_alone_with_what_stands(archive):
    run = archive.run
    frozen = [run.statistics, run.encoder, run.codebook, run.hierarchy, run.baselines]
    before = [path.stat().st_mtime_ns for path in frozen]
    make_scene(archive.folder, "fourth", seed=3)
    assert archive.scan("archive/*.tif", "--labels", "labels/*.tif").code == 0
    (shard,) = [name for name in load_index(run) if "fourth" in load_shard(run, name)]
    assert not load_index(run)[shard].fit

    done = snakemake(archive.folder)
    assert done.code == 0, done.text
    steps = ("ingest", "features", "segment", "evaluate", "metrics", "report", "complete")
    assert done.jobs == dict.fromkeys(steps, 1)
    for stage in steps[:4]:
        said = (run.root / "logs" / stage / f"{shard}.log").read_text()
        assert f"{stage} {shard}: 1 computed, 1 up to date, 0 set aside" in said
    assert [path.stat().st_mtime_ns for path in frozen] == before
    assert "fourth" in read_json(run.metrics)["scenes"]


def test_another_number_of_classes_trains_nothing_and_reads_the_same_features(archive):
    done = snakemake(archive.folder, "segment={classes: 3}")
    assert done.code == 0, done.text
    once = ("baselines", "metrics", "report", "complete")
    assert done.jobs == {"segment": 2, "evaluate": 2} | dict.fromkeys(once, 1)
    run = archive.run
    assert read_json(run.manifest("segment", "s00000"))["scenes"]["first"]["classes"] == 3


@pytest.mark.parametrize(
    ("settings", "rerun"),
    [
        ("report={title: Fields}", {"report", "complete"}),
        ("evaluate={ignore: [3]}", {"baselines", *SCORED}),
        ("hierarchy={trees: 5}", {"hierarchy", "segment", *SCORED}),
        (
            "train={seed: 1}",
            {
                "train",
                "features",
                "codebook",
                "hierarchy",
                "segment",
                "evaluate",
                "metrics",
                "report",
                "complete",
            },
        ),
    ],
)
def test_a_change_of_configuration_reruns_what_depends_on_it(archive, settings, rerun):
    plan = snakemake(archive.folder, settings, "-n")
    assert plan.code == 0, plan.text
    assert set(plan.jobs) == rerun


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


def test_a_label_raster_replaced_changes_only_scores(archive):
    (archive.folder / "labels").mkdir()
    shutil.copyfile(archive.home / "labels" / "third.tif", archive.folder / "labels" / "third.tif")
    assert archive.scan("--labels", "labels/third.tif").code == 0
    plan = snakemake(archive.folder, "-n")
    assert plan.jobs == {"evaluate": 1, "metrics": 1, "report": 1, "complete": 1}


def test_broken_scenes_are_named_and_stop_nothing_else(archive):
    cut_short = make_scene(archive.folder, "cut-short", seed=4)
    os.truncate(cut_short, cut_short.stat().st_size // 2)
    empty = make_scene(archive.folder, "empty", seed=5)
    with rasterio.open(empty, "r+") as raster:
        raster.write(np.zeros((3, SIDE, SIDE), np.uint8))
    make_scene(archive.folder, "good", seed=6)
    assert archive.scan("archive/*.tif", "--labels", "labels/*.tif").code == 0  # headers are in order

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
    assert archive.scan("archive/*.tif", "--labels", "labels/*.tif").code == 0
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
    for stage, said in zip(steps, ("1 computed, 0", "0 computed, 1", "1 computed, 0", "0 computed, 1")):
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
