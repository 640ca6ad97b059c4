"""Ids and shards: which scene a candidate is, what a new one is called, and the shard it joins for good."""

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from sass.catalog import Scene
from sass.config import Catalog
from sass.errors import ConfigError
from sass.sources import Candidate

ID_LENGTH = 100


def safe_id(text: str) -> str:
    """Return a file name of ``A-Z a-z 0-9 . _ -`` that is not hidden, not empty and at most 100 long."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip(".-")[:ID_LENGTH] or "scene"


def unique_ids(names: dict[tuple[str, ...], str], taken: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Give each set of paths an id made from its name.

    Names that meet, among themselves or with a taken id, get a hash of their paths, all of them, so the
    order in which files are found does not matter. Upper and lower case meet: some disks do not tell
    them apart.
    """
    wishes = {paths: safe_id(name) for paths, name in sorted(names.items())}
    used = {scene.casefold() for scene in taken}
    wanted = Counter(wish.casefold() for wish in wishes.values())
    out = {paths: wish for paths, wish in wishes.items() if wanted[wish.casefold()] == 1}
    out = {paths: wish for paths, wish in out.items() if wish.casefold() not in used}
    used |= {wish.casefold() for wish in out.values()}
    for paths in sorted(wishes.keys() - out.keys()):
        out[paths] = next(scene for scene in _marked(wishes[paths], paths) if scene.casefold() not in used)
        used.add(out[paths].casefold())
    return out


def _marked(wish: str, paths: tuple[str, ...]) -> Iterator[str]:
    """Give ids with longer and longer hashes of the paths; the first is free but for a freak of chance."""
    for length in range(4, 33):
        mark = hashlib.blake2b("\0".join(paths).encode(), digest_size=length).hexdigest()
        yield f"{wish[: ID_LENGTH - len(mark) - 1]}-{mark}"


def assign_shards(
    scenes: list[str], stay: dict[str, str], known: Iterable[str], fit: set[str], settings: Catalog
) -> tuple[dict[str, list[str]], set[str]]:
    """Return the scenes of each shard and which shards are fitted on.

    Parameters
    ----------
    scenes
        All ids, sorted.
    stay
        Shard of each scene that has one. Without any, this is the first scan, which alone makes fit shards.
    known
        Shards of earlier scans. One whose scenes have all left stays, empty: its jobs clear up after them.
    fit
        Shards that are fitted on.
    """
    members: dict[str, list[str]] = defaultdict(list, {shard: [] for shard in known})
    for scene, shard in stay.items():
        members[shard].append(scene)
    new = [scene for scene in scenes if scene not in stay]
    if not stay:
        drawn = _drawn(new, settings)
        fit = _fill(members, set(), sorted(drawn), settings.shard_size)
        new = [scene for scene in new if scene not in drawn]
    _fill(members, fit, new, settings.shard_size)
    return {shard: sorted(inside) for shard, inside in sorted(members.items())}, fit & members.keys()


def _fill(members: dict[str, list[str]], closed: set[str], scenes: list[str], size: int) -> set[str]:
    """Put scenes into the last shard that is not closed, then into new ones; return the shards filled."""
    shard = max(members.keys() - closed, key=_number, default=None)  # s100000 comes after s99999
    filled = set()
    for scene in scenes:
        if shard is None or len(members[shard]) >= size:
            shard = f"s{max(map(_number, members), default=-1) + 1:05d}"
        members[shard].append(scene)
        filled.add(shard)
    return filled


def _number(shard: str) -> int:
    return int(shard[1:])


def _drawn(scenes: list[str], settings: Catalog) -> set[str]:
    """Return the scenes to fit on: not held out, and drawn by seed."""
    held = {scene for scene in scenes if any(fnmatchcase(scene, pattern) for pattern in settings.hold_out)}
    free = [scene for scene in scenes if scene not in held]
    if held and not free:
        raise ConfigError(
            f"catalog.hold_out {settings.hold_out} matches all {len(scenes)} scenes, so nothing is left "
            "to fit on: hold out fewer"
        )
    count = max(1, round(settings.fit_fraction * len(free)))
    order = np.random.default_rng(settings.seed).permutation(len(free))
    return {free[i] for i in order[:count]}


def found_again(
    asked: list[Candidate], rows: dict[str, Scene], not_scenes: set[str], prune: bool
) -> dict[str, Candidate]:
    """Return id and candidate of the scenes of earlier scans that stay.

    A scene is found again as the candidate with the same files; as the only one that shares some of its
    several files (a band has come or gone); or as the only one of its name where its own files are gone
    or pruned: an archive that was moved stays the same archive. What was not asked for stays as it is.
    """
    by_paths = {row.paths: scene for scene, row in rows.items()}
    same = {by_paths[candidate.paths]: candidate for candidate in asked if candidate.paths in by_paths}
    stays = {s for s, row in rows.items() if _there(row.paths) and (s in same or not prune)}
    owner = {path: scene for scene, row in rows.items() if len(row.paths) > 1 for path in row.paths}
    rivals: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in asked:
        if candidate.paths not in by_paths and candidate.reason is None and _there(candidate.paths):
            owners = {owner[path] for path in candidate.paths if path in owner and len(candidate.paths) > 1}
            owners = owners or {safe_id(candidate.name)} & (rows.keys() - stays)
            if len(owners) == 1:
                rivals[owners.pop()].append(candidate)
    out = {scene: _as_asked(rows[scene]) for scene in stays if not set(rows[scene].paths) <= not_scenes}
    out |= {scene: found[0] for scene, found in rivals.items() if len(found) == 1}
    out |= {scene: candidate for scene, candidate in same.items() if scene in stays}
    return {
        scene: replace(c, time=c.time or rows[scene].time, sensor=c.sensor or rows[scene].sensor)
        for scene, c in sorted(out.items())
    }


def _there(paths: tuple[str, ...]) -> bool:
    return all(map(os.path.isfile, paths))


def _as_asked(row: Scene) -> Candidate:
    return Candidate(row.paths, row.id, row.band_names if len(row.paths) > 1 else ())
