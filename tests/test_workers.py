"""Workers of a cluster: the bytes of threads, though one is killed, and errors that arrive as they are."""

import os
import signal
import sys
from contextlib import nullcontext

import dask
import pytest
from distributed import LocalCluster
from spread import CODES, SHARD, SLURM, content, ingested, make_archive, make_features

from sass import workers
from sass.cluster.codebook import fit_codebook
from sass.errors import ConfigError, SassError
from sass.run import Run
from sass.workers import LOCAL, Workers


@pytest.fixture(scope="module")
def processes():
    """Start two processes of this machine, each started again when it ends."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as made,
    ):
        yield made


@pytest.fixture
def cluster(monkeypatch, processes) -> LocalCluster:
    """Give them in the place of the cluster's jobs."""
    monkeypatch.setattr(workers, "start", lambda run, settings: nullcontext(processes))
    return processes


@pytest.fixture
def killing(monkeypatch, cluster) -> list[int]:
    """Kill a worker that has work in hand when ten results have come, and list it."""
    killed, results = [], []
    real = Workers._result

    def result(self, future):
        results.append(future.key)
        if len(results) > 10 and not killed:
            busy = [worker.name for worker in cluster.scheduler.workers.values() if worker.processing]
            for name in busy[:1]:
                killed.append(cluster.workers[name].pid)
                os.kill(killed[0], signal.SIGKILL)
        return real(self, future)

    monkeypatch.setattr(Workers, "_result", result)
    return killed


def test_a_scene_is_the_same_bytes_and_a_fault_the_same_words_though_a_worker_is_killed(tmp_path, killing):
    archive = make_archive(tmp_path / "archive")
    near, here = ingested(tmp_path / "near", archive, LOCAL)
    far, there = ingested(tmp_path / "far", archive, SLURM)
    assert len(killing) == 1
    assert here.failed.keys() == {"short"} and "cannot be read at y" in here.failed["short"]
    assert there == here
    assert content(far.scene("a")) == content(near.scene("a"))
    assert far.manifest("ingest", SHARD).read_bytes() == near.manifest("ingest", SHARD).read_bytes()
    assert sorted(p.name for p in far.scene("a").parent.iterdir()) == ["a.zarr"]


def test_a_codebook_is_the_same_bytes_though_a_worker_is_killed(tmp_path, killing):
    features = make_features(tmp_path)
    fit_codebook(features, [SHARD], CODES, threads=2)
    near = features.codebook.read_bytes()
    features.codebook.unlink()
    fit_codebook(features, [SHARD], CODES, threads=1, dask=SLURM)
    assert len(killing) == 1
    assert features.codebook.read_bytes() == near


def test_small_work_asks_for_no_workers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "start", lambda *_: asked.append("workers"))
    with Workers(Run(tmp_path), 1, SLURM.model_copy(update={"threshold": 2})) as here:
        assert list(here.map(abs, [-3, 2, -1], megapixels=1.9)) == [3, 2, 1]
    assert asked == []


def test_what_ends_every_worker_ends_the_job_and_says_what_to_raise(tmp_path, cluster):
    with (
        Workers(Run(tmp_path), 1, SLURM) as far,
        pytest.raises(SassError, match=r"ended 2 workers.*raise dask.memory above 4000.*logs/dask"),
    ):
        list(far.map(signal.raise_signal, [signal.SIGKILL], megapixels=1))  # as for too much memory


def test_a_cluster_without_workers_is_not_waited_for_without_end(tmp_path, monkeypatch):
    class Full(LocalCluster):
        def new_worker_spec(self):
            """Take the request, and start nothing."""
            return {}

        def scale(self, n):
            """Do the same."""

    monkeypatch.setattr(workers, "PULSE", 0.05)
    monkeypatch.setattr(workers, "start", lambda *_: Full(n_workers=0, dashboard_address=":0"))
    with (
        Workers(Run(tmp_path), 1, SLURM.model_copy(update={"wait": 0.01})) as far,
        pytest.raises(SassError, match=r"no worker for 0.01 minutes: the queue is full.*raise dask.wait"),
    ):
        list(far.map(abs, [1], megapixels=1))


def test_without_dask_jobqueue_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with (
        Workers(Run(tmp_path), 1, SLURM) as far,
        pytest.raises(ConfigError, match=r"install `sass\[slurm\]`, or set dask.cluster to local"),
    ):
        list(far.map(abs, [1], megapixels=1))
