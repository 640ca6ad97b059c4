"""`snakemake --profile slurm` on a real Slurm: what it asks for, what it survives, what bytes it leaves."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_archive import CONFIG, Archive
from snake import CHECKOUT, Checkout, Done

from sass.catalog import load_index
from sass.demo import set_up
from sass.errors import SassError
from sass.run import Run

NOT_COMPARED = ("logs", "benchmarks", "report/index.html", "manifests/report")
"""What says how long it took: the report's first page shows seconds, and its record has the digest of it."""
GPU_RULES = ("train", "features")

pytestmark = pytest.mark.timeout(3600)  # the jobs are many and small, and a busy machine starts them slowly


@dataclass(frozen=True)
class Job:
    """What Slurm did for a job of Snakemake, in the words of scontrol."""

    state: str
    memory: str
    limit: str
    partition: str
    gpus: int


@dataclass(frozen=True)
class Runs:
    """The same archive run locally and on Slurm, in a checkout of its own each."""

    local: Path
    remote: Path
    done: Done
    jobs: dict[tuple[str, str], list[Job]]
    fit: str
    held_out: str


def small_archive(folder: Path) -> list[str | Path]:
    """Make two scenes to fit on and one held out; return what a scan is told."""
    for seed, name in enumerate(("first", "second", "third")):
        Archive(folder).make_scene(name, seed)
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    return [folder / "archive" / "*.tif", "--labels", folder / "labels" / "*.tif", "--config", config]


def demo_archive(folder: Path) -> list[str | Path]:
    """Fetch the demo's scenes; return what a scan is told."""
    try:
        set_up(folder / "demo")
    except SassError as error:
        pytest.skip(f"the demo's scenes cannot be had: {error}")
    scenes = folder / "demo" / "scenes" / "{scene}" / "lsat7_2000_{band}.tif"
    labels = folder / "demo" / "labels" / "*.tif"
    return [scenes, "--labels", labels, "--config", CHECKOUT / "config" / "demo.yaml"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(small_archive, id="small"),
        pytest.param(demo_archive, id="demo", marks=pytest.mark.full),
    ],
)
def runs(request, slurm, tmp_path_factory) -> Runs:
    """Run an archive locally and on a Slurm where jobs are killed, hang, and ask for too little memory."""
    scan = request.param(tmp_path_factory.mktemp("archive"))
    local, remote = (
        Checkout.copy_into(tmp_path_factory.mktemp(name), slurm.environment) for name in ("local", "remote")
    )
    for checkout in (local, remote):
        scanned = checkout.give("sass", "scan", *scan, "--into", "results/run")
        assert scanned.code == 0, scanned.text
    shards = load_index(Run(remote.folder / "results/run"))
    fit = next(shard for shard, entry in shards.items() if entry.fit)
    held_out = next(shard for shard, entry in shards.items() if not entry.fit)
    plainly = ("snakemake", "--config", "run=results/run")
    too_little = {"hierarchy": {"mem_mb": "100 * 10 ** (attempt - 1)"}, "ingest": {"runtime": "attempt"}}
    remote.edit_profile("slurm", too_little)
    # looks at its jobs more often than a site would like
    on_slurm = (
        *("snakemake", "--profile", "slurm", "--config", "run=results/run"),
        *("--slurm-init-seconds-before-status-checks", "1"),
    )
    with ThreadPoolExecutor() as pool:
        undisturbed = pool.submit(local.give, *plainly)
        troubled = [
            pool.submit(_signal, slurm, remote.folder, "ingest", fit, "KILL"),
            pool.submit(_signal, slurm, remote.folder, "ingest", held_out, "STOP"),
        ]
        done = remote.give(*on_slurm)
        assert done.code == 0, done.text
        assert undisturbed.result().code == 0, undisturbed.result().text
        for once in troubled:
            once.result()
    return Runs(local.folder, remote.folder, done, _jobs(slurm, remote.folder), fit, held_out)


def _signal(slurm, checkout: Path, rule: str, shard: str, signal: str) -> None:
    """Send a signal to all processes of a job as soon as it works."""
    log = checkout / "results" / "run" / "logs" / rule / f"{shard}.log"
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if log.exists():
            jobs = slurm.ask("squeue", "-h", "-o", "%k %i").splitlines()
            (job,) = [row.split()[1] for row in jobs if row.split()[0] == f"rule_{rule}_wildcards_{shard}"]
            slurm.ask("scancel", "--full", f"--signal={signal}", job)
            return
        time.sleep(0.1)
    raise AssertionError(f"{rule} of {shard} did not start")


def _jobs(slurm, checkout: Path) -> dict[tuple[str, str], list[Job]]:
    """Return what Slurm did for a checkout, by rule and shard, one job for each attempt in their order."""
    rows = slurm.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
    known = [dict(word.split("=", 1) for word in row.split() if "=" in word) for row in rows]
    jobs = {}
    for job in sorted(known, key=lambda job: int(job["JobId"])):
        if Path(job["WorkDir"]) == checkout:
            rule, _, shard = job["Comment"].removeprefix("rule_").partition("_wildcards_")
            gpus = re.search(r"\bgpu[:=](\d+)", job.get("TresPerJob", ""))
            attempt = Job(
                *(job[name] for name in ("JobState", "MinMemoryNode", "TimeLimit", "Partition")),
                gpus=int(gpus[1]) if gpus else 0,
            )
            jobs.setdefault((rule, shard), []).append(attempt)
    return jobs


def test_every_byte_is_that_of_a_local_run(runs):
    local, remote = (
        {path.relative_to(folder): path for path in _compared(folder)} for folder in (runs.local, runs.remote)
    )
    assert local.keys() == remote.keys()
    assert [str(name) for name, path in local.items() if path.read_bytes() != remote[name].read_bytes()] == []
    assert {"manifests", "scenes", "features", "segments", "model", "codebook", "report"} <= {
        name.parts[2] for name in local
    }


def _compared(folder: Path) -> Iterator[Path]:
    run = folder / "results" / "run"
    for path in run.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(run / name) for name in NOT_COMPARED):
            yield path


def test_only_the_encoder_asks_for_gpus(runs):
    for (rule, shard), attempts in runs.jobs.items():
        wanted = ("gpu", 1) if rule in GPU_RULES else ("cpu", 0)
        for job in attempts:
            assert (job.partition, job.gpus) == wanted, (rule, shard)


def test_a_killed_job_comes_back_with_twice_the_memory(runs):
    killed, again = runs.jobs["ingest", runs.fit]
    assert (killed.state, killed.memory) == ("CANCELLED", "2000M")  # so Slurm calls it
    assert (again.state, again.memory) == ("COMPLETED", "4000M")


def test_a_job_that_hangs_is_ended_by_its_limit_and_comes_back_with_more_time(runs):
    hung, again = runs.jobs["ingest", runs.held_out]
    assert (hung.state, hung.limit) == ("TIMEOUT", "00:01:00")
    assert (again.state, again.limit) == ("COMPLETED", "00:02:00")


def test_a_job_over_its_memory_comes_back_with_more(runs):
    over, again = runs.jobs["hierarchy", ""]
    assert (over.state, over.memory) == ("FAILED", "100M")
    assert (again.state, again.memory) == ("COMPLETED", "1000M")


def test_what_slurm_says_of_the_jobs_that_died_is_kept_and_no_other(runs):
    kept = Path(runs.remote, "results", "slurm-logs").rglob("*.log")
    assert sorted(path.parent.name for path in kept) == sorted(["rule_hierarchy", runs.fit, runs.held_out])


def test_nothing_else_ran_twice(runs):
    troubled = {("ingest", runs.fit), ("ingest", runs.held_out), ("hierarchy", "")}
    assert {job: len(attempts) for job, attempts in runs.jobs.items() if len(attempts) > 1} == dict.fromkeys(
        troubled, 2
    )
    assert sum(runs.done.jobs.values()) == len(runs.jobs) + 1  # the last check runs where Snakemake does
