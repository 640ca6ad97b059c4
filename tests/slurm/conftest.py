"""A real Slurm for the tests: four nodes on this machine, started once and stopped at the end."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CLUSTER = Path(__file__).with_name("slurm-up.sh")
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs: partitions `cpu` and `gpu` of two nodes each; those of `gpu` pretend two GPUs.

    ``folder`` holds its logs; ``environment`` is this process's, in which Slurm's commands find the cluster.
    """

    folder: Path
    environment: dict[str, str]

    def ask(self, *words: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Start a cluster, and stop it after the last test; skip where there can be none."""
    _must_be_installed()
    with started() as cluster:
        yield cluster


@contextmanager
def started() -> Iterator[Slurm]:
    """Start a cluster; in the end stop it, and with it whatever its jobs have left."""
    # not pytest's own folder: the path of a socket has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge trusts no socket in a folder that others cannot enter
        try:
            _run(CLUSTER, "start", folder)
            paths = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
            yield Slurm(folder, os.environ | {"SLURM_CONF": str(folder / "etc/slurm.conf"), "PATH": paths})
        finally:
            _run(CLUSTER, "stop", folder)


@pytest.fixture
def another(slurm) -> Callable[[], AbstractContextManager[Slurm]]:
    """Give the function that starts a cluster beside that of the session."""
    return started


def _must_be_installed() -> None:
    sought = f"{os.environ['PATH']}:/usr/sbin"
    if os.geteuid() != 0:
        pytest.skip("a Slurm on this machine needs root")
    if all(shutil.which(daemon, path=sought) for daemon in DAEMONS):
        return
    if not shutil.which("apt-get"):
        pytest.skip(f"Slurm is not installed, and there is no apt-get to install {' '.join(PACKAGES)}")
    install = ("install", "--yes", "--no-install-recommends", *PACKAGES)
    for arguments in (install, ("update",), install):  # the lists of packages may be absent or old
        done = subprocess.run(
            ("apt-get", "--option", "DPkg::Lock::Timeout=120", *arguments),
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
        )
        if arguments is install and done.returncode == 0:
            return
    pytest.skip(f"Slurm is not installed, and apt-get says: {done.stderr.strip().splitlines()[-1]}")


def _run(*words: str | Path) -> None:
    # its daemons outlive it and would keep a pipe open, so what it says goes to a file
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, timeout=120
        )
        said.seek(0)
        assert done.returncode == 0, said.read()
