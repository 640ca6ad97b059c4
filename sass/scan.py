"""Scan: from patterns, lists and STAC items to the catalog, by reading headers only.

What is asked for becomes *candidates* (the files of one scene and what is known of it beforehand), the
headers of their files become rows, and each new row gets an id and a shard. Ids and membership never
change afterwards, so a scan that finds more scenes makes nothing stale that stands.
"""

import contextlib
import csv
import glob
import hashlib
import json
import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from sass.catalog import Label, Scene, ShardInfo, load_broken, load_index, load_labels, load_shard
from sass.config import Catalog
from sass.errors import ConfigError, SassError, SceneError
from sass.manifest import write_json
from sass.run import Run

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".jpg", ".jpeg", ".png"})
"""What is taken from a folder."""
DRIVERS = frozenset({"GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "VRT", "JPEG", "PNG"})
"""GDAL recognises files by content and takes a text of numbers for a raster: only these are taken."""
THREADS = 8
"""Readers of headers: they mostly wait for the disk or the network."""
ID_LENGTH = 100
SHOWN = 8
"""Scenes and reasons that a summary names."""
SAME_GRID = 0.05
"""Files of one scene may lie apart by this share of a pixel: coordinates are rounded differently."""


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
    relabelled: list[str] = field(default_factory=list)
    """Scenes whose label raster is new, changed or gone."""
    unused_labels: dict[str, str] = field(default_factory=dict)
    """Path of a label raster to the reason why it belongs to no scene."""
    dry_run: bool = False

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
                lines += [f"    {path}: {reason}" for path, reason in list(reasons.items())[:SHOWN]]
            if len(reasons) > SHOWN:
                lines.append(f"    and {len(reasons) - SHOWN} more")
        return "\n".join(lines)


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
        The patterns match nothing, a list cannot be read, or nothing is left to fit on.
    """
    before = _standing(run)
    label_files, nothing = _label_files(labels or [])
    kept_labels = {} if prune else before.labels
    not_scenes = {path for path, _ in label_files} | {label.path for label in kept_labels.values()}
    asked, not_found = _candidates(run, patterns, not_scenes)
    if not asked:
        raise SassError(
            f"no raster matches {', '.join(map(repr, patterns)) or 'an empty list of patterns'}: check the "
            "spelling, quote globs so that the shell leaves them alone, and mind that paths are relative to "
            "the working folder; label rasters and the maps of a run are not taken for scenes"
        )
    old = _found_again(asked, before.rows, not_scenes, prune)
    again = {candidate.paths for candidate in old.values()}
    new = [candidate for candidate in asked if candidate.paths not in again]

    trusted = [
        None if before.broken.keys() & set(c.paths) else before.rows[scene] for scene, c in old.items()
    ]
    results = _rows([*old.values(), *new], [*trusted, *[None] * len(new)])
    rows = {
        scene: _unreadable(before.rows[scene], candidate)
        if isinstance(row, Broken)
        else replace(row, id=scene)
        for (scene, candidate), row in zip(old.items(), results)
    }
    fresh = {c: row for c, row in zip(new, results[len(old) :]) if isinstance(row, Scene)}
    ids = unique_ids({candidate.paths: candidate.name for candidate in fresh}, rows)
    rows |= {ids[candidate.paths]: replace(row, id=ids[candidate.paths]) for candidate, row in fresh.items()}
    scenes = {**old, **{ids[candidate.paths]: candidate for candidate in fresh}}

    stay = {scene: before.shard_of[scene] for scene in old}
    members, fit = assign_shards(sorted(rows), stay, before.fit, settings)
    chosen, unused_labels = _match_labels(label_files, scenes, kept_labels)
    broken = {_shown(pattern): reason for pattern, reason in (nothing | not_found).items()}
    broken |= {row.path: str(row) for row in results if isinstance(row, Broken)}
    looked_at = {path for candidate in [*asked, *old.values()] for path in candidate.paths}
    if not prune:
        broken |= {p: why for p, why in before.broken.items() if p not in looked_at and os.path.isfile(p)}
    index = {
        shard: ShardInfo(
            fit=shard in fit,
            scenes=len(inside),
            labels=sum(scene in chosen for scene in inside),
            pixels=sum(rows[scene].pixels for scene in inside),
        )
        for shard, inside in members.items()
    }
    if not dry_run:
        _write(run, index, members, rows, chosen, broken)
    both = sorted(rows.keys() & before.rows.keys())
    return ScanResult(
        added=sorted(rows.keys() - before.rows.keys()),
        changed=[scene for scene in both if rows[scene] != before.rows[scene]],
        removed=sorted(before.rows.keys() - rows.keys()),
        unchanged=[scene for scene in both if rows[scene] == before.rows[scene]],
        broken=dict(sorted(broken.items())),
        shards=index,
        relabelled=[scene for scene in sorted(rows) if chosen.get(scene) != before.labels.get(scene)],
        unused_labels=unused_labels,
        dry_run=dry_run,
    )


# ------------------------------------------------------------------------------------------ what is asked for


def _candidates(
    run: Run, patterns: list[str], not_scenes: set[str]
) -> tuple[list[Candidate], dict[str, str]]:
    """Return all that the patterns match, in the order of paths, and the patterns without any."""
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


def _merged(one: Candidate, other: Candidate) -> Candidate:
    """Join what two patterns say of the same files; a name given in a list wins over the stem."""
    first, second = sorted((one, other), key=lambda c: (c.name == Path(c.paths[0]).stem, repr(c)))
    known = ("bands", "time", "sensor", "label", "reason")
    return replace(first, **{key: getattr(first, key) or getattr(second, key) for key in known})


def _expand(pattern: str) -> list[Candidate]:
    pattern = os.path.expanduser(pattern)
    suffix = Path(pattern).suffix.lower()
    if suffix in {".csv", ".parquet"} and os.path.isfile(pattern):
        return _from_list(Path(os.path.abspath(pattern)), suffix)
    if suffix in {".json", ".geojson"} and os.path.isfile(pattern):
        return _from_stac(Path(os.path.abspath(pattern)))
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
    if _remote(pattern):
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
    for found in glob.glob(re.sub(r"\{(scene|band)\}", "*", pattern), recursive=True):
        match = placeholders.fullmatch(found)
        if os.path.isdir(found) and "{" not in pattern and "**" not in pattern:
            out += [(inner, {}) for inner in _below(found)]
        elif match and os.path.isfile(found) and (own_suffix or _is_raster(found)):
            out.append((found, match.groupdict()))
    return out


def _below(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            os.path.join(here, name) for name in names if _is_raster(name) and not name.startswith(".")
        )


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
        raise SassError(f"{path}: cannot be read as a list of scenes ({_one_line(error)})") from None
    out = []
    for number, row in enumerate(table, start=1):
        row = {key: str(value).strip() for key, value in row.items() if key and value not in (None, "")}
        if "path" not in row:
            raise SassError(
                f"{path}: row {number} has no path; columns are path and, if known, id, time, sensor, label"
            )
        source = _located(row["path"], path.parent)
        candidate = Candidate((source,), row.get("id") or Path(source).stem, sensor=row.get("sensor"))
        label = _located(row["label"], path.parent) if "label" in row else None
        out.append(replace(candidate, label=label, **_timed(row.get("time"))))
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
    except ValueError as error:
        raise SassError(f"{path}: not JSON ({error}), so no STAC items can be read from it") from None
    tree = tree if isinstance(tree, dict) else {}
    items = [tree] if tree.get("type") == "Feature" else tree.get("features")
    if not isinstance(items, list):
        raise SassError(f"{path}: neither a STAC item nor a collection of items; give the items themselves")
    return [_from_item(item, path) for item in items]


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
    candidate = _of_bands(str(item.get("id") or Path(files[0][1]).stem), files)
    sensor = known.get("platform") or known.get("constellation")
    return replace(candidate, sensor=sensor, **_timed(known.get("datetime") or known.get("start_datetime")))


def _located(href: str, folder: Path) -> str:
    if href.startswith("file://"):
        return os.path.abspath(unquote(urlsplit(href).path))
    return href if _remote(href) else os.path.abspath(folder / href)


def _remote(path: str) -> bool:
    return path.startswith("/vsi") or "://" in path


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


# ------------------------------------------------------------------------------------------- what headers say


def _rows(candidates: list[Candidate], standing: list[Scene | None]) -> list["Scene | Broken"]:
    """Return a row for each candidate, or why it is broken, in the same order."""
    with warnings.catch_warnings():
        # set once for all threads: the list of filters belongs to the process
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(_row, candidates, standing))


class Broken(SceneError):
    """A file that cannot be part of a scene."""

    def __init__(self, path: str, reason: str):
        super().__init__(reason)
        self.path = _shown(path)


def _row(candidate: Candidate, standing: Scene | None) -> Scene | Broken:
    """Return the row of a candidate, without an id; ``standing`` is taken over if the files are unchanged."""
    try:
        return _read_row(candidate, standing)
    except Broken as error:
        return error


def _read_row(candidate: Candidate, standing: Scene | None) -> Scene:
    paths = candidate.paths
    if candidate.reason:
        raise Broken(paths[0], candidate.reason)
    for path in paths:
        _check_path(path)
    # the sources of a VRT may change while it does not, and show only when it is opened
    unchanged = standing and standing.paths == paths and (standing.size, standing.modified) == _stat(paths)
    if unchanged and standing.driver != "VRT":
        return replace(standing, time=candidate.time, sensor=candidate.sensor)
    headers = [_read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths[1:], headers[1:]):
        if difference := _difference(first, header):
            raise Broken(
                path, f"{difference} as {paths[0]}, so both cannot be bands of scene {candidate.name!r}"
            )
    for path, header in zip(paths, headers):
        if len(headers) > 1 and len(header.dtypes) > 1:
            raise Broken(
                path,
                f"has {len(header.dtypes)} bands, but scene {candidate.name!r} joins files of one band; "
                "scan it as a scene of its own",
            )
    size, modified = _stat(file for header in headers for file in header.files)
    a, b, _, d, e, _ = first.transform
    in_name = time_in_name(candidate.name) or time_in_name(Path(paths[0]).stem)
    return Scene(
        id="",
        paths=paths,
        driver=first.driver,
        bands=sum(len(header.dtypes) for header in headers),
        band_names=candidate.bands or first.names,
        dtype=np.result_type(*(dtype for header in headers for dtype in header.dtypes)).name,
        nodata=tuple(value for header in headers for value in header.nodata),
        crs=first.crs.to_wkt() if first.crs else None,
        transform=first.transform,
        shape=first.shape,
        resolution=(float(np.hypot(b, e)), float(np.hypot(a, d))) if first.crs else None,
        time=candidate.time or first.time or in_name,
        sensor=candidate.sensor or first.sensor,
        size=size,
        modified=modified,
    )


@dataclass(frozen=True)
class Header:
    """What is read of one file."""

    driver: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    nodata: tuple[float | str | None, ...]
    crs: CRS | None
    transform: tuple[float, ...]
    shape: tuple[int, int]
    time: str | None
    sensor: str | None


def _check_path(path: str) -> None:
    if _remote(path):
        raise Broken(
            path, "lies on another machine or inside an archive; copy it to a local folder and scan that"
        )
    if _shown(path) != path:
        raise Broken(path, "its name is not UTF-8 and cannot be written to a catalog; rename it")
    if not os.path.isfile(path):
        raise Broken(path, "there is no such file")


def _read_header(path: str) -> Header:
    # TRUE: side-cars (world files, .aux.xml) are looked for by name, without listing a folder of thousands
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), rasterio.open(path) as raster:
            return _header(path, raster)
    except (RasterioError, CRSError, OSError) as error:
        raise Broken(
            path, f"cannot be read as a raster ({_one_line(error)}); fetch it again or remove it"
        ) from None


def _header(path: str, raster: rasterio.DatasetReader) -> Header:
    if raster.driver not in DRIVERS:
        raise Broken(path, f"is in the format {raster.driver}, which is not read; convert it to GeoTIFF")
    if not raster.count:
        raise Broken(path, "has no bands of its own, only subdatasets; convert those to GeoTIFF")
    odd = [dtype for dtype in raster.dtypes if dtype.startswith("complex")]
    if odd:
        raise Broken(
            path, f"holds {odd[0]} pixels, which have no order; convert them to amplitude or intensity"
        )
    files = raster.files if raster.driver == "VRT" else [path]
    remote = [file for file in files if _remote(file)]
    if remote:
        raise Broken(path, f"draws on {remote[0]}, which is no local file; copy that and build the VRT again")
    # pixel coordinates are no place, whatever CRS stands beside them
    crs = raster.crs if raster.crs and raster.transform != Affine.identity() else None
    plain, imagery = _text(raster.tags, {}), _text(lambda: raster.tags(ns="IMAGERY"), {})
    names = _text(lambda: raster.descriptions, (None,) * raster.count)
    acquired = imagery.get("ACQUISITIONDATETIME") or plain.get("ACQUISITIONDATETIME")
    return Header(
        driver=raster.driver,
        files=tuple(files),
        names=tuple(name or f"band_{band}" for band, name in enumerate(names, start=1)),
        dtypes=tuple(raster.dtypes),
        nodata=tuple(v if v is None or np.isfinite(v) else str(v) for v in raster.nodatavals),
        crs=crs,
        transform=tuple((raster.transform if crs else Affine.identity())[:6]),
        shape=(raster.height, raster.width),
        time=_tag_time(acquired) or _tag_time(plain.get("TIFFTAG_DATETIME")),
        sensor=imagery.get("SATELLITEID"),
    )


def _text(read: Callable[[], Any], default: Any) -> Any:
    """Read texts of a header; old files have some in other encodings, which is no reason to lose a scene."""
    try:
        return read()
    except UnicodeDecodeError:
        return default


def _difference(one: Header, other: Header) -> str | None:
    """Say in which way two files do not lie on the same grid."""
    if one.shape != other.shape:
        return f"with {other.shape[0]} x {other.shape[1]} pixels has not the same shape"
    if one.crs != other.crs:
        return "has not the same CRS"
    height, width = one.shape
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    here, there = (np.reshape(header.transform, (2, 3)) @ corners for header in (one, other))
    pixel = np.hypot(*np.reshape(one.transform, (2, 3))[:, :2]).min()
    apart = np.abs(here - there).max() / pixel
    return f"lies {apart:.2g} pixels off: it has not the same grid" if apart > SAME_GRID else None


def _stat(paths: Iterable[str]) -> tuple[int, int]:
    """Return the total size in bytes and the newest mtime in nanoseconds of the files that are there."""
    stats = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            stats.append(os.stat(path))
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _unreadable(row: Scene, candidate: Candidate) -> Scene:
    """Return the row of a scene whose files are damaged now: it keeps its place until they are repaired."""
    size, modified = _stat(candidate.paths)
    return replace(row, paths=candidate.paths, size=size, modified=modified)


def _tag_time(text: str | None) -> str | None:
    """Read a time of a TIFF tag, ``2019:05:04 10:30:00`` or ISO; free text gives None."""
    iso = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", (text or "").strip())
    try:
        return datetime.fromisoformat(iso).isoformat()
    except ValueError:
        return None


def time_in_name(name: str) -> str | None:
    """Return the ISO date, or else the year, that a file name holds, or None.

    Examples
    --------
    >>> time_in_name("m_4709963_se_20120731"), time_in_name("lsat7_2000_10"), time_in_name("tile_17")
    ('2012-07-31', '2000', None)
    """
    year = r"19[5-9]\d|20[0-4]\d"
    for match in re.finditer(rf"(?<!\d)({year})(-?)(\d\d)\2(\d\d)(?!\d)", name):
        with contextlib.suppress(ValueError):
            return date(int(match[1]), int(match[3]), int(match[4])).isoformat()
    match = re.search(rf"(?<!\d)({year})(?!\d)", name)
    return match[1] if match else None


# --------------------------------------------------------------------------------------------- ids and shards


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
    scenes: list[str], stay: dict[str, str], fit: set[str], settings: Catalog
) -> tuple[dict[str, list[str]], set[str]]:
    """Return the scenes of each shard and which shards are fitted on.

    Parameters
    ----------
    scenes
        All ids, sorted.
    stay
        Shard of each scene that has one. Without any, this is the first scan, which alone makes fit shards.
    fit
        Shards that are fitted on.
    """
    members: dict[str, list[str]] = defaultdict(list)
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
    shard = max(members.keys() - closed, default=None)
    filled = set()
    for scene in scenes:
        if shard is None or len(members[shard]) >= size:
            shard = f"s{max((int(name[1:]) for name in members), default=-1) + 1:05d}"
        members[shard].append(scene)
        filled.add(shard)
    return filled


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


def _found_again(
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


# ----------------------------------------------------------------------------------------------------- labels


def _label_files(patterns: list[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return path and stem, or value of ``{scene}``, of each label raster, and the patterns without any."""
    found = {pattern: _files(pattern) for pattern in sorted(set(patterns))}
    nothing = {pattern: "matches no label raster" for pattern, files in found.items() if not files}
    files = {(path, values.get("scene", Path(path).stem)) for each in found.values() for path, values in each}
    return sorted(files), nothing


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
        if not os.path.isfile(path) or _shown(path) != path:
            unused[_shown(path)] = "there is no such local file, or its name is not UTF-8"
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
    return {scene: Label(path, *_stat([path])) for scene, path in sorted(chosen.items())}, unused


# ----------------------------------------------------------------------------------------------- the catalog


@dataclass(frozen=True)
class _Standing:
    """The catalog of the earlier scans."""

    rows: dict[str, Scene] = field(default_factory=dict)
    shard_of: dict[str, str] = field(default_factory=dict)
    fit: set[str] = field(default_factory=set)
    labels: dict[str, Label] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def _standing(run: Run) -> _Standing:
    before = _Standing(broken=load_broken(run))
    for shard, entry in (load_index(run) if run.catalog.exists() else {}).items():
        members = load_shard(run, shard)
        before.rows.update(members)
        before.shard_of.update(dict.fromkeys(members, shard))
        before.labels.update(load_labels(run, shard))
        before.fit.update({shard} if entry.fit else ())
    return before


def _write(
    run: Run,
    index: dict[str, ShardInfo],
    members: dict[str, list[str]],
    rows: dict[str, Scene],
    labels: dict[str, Label],
    broken: dict[str, str],
) -> None:
    """Write the catalog, its index last, so that a scan that was killed can be run again."""
    for shard, scenes in members.items():
        write_json(
            run.catalog_shard(shard), {"shard": shard, "scenes": [rows[scene].as_json() for scene in scenes]}
        )
        with_label = {scene: asdict(labels[scene]) for scene in scenes if scene in labels}
        write_json(run.catalog_labels(shard), {"shard": shard, "scenes": with_label})
    write_json(run.broken, broken)
    write_json(run.catalog, {"shards": {name: asdict(entry) for name, entry in index.items()}})
    for place in (run.catalog_shard, run.catalog_labels):
        for path in place("x").parent.glob("s*.json"):
            if path.stem not in index:
                path.unlink()


def _shown(path: str) -> str:
    """Return a path as text that can be printed and written: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _one_line(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())


def _shortened(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{len(ids)}" + (f": {', '.join(ids[:SHOWN])}{more}" if ids else "")
