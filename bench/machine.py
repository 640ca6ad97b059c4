"""What a measurement was made on, and what it took."""

import contextlib
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PROCESS = Path("/proc/self")


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float | None]]:
    """Give a dictionary that holds ``seconds``, ``peak_mb`` and ``gpu_mb`` in the end.

    ``peak_mb`` is the largest resident memory of this process meanwhile; None where the system (any but
    Linux) cannot tell. ``gpu_mb`` is what torch has taken of the GPU at most; None without one.
    """
    spent: dict[str, float | None] = {}
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    restarted = _restart_peak()
    started = time.monotonic()
    yield spent
    spent["seconds"] = round(time.monotonic() - started, 1)
    spent["peak_mb"] = _peak() if restarted else None
    spent["gpu_mb"] = torch.cuda.max_memory_reserved() >> 20 if cuda else None


def _restart_peak() -> bool:
    try:
        (PROCESS / "clear_refs").write_text("5")  # 5: the peak starts anew from what is resident now
    except OSError:
        return False
    return True


def _peak() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", (PROCESS / "status").read_text())
    return int(found[1]) >> 10


def about(threads: int) -> dict[str, str | bool | None]:
    """Return commit, whether the tree differs from it, device and torch version."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        # results are written while rows are measured
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
        "device": _device(threads),
        "torch": torch.__version__,
    }


def _git(*arguments: str) -> str | None:
    """Return what git says of this tree; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device(threads: int) -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            name = found[1]
    return f"{name}, threads: {threads}"
