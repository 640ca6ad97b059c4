"""What planning costs: catalogs of 10^3 to 10^6 scenes, and a year of daily additions.

    python -m bench.dag

Nothing is computed of any scene. The catalogs are written by the writers of `sass.scan`, of scenes that are
not there; Snakemake is run on them as users and clusters run it. Time is that of the CPU, user and system,
because other programs on the machine do not change it much; memory is the largest resident one.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rasterio
from rasterio.crs import CRS

from bench.machine import about, command
from sass.catalog import Scene
from sass.config import Catalog
from sass.cost import Arithmetic, Look, load_rates
from sass.files import digest, write_json
from sass.headers import read_rows
from sass.run import ARCHIVE, Run
from sass.scan import Contents, write_catalog
from sass.settings import load
from sass.shards import assign_shards
from sass.sources import Candidate

RESULTS = Path(__file__).parent / "results" / "dag.json"
ARCHIVES = ((1_000, 100), (10_000, 100), (100_000, 100), (1_000_000, 1_000))
"""Scenes of an archive, and of each of its shards."""
YEAR = ((100_000, 100), (100_000, 30))
"""Scenes of an archive at the end of a year, and those that each of its days has brought."""
SIDE = 10_980
"""Pixels along a scene of Sentinel-2 at 10 m."""
NAMES = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")
"""Its bands; the first four are of 10 m."""

REMOTE = [
    "--allowed-rules",
    "ingest",
    "--cores",
    "all",
    "--force",
    "--target-files-omit-workdir-adjustment",
    "--keep-storage-local-copies",
    "--max-inventory-time",
    "0",
    "--retries",
    "0",
    "--nocolor",
    "--no-hooks",
    "--nolock",
    "--ignore-incomplete",
    "--rerun-triggers",
    "mtime",
    "params",
    "input",
    "--skip-script-cleanup",
    "--shared-fs-usage",
    "input-output",
    "persistence",
    "source-cache",
    "sources",
    "software-deployment",
    "storage-local-copies",
    "--latency-wait",
    "60",
    "--scheduler",
    "greedy",
    "--mode",
    "remote",
]
"""What `snakemake.spawn_jobs` gives a job of a cluster beside its target, without what is empty here."""

PARSE = """
import sys, time
import snakemake.cli
from snakemake.workflow import Workflow
include, inside = Workflow.include, []
def timed(*arguments, **named):
    inside.append(time.process_time())
    try:
        return include(*arguments, **named)
    finally:
        started = inside.pop()
        if not inside:
            print("parsed", time.process_time() - started)
Workflow.include = timed
snakemake.cli.main(sys.argv[1:])
"""
"""Runs Snakemake and prints the CPU seconds that the Snakefile and all it includes and imports took."""


NOTHING = Contents({}, {}, set(), {}, {}, {}, {})
"""What a catalog says before there is one."""

FINISH = """
import sys
import snakemake.cli
from snakemake.scheduling.job_scheduler import JobScheduler
def schedule(self):
    for job in self.workflow.dag.needrun_jobs():
        self.workflow.async_run(self.workflow.persistence.finished(job))
    return True
JobScheduler.schedule = schedule
snakemake.cli.main(sys.argv[1:])
"""
"""Lets Snakemake note every job as finished, without its queues: those take a minute for 3,000 jobs."""


def often(times: int, *words: str | Path) -> tuple[dict[str, float], str]:
    """Return the median of several measurements, each number for itself."""
    taken, texts = zip(*(command(*words) for _ in range(times)))
    return {key: statistics.median(one[key] for one in taken) for key in taken[0]}, texts[-1]


def sentinel(scene: str, bands: int = 4) -> Scene:
    """Return the row of a scene of Sentinel-2 that is not there."""
    return Scene(
        id=scene,
        paths=(f"/archive/{scene}.tif",),
        driver="GTiff",
        bands=bands,
        band_names=NAMES[:bands],
        dtype="uint16",
        nodata=(0,) * bands,
        crs=CRS.from_epsg(32633).to_wkt(),
        transform=(10, 0, 500_000, 0, -10, 5_400_000),
        shape=(SIDE, SIDE),
        resolution=(10, 10),
        time="2026-06-01",
        sensor="sentinel-2",
        size=SIDE * SIDE * 2 * bands * 6 // 10,  # compressed
        modified=1,
    )


def write_archive(run: Run, scenes: int, settings: Catalog, bands: int = 4) -> dict[str, list[str]]:
    """Write the catalog of a first scan of so many scenes; return the scenes of each shard."""
    names = [f"T{number:07d}" for number in range(scenes)]
    members, fit = assign_shards(names, {}, (), set(), settings)
    row = sentinel("", bands)
    rows = {name: replace(row, id=name, paths=(f"/archive/{name}.tif",)) for name in names}
    write_catalog(run, Contents(rows, members, fit, {}, {}, {}, {}), NOTHING)
    return members


def write_manifests(run: Run, members: dict[str, list[str]]) -> None:
    """Write the manifests that Snakemake watches; those of segment with what the merge of scores reads."""
    for shard, inside in members.items():
        for stage in ("ingest", "features", "segment"):
            records = {name: record(name, stage) for name in inside} if stage == "segment" else {}
            manifest = {"stage": stage, "shard": shard, "scenes": records, "failed": {}}
            write_json(run.manifest(stage, shard), manifest)


def record(name: str, stage: str) -> dict[str, Any]:
    """Return what a manifest says of a scene with eight classes."""
    pixels = SIDE * SIDE // 8
    return {
        "fingerprint": digest(stage, name),
        "digest": digest(name),
        "classes": 8,
        "counts": {str(k): pixels for k in range(8)},
        "confidence": 0.512345,
        "seam": {"across": [12_345, 219_600], "inside": [12_345, 219_600]},
    }


def finish(run: Run, folder: Path) -> None:
    """Make all that Snakemake watches look finished, its own notes included."""
    fitted = [run.manifest(stage, ARCHIVE) for stage in ("normalize", "train", "codebook", "hierarchy")]
    once = (*fitted, run.metrics, run.report / "index.html", run.complete)
    for path in once:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    now = time.time()
    for path in (*once, *(run.root / "manifests").rglob("*.json")):
        os.utime(path, (now, now))  # equal times: none is older than what it is made of
    command("-c", FINISH, *plan(folder)[2:], "--touch", "--forceall")


def plan(folder: Path) -> list[str | Path]:
    """Return the words that call Snakemake on the run in a folder."""
    return ["-m", "snakemake", "--directory", folder, "--config", "run=run"]


def measure_archive(folder: Path, scenes: int, size: int, times: int) -> dict[str, Any]:
    """Measure the plans of one archive."""
    run = Run(folder / "run")
    members = write_archive(run, scenes, Catalog(shard_size=size))
    write_manifests(run, members)
    merge, _ = command("-m", "sass", "evaluate", run.root, "--merge")
    _, text = command("-c", PARSE, *plan(folder)[2:], "-n", "-q", "all")
    parse = [float(text.split("parsed ")[1].split()[0])]
    for _ in range(times - 1):
        _, text = command("-c", PARSE, *plan(folder)[2:], "-n", "-q", "all")
        parse.append(float(text.split("parsed ")[1].split()[0]))
    manifests = folder / "manifests"
    (run.root / "manifests").rename(manifests)
    run.metrics.unlink()
    fresh, text = often(times, *plan(folder), "-n")
    jobs = int(next(line for line in text.splitlines() if line.startswith("total ")).split()[1])
    manifests.rename(run.root / "manifests")
    finish(run, folder)
    standing, text = often(times, *plan(folder), "-n")
    assert "Nothing to be done" in text, text[-2000:]
    target = ["--target-jobs", f"ingest:shard={max(members)}"]
    start, _ = often(times, *plan(folder), *target, *REMOTE, "-n")
    return {
        "scenes": scenes,
        "shard_size": size,
        "shards": len(members),
        "jobs": jobs,
        "index_bytes": run.catalog.stat().st_size,
        "catalog_bytes": sum(path.stat().st_size for path in run.catalog.parent.rglob("*.json")),
        "notes_of_snakemake": sum(len(files) for *_, files in os.walk(folder / ".snakemake")),
        "parse_cpu_s": round(statistics.median(parse), 3),
        "fresh": fresh,
        "up_to_date": standing,
        "job_start": start,
        "merge": merge,
    }


def measure_year(folder: Path, scenes: int, daily: int) -> dict[str, Any]:
    """Let a year of daily scans fill shards, then measure the scan of its last day.

    The days before are done in memory by the function that gives scenes their shards; files are links to one.
    """
    archive, run = folder / "archive", Run(folder / "run")
    names = [f"T{number:07d}" for number in range(scenes)]
    link_files(archive, names)
    settings = Catalog()
    first = scenes - 365 * daily
    members, fit = assign_shards(names[:first], {}, (), set(), settings)
    touched = []
    for day in range(364):
        stay = {scene: shard for shard, inside in members.items() for scene in inside}
        known = names[: first + (day + 1) * daily]
        before = {shard: len(inside) for shard, inside in members.items()}
        members, fit = assign_shards(known, stay, members, fit, settings)
        touched.append(sum(len(inside) != before.get(shard) for shard, inside in members.items()))
    rows = {}
    for name in known:
        path = str(archive / name[:5] / f"{name}.tif")
        if name.endswith("000") or not rows:
            (row,) = read_rows([Candidate((path,), name)], [None])  # of the file that a thousand are links to
        rows[name] = replace(row, id=name, paths=(path,))
    write_catalog(run, Contents(rows, members, fit, {}, {}, {}, {}), NOTHING)
    took, text = command("-m", "sass", "scan", str(archive / "**" / "*.tif"), "--into", run.root)
    assert f"added     {daily}" in text, text[-2000:]
    index = json.loads(run.catalog.read_text())["shards"]
    return {
        "scenes": scenes,
        "daily": daily,
        "shards": len(index),
        "open_shards": sum(entry["scenes"] < settings.shard_size for entry in index.values()),
        "shards_touched_daily": round(statistics.mean(touched), 2),
        "index_bytes": run.catalog.stat().st_size,
        "scan": took,
    }


def link_files(archive: Path, names: list[str]) -> None:
    """Give each scene a file; a thousand names share one."""
    for start in range(0, len(names), 1_000):
        group = [archive / name[:5] / f"{name}.tif" for name in names[start : start + 1_000]]
        group[0].parent.mkdir(parents=True)
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)}
        with rasterio.open(group[0], "w", "GTiff", 16, 16, 4, dtype="uint16", nodata=0, **place):
            pass
        for path in group[1:]:
            os.link(group[0], path)


def inodes(side: int, shard: int) -> dict[str, Any]:
    """Return the files and folders that a square scene of four bands leaves, by stage; no file is read."""
    config = load({"ingest": {"shard": shard}, "features": {"window": shard}})
    arithmetic = Arithmetic(
        config, Look(stride=4, alignment=16, halo=144, dim=64, products=0, activations=0), load_rates(None)
    )
    uses = arithmetic.scene(replace(sentinel(""), shape=(side, side)), None)
    return {"side": side, "shard": shard} | {stage: use.inodes for stage, use in uses.items()}


def markdown(results: dict[str, Any]) -> str:
    """Lay the results out as two tables."""
    lines = [
        "| scenes | in shards of | jobs | fresh plan | up-to-date plan | start of a job | merge of scores |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['scenes']:,} | {row['shard_size']:,} | {row['jobs']:,} | "
        + " | ".join(_cell(row[key]) for key in ("fresh", "up_to_date", "job_start", "merge"))
        + " |"
        for row in results["archives"]
    ]
    parse = ", ".join(f"{row['parse_cpu_s']:.2f}" for row in results["archives"])
    lines += [
        "",
        f"CPU seconds (user and system) and largest resident memory. Of each, our own parse: {parse} s.",
        "",
        "| scenes | new each day | shards | not full | touched a day | index | scan of the last day |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['scenes']:,} | {row['daily']} | {row['shards']:,} | {row['open_shards']} | "
        f"{row['shards_touched_daily']} | {row['index_bytes'] / 1e3:.0f} kB | {_cell(row['scan'])} |"
        for row in results["years"]
    ]
    lines += [
        "",
        "| pixels a side | `ingest.shard`, `features.window` | scene | features | maps | all |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['side']:,} | {row['shard']:,} | "
        + f"{row['ingest']} | {row['features']} | {row['segment']} | "
        + f"{row['ingest'] + row['features'] + row['segment']} |"
        for row in results["inodes"]
    ]
    made = results["made_by"]
    lines += ["", f"{made['device']}, commit {made['commit']}, {made['date']}"]
    return "\n".join(lines) + "\n"


def _cell(taken: dict[str, float]) -> str:
    return f"{taken['cpu_s']:.1f} s, {taken['peak_mb']:.0f} MB"


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the results and print the tables."""
    parser = argparse.ArgumentParser("python -m bench.dag", description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=Path("results/dag"), help="folder that is filled and removed"
    )
    parser.add_argument(
        "--times", type=int, default=3, help="measurements of each plan; the median counts (3)"
    )
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out larger archives")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file; the tables stand beside it")
    parser.add_argument(
        "--only-catalog",
        nargs=3,
        metavar=("SCENES", "BANDS", "RUN"),
        help="write a catalog to explain, measure nothing",
    )
    args = parser.parse_args(arguments)
    if args.only_catalog:
        scenes, bands, root = args.only_catalog
        settings = Catalog(shard_size=1_000, fit_fraction=min(10_000 / int(scenes), 1))
        write_archive(Run(Path(root)), int(scenes), settings, int(bands))
        return
    made = about(1) | {"date": datetime.now(UTC).strftime("%Y-%m-%d")}
    results: dict[str, Any] = {"made_by": made, "archives": [], "years": []}
    results["inodes"] = [
        inodes(side, shard) for shard in (1_024, 4_096) for side in (512, 1_024, 2_048, 5_000, SIDE)
    ]

    def measure(kind: str, function, *numbers: int) -> None:
        folder = args.into.absolute() / "x".join(map(str, numbers[:2]))
        shutil.rmtree(folder, ignore_errors=True)
        print(f"== {kind}: {numbers[0]:,} scenes, {numbers[1]:,}", file=sys.stderr, flush=True)
        results[kind].append(function(folder, *numbers))
        shutil.rmtree(folder)
        write_json(args.results, results)

    for scenes, size in ARCHIVES:
        if scenes <= args.most:
            measure("archives", measure_archive, scenes, size, args.times)
    for scenes, daily in YEAR:
        if scenes <= args.most:
            measure("years", measure_year, scenes, daily)
    table = markdown(results)
    args.results.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
