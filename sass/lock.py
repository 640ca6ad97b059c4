"""One process at a time: a second on the same shard, stage or catalog is refused before it spoils a file."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from sass.errors import SassError

UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Keep other processes off what this one is at work on, by a lock beside ``path`` that dies with it.

    Two writers of one store would spoil it without a word. Where a file system knows no locks, there is none.

    Raises
    ------
    SassError
        Another process holds it.
    """
    lock = path.with_name(f".{path.name}.partial.lock")
    made = [folder for folder in (lock.parent, lock.parent.parent) if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            raise SassError(
                f"another process is at work on {what} ({held.read().strip() or 'just started'}), and two "
                "would spoil each other's files: let it end, or end it, then give the same command again"
            ) from None
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise
        if not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(held.fileno()))):
            raise SassError(f"another process has just ended its work on {what}: give the same command again")
        try:
            held.truncate(0)
            print(f"process {os.getpid()} on {socket.gethostname()}", file=held, flush=True)
            yield
        finally:
            lock.unlink(missing_ok=True)
            for folder in made:  # where nothing came of it, nothing is left
                with contextlib.suppress(OSError):
                    folder.rmdir()
