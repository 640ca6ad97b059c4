"""Scan: from patterns, lists and STAC items to the catalog, by reading headers only.

What is asked for becomes candidates (`sass.sources`), the headers of their files become rows
(`sass.headers`), and each new row gets an id and a shard (`sass.shards`). Ids and membership never
change afterwards, so a scan that finds more scenes makes nothing stale that stands.
"""

import contextlib
import os
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sass.catalog import (
    Label,
    Scene,
    ShardInfo,
    load_broken,
    load_earlier,
    load_index,
    load_labels,
    load_left,
    load_shard,
    size_and_time,
)
from sass.config import Catalog
from sass.errors import SassError
from sass.files import file_digest, sealed, write_json
from sass.headers import Broken, read_rows, unreadable
from sass.lock import alone
from sass.run import Run
from sass.series import earlier_scenes
from sass.shards import assign_shards, found_again, safe_id, unique_ids
from sass.sources import Candidate, find_candidates, find_labels, shown

SHOWN = 8
"""Scenes and reasons that a summary names."""


@dataclass(frozen=True)
class ScanResult:
    """What a scan found, or would write in a dry run."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    broken: dict[str, str]
    """Path, or what was asked for, to the reason why there is no scene of it."""
    shards: dict[str, ShardInfo]
    relabelled: list[str]
    """Scenes whose label raster is new, changed or gone."""
    unused_labels: dict[str, str]
    """Path of a label raster to the reason why it belongs to no scene."""
    dry_run: bool

    def __str__(self) -> str:
        fit = sum(entry.fit for entry in self.shards.values())
        scenes = sum(entry.scenes for entry in self.shards.values())
        labels = sum(entry.labels for entry in self.shards.values())
        pixels = sum(entry.pixels for entry in self.shards.values())
        lines = [
            f"{'would have' if self.dry_run else 'catalog:'} {scenes} scenes in {len(self.shards)} shards "
            f"({fit} to fit on), {pixels / 1e6:,.1f} megapixels, {labels} with labels"
        ]
        groups = {"added": self.added, "changed": self.changed, "removed": self.removed}
        lines += [f"  {word:9} {_shortened(ids)}" for word, ids in groups.items()]
        lines.append(f"  unchanged {len(self.unchanged)}")
        if self.relabelled:
            lines.append(f"  labels of {_shortened(self.relabelled)}")
        for title, reasons in (("not usable", self.broken), ("labels not used", self.unused_labels)):
            if reasons:
                lines.append(f"  {title}: {len(reasons)}")
                shortened = list(reasons.items())[:SHOWN]
                lines += [f"    {_printed(path)}: {_printed(reason)}" for path, reason in shortened]
            if len(reasons) > SHOWN:
                lines.append(f"    and {len(reasons) - SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Contents:
    """All that a catalog says."""

    rows: dict[str, Scene]
    members: dict[str, list[str]]
    """Ids of the scenes of each shard."""
    fit: set[str]
    """Shards that are fitted on."""
    labels: dict[str, Label]
    broken: dict[str, str]
    earlier: dict[str, str]
    """The scene before it, of each that follows another of the same footprint."""
    left: dict[str, str]
    """Shard of each scene that was there once: where it goes if it is found again."""

    @property
    def shard_of(self) -> dict[str, str]:
        """Return the shard of each scene."""
        return {scene: shard for shard, inside in self.members.items() for scene in inside}

    @property
    def index(self) -> dict[str, ShardInfo]:
        shard_of = self.shard_of
        return {
            shard: ShardInfo(
                fit=shard in self.fit,
                scenes=len(inside),
                labels=sum(scene in self.labels for scene in inside),
                pixels=sum(self.rows[scene].pixels for scene in inside),
                earlier=sorted({shard_of[self.earlier[scene]] for scene in inside if scene in self.earlier}),
            )
            for shard, inside in self.members.items()
        }


def scan(
    run: Run,
    patterns: list[str],
    *,
    labels: list[str] | None = None,
    settings: Catalog,
    dry_run: bool = False,
    prune: bool = False,
) -> ScanResult:
    """Bring the catalog of a run up to date with what the patterns match.

    Scenes of earlier scans stay while their files exist, whether or not a pattern matches them.

    Parameters
    ----------
    patterns
        Files, folders, globs (``**`` is any depth), patterns with ``{scene}`` and ``{band}``, lists (CSV
        or Parquet: path and optional id, time, sensor, label) or STAC items (JSON).
    labels
        Files, folders, globs or patterns with ``{scene}`` of label rasters, matched to scenes by stem.
        They are not scenes even if ``patterns`` match them.
    dry_run
        Find out, write nothing.
    prune
        Drop the scenes and labels that this call does not match.

    Raises
    ------
    SassError
        The patterns match nothing, a list cannot be read, nothing is left to fit on, another scan is at
        work, or the run's folder is a file.
    """
    if run.root.exists() and not run.root.is_dir():
        raise SassError(f"{run.root} is a file, and a run is a folder: give --into another name")
    held = contextlib.nullcontext() if dry_run else alone(run.catalog.parent, f"the catalog of {run.root}")
    with held:
        return _scan(run, patterns, labels, settings, dry_run, prune)


def _scan(
    run: Run, patterns: list[str], labels: list[str] | None, settings: Catalog, dry_run: bool, prune: bool
) -> ScanResult:
    before = _standing(run)
    label_files, nothing = find_labels(labels or [])
    kept_labels = {} if prune else before.labels
    not_scenes = {path for path, _ in label_files} | {label.path for label in kept_labels.values()}
    asked, not_found = find_candidates(run, patterns, not_scenes)
    if not asked:
        raise SassError(
            f"no raster matches {', '.join(map(repr, patterns)) or 'an empty list of patterns'}: check the "
            "spelling, quote globs so that the shell leaves them alone, and mind that paths are relative to "
            "the working folder; label rasters and the maps of a run are not taken for scenes"
        )
    old = found_again(asked, before.rows, not_scenes, prune)
    scenes, rows, damaged = _read(before, old, asked, settings.vrt_folders)
    # a disk that was away for one scan makes nothing stale
    home = before.left | before.shard_of
    stay = {scene: shard for scene, shard in home.items() if scene in rows}
    members, fit = assign_shards(sorted(rows), stay, before.members, before.fit, settings)
    chosen, unused_labels = _match_labels(label_files, scenes, kept_labels)
    broken = {shown(pattern): reason for pattern, reason in (nothing | not_found).items()} | damaged
    if not prune:
        looked_at = {path for candidate in [*asked, *old.values()] for path in candidate.paths}
        broken |= {p: why for p, why in before.broken.items() if p not in looked_at and os.path.isfile(p)}
    left = {scene: shard for scene, shard in home.items() if scene not in rows}
    after = Contents(rows, members, fit, chosen, dict(sorted(broken.items())), earlier_scenes(rows), left)
    if not dry_run:
        write_catalog(run, after, before)
    return _compared(before, after, unused_labels, dry_run)


def _read(
    before: Contents, old: dict[str, Candidate], asked: list[Candidate], vrt_folders: list[str]
) -> tuple[dict[str, Candidate], dict[str, Scene], dict[str, str]]:
    """Return the candidates of all scenes by id, their rows, and path to reason of what cannot be read."""
    again = {candidate.paths for candidate in old.values()}
    new = [candidate for candidate in asked if candidate.paths not in again]
    # what was broken at the last scan is opened again, for its row may be that of better days
    trusted = [
        None if before.broken.keys() & set(c.paths) else before.rows[scene] for scene, c in old.items()
    ]
    results = read_rows([*old.values(), *new], [*trusted, *[None] * len(new)], vrt_folders)
    rows = {
        scene: unreadable(before.rows[scene], candidate)
        if isinstance(row, Broken)
        else replace(row, id=scene)
        for (scene, candidate), row in zip(old.items(), results)
    }
    fresh = {c: row for c, row in zip(new, results[len(old) :]) if isinstance(row, Scene)}
    ids = unique_ids({candidate.paths: candidate.name for candidate in fresh}, rows)
    rows |= {ids[candidate.paths]: replace(row, id=ids[candidate.paths]) for candidate, row in fresh.items()}
    scenes = old | {ids[candidate.paths]: candidate for candidate in fresh}
    return scenes, rows, {row.path: str(row) for row in results if isinstance(row, Broken)}


def _match_labels(
    files: list[tuple[str, str]], scenes: dict[str, Candidate], old: dict[str, Label]
) -> tuple[dict[str, Label], dict[str, str]]:
    """Return the label of each scene that has one, and path to reason of those that belong to none.

    A label named in a list comes first, then those of patterns, then that of an earlier scan.
    """
    by_stem: dict[str, set[str]] = defaultdict(set)
    for scene, candidate in scenes.items():
        by_stem[candidate.name].add(scene)
        if len(candidate.paths) == 1:
            by_stem[Path(candidate.paths[0]).stem].add(scene)
    listed = [(candidate.label, scene) for scene, candidate in scenes.items() if candidate.label]
    chosen: dict[str, str] = {}
    unused: dict[str, str] = {}
    for path, stem in listed + files:
        meant = sorted({stem} & scenes.keys() or by_stem.get(stem) or {safe_id(stem)} & scenes.keys())
        if not os.path.isfile(path) or shown(path) != path:
            unused[shown(path)] = "there is no such local file, or its name is not UTF-8"
        elif not meant:
            unused[path] = (
                f"there is no scene {stem!r}; a label has the stem of its scene, or names it by {{scene}}"
            )
        elif len(meant) > 1:
            unused[path] = (
                f"several scenes are called {stem!r} ({', '.join(meant)}); name the label after an id"
            )
        elif chosen.setdefault(meant[0], path) != path:
            unused[path] = f"scene {meant[0]!r} has the label {chosen[meant[0]]} already"
    for scene, label in old.items():
        if scene in scenes and os.path.isfile(label.path):
            chosen.setdefault(scene, label.path)
    return {scene: Label(path, *size_and_time([path])) for scene, path in sorted(chosen.items())}, unused


def _standing(run: Run) -> Contents:
    index = load_index(run) if run.catalog.exists() else {}
    shards = {shard: load_shard(run, shard) for shard in index}
    return Contents(
        rows={scene: row for rows in shards.values() for scene, row in rows.items()},
        members={shard: list(rows) for shard, rows in shards.items()},
        fit={shard for shard, entry in index.items() if entry.fit},
        labels={scene: label for shard in index for scene, label in load_labels(run, shard).items()},
        broken=load_broken(run),
        earlier={scene: before for shard in index for scene, (before, _) in load_earlier(run, shard).items()},
        left=load_left(run),
    )


def write_catalog(run: Run, after: Contents, before: Contents) -> None:
    """Write the catalog, its index last, so that a scan that was killed can be run again.

    Shards of which all stands as it was read (``before``) are left alone: a day's scan of an archive of years
    would else spend most of its time on laying out what is there already.
    """
    shard_of = after.shard_of
    if after.left or run.left.exists():
        write_json(run.left, after.left)
    for shard, inside in after.members.items():
        if not _equal(before, after, shard, before.rows, after.rows):
            rows = [after.rows[scene].as_json() for scene in inside]
            write_json(run.catalog_shard(shard), {"shard": shard, "scenes": rows})
        if not _equal(before, after, shard, before.labels, after.labels):
            labels = {scene: asdict(after.labels[scene]) for scene in inside if scene in after.labels}
            write_json(run.catalog_labels(shard), {"shard": shard, "scenes": labels})
        before_them = {scene: after.earlier[scene] for scene in inside if scene in after.earlier}
        if before_them or run.catalog_earlier(shard).exists():
            placed = {scene: [before, shard_of[before]] for scene, before in before_them.items()}
            write_json(run.catalog_earlier(shard), sealed({"shard": shard, "scenes": placed}))
    write_json(run.broken, after.broken)
    entries = {name: asdict(entry) for name, entry in after.index.items()}
    for name, entry in entries.items():
        entry["digests"] = [file_digest(run.catalog_shard(name)), file_digest(run.catalog_labels(name))]
    write_json(run.catalog, sealed({"shards": entries, "broken": file_digest(run.broken)}))
    for place in (run.catalog_shard, run.catalog_labels, run.catalog_earlier):
        for path in place("x").parent.glob("s*.json"):
            if path.stem not in after.members:
                path.unlink()


def _equal(before: Contents, after: Contents, shard: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Say whether a shard has the same scenes as before, and each of them what it had."""
    inside = after.members[shard]
    return inside == before.members.get(shard) and all(old.get(scene) == new.get(scene) for scene in inside)


def _compared(before: Contents, after: Contents, unused_labels: dict[str, str], dry_run: bool) -> ScanResult:
    both = sorted(after.rows.keys() & before.rows.keys())
    return ScanResult(
        added=sorted(after.rows.keys() - before.rows.keys()),
        changed=[scene for scene in both if after.rows[scene] != before.rows[scene]],
        removed=sorted(before.rows.keys() - after.rows.keys()),
        unchanged=[scene for scene in both if after.rows[scene] == before.rows[scene]],
        broken=after.broken,
        shards=after.index,
        relabelled=[s for s in sorted(after.rows) if after.labels.get(s) != before.labels.get(s)],
        unused_labels=unused_labels,
        dry_run=dry_run,
    )


def _printed(text: str) -> str:
    """Spell out what would steer a terminal: a name of a file may hold it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{len(ids)}" + (f": {', '.join(ids[:SHOWN])}{more}" if ids else "")
