"""What is explained before a run, held against what a small run leaves; the clock of a simulated cluster."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import add_features, make_run, ramps
from scenes import make_geotiff

from sass.cli import main
from sass.config import Config
from sass.cost import Arithmetic, Look, load_rates, store_inodes
from sass.errors import ConfigError
from sass.explain import as_json, explain
from sass.files import remove
from sass.grid import tiles
from sass.run import Run
from sass.settings import assignment, load
from sass.simulate import Cluster, Job, critical_path, simulate
from sass.store import FeatureStore, SceneStore

SHAPES = {"flat": (70, 300), "large": (330, 410), "small": (64, 64)}
SETTINGS = {
    "catalog": {"shard_size": 2},
    "ingest": {"chunk": 32, "shard": 128},
    "model": {"widths": [8, 16], "blocks": 1, "dim": 8, "frozen": True},
    "features": {"window": 128},
    "codebook": {"codes": 12, "sample": 3000, "refine": 1},
    "hierarchy": {"trees": 2},
    "segment": {"classes": 4, "window": 128},
    "evaluate": {"baselines": []},
}
MEASURE = """
import sys
from pathlib import Path
from sass.cli import main
code = main(sys.argv[1:])
# not that of getrusage, in which a child takes over its parent's
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """Take three scenes of odd shapes, one with labels, from scan to segment."""
    folder = tmp_path_factory.mktemp("explained")
    for seed, (name, shape) in enumerate(SHAPES.items()):
        make_geotiff(folder / "scenes" / f"{name}.tif", data=ramps(shape, seed, 3), nodata=None)
    labels = (ramps(SHAPES["small"], 9, 1) // 64).astype(np.uint8)
    make_geotiff(folder / "labels" / "small.tif", data=labels, nodata=None)
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    run = Run(folder / "run")
    words = [
        str(folder / "scenes"),
        "--labels",
        str(folder / "labels"),
        "--config",
        str(folder / "config.yaml"),
    ]
    assert main(["scan", *words, "--into", str(run.root)]) == 0
    for stage in ("ingest", "normalize", "train", "features", "codebook", "hierarchy", "segment", "evaluate"):
        assert main([stage, str(run.root), "--threads", "1"]) == 0
    return run


def planned(run: Run, gpus: int = 0, **layers) -> dict[str, dict]:
    cluster = Cluster(4, gpus, 100)
    plan = explain(run, load(run.config, layers), load_rates(None), cluster)
    return {stage["stage"]: stage for stage in as_json(plan)["stages"]}


def entries(folder: Path) -> int:
    """Count a folder and all files and folders below it."""
    return 1 + sum(len(files) + len(folders) for _, folders, files in os.walk(folder))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_windows_are_those_of_the_stages(finished):
    plan = planned(finished)
    for stage, store, array in (
        ("ingest", finished.scene, "bands"),
        ("features", finished.features, "embedding"),
    ):
        done = 0
        for name in SHAPES:
            group = (SceneStore if stage == "ingest" else FeatureStore)(store(name)).group[array]
            done += len(list(tiles(group.shape[1:], group.shards[1])))
        assert plan[stage]["use"]["windows"] == done
    assert plan["segment"]["use"]["windows"] == sum(len(list(tiles(shape, 128))) for shape in SHAPES.values())


@pytest.mark.parametrize("stage", ["ingest", "features", "segment"])
def test_inodes_are_exactly_those_that_are_left_behind(finished, stage):
    place = {"ingest": finished.scene, "features": finished.features, "segment": finished.segments}[stage]
    left = sum(entries(place(name)) for name in SHAPES)
    records = sum(path.is_file() for path in finished.manifest(stage, "x").parent.glob("*/*.json"))
    # two jobs: manifest and folder of the records are there; log, measured time and note are Snakemake's
    assert planned(finished)[stage]["use"]["inodes"] == left + records + 2 * 5


def test_bytes_are_those_written_but_for_how_well_pixels_compress(finished):
    """Rates of this content instead of the defaults: the rest must then agree within what a header takes."""
    pixels = {name: SceneStore(finished.scene(name)) for name in SHAPES}
    raw = sum(store.bands.nbytes for store in pixels.values())
    stored = sum(size(finished.scene(name) / "bands") for name in SHAPES)
    histograms = sum(size(finished.scene(name) / "histogram") for name in SHAPES)
    cells = sum(FeatureStore(finished.features(name)).embedding.nbytes for name in SHAPES)
    embedded = sum(size(finished.features(name) / "embedding") for name in SHAPES)
    rates = load_rates(None)
    rates["bytes"] |= {
        "pixels": stored / raw,
        "float16": embedded / cells,
        "histogram": histograms / (3 * 3 * 65536 * 8),
    }
    plan = explain(finished, load(finished.config), rates, Cluster(4, 0, 100))
    written = {stage.stage: stage.use.written for stage in plan.stages}
    for stage, place in (("ingest", finished.scene), ("features", finished.features)):
        left = sum(size(place(name)) for name in SHAPES)
        # a dozen of small files a scene, of at most some kB each, is left out of the arithmetic
        assert written[stage] == pytest.approx(left, abs=len(SHAPES) * 20_000)
    read = {stage.stage: stage.use.read for stage in plan.stages}
    assert read["ingest"] == sum(path.stat().st_size for path in (finished.root.parent / "scenes").iterdir())
    assert read["codebook"] == 3 * written["features"]
    assert read["segment"] > written["features"]  # neighbouring chunks are read twice


def test_changes_cost_something_where_they_are_asked_for_and_scenes_follow_others(tmp_path):
    for year in (2019, 2020, 2021):
        taken = {"TIFFTAG_DATETIME": f"{year}:06:01 10:00:00"}
        make_geotiff(tmp_path / "scenes" / f"y{year}.tif", data=ramps((130, 1100), year, 3), tags=taken)
    run = Run(tmp_path / "run")
    words = ["scan", str(tmp_path / "scenes"), "--into", str(run.root), "--set", "catalog.shard_size=2"]
    assert main(words) == 0
    asked, not_asked = (
        explain(
            run,
            load({"model": SETTINGS["model"], "change": {"maps": maps}}),
            load_rates(None),
            Cluster(4, 0, 9),
        )
        for maps in (True, False)
    )
    assert "change" not in {stage.stage for stage in not_asked.stages}
    (change,) = [stage for stage in asked.stages if stage.stage == "change"]
    assert (change.jobs, change.use.windows) == (2, 2 * 2)
    # of a scene: its folder, two maps, names and style, its record; of a job: five
    assert change.use.inodes == 2 * 6 + 2 * 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is counted as Linux does")
@pytest.mark.parametrize("stage", ["ingest", "features", "segment"])
def test_memory_is_that_of_a_job(finished, stage, monkeypatch):
    # scenes as small as these do not fill a column of windows
    monkeypatch.setattr("sass.cost.COLUMN", max(width for _, width in SHAPES.values()))
    remove(finished.manifest(stage, "s00000").with_suffix(""))  # the records, so that there is work to do
    words = [stage, str(finished.root), "--threads", "1", "--shard", "s00000"]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
    cache = 134 if stage == "ingest" else 0  # of GDAL, in MB, which scenes as small as these do not fill
    # mostly that of the libraries, which differ from version to version
    foretold = planned(finished)[stage]["peak_mb"] - cache
    assert foretold == pytest.approx(float(done.stdout.split()[-1]), rel=0.4)


def test_jobs_are_those_of_the_workflow_and_those_left_are_not_done(finished):
    plan = planned(finished)
    assert {stage: row["jobs"] for stage, row in plan.items()} == {
        "ingest": 2, "normalize": 1, "train": 1, "features": 2, "codebook": 1, "hierarchy": 1, "segment": 2,
        "baselines": 1, "evaluate": 1, "metrics": 1, "report": 1, "complete": 1,
    }  # fmt: skip
    left = {stage for stage, row in plan.items() if row["left"]}
    assert left == {"report", "complete"}


def test_int8_and_a_wider_shard_are_seen(finished):
    plain = planned(finished)
    small = planned(finished, features={"dtype": "int8"}, ingest={"shard": 256})
    # of 12 components, 4 keep what rounding takes off
    assert small["features"]["use"]["written"] < 0.7 * plain["features"]["use"]["written"]
    assert small["ingest"]["use"]["inodes"] < plain["ingest"]["use"]["inodes"]


def test_the_encoder_is_measured_by_what_it_multiplies():
    look = Look.of(3, Config())
    halves, widths, dim, blocks = 32, (64, 128, 256), 64, 2
    # multiplications of each 3 x 3 convolution at its stride; stem, stages with skips, laterals, last
    products = (9 * 4 * halves) / 2**2 + (9 * halves * widths[0]) / 4**2
    for level, width in enumerate(widths):
        into, area = widths[max(level - 1, 0)], (4 * 2**level) ** 2
        products += (
            9 * into * width + (2 * blocks - 1) * 9 * width**2 + (into * width if level else 0)
        ) / area
        products += width * 2 * dim / area
    products += 9 * 2 * dim * dim / 4**2
    assert look.products == pytest.approx(products)
    assert (look.stride, look.alignment, look.dim) == (4, 16, 64)


def test_a_gpu_takes_over_the_encoder(finished):
    without, with_one = planned(finished), planned(finished, gpus=1)
    assert without["features"]["gpu_hours"] == 0 < with_one["features"]["gpu_hours"]
    assert with_one["features"]["cpu_hours"] < without["features"]["cpu_hours"]


def test_rates_of_a_file_are_taken_and_wrong_ones_refused(finished, tmp_path, capsys):
    own = tmp_path / "rates.yaml"
    own.write_text("about: ours\nseconds: {segment: 1000}\n")
    assert main(["explain", str(finished.root), "--rates", str(own), "--json", "--cores", "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rates"] == "ours"
    slow = {stage["stage"]: stage["cpu_hours"] for stage in plan["stages"]}
    assert slow["segment"] > 100 * slow["ingest"]
    own.write_text("seconds: {segmet: 1}\n")
    with pytest.raises(ConfigError, match="segmet"):
        load_rates(own)


def test_rates_are_scaled_by_what_a_finished_run_took(finished):
    rates, cluster = load_rates(None), Cluster(4, 0, 100)
    for shard, (seconds, megabytes) in {"s00000": (40, 900), "s00001": (20, 700)}.items():
        path = finished.benchmarks / "ingest" / f"{shard}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n1.5\t{megabytes}\t{seconds}\n")
    plan = explain(finished, load(finished.config), rates, cluster, finished)
    ingest = next(stage for stage in plan.stages if stage.stage == "ingest")
    start = 2 * (
        rates["seconds"]["job"] - rates["seconds"]["imports"]
    )  # what Snakemake takes was not measured
    assert ingest.cpu_hours * 3600 == pytest.approx(60 + start)
    assert ingest.peak_mb == pytest.approx(900)


def test_explaining_prints_a_table_and_needs_a_catalog_only(finished, tmp_path, capsys):
    bare = tmp_path / "run"
    shutil.copytree(finished.root / "catalog", bare / "catalog")
    assert main(["explain", str(bare), "--gpus", "2", *("--set", "segment.classes=3")]) == 0
    said = capsys.readouterr().out
    assert "critical path" in said and "ingest" in said and "2 GPUs" in said


DIAMOND = (
    Job("a", 3, 1, 0),
    Job("a", 5, 1, 0),
    Job("b", 2, 2, 0, (0,)),
    Job("b", 4, 1, 1, (1,)),
    Job("c", 1, 1, 0, (2, 3)),
)


@pytest.mark.parametrize(
    ("cluster", "seconds"),
    [
        (Cluster(100, 100, 100), 10),  # 5 + 4 + 1: the critical path
        (Cluster(100, 100, 1), 15),  # one after the other
        (Cluster(2, 1, 100), 12),  # both a; the b of two cores waits for the other b, or that one for it
        (Cluster(1, 0, 100), 15),  # cut down to what there is
    ],
)
def test_a_cluster_worked_out_by_hand(cluster, seconds):
    assert simulate(DIAMOND, cluster).seconds == seconds
    assert critical_path(DIAMOND) == (10, [1, 3, 4])


@pytest.mark.parametrize("seed", range(20))
def test_a_simulation_lies_between_its_bounds(seed):
    """Never under the critical path or the work over the cores, never over their sum (Graham 1969)."""
    random = np.random.default_rng(seed)
    jobs = [
        Job(
            "s",
            float(random.integers(1, 20)),
            1,
            0,
            tuple(random.permutation(i)[: random.integers(0, 3)].tolist()),
        )
        for i in range(60)
    ]
    longest, chain = critical_path(jobs)
    assert longest == sum(jobs[i].seconds for i in chain)
    assert all(a in jobs[b].after for a, b in itertools.pairwise(chain))
    work = sum(job.seconds for job in jobs)
    assert simulate(jobs, Cluster(1000, 0, 1000)).seconds == longest
    for cores in (1, 3, 8):
        took = simulate(jobs, Cluster(cores, 0, 1000)).seconds
        assert max(longest, work / cores) <= took <= longest + work / cores


def test_arithmetic_of_a_scene_that_is_resampled_is_an_estimate_of_its_grid():
    from bench.dag import sentinel

    config = load(assignment("ingest.resolution=20"), assignment("ingest.bands=[1, 2]"))
    arithmetic = Arithmetic(config, Look(4, 16, 144, 64, 1.0, 1.0), load_rates(None))
    assert arithmetic.grid(sentinel("x")) == (2, 5490, 5490)


def test_an_int8_store_has_an_array_more(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((300, 420))}})
    add_features(run, ["s00000"], dtype="int8", window=256)
    store = FeatureStore(run.features("a"))
    assert entries(run.features("a")) == store_inodes(*store.shape, store.embedding.shards[1], 3) + 1
