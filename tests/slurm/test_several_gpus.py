"""Training in several processes on a real Slurm: those of one node, and one on each of two nodes."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from small_archive import CONFIG, Archive
from snake import Checkout

from sass.run import Run

ONE_NODE = {"gpu": 2}
TWO_NODES = {"gpu": 2, "nodes": 2, "tasks": 2, "mpi": "srun"}

pytestmark = pytest.mark.timeout(3600)  # a busy machine starts the jobs slowly


def test_two_gpus_train_the_same_on_one_node_and_on_two(slurm, tmp_path):
    Archive(tmp_path).make_scene("only", seed=0)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    one = Checkout.copy_into(tmp_path / "one", os.environ)
    scan = ("scan", tmp_path / "archive" / "only.tif", "--config", tmp_path / "small.yaml")
    for words in (
        ("sass", *scan, "--into", "results/run"),
        ("snakemake", "--config", "run=results/run", "--", "results/run/manifests/normalize/archive.json"),
    ):
        assert (done := one.give(*words)).code == 0, done.text
    two = Checkout.copy_into(tmp_path / "two", slurm.environment)
    shutil.copytree(one.folder / "results", two.folder / "results", dirs_exist_ok=True)
    shutil.copytree(one.folder / ".snakemake", two.folder / ".snakemake", dirs_exist_ok=True)
    one.environment.update(slurm.environment | {"PYTHONPATH": str(one.folder)})

    def train(checkout: Checkout, resources: dict[str, int | str], threads: int):
        checkout.edit_profile("slurm", {"train": resources}, {"train": threads})
        return checkout.give(
            *("snakemake", "--profile", "slurm", "--config", "run=results/run"),
            *("--slurm-init-seconds-before-status-checks", "1", "--retries", "0"),
            *("--", "results/run/manifests/train/archive.json"),
        )

    with ThreadPoolExecutor() as pool:
        # of each node: every process has one, for another number of threads rounds sums in another order
        for done in pool.map(train, (one, two), (ONE_NODE, TWO_NODES), (2, 1)):
            assert done.code == 0, done.text
            assert done.jobs == {"train": 1}
    runs = [Run(checkout.folder / "results" / "run") for checkout in (one, two)]
    for run, nodes, visible in zip(runs, ("1", "2"), ("0,1", "0"), strict=True):
        said = (run.root / "logs" / "train" / "archive.log").read_text()
        assert "in each of 2 processes" in said
        assert f"was given GPU {visible}: " in said  # pretended, so torch sees none
        rows = slurm.ask("squeue", "-h", "-t", "all", "-o", "%Z|%T|%D").splitlines()
        assert f"{run.root.parents[1]}|COMPLETED|{nodes}" in rows
    assert runs[0].encoder.read_bytes() == runs[1].encoder.read_bytes()
