"""Killed anywhere and run again: every byte is that of an undisturbed run, and nothing is left over."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from deaths import Deaths
from small_archive import CONFIG, Archive
from snake import snakemake, started

SETTINGS = CONFIG | {"train": CONFIG["train"] | {"steps": 8, "checkpoint": 3}}
WORK = ("ingest", "normalize", "train", "features", "codebook", "hierarchy", "segment", "evaluate", "report")
STAGES = ("scan", *WORK, "complete")

Tree = dict[str, bytes]
"""Everything in a folder: the bytes of files by name, and folders too."""


def tree(folder: Path) -> Tree:
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/" for p in paths}


def lay(folder: Path, content: Tree) -> None:
    """Make the content of a folder."""
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        (folder / name).mkdir() if data == b"/" else (folder / name).write_bytes(data)


def differing(one: Tree, other: Tree) -> list[str]:
    """Return the names at which two folders differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@dataclass
class Pipeline:
    """An archive, the stages that map it, and what stands after each of them where nothing disturbs them."""

    deaths: Deaths
    words: dict[str, tuple]
    after: dict[str, Tree]
    events: dict[str, int]

    def run(self, folder: Path, stage: str, threads: int = 1, **death):
        """Run a stage in a folder, to its end or to its death."""
        more = ("--threads", threads) if stage in WORK else ()
        return self.deaths.sass(folder, stage, *self.words[stage], *more, **death)

    def before(self, stage: str) -> Tree:
        """Return what stands before a stage."""
        return self.after[STAGES[STAGES.index(stage) - 1]] if stage != "scan" else {}

    def goes_on(self, folder: Path, stage: str) -> None:
        """Run a stage again: what it leaves must be what an undisturbed one leaves."""
        done = self.run(folder, stage)
        assert done.code == 0, done.text
        assert differing(tree(folder / "run"), self.after[stage]) == []


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    """Make three scenes with labels, one of them held out, and run every stage once."""
    home = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("first", "second", "third")):
        Archive(home).make_scene(name, seed)
    (home / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    scan = (home / "archive", "--labels", home / "labels", "--config", home / "config.yaml", "--into", "run")
    words = {"scan": scan} | dict.fromkeys(STAGES[1:], ("run",))
    made = Pipeline(Deaths(), words, {}, {})
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage in STAGES:
        done = made.run(folder, stage)
        assert done.code == 0, done.text
        made.after[stage], made.events[stage] = tree(folder / "run"), done.events
    yield made
    made.deaths.close()


def killed_in_every_stage(pipeline: Pipeline, folder: Path, seed: int) -> int:
    """Take a run through all stages, each killed at random and run again; return how many died."""
    died = 0
    for number, stage in enumerate(STAGES):
        random = np.random.default_rng([seed, number])
        for _ in range(1 + seed % 2):
            # a third dies at once, the others a little later: in the middle of a write, a step, a picture
            delay = random.choice([0, 0.003, 0.06]) * random.uniform()
            death = {"at": int(random.integers(pipeline.events[stage])) + 1, "delay": delay}
            # sums of a training are rounded otherwise on other threads, so it has one
            threads = 1 if stage == "train" else 1 + seed // 2 % 2
            ended = pipeline.run(folder, stage, threads=threads, **death)
            assert ended.code in (0, -signal.SIGKILL, -signal.SIGALRM), ended.text
            died += ended.code != 0
        pipeline.goes_on(folder, stage)
    return died


def test_killed_once_in_every_stage_and_run_again_every_byte_is_that_of_an_undisturbed_run(
    pipeline, tmp_path
):
    assert killed_in_every_stage(pipeline, tmp_path, seed=0) > len(STAGES) / 2


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 51))
def test_killed_at_random_in_every_stage(pipeline, tmp_path, seed):
    assert killed_in_every_stage(pipeline, tmp_path, seed) > len(STAGES) / 2


WORST = {
    "a catalog without its index": ("scan", "os.rename run/catalog/.index.json*", 1),
    "half a store": ("ingest", "write run/scenes/.first.zarr*/c/*", 2),
    "a whole store that is not renamed": ("ingest", "os.rename run/scenes/.first.zarr.partial.zarr", 1),
    "a store without its record": ("ingest", "write run/manifests/*", 1),
    "records without their manifest": ("ingest", "os.rename run/manifests/ingest/.s00000.json*", 1),
    "a pool half full": ("train", "read run/scenes/*/c/*", 9),
    "a log that is ahead of its checkpoint": ("train", "os.rename run/model/.checkpoint*", 2),
    "an encoder that is not renamed": ("train", "os.rename run/model/.encoder*", 1),
    "one of two maps": ("segment", "os.rename run/segments/.first.partial/.confidence*", 1),
}
"""Moment to stage, event and how many times it has come."""


@pytest.mark.parametrize("moment", WORST)
def test_killed_at_the_worst_moment(pipeline, tmp_path, moment):
    stage, event, times = WORST[moment]
    lay(tmp_path / "run", pipeline.before(stage))
    assert pipeline.run(tmp_path, stage, of=event, at=times).code == -signal.SIGKILL
    pipeline.goes_on(tmp_path, stage)


def test_killed_while_it_replaces_what_is_stale(pipeline, tmp_path):
    lay(tmp_path / "run", pipeline.after["ingest"])
    for record in (tmp_path / "run" / "manifests" / "ingest").glob("*/*.json"):
        record.write_text("{}")  # nothing stands by its record any more
    of = "os.rename run/scenes/.first.zarr.partial.zarr"
    assert pipeline.run(tmp_path, "ingest", of=of, at=1).code == -signal.SIGKILL
    assert not (tmp_path / "run" / "scenes" / "first.zarr").exists()  # the new one is not there yet
    pipeline.goes_on(tmp_path, "ingest")


# ---- asked to end


def stopped(pipeline: Pipeline, folder: Path, stage: str, by: int, **death) -> bool:
    """Ask a stage to end and run it again; return whether the request came before its end."""
    lay(folder / "run", pipeline.before(stage))
    ended = pipeline.run(folder, stage, by=by, **death)
    if ended.code == 0:
        return False
    assert ended.code == 128 + by, ended.text
    assert "Traceback" not in ended.text
    assert f"sass {stage}: stopped by {signal.Signals(by).name}; " in ended.text.splitlines()[-1]
    assert [name for name in tree(folder / "run") if ".partial" in name or ".plain" in name] == []
    pipeline.goes_on(folder, stage)
    return True


@pytest.mark.parametrize(
    ("stage", "by", "threads"),
    [("ingest", signal.SIGTERM, 2), ("train", signal.SIGTERM, 1), ("segment", signal.SIGINT, 2)],
)
def test_asked_to_end_it_says_so_in_a_line_and_leaves_nothing_half_done(
    pipeline, tmp_path, stage, by, threads
):
    assert stopped(pipeline, tmp_path, stage, by, at=pipeline.events[stage] // 2, threads=threads)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stage", STAGES)
def test_asked_to_end_at_random(pipeline, tmp_path, stage, seed):
    at = int(np.random.default_rng([seed, STAGES.index(stage)]).integers(pipeline.events[stage] - 1)) + 1
    assert stopped(pipeline, tmp_path, stage, signal.SIGTERM, at=at)


# ---- a disk that is full


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 24 MB as the run's folder; return a function that leaves so many bytes free."""
    run = tmp_path / "run"
    run.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", run], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here: that takes root")

    def leave(free: int | None) -> None:
        filler = run.joinpath("filler")
        filler.unlink(missing_ok=True)
        if free is not None:
            with filler.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(shutil.disk_usage(run).free - free, 4096))

    yield leave
    subprocess.run(["umount", "-l", run], check=True)


def filled(pipeline: Pipeline, folder: Path, stage: str, share: float, leave) -> bool:
    """Run a stage with a share of the room it needs, then with enough; return whether it failed at first."""
    before, after = pipeline.before(stage), pipeline.after[stage]
    lay(folder / "run", before)
    leave(int(share * sum(len(data) for name, data in after.items() if before.get(name) != data)))
    ended = pipeline.run(folder, stage)
    leave(None)
    if ended.code:
        assert ended.code == 1, ended.text
        assert "Traceback" not in ended.text
        said = ended.text.splitlines()[-1]
        assert said.startswith(f"sass {stage}: ") and "could not be written: " in said
        assert f"The file system of {folder / 'run'} has " in said and "give the same command again" in said
        assert [name for name in tree(folder / "run") if ".partial" in name or ".plain" in name] == []
    pipeline.goes_on(folder, stage)
    return ended.code != 0


@pytest.mark.parametrize("stage", ["ingest", "train", "features", "segment"])
def test_a_full_disk_is_named_and_with_room_the_stage_goes_on(pipeline, tmp_path, small_disk, stage):
    assert filled(pipeline, tmp_path, stage, 0.4, small_disk)


@pytest.mark.full
@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_of_any_room_leaves_the_whole_or_a_word(pipeline, tmp_path, small_disk, stage, share):
    filled(pipeline, tmp_path, stage, share, small_disk)


# ---- Snakemake itself

ALONE = ("--set-threads", "train=1")
"""Sums of a training are rounded otherwise on other threads, and that of the undisturbed run has one."""


def kill_snakemake(folder: Path, begun: Path, delay: float, *arguments: str | Path) -> None:
    """Start Snakemake and kill it with all its jobs, a little after a path has appeared."""
    process = started(folder, *arguments, *ALONE)
    try:
        while not begun.exists():
            assert process.poll() is None, f"it ended before {begun} was there"
            time.sleep(0.01)
        time.sleep(delay)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_again(pipeline: Pipeline, folder: Path, stage: str, *arguments: str | Path) -> None:
    """Run what was killed again, after its lock is given up; compare what stands then."""
    assert snakemake(folder, *ALONE, *arguments).code != 0, "the lock holds until a person has looked"
    assert snakemake(folder, *ALONE, "--unlock").code == 0
    done = snakemake(folder, *ALONE, *arguments)
    assert done.code == 0, done.text
    differ = differing(tree(folder / "run"), pipeline.after[stage])
    told = ("logs", "benchmarks", "report/index.html", "manifests/report")  # what says how long it took
    assert [name for name in differ if not name.startswith(told)] == []
    assert list((folder / ".snakemake").rglob("*.lock")) == []


def test_snakemake_killed_with_all_its_jobs_goes_on_after_an_unlock(pipeline, tmp_path):
    pipeline.run(tmp_path, "scan")
    targets = ("run/manifests/normalize/archive.json", "run/manifests/ingest/s00001.json")
    kill_snakemake(tmp_path, tmp_path / "run" / "scenes" / "first.zarr", 0, *targets)
    run_again(pipeline, tmp_path, "normalize", "--", *targets)


@pytest.mark.full
@pytest.mark.parametrize(
    ("begun", "delay"),
    [
        ("model/checkpoint.safetensors", 0.0),
        ("model/encoder.safetensors", 2.0),
        ("features/second.zarr", 0.1),
        ("segments/first", 0.5),
        ("report/metrics.json", 2.0),
    ],
)
def test_snakemake_killed_anywhere_goes_on_after_an_unlock(pipeline, tmp_path, begun, delay):
    pipeline.run(tmp_path, "scan")
    kill_snakemake(tmp_path, tmp_path / "run" / begun, delay)
    run_again(pipeline, tmp_path, "complete")
