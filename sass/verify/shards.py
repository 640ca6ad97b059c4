"""The scenes of a shard: what the manifest says, what the record says, and what stands."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from sass.catalog import Label, Scene
from sass.files import Files, members, sealed, write_json
from sass.manifest import UNHASHED, Record, gathered, payload_digest
from sass.run import SHARD_STAGES
from sass.verify.finding import AGAIN, GATHERED, REMOVED, Finding, Look
from sass.verify.soundness import difference, half_written, read_sealed

FEEDS = {"features": "ingest", "segment": "features", "change": "segment", "evaluate": "segment"}
"""What is made of a shard by a stage, to what it is made of."""


def shard_faults(
    look: Look, shard: str, rows: dict[str, Scene], labels: dict[str, Label] | None
) -> Iterator[Finding]:
    """Yield what is wrong with the scenes of a shard, stage by stage; scores are left out without labels."""
    mapped = expected = set(rows)
    follows = _follows(look, shard)
    for stage in SHARD_STAGES if labels is not None else SHARD_STAGES[:-1]:
        if stage == "change":
            mapped, expected = expected, set()
            if look.run.manifest(stage, shard).exists():  # it is made on request
                expected = {scene for scene in mapped & follows.keys() if _mapped(look, *follows[scene])}
        elif stage == "evaluate":
            expected = mapped & labels.keys()
        path = look.run.manifest(stage, shard)
        manifest, wrong = read_sealed(path)
        records = {p.stem for p in path.with_suffix("").glob("*.json") if not p.name.startswith(".")}
        payloads = {name for name in rows if look.run.payload(stage, name).exists()}
        begun = path.exists() or records or payloads or (expected and _scored(look, shard))
        if manifest is None and begun:
            effect = f"{stage} of shard {shard} does not count as done"
            yield look.finding(f"{stage}, shard {shard}", path, wrong, effect, GATHERED, (path,))
        entries = manifest["scenes"] if manifest else None
        aside = manifest["failed"] if manifest else {}
        names = sorted({*expected, *records, *payloads, *(entries or {}), *aside})
        yield from _scene_faults(look, stage, shard, names, rows, entries, aside, expected)
        expected = set(entries) if entries is not None else expected & records


def _follows(look: Look, shard: str) -> dict[str, tuple[str, str]]:
    """Return what `load_earlier` does; nothing of a damaged file, which `verify.catalog` names."""
    tree, _ = read_sealed(look.run.catalog_earlier(shard))
    return {scene: tuple(before) for scene, before in tree["scenes"].items()} if tree else {}


def _mapped(look: Look, scene: str, shard: str) -> bool:
    """Say whether a scene of any shard has a map."""
    return look.run.record("segment", shard, scene).exists()


def _scored(look: Look, shard: str) -> bool:
    """Say whether the scores of the archive came after the last scan of a shard, and so count all of it."""
    scores = look.run.archive_record("metrics")
    return scores.exists() and not _newer(
        scores, look.run.catalog_shard(shard), look.run.catalog_labels(shard)
    )


def _newer(path: Path, *others: Path) -> bool:
    made = path.stat().st_mtime_ns
    return any(other.exists() and other.stat().st_mtime_ns > made for other in others)


def _waiting(look: Look, stage: str, shard: str) -> bool:
    """Say whether a scan or an earlier stage came after a stage, so that the next run does it in any case."""
    run = look.run
    before = FEEDS.get(stage)
    inputs = [run.manifest(before, shard) if before else run.catalog_shard(shard)]
    if stage == "evaluate":
        inputs.append(run.catalog_labels(shard))
    elif stage == "change":
        homes = {home for _, home in _follows(look, shard).values()}
        inputs += [run.catalog_earlier(shard), *(run.manifest("segment", home) for home in homes)]
    return _newer(run.manifest(stage, shard), *inputs)


def _scene_faults(
    look: Look,
    stage: str,
    shard: str,
    names: list[str],
    rows: dict[str, Scene],
    entries: dict[str, Record] | None,
    aside: Collection[str],
    expected: set[str],
) -> Iterator[Finding]:
    """Hold against each other what the manifest and the record of each scene say, and its payload."""
    run = look.run
    manifest = run.manifest(stage, shard)
    read = {name: read_sealed(run.record(stage, shard, name)) for name in names}
    # what has no record can only be proven by its bytes
    hashed = {name for name, (record, _) in read.items() if record is None or not look.quick}
    found = look.measure({n: members(run.payload(stage, n)) for n in names if n in rows}, hashed)
    for name in names:
        (record, wrong), entry = read[name], (entries or {}).get(name)
        path, payload = run.record(stage, shard, name), run.payload(stage, name)
        finding = partial(look.finding, f"{stage}, scene {name}")
        again = (manifest, path, payload)
        if name not in rows:
            wrong = "is of a scene that is not in the catalog"
            effect = "fits and scores count what nobody asks for"
            place = path if path.exists() else manifest
            yield finding(place, wrong, effect, "the next run drops it", (manifest, path))
        elif name in aside:
            for left in (p for p in (path, payload) if p.exists()):
                wrong, effect = "is there though the scene was set aside", "others may take it for whole"
                yield finding(left, wrong, effect, REMOVED, (left,))
        elif record is not None:
            yield from _payload_faults(finding, payload, record["files"], found[name], again)
            if entries is not None and entry != gathered(record):
                wrong = f"does not say of scene {name} what its record says"
                effect = "later stages work with what is not so"
                yield finding(manifest, wrong, effect, GATHERED, (manifest,))
        elif entry is not None or path.exists():
            whole = entry is not None and payload_digest(stage, found[name]) == entry["digest"]
            effect = "nobody can say whether the files of the scene are as they were made"
            if whole and stage not in UNHASHED:
                mended = partial(write_json, path, sealed(entry | {"files": found[name]}))
                remedy = "a repair writes it anew, for its manifest proves the files"
                yield finding(path, wrong, effect, remedy, mends=mended)
            else:
                yield finding(path, wrong, effect, AGAIN, again)
            if not payload.exists():
                yield finding(payload, "is missing", "nothing can be read of it", AGAIN, again)
        elif payload.exists():
            effect = "nobody can say what it was made of"
            yield finding(payload, "has no record", effect, AGAIN, again)
        elif entries is not None and name in expected and not _waiting(look, stage, shard):
            effect = "it has no map, and the workflow does not see why"
            yield finding(manifest, f"leaves out scene {name}", effect, AGAIN, (manifest,))


def _payload_faults(
    finding: Callable[..., Finding], payload: Path, said: Files, found: Files, again: tuple[Path, ...]
) -> Iterator[Finding]:
    """Yield a finding for each file of a payload that is not as it was recorded."""
    if not found:
        yield finding(payload, "is missing", "nothing can be read of it", AGAIN, again)
        return
    for name in sorted(said.keys() | found.keys()):
        path = payload if name == payload.name else payload / name
        if name not in said:
            wrong = "was left half-written" if half_written(path.name) else "belongs to no stage"
            yield finding(path, wrong, "others may take it for data", REMOVED, (path,))
        elif wrong := difference(said[name], found.get(name)):
            yield finding(path, wrong, "what is read of it is not what was made", AGAIN, again)
