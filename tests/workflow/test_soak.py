"""Two thousand scenes, one in twenty of them bad, killed ten times: nothing is lost, nothing grows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from corpus import damaged as overwrite
from scenes import make_geotiff
from small_archive import CONFIG
from snake import CHECKOUT, sass, snakemake, started

from sass.catalog import load_broken, load_index, load_shard
from sass.manifest import failures, scenes_of
from sass.run import Run

SCENES, BAD, KILLS = 2000, 100, 10
SETTINGS = CONFIG | {"catalog": {"shard_size": 250, "fit_fraction": 0.2}, "evaluate": {"baselines": []}}
WORKERS = ("ingest", "features", "segment")
"""Stages that go through the scenes of a shard one after the other."""


def text(path: Path) -> None:
    path.write_text("this is no raster\n")


def header_only(path: Path) -> None:
    os.truncate(path, 60)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def without_data(path: Path) -> None:
    make_geotiff(path, (3, 64, 64), data=np.zeros((3, 64, 64)))


def other_bands(path: Path) -> None:
    make_geotiff(path, (5, 64, 64), seed=1)


def broken_inside(path: Path) -> None:
    make_geotiff(path, (3, 64, 64), seed=1, compress="deflate")
    overwrite(path, 0.5)


def replaced(path: Path) -> None:
    make_geotiff(path, (3, 70, 64), seed=1)


BEFORE = {"empty": lambda path: os.truncate(path, 0), "text": text, "header": header_only}
"""What a scan refuses."""
LATER = {"cut": cut_short, "blank": without_data, "bands": other_bands, "damaged": broken_inside}
"""What a scan cannot see."""
AFTER = {"deleted": Path.unlink, "replaced": replaced, "emptied": lambda path: os.truncate(path, 0)}
"""What happens between scan and ingest."""
KINDS = BEFORE | LATER | AFTER


@pytest.fixture(scope="module")
def soaked(tmp_path_factory) -> tuple[Run, dict[str, str], int]:
    """Run the archive with ten kills, and to its end; give also the kind of each bad scene, and the kills."""
    home = tmp_path_factory.mktemp("soak")
    rng = np.random.default_rng(7)
    names = [f"scene{number:04}" for number in range(SCENES)]
    for number, name in enumerate(names):
        make_geotiff(home / "archive" / f"{name}.tif", (3, 64, 64), seed=number % 50)
    chosen = rng.choice(names, BAD, replace=False).tolist()
    bad = {name: list(KINDS)[i % len(KINDS)] for i, name in enumerate(chosen)}
    (home / "config.yaml").write_text(yaml.safe_dump(SETTINGS))

    def spoil(kinds: dict) -> None:
        for name, kind in bad.items():
            if kind in kinds:
                kinds[kind](home / "archive" / f"{name}.tif")

    spoil(BEFORE | LATER)
    done = sass(home, "scan", "archive", "--config", "config.yaml", "--into", "run")
    assert done.code == 3, done.text
    spoil(AFTER)

    died = 0
    for _ in range(KILLS):
        died += killed_after(home, rng.uniform(8, 22))
        done = snakemake(home, "--unlock")
        assert done.code == 0, done.text
    done = snakemake(home, "--keep-going")
    assert done.code != 0 and f"{BAD} set aside; everything else is complete" in done.text, done.text
    return Run(home / "run"), bad, died


def killed_after(folder: Path, seconds: float) -> bool:
    """Start Snakemake and kill it with all its jobs; say whether it was still at work."""
    with started(folder) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


@pytest.mark.full
def test_it_was_killed_at_work(soaked):
    *_, died = soaked
    assert died == KILLS


@pytest.mark.full
def test_every_scene_is_mapped_or_named_with_a_reason(soaked):
    run, bad, _ = soaked
    shards = load_index(run)
    rows = {name for shard in shards for name in load_shard(run, shard)}
    broken = {Path(path).stem for path in load_broken(run)}
    assert not rows & broken and len(rows | broken) == SCENES
    assert broken == {name for name, kind in bad.items() if kind in BEFORE}

    left, aside = rows, {}
    for stage in WORKERS:
        made = {name for shard in shards for name in scenes_of(run, stage, shard)}
        failed = failures(run, list(shards), (stage,))
        assert made | set(failed) == left and not made & set(failed)
        aside |= failed
        left = made
    assert set(aside) == {name for name, kind in bad.items() if kind not in BEFORE}
    assert all(aside.values())
    assert len(left) == SCENES - BAD
    assert {path.name for path in (run.root / "segments").iterdir()} == left
    assert {path.stem for path in (run.root / "features").iterdir()} == left
    page = (run.report / "index.html").read_text()
    assert all(name in page for name in bad)


@pytest.mark.full
def test_what_stands_is_sound_and_nothing_half_written_is_left(soaked):
    run, *_ = soaked
    done = sass(run.root.parent, "verify", "run")
    assert done.code == 0, done.text
    hidden = [path for path in run.root.rglob(".*") if path.name != ".snakemake"]
    assert hidden == []


@pytest.mark.full
def test_one_process_for_all_scenes_takes_no_more_in_the_end_and_makes_the_same(soaked, capsys):
    run, bad, died = soaked
    lines = [f"{SCENES} scenes, bad: {dict(Counter(bad.values()))}, killed {died} times"]
    for stage in WORKERS:
        before = {shard: scenes_of(run, stage, shard) for shard in load_index(run)}
        shutil.rmtree(run.root / "manifests" / stage)
        taken = watched(run.root.parent, stage)
        assert {shard: scenes_of(run, stage, shard) for shard in load_index(run)} == before
        quarter = [np.max(part, axis=0) for part in np.array_split(taken, 4)]
        (_, (early, files), _, (late, in_the_end)) = quarter
        lines.append(
            f"{stage}: {len(taken) / 10:.0f} s; in the second quarter of it and in the last, memory up to "
            f"{early >> 20} and {late >> 20} MiB, open files up to {files} and {in_the_end}"
        )
        assert late <= 1.03 * early and in_the_end <= files + 1
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def watched(folder: Path, stage: str) -> list[tuple[int, int]]:
    """Run a stage on all shards; return its resident bytes and open files, ten times a second."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "sass", stage, "run", "--threads", "2"]
    taken, page = [], os.sysconf("SC_PAGE_SIZE")
    with subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        place = Path("/proc", str(process.pid))
        while process.poll() is None:
            resident = int((place / "statm").read_text().split()[1]) * page
            if resident:  # 0 when it has just ended
                taken.append((resident, len(os.listdir(place / "fd"))))
            time.sleep(0.1)
    assert process.returncode in (0, 3)
    return taken
