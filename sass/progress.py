"""How far the work is, on stderr: a line that is drawn anew on a terminal, a plain one now and then in a log.

Levels may lie in each other, such as the windows of a scene among the scenes of a shard; a line shows them
all. Nothing is said of work that ends sooner than the first line would come.
"""

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
REDRAW, PAUSE = 0.1, 30.0
"""Seconds between two lines: on a terminal, and in a log."""
WIDTH = 20
"""Characters of the bar."""

_levels: list["Progress"] = []
_said = 0.0  # when the last line was


class Progress:
    """How much of some work is done. A context manager; the innermost has the bar.

    Parameters
    ----------
    what
        What is worked on, such as a scene.
    total
        How much there is to do, in any unit.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total = what, max(total, 1)
        self.done, self.began, self.started, self.more = 0, None, 0.0, ""

    def __enter__(self) -> "Progress":
        global _said
        self.started = time.monotonic()
        if not _levels:
            _said = self.started
        _levels.append(self)
        return self

    def __exit__(self, *_) -> None:
        _levels.remove(self)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def reach(self, done: int, more: str = "") -> None:
        """Say how much is done, with a few words more."""
        global _said
        now = time.monotonic()
        if self.began is None:
            self.began = done, now  # what stood already took no time
        self.done, self.more = min(done, self.total), more
        terminal = sys.stderr.isatty()
        if now - _said < (REDRAW if terminal else PAUSE):
            return
        _said = now
        line = " > ".join(level._text(now, level is _levels[-1] and terminal) for level in _levels)
        if terminal:
            room = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:room]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _text(self, now: float, bar: bool) -> str:
        filled = WIDTH * self.done // self.total
        words = [self.what, f"[{'█' * filled}{'·' * (WIDTH - filled)}]"] if bar else [self.what]
        words += [f"{self.done}/{self.total}", *([self.more] if self.more else [])]
        first, when = self.began or (0, now)
        if self is _levels[-1] and self.done > first:
            left = (now - when) / (self.done - first) * (self.total - self.done)
            words.append(f"{_clock(now - self.started)}, {_clock(left)} left")
        return " ".join(words)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield the items, and say how many have come."""
    with Progress(what, total) as bar:
        for done, item in enumerate(items):
            bar.reach(done)
            yield item


def say(text: str) -> None:
    """Print a line of its own on stderr, in place of what a terminal shows of the work."""
    cleared = "\r\x1b[K" if _levels and sys.stderr.isatty() else ""
    print(f"{cleared}{text}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes}:{rest:02d}"
