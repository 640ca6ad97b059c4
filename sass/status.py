"""What of a run stands, runs and has failed, by what lies in its folder; nothing is asked of a scheduler.

A unit of work is a stage on a shard, or on the whole archive. It stands when its manifest is there and speaks
of every scene that it should. Snakemake removes the manifest when it begins a job, so a unit without one
whose log is there has begun: it has failed if the log ends in an error, it runs if something was heard of it
lately, else it was stopped.

Whether what stands is still what configuration and code ask for is for ``snakemake -n`` to say, and whether
its bytes are whole for `sass.verify`.
"""

import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sass.catalog import ShardInfo, fit_shards, load_broken, load_index
from sass.config import Config
from sass.errors import SassError
from sass.files import read_json
from sass.manifest import completion
from sass.run import ARCHIVE, Run

STATES = ("stands", "runs", "waits", "stopped", "failed")
SILENCE = 600.0
"""Seconds without a sign of life after which a job counts as stopped; a log gets a line more often."""
TAIL = 8192
"""Bytes at the end of a log that are looked at."""
LISTED = 10
"""Units or scenes of a kind that the text names; it counts the others."""


@dataclass(frozen=True)
class Unit:
    """One job of the workflow: ``stage`` and ``unit``, a shard or ``archive``.

    ``state`` is one of `STATES`; ``done``, its scenes that stand, and ``scenes``, all that it should do, both
    0 for the whole archive; ``aside``, scene to reason of those set aside; ``said``, the end of its log.
    """

    stage: str
    unit: str
    state: str
    done: int = 0
    scenes: int = 0
    aside: dict[str, str] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True)
class Status:
    """What is known of a run: its ``units`` in the order of the workflow, and files no scan could use."""

    root: Path
    scenes: int
    shards: int
    fit: int
    units: list[Unit]
    broken: dict[str, str]
    complete: bool

    @property
    def aside(self) -> dict[str, str]:
        """Scene, or file, to stage and reason of all that is set aside."""
        scans = {path: f"scan: {reason}" for path, reason in self.broken.items()}
        return scans | {name: f"{u.stage}: {said}" for u in self.units for name, said in u.aside.items()}

    @property
    def state(self) -> str:
        """``complete``, ``aside`` where all else stands, ``failed``, ``runs`` or ``waits``."""
        held = {unit.state for unit in self.units}
        for state in ("failed", "runs"):
            if state in held:
                return state
        if held != {"stands"}:
            return "waits"
        return "aside" if self.aside else "complete" if self.complete else "waits"

    @property
    def next(self) -> list[str]:
        """The commands to give now."""
        run = self.root
        work = [f"snakemake --config run={run}", f"snakemake --profile slurm --config run={run}"]
        return {
            "complete": [f"xdg-open {run}/report/index.html"],
            "aside": [f"xdg-open {run}/report/index.html", *work],
            "runs": [f"sass status {run}"],
        }.get(self.state, work)


def status(run: Run, config: Config) -> Status:
    """Look through a run.

    Raises
    ------
    SassError
        There is no catalog, or a manifest cannot be read.
    """
    index, units = load_index(run), []
    fit = fit_shards(index, config.catalog)
    stands: dict[str, Unit] = {}

    def shards(stage: str, expected: dict[str, int]) -> None:
        nonlocal stands
        stands = {shard: _shard(run, stage, shard, scenes) for shard, scenes in expected.items()}
        units.extend(stands.values())

    def archive(stage: str) -> None:
        path = run.manifest(stage, ARCHIVE)
        if stage in ("metrics", "report", "name"):
            path = run.outputs(stage)[0]
        units.append(_begun(run, stage, ARCHIVE) if not path.exists() else Unit(stage, ARCHIVE, "stands"))

    def after() -> dict[str, int]:
        return {shard: unit.done for shard, unit in stands.items()}

    labelled = {shard: 0 for shard, entry in index.items() if entry.labels}
    shards("ingest", {shard: entry.scenes for shard, entry in index.items()})
    archive("normalize")
    if not config.features.source:
        archive("train")
    shards("features", after())
    archive("codebook")
    archive("hierarchy")
    if run.places.exists():
        archive("name")
    shards("segment", after())
    if config.change.maps:
        shards("change", {shard: 0 for shard, entry in index.items() if entry.earlier})
    if labelled:
        archive("baselines")
        shards("evaluate", labelled)
    archive("metrics")
    archive("report")
    return _status(run, index, fit, units)


def _status(run: Run, index: dict[str, ShardInfo], fit: list[str], units: list[Unit]) -> Status:
    scenes = sum(entry.scenes for entry in index.values())
    whole = run.complete.exists() and _read(run, run.complete) == completion(run, list(index))
    return Status(run.root, scenes, len(index), len(fit), units, load_broken(run), whole)


def _shard(run: Run, stage: str, shard: str, scenes: int) -> Unit:
    """Look at a stage on a shard that has at least so many scenes to do."""
    path = run.manifest(stage, shard)
    if not path.exists():
        records = path.with_suffix("")
        done = sum(not p.name.startswith(".") for p in records.iterdir()) if records.exists() else 0
        return _begun(run, stage, shard, done, scenes)
    manifest = _read(run, path)
    done, aside = len(manifest["scenes"]), manifest["failed"]
    state = "stands" if done + len(aside) >= scenes else "waits"
    return Unit(stage, shard, state, done, max(scenes, done + len(aside)), aside)


def _begun(run: Run, stage: str, unit: str, done: int = 0, scenes: int = 0) -> Unit:
    """Say what has become of a unit that does not stand."""
    log = run.log(stage, unit)
    if not log.exists():
        return Unit(stage, unit, "waits", done, scenes)
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - TAIL, 0))
        lines = stream.read().decode(errors="replace").split("\n")
    lines = [line.rpartition("\r")[2].strip() for line in lines if line.strip()]
    errors = [line for line in lines if re.match(r"sass \w+: ", line)]
    said = (errors or lines or [""])[-1]
    signs = [log, run.manifest(stage, unit).with_suffix("")]
    silent = time.time() - max(path.stat().st_mtime for path in signs if path.exists())
    if errors and " stopped by SIG" in said:
        state = "stopped"
    elif errors or any(line.startswith("Traceback (") for line in lines):
        state = "failed"
    else:
        state = "runs" if silent < SILENCE else "stopped"
        said = f"{said + ', ' if said else ''}{_ago(silent)}"
    return Unit(stage, unit, state, done, scenes, said=said)


def _read(run: Run, path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise SassError(
            f"{path} is damaged ({error}), so nothing can be said of the run: give "
            f"`sass verify {run.root} --repair`, then run the workflow again"
        ) from None


def as_json(found: Status) -> dict[str, Any]:
    """Return all that is known as plain data."""
    units = [asdict(unit) for unit in found.units]
    about = {"run": str(found.root), "state": found.state, "scenes": found.scenes, "shards": found.shards}
    return about | {"fit": found.fit, "units": units, "aside": found.aside, "next": found.next}


def as_text(found: Status) -> str:
    """Return a table of the stages, then what needs a word, then what to do."""
    head = (
        f"{found.root}: {found.scenes:,} scenes in {found.shards:,} shards, {found.fit:,} of them to fit on"
    )
    titles = "".join(f"{word:>11}" for word in (*STATES, "scenes", "aside"))
    lines = [head, "", f"{'stage':<11}{titles}"]
    for stage in dict.fromkeys(unit.stage for unit in found.units):
        units = [unit for unit in found.units if unit.stage == stage]
        held = Counter(unit.state for unit in units)
        counts = [
            *(held[state] for state in STATES),
            sum(u.done for u in units),
            sum(len(u.aside) for u in units),
        ]
        lines.append(f"{stage:<11}" + "".join(f"{count if count else '.':>11}" for count in counts))
    for state, title in (("runs", "running"), ("stopped", "stopped"), ("failed", "failed")):
        lines += _listed(title, [_unit(found.root, unit) for unit in found.units if unit.state == state])
    lines += _listed("set aside", [f"{name}: {reason}" for name, reason in found.aside.items()])
    meaning = {
        "complete": "All stands. Look at it:",
        "aside": "All else stands. Look at it; once files are mended, scan and run again:",
        "failed": "Mend what has failed, then run again, here or on a cluster:",
        "runs": "Jobs are at work. Look again:",
        "waits": "There is work left. Run it, here or on a cluster:",
    }
    return "\n".join([*lines, "", meaning[found.state], *(f"  {command}" for command in found.next)])


def _listed(title: str, entries: list[str]) -> list[str]:
    more = [f"  and {len(entries) - LISTED:,} more"] if len(entries) > LISTED else []
    return ["", f"{title}:", *(f"  {entry}" for entry in entries[:LISTED]), *more] if entries else []


def _unit(root: Path, unit: Unit) -> str:
    name = unit.stage if unit.unit == ARCHIVE else f"{unit.stage} {unit.unit}"
    scenes = f" {unit.done} of {unit.scenes} scenes;" if unit.scenes else ""
    where = "" if unit.state == "runs" else f"\n    {Run(root).log(unit.stage, unit.unit)}"
    return f"{name}:{scenes} {unit.said}{where}"


def _ago(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(seconds, 0):.0f} s ago"
    return f"{minutes} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
