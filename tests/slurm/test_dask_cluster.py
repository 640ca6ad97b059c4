"""Workers that are jobs of a real Slurm: the bytes of threads, a job cancelled on the way, a job refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from spread import CODES, SHARD, SLURM, content, ingested, make_archive, make_features

from sass.cluster.codebook import fit_codebook
from sass.errors import SassError
from sass.run import Run
from sass.workers import LOCAL, Workers

WORKERS = SLURM.model_copy(update={"partition": "cpu", "memory": 700, "interface": "lo"})
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def reachable(slurm, monkeypatch):
    """Let this process and its jobs find the cluster and this checkout."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))


def jobs(slurm) -> list[str]:
    return slurm.ask(
        "squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i", "--name=sass-worker"
    ).split()


def test_a_scene_is_the_same_bytes_though_a_worker_is_cancelled(tmp_path, slurm, monkeypatch):
    archive = make_archive(tmp_path / "archive")
    near, here = ingested(tmp_path / "near", archive, LOCAL)
    results, cancelled = [], []
    real = Workers._result

    def result(self, future):
        results.append(future.key)
        if len(results) == 10:
            cancelled.extend(jobs(slurm)[:1])
            slurm.ask("scancel", "--signal=KILL", "--full", *cancelled)
        return real(self, future)

    monkeypatch.setattr(Workers, "_result", result)
    far, there = ingested(tmp_path / "far", archive, WORKERS)
    assert len(cancelled) == 1
    assert there == here
    assert content(far.scene("a")) == content(near.scene("a"))
    assert jobs(slurm) == []


def test_a_job_asks_for_workers_and_its_codebook_is_the_same_bytes(tmp_path, slurm):
    run = make_features(tmp_path)
    fit_codebook(run, [SHARD], CODES, threads=2)
    near = run.codebook.read_bytes()
    run.codebook.unlink()
    sections = {"codebook": CODES, "dask": WORKERS}
    words = " ".join(f"--set '{name}={section.model_dump_json()}'" for name, section in sections.items())
    job = ("sbatch", "--wait", "--partition=cpu", "--mem=1000", f"--output={tmp_path / 'log'}")
    command = f"--wrap={sys.executable} -m sass codebook {tmp_path} --threads 1 {words}"
    done = subprocess.run((*job, command), env=slurm.environment)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    assert run.codebook.read_bytes() == near
    assert len(list((run.root / "logs" / "dask").glob("sass-worker-*.err"))) == 2


def test_a_refused_worker_ends_the_job_with_the_words_of_slurm(tmp_path):
    wrong = WORKERS.model_copy(update={"partition": "nowhere"})
    with (
        Workers(Run(tmp_path), 1, wrong) as far,
        pytest.raises(
            SassError,
            match=r"no worker could be submitted \(sbatch: error: invalid partition specified: nowhere",
        ),
    ):
        list(far.map(abs, [1], megapixels=1))
