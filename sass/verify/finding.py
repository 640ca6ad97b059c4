"""A finding, its repair, and what all parts of a look through a run share."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sass.files import Files, remove
from sass.run import Run
from sass.verify.soundness import measured

AGAIN = "the next run makes it again"
GATHERED = "the next run gathers it from the records of the scenes"
REMOVED = "a repair removes it"
LEFT = "no repair touches it: move it elsewhere"
LOST = "no repair knows what it said: put it back from a copy, or scan into a fresh run"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written."""

    about: str
    """The stage that made it, and the scene or shard."""
    file: str
    """Relative to the run's folder; of a source, its path."""
    wrong: str
    effect: str
    remedy: str
    removes: tuple[Path, ...] = ()
    """What a repair removes, in this order."""
    mends: Callable[[], None] | None = None
    """What a repair does instead, where all that a lost record said is known."""
    fault: bool = True
    """False for what is worth knowing and is no damage of the run."""

    def __str__(self) -> str:
        kind = "fault" if self.fault else "note"
        return f"{kind}: {self.about}: {self.file} {self.wrong}, so {self.effect}; {self.remedy}"


def repair(run: Run, findings: list[Finding]) -> list[str]:
    """Remove what must be made again and mend what is known; return the names of what was removed.

    A manifest goes before the store that it vouches for, so that a repair that is killed can be given again.
    """
    paths = dict.fromkeys(path for finding in findings for path in finding.removes)
    if paths:
        # without the last word, the workflow looks at all that it stands for
        paths = dict.fromkeys([run.complete, *paths])
    held = [path for path in paths if path.exists() or path.is_symlink()]
    for path in held:
        remove(path)
    for finding in findings:
        if finding.mends:
            finding.mends()
    return [path.relative_to(run.root).as_posix() for path in held]


@dataclass
class Look:
    """A look through a run in which nothing else is at work.

    Parameters
    ----------
    run
        The run.
    quick
        Compare names and sizes only. Changed bytes are then not seen.
    map
        As the built-in function; files are read by it.
    """

    run: Run
    quick: bool
    map: Callable[[Callable, Iterable], Iterable]
    scenes: int = field(default=0, init=False)
    files: int = field(default=0, init=False)
    read: int = field(default=0, init=False)
    """Bytes that were read of payloads."""

    def name(self, path: Path) -> str:
        """Return a path as findings name it."""
        return path.relative_to(self.run.root).as_posix()

    def finding(self, about: str, path: Path, *words: Any, **more: Any) -> Finding:
        """Return a finding about a file of the run."""
        return Finding(about, self.name(path), *words, **more)

    def measure(self, payloads: dict[str, dict[str, Path]], hashed: Collection[str]) -> dict[str, Files]:
        """Return ``[bytes, digest]`` of files by payload and name, with no digest but where ``hashed``."""
        asked = [(key, name, path) for key, inside in payloads.items() for name, path in inside.items()]
        results = self.map(lambda each: measured(each[2], each[0] in hashed), asked)
        found: dict[str, Files] = {key: {} for key in payloads}
        for (key, name, _), held in zip(asked, results):
            found[key][name] = held
            self.files += 1
            self.read += (held[0] or 0) if key in hashed else 0
        return found
