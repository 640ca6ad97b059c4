"""Slurm warns before it kills: a training saves its last step, and goes on from there when tried again."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from safetensors import safe_open
from small_archive import CONFIG, Archive
from snake import CHECKOUT

from sass.cli import main
from sass.run import Run

STEPS, EVERY = 800, 200
SETTINGS = CONFIG | {"train": CONFIG["train"] | {"steps": STEPS, "checkpoint": EVERY}}
"""The first checkpoint shows that the training is on its way."""


def until(there, process: subprocess.Popen | None = None):
    """Wait for something to be there and return it."""
    while not (found := there()):
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    return found


def steps_of(run: Run) -> int:
    with safe_open(run.checkpoint, framework="np") as file:
        return json.loads(file.metadata()["sass"])["step"]


def test_a_training_that_slurm_warns_saves_its_last_step_and_is_tried_again_from_there(slurm, tmp_path):
    for seed, name in enumerate(("first", "second")):
        Archive(tmp_path).make_scene(name, seed)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    here, there = Run(tmp_path / "here" / "run"), Run(tmp_path / "there" / "run")
    assert main(["scan", f"{tmp_path}/archive", "--into", str(here.root), "--config", str(config)]) == 0
    for stage in ("ingest", "normalize"):
        assert main([stage, str(here.root), "--threads", "1"]) == 0
    shutil.copytree(here.root, there.root)
    assert main(["train", str(here.root), "--threads", "1"]) == 0

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", there.root.parent),
            *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
            # the nodes are small, and memory and time grow with each attempt, whatever ended the one before
            *("--set-resources", "train:mem_mb=1500", "train:runtime=20", "train:slurm_partition=cpu"),
            *("--set-threads", "train=1", "--allowed-rules", "train", "--config", "run=run"),
            *("--", "run/manifests/train/archive.json"),
        ],
        cwd=CHECKOUT,
        env=slurm.environment | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        log = there.root / "logs" / "train" / "archive.log"
        until(there.checkpoint.exists, process)
        # what `--signal` and a time limit do: the steps of the job are told, not its shell
        (job,) = slurm.ask("squeue", "--noheader", "--states=R", "--format=%i").split()
        slurm.ask("scancel", "--signal=TERM", job)
        until(lambda: "stopped by SIGTERM" in log.read_text(), process)
        saved = steps_of(there)
        said = process.communicate(timeout=600)[0]
    finally:
        process.terminate()
        process.wait()
    assert EVERY < saved < STEPS
    assert process.returncode == 0, said
    assert (
        "train: stopped by SIGTERM; what is finished stands" in said
    )  # the log of the failed attempt is shown
    assert "Trying to restart job" in said
    for path in (Run.encoder, Run.training_log, Run.checkpoint):
        assert path.fget(there).read_bytes() == path.fget(here).read_bytes()
    assert [path for path in Path(there.root).rglob(".*")] == []
