"""The catalog, which nothing else can vouch for, and the rasters that it names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sass.catalog import Label, Scene, ShardInfo, load_index, load_labels, load_shard, size_and_time
from sass.files import file_digest
from sass.verify.finding import LOST, Finding, Look
from sass.verify.soundness import read_sealed, read_sound

WRONG_FORM = (TypeError, KeyError, AttributeError)
"""What reading a catalog of another form raises."""


def read_index(look: Look) -> tuple[dict[str, ShardInfo] | None, list[Finding]]:
    """Return the shards, None where the index cannot be trusted, and what is wrong.

    Raises
    ------
    SassError
        The run has no catalog.
    """
    run, index, broken = look.run, None, None
    tree, wrong = read_sound(run.catalog)
    try:
        if not run.catalog.exists() or (not wrong and tree.keys() == {"shards"}):  # the latter made by hand
            index = load_index(run)
        elif not wrong:
            tree, wrong = read_sealed(run.catalog)
            index, broken = (None, None) if wrong else (load_index(run), tree["broken"])
    except WRONG_FORM as error:
        wrong = f"is no index of shards ({error})"
    faults = []
    if wrong:
        effect = "nobody can say which scenes there are, and nothing else was looked at"
        faults.append(look.finding("catalog", run.catalog, wrong, effect, LOST))
    elif broken and (not run.broken.exists() or file_digest(run.broken) != broken):
        wrong = "is not as the scan wrote it" if run.broken.exists() else "is missing"
        effect, remedy = "nobody can say which files were set aside", "remove it and scan once more"
        faults.append(look.finding("catalog", run.broken, wrong, effect, remedy))
    return index, faults


def read_shard(
    look: Look, shard: str, said: ShardInfo
) -> tuple[dict[str, Scene] | None, dict[str, Label] | None, list[Finding]]:
    """Return the scenes and the labels of a shard, None where they cannot be trusted, and what is wrong."""
    run = look.run
    parts = (
        (run.catalog_shard(shard), load_shard, said.scenes, "nobody can say which scenes it has"),
        (run.catalog_labels(shard), load_labels, said.labels, "its scores cannot be made"),
    )
    held: list[Any] = []
    faults = []
    for i, (path, load, count, effect) in enumerate(parts):
        part = None
        wrong = read_sound(path)[1]
        if not wrong and said.digests and file_digest(path) != said.digests[i]:
            wrong = "is not as the scan wrote it"
        try:
            part = None if wrong else load(run, shard)
        except WRONG_FORM as error:
            wrong = f"is no part of a catalog ({error})"
        if part is not None and len(part) != count:
            part, wrong = None, f"has {len(part)} entries, and the index counts {count}"
        if wrong:
            faults.append(look.finding(f"catalog, shard {shard}", path, wrong, effect, LOST))
        held.append(part)
    path = run.catalog_earlier(shard)
    wrong = read_sealed(path)[1] if said.earlier or path.exists() else None
    if wrong:
        effect = "nobody can say which scenes its scenes follow"
        remedy = "remove it and scan once more"
        faults.append(look.finding(f"catalog, shard {shard}", path, wrong, effect, remedy))
    return held[0], held[1], faults


def sources(look: Look, rows: dict[str, Scene], labels: dict[str, Label]) -> Iterator[Finding]:
    """Yield a note for each raster that is no longer the one that was scanned."""
    asked = [(f"scene {name}", row, row.paths, row.driver == "VRT") for name, row in rows.items()]
    asked += [(f"label of scene {name}", label, (label.path,), False) for name, label in labels.items()]
    found = look.map(lambda each: size_and_time(each[2]), asked)
    for (about, said, paths, virtual), now in zip(asked, found):
        gone = None
        if now != (said.size, said.modified):
            gone = next((path for path in paths if not Path(path).exists()), None)
        if gone:
            effect, remedy = "what is lost of it cannot be made again", "bring it back, or scan once more"
            yield Finding(about, gone, "is gone", effect, remedy, fault=False)
        # the size of a virtual raster counts its sources, which only an open file knows
        elif not virtual and now != (said.size, said.modified):
            wrong, effect = "has changed since the scan", "the run is of what it was before"
            yield Finding(about, paths[0], wrong, effect, "scan and run once more", fault=False)
