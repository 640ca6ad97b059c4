"""What is asked for: patterns, lists and STAC items become the candidates for scenes."""

import csv
import glob
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sass.errors import SassError
from sass.gdal import is_remote
from sass.run import Run

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".jpg", ".jpeg", ".png"})
"""What is taken from a folder."""


@dataclass(frozen=True)
class Candidate:
    """The files of what may be a scene, and what is known of it before they are opened."""

    paths: tuple[str, ...]
    name: str
    """What the id is made from: the stem, the value of ``{scene}``, the id in a list."""
    bands: tuple[str, ...] = ()
    """Names of the bands, one a file, of a scene of several files."""
    time: str | None = None
    sensor: str | None = None
    label: str | None = None
    """Path of the label raster, where a list names one."""
    reason: str | None = None
    """Why it cannot be a scene, where that is known already."""


_PLACEHOLDER = re.compile(r"\{(scene|band)\}")


def find_candidates(
    run: Run, patterns: list[str], not_scenes: set[str]
) -> tuple[list[Candidate], dict[str, str]]:
    """Return all that the patterns match, in the order of paths, and the patterns without any.

    ``not_scenes`` are paths of label rasters, which patterns may match too.

    Raises
    ------
    SassError
        A list cannot be read, or a pattern has a band but no scene.
    """
    # a run inside the archive must not take its own maps for scenes
    outputs = tuple(os.path.abspath(folder) + os.sep for folder in (run.segments("x").parent, run.report))
    found = {pattern: _expand(pattern) for pattern in sorted(set(patterns))}
    listed = {candidate.label for candidates in found.values() for candidate in candidates}
    merged: dict[tuple[str, ...], Candidate] = {}
    nothing: dict[str, str] = {}
    for pattern, candidates in found.items():
        scenes = [c for c in candidates if not set(c.paths) <= not_scenes | listed]
        scenes = [c for c in scenes if not c.paths[0].startswith(outputs)]
        if not scenes:
            nothing[pattern] = "matches no raster that could be a scene"
        for candidate in scenes:
            other = merged.get(candidate.paths)
            merged[candidate.paths] = _merged(other, candidate) if other else candidate
    return [candidate for _, candidate in sorted(merged.items())], nothing


def find_labels(patterns: list[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return path and stem, or value of ``{scene}``, of each label raster, and the patterns without any."""
    found = {pattern: _files(pattern) for pattern in sorted(set(patterns))}
    nothing = {pattern: "matches no label raster" for pattern, files in found.items() if not files}
    files = {(path, values.get("scene", Path(path).stem)) for each in found.values() for path, values in each}
    return sorted(files), nothing


def _merged(one: Candidate, other: Candidate) -> Candidate:
    """Join what two patterns say of the same files; a name given in a list wins over the stem."""
    first, second = sorted((one, other), key=lambda c: (c.name == Path(c.paths[0]).stem, repr(c)))
    known = ("bands", "time", "sensor", "label", "reason")
    return replace(first, **{key: getattr(first, key) or getattr(second, key) for key in known})


def _expand(pattern: str) -> list[Candidate]:
    file = Path(os.path.abspath(os.path.expanduser(pattern)))
    suffix = file.suffix.lower()
    if suffix in {".csv", ".parquet"} and file.is_file():
        return _from_list(file, suffix)
    if suffix in {".json", ".geojson"} and file.is_file():
        return _from_stac(file)
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    singles = []
    for path, values in _files(pattern):
        if "scene" in values:
            groups[values["scene"]].append((values.get("band", Path(path).stem), path))
        else:
            singles.append(Candidate((path,), Path(path).stem))
    return singles + [_of_bands(name, files) for name, files in groups.items()]


def _of_bands(name: str, files: list[tuple[str, str]], **known: Any) -> Candidate:
    """Make a candidate of ``(band, path)``; ``B2`` comes before ``B10``."""
    files = sorted(files, key=lambda file: (_natural(file[0]), file))
    bands = tuple(band for band, _ in files) if len(files) > 1 else ()
    twice = [band for band, count in Counter(bands).items() if count > 1]
    if twice:
        known["reason"] = (
            f"scene {name!r} has several files for band {twice[0]!r}; name the scene by more of the path, "
            "so that {scene} tells them apart"
        )
    return Candidate(tuple(path for _, path in files), name, bands, **known)


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", text)]


def _files(pattern: str) -> list[tuple[str, dict[str, str]]]:
    """Return absolute path and values of the placeholders of each file that a pattern matches."""
    if is_remote(pattern):
        return [(pattern, {})]
    pattern = os.path.expanduser(pattern)
    path = os.path.abspath(pattern)
    if os.path.isfile(path):
        return [(path, {})]
    if os.path.isdir(path):
        return [(found, {}) for found in _below(path)]
    if "{band}" in pattern and "{scene}" not in pattern:
        raise SassError(
            f"{pattern!r} has {{band}} but no {{scene}}: say which part of the path names the scene"
        )
    pattern = os.path.normpath(os.path.join(glob.escape(os.getcwd()), pattern))
    placeholders = re.compile(_regex(pattern))
    # a pattern that ends without a suffix takes rasters only, not what lies beside them
    own_suffix = re.search(r"\.\w+$", pattern)
    out = []
    for found in _below_prefix(pattern) if "**" in pattern else glob.glob(_PLACEHOLDER.sub("*", pattern)):
        match = placeholders.fullmatch(found)
        if os.path.isdir(found) and "{" not in pattern and "**" not in pattern:
            out += [(inner, {}) for inner in _below(found)]
        elif found.endswith(os.sep) or (match and _is_file(found) and (own_suffix or _is_raster(found))):
            out.append((found, match.groupdict() if match else {}))
    return out


def _below(folder: str) -> Iterator[str]:
    """Yield the rasters below a folder, and folders that may not be read."""
    return (path for path in _walk(folder) if _is_raster(path) or path.endswith(os.sep))


def _below_prefix(pattern: str) -> Iterator[str]:
    """Yield all files below the folders that a pattern with ``**`` names before it."""
    prefix = _PLACEHOLDER.sub("*", pattern).partition("**")[0].rpartition("/")[0] or "/"
    for folder in sorted(glob.glob(prefix)):
        yield from _walk(folder)


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder that are not hidden; links to folders are followed, each folder once.

    Folders themselves come before links to them, so that a link back to where it lies in leads nowhere. A
    folder that may not be read is given itself, with a slash at its end.
    """
    waiting, links, seen = [folder], [], set()
    while waiting or links:
        here = waiting.pop() if waiting else links.pop()
        if os.path.realpath(here) in seen:
            continue
        seen.add(os.path.realpath(here))
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield os.path.join(here, "")  # nobody knows what it holds: it is named, not passed over
            continue
        for entry in (entry for entry in entries if not entry.name.startswith(".")):
            if os.path.isdir(entry.path):  # a link to itself makes entry.is_dir() fail
                (links if entry.is_symlink() else waiting).append(entry.path)
            elif _is_file(entry.path):
                yield entry.path


def _is_file(path: str) -> bool:
    """Whether a path is a file, or a link that leads nowhere: somebody has meant a file by it."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


def _is_raster(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in RASTER_SUFFIXES


def _regex(pattern: str) -> str:
    """Turn a glob into a regular expression; a placeholder is part of the name of one file or folder."""
    plain = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    out, named = "", set()
    for token in re.findall(r"\*\*/|\*+|\[!?\]?[^\]]*\]|\{scene\}|\{band\}|.", pattern, re.DOTALL):
        name = token[1:-1]
        if token in ("{scene}", "{band}"):
            out += f"(?P={name})" if name in named else f"(?P<{name}>[^/]+)"
            named.add(name)
        elif name and token[0] == "[":
            inside = re.sub(r"([\\\[\]^&~|])", r"\\\1", name.removeprefix("!"))
            out += f"[{'^' if name[0] == '!' else ''}{inside}]"
        else:
            out += plain.get(token) or re.escape(token)
    return out


def _from_list(path: Path, suffix: str) -> list[Candidate]:
    """Read a CSV or Parquet table of scenes; paths are relative to the table."""
    try:
        table = _csv_rows(path) if suffix == ".csv" else _parquet_rows(path)
    except (ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise SassError(f"{path}: cannot be read as a list of scenes ({reason})") from None
    out = []
    for number, row in enumerate(table, start=1):
        row = {key: str(value).strip() for key, value in row.items() if key and value not in (None, "")}
        if "path" not in row:
            raise SassError(
                f"{path}: row {number} has no path; columns are path and, if known, id, time, sensor, label"
            )
        source = _located(row["path"], path.parent)
        label = _located(row["label"], path.parent) if "label" in row else None
        known = {"sensor": row.get("sensor"), "label": label, **_timed(row.get("time"))}
        out.append(Candidate((source,), row.get("id") or Path(source).stem, **known))
    return out


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def _from_stac(path: Path) -> list[Candidate]:
    """Read a STAC item or a collection of items; assets lie on this machine, relative to the file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SassError(f"{path}: not JSON ({error}), so no STAC items can be read from it") from None
    tree = tree if isinstance(tree, dict) else {}
    items = [tree] if tree.get("type") == "Feature" else tree.get("features")
    if not isinstance(items, list):
        raise SassError(f"{path}: neither a STAC item nor a collection of items; give the items themselves")
    out = []
    for number, item in enumerate(items, start=1):
        try:
            out.append(_from_item(item, path))
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            name = f"{path}#{number}"
            out.append(Candidate((name,), "", reason=f"this is no STAC item ({error}); write it anew"))
    return out


def _from_item(item: dict[str, Any], path: Path) -> Candidate:
    assets = {key: asset for key, asset in (item.get("assets") or {}).items() if asset.get("href")}
    rasters = {
        key: asset
        for key, asset in assets.items()
        if (asset.get("type") or "").startswith("image/")
        or _is_raster(asset["href"])
        or _is_raster(urlsplit(asset["href"]).path)
    }
    roles = {key: set(asset.get("roles") or ()) for key, asset in rasters.items()}
    chosen = [key for key in rasters if "data" in roles[key]] or [
        key for key in rasters if not roles[key] & {"thumbnail", "overview"}
    ]
    files = [(key, _located(rasters[key]["href"], path.parent)) for key in chosen]
    if not files:
        return Candidate((f"{path}#{item.get('id')}",), "", reason="the item has no raster among its assets")
    known = item.get("properties") or {}
    sensor = known.get("platform") or known.get("constellation")
    time = known.get("datetime") or known.get("start_datetime")
    return _of_bands(str(item.get("id") or Path(files[0][1]).stem), files, sensor=sensor, **_timed(time))


def _located(href: str, folder: Path) -> str:
    if href.startswith("file://"):
        return os.path.abspath(unquote(urlsplit(href).path))
    return href if is_remote(href) else os.path.abspath(folder / href)


def _timed(text: str | None) -> dict[str, str]:
    """Return the time a list gives, or the reason why it is none."""
    if not text:
        return {}
    if re.fullmatch(r"\d{4}", text):
        return {"time": text}
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return {"reason": f"its time {text!r} is not an ISO date; write 2019-05-04 or 2019-05-04T10:30:00Z"}
    return {"time": when.date().isoformat() if re.fullmatch(r"[\d-]+", text) else when.isoformat()}


def shown(path: str) -> str:
    """Return a path as text that can be printed and written: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
