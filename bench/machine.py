"""What a measurement was made on, and what it took."""

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PROCESS = Path("/proc/self")

MEASURE = """
import json, os, resource, subprocess, sys, time
started, files = time.monotonic(), 0
done = subprocess.Popen(sys.argv[2:])
while done.poll() is None:
    try:
        files = max(files, len(os.listdir(f"/proc/{done.pid}/fd")))
    except OSError:
        pass  # it has just ended, or this system does not tell
    try:
        done.wait(0.02)
    except subprocess.TimeoutExpired:
        pass
used = resource.getrusage(resource.RUSAGE_CHILDREN)
took = {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": time.monotonic() - started, "files": files}
with open(sys.argv[1], "w") as file:
    json.dump({"code": done.returncode, **took, "peak_mb": used.ru_maxrss / 1024}, file)
"""
"""Runs a command from a process that is small itself: a child counts its parent's memory until it starts."""


def command(*words: str | Path) -> tuple[dict[str, float], str]:
    """Run Python in a checkout, as users do; return what it took, and what it printed.

    CPU seconds of user and system, wall-clock seconds, the most files open at once as far as looks 20 ms
    apart show, and the largest resident memory, the larger of its processes'.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.NamedTemporaryFile() as note:
        call = [sys.executable, "-S", "-c", MEASURE, note.name, sys.executable, *map(str, words)]
        done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
        taken = json.load(note)
    text = done.stdout + done.stderr
    if taken.pop("code"):
        raise SystemExit(f"{' '.join(map(str, words[:4]))} ...\n{text[-2000:]}")
    return {key: round(value, 2) for key, value in taken.items()}, text


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
