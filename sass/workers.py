"""Workers of a cluster, where one job is too small: the same windows, the same order, the same bytes.

The process that asks for workers is their scheduler, and the only one that writes. A worker reads, computes
and returns what it has computed. So one that dies costs the windows it had in hand, which others do again;
and one that is only thought dead may go on as long as it likes, since nobody listens to it any more and there
is no file that it could write at the same time as another.
"""

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from sass.config import Dask
from sass.errors import ConfigError, SassError
from sass.parallel import ordered_map
from sass.run import Run

if TYPE_CHECKING:
    from distributed import Client, Future, Security
    from distributed.deploy.spec import SpecCluster

LOCAL = Dask()
"""No cluster: the threads of this process."""
AHEAD = 4
"""Windows given out at once for each thread of a worker; as many results, at most, wait for their turn."""
PULSE = 5.0
"""Seconds between looks at which workers are there."""


class Workers:
    """Threads of this process, or workers of a cluster for work that is large enough. A context manager.

    Workers are asked for when they are first needed, and given back at the end.
    """

    def __init__(self, run: Run, threads: int, settings: Dask = LOCAL):
        self.run = run
        self.threads = threads
        self.settings = settings
        self._client: Client | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc) -> None:
        self._stack.close()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], megapixels: float) -> Iterator[Any]:
        """Yield ``function(item)`` in the order of the items, as `ordered_map` does.

        Parameters
        ----------
        function
            It changes no file. It is pickled, and so a function of a module, or a `functools.partial` of one.
        megapixels
            The size of the work, which ``dask.threshold`` is compared with.

        Raises
        ------
        SassError
            The cluster takes no job, gives no worker for ``dask.wait`` minutes, or one window has ended
            several workers.
        """
        if self.settings.cluster == "local" or megapixels < self.settings.threshold:
            return ordered_map(function, items, self.threads)
        return self._spread(function, items)

    def _spread(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        client, packed = self._started(), pickle.dumps(function)
        given: deque[Future] = deque()
        self._seen = self._looked = monotonic()
        try:
            for item in items:
                given.append(client.submit(_call, packed, item, pure=False))
                if len(given) >= AHEAD * self.settings.workers * self.settings.cores:
                    yield self._result(given.popleft())
            while given:
                yield self._result(given.popleft())
        finally:
            client.cancel(list(given))

    def _started(self) -> "Client":
        if self._client is None:
            cluster = self._stack.enter_context(start(self.run, self.settings))
            from distributed import Client

            self._cluster = cluster
            self._client = self._stack.enter_context(Client(cluster, set_as_default=False))
            self._submit_jobs()
        return self._client

    def _submit_jobs(self) -> None:
        cluster = self._cluster

        async def submitted() -> None:  # `scale` would not say that a job was refused
            for _ in range(self.settings.workers - len(cluster.worker_spec)):
                cluster.worker_spec.update(cluster.new_worker_spec())
            await cluster

        try:
            cluster.sync(submitted)
        except (RuntimeError, OSError) as error:
            said = " ".join(str(error).rpartition("stderr:")[2].split())
            raise SassError(
                f"no worker could be submitted ({said}); correct the section dask of the configuration, or "
                "set dask.cluster to local"
            ) from error

    def _result(self, future: "Future") -> Any:
        from distributed import KilledWorker

        while True:
            self._look_after_workers()
            try:
                return future.result(timeout=PULSE)
            except TimeoutError:
                if future.status == "error":  # it is the function's own
                    raise
            except KilledWorker as error:
                raise SassError(
                    f"one window has ended {error.allowed_failures + 1} workers, most likely for want of "
                    f"memory: raise dask.memory above {self.settings.memory}; what they said last is in "
                    f"{_logs(self.run)}"
                ) from error

    def _look_after_workers(self) -> None:
        """Ask for workers again in place of those that have ended, and give up where none comes."""
        now = monotonic()
        if now - self._looked < PULSE:
            return
        self._looked = now
        if self._cluster.scheduler_info["workers"]:
            self._seen = now
        elif now - self._seen > 60 * self.settings.wait:
            raise SassError(
                f"there has been no worker for {self.settings.wait:g} minutes: the queue is full, or they "
                f"end as soon as they start (see {_logs(self.run)}); raise dask.wait, ask for less in the "
                "section dask, or set dask.cluster to local"
            )
        self._cluster.scale(self.settings.workers)


@contextmanager
def start(run: Run, settings: Dask) -> Iterator["SpecCluster"]:
    """Give a cluster whose workers are Slurm jobs, with none yet."""
    try:
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob
        from distributed import Status
    except ImportError:
        raise ConfigError(
            "dask.cluster slurm needs dask-jobqueue: install `sass[slurm]`, or set dask.cluster to local"
        ) from None

    class Job(SLURMJob):
        async def close(self) -> None:
            await super().close()
            self.status = Status.closed  # the cluster makes sure of it at its end, and the job forgets it

    folder = _logs(run)
    if " " in str(folder):
        raise ConfigError(
            f"dask.cluster slurm: {folder} has a space, which dask-jobqueue cannot pass on; give the run "
            "another folder, or set dask.cluster to local"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="keys-", dir=folder) as keys,
        SLURMCluster(
            job_cls=Job,
            job_name="sass-worker",
            cores=settings.cores,
            processes=1,
            memory=f"{settings.memory}MiB",
            walltime=str(settings.walltime),
            queue=settings.partition,
            account=settings.account,
            interface=settings.interface,
            job_extra_directives=settings.directives,
            log_directory=str(folder),
            security=_security(Path(keys)),
            scheduler_options={"dashboard": False, "dashboard_address": ":0"},
            worker_extra_args=["--no-dashboard"],
        ) as cluster,
    ):
        yield cluster


def _security(folder: Path) -> "Security":
    """Make a certificate that a job and its workers know each other by.

    Without, whoever on the network reaches the port of a scheduler or a worker can have it run anything.
    """
    from distributed import Security

    made = Security.temporary()
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    files["cert"].write_text(made.tls_worker_cert)
    files["key"].write_text(made.tls_worker_key)
    roles = {
        f"tls_{role}_{part}": str(path)
        for role in ("client", "scheduler", "worker")
        for part, path in files.items()
    }
    return Security(require_encryption=True, tls_ca_file=str(files["cert"]), **roles)


def _logs(run: Run) -> Path:
    return (run.root / "logs" / "dask").absolute()


def _call(packed: bytes, item: Any) -> Any:
    try:
        return _unpacked(packed)(item)
    except SassError as error:
        bare = type(error)(*error.args)
    raise bare  # without its cause: an error of GDAL cannot be pickled, and would take this one with it


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Callable[[Any], Any]:
    """Return the function of a map, unpacked once a worker: what it has opened stays open between windows."""
    function = pickle.loads(packed)
    threadpool_limits(1)  # now that its libraries are there; sums in another order would be other bytes
    return function
