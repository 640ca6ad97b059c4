"""What ends a command from outside: signals that ask it to end, and disks that do not take what it writes."""

import contextlib
import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors that say something of the disk, not of what was to be written."""
RIGHTS = (errno.EACCES, errno.EPERM)
FILES = (errno.EMFILE, errno.ENFILE)
"""Too many open files, of this process or of the machine."""


class Stopped(SystemExit):
    """SIGTERM or SIGINT has come; the exit code is that of a shell, 128 and the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM (Slurm's warning) and SIGINT (Ctrl-C) into `Stopped`, so that temporary files are removed.

    A second signal is not minded: it would only disturb the tidying up. Signals that are ignored stay so.
    """

    def stop(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        both = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler for number, handler in both.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def system_trouble(error: BaseException | None, folder: Path) -> str | None:
    """Say what is wrong with the machine or a disk and what to do, if an error or its causes tell of it."""
    while error is not None:
        # the writer of safetensors, in Rust, gives the number in its text only
        said = re.search(r"os error (\d+)", str(error))
        number = int(said.group(1)) if said else getattr(error, "errno", None)
        if number in DISK + RIGHTS + FILES:
            break
        error = error.__cause__ or error.__context__
    else:
        return None
    if number in FILES:
        return (
            f"{os.strerror(number)}: raise the limit (`ulimit -n 4096`) or give fewer --threads, and give "
            "the same command again; what is finished stands"
        )
    while not folder.exists():
        folder = folder.parent
    if number in RIGHTS:
        return (
            f"{getattr(error, 'filename', None) or 'a file'} may not be read or written by this user "
            f"({os.strerror(number)}): give the rights to {folder.absolute()}, or run as its owner, and give "
            "the same command again; what is finished stands"
        )
    free = shutil.disk_usage(folder).free / 1e6
    name = getattr(error, "filename", None) or "a file"
    reason = getattr(error, "strerror", None) or os.strerror(number)
    return (
        f"{name} could not be written: {reason}. The file system of {folder.absolute()} has {free:,.1f} MB "
        "free, now that what was half written is removed: make room or raise the quota (or see to the disk, "
        "if it has room), and give the same command again; what is finished stands"
    )
