"""Headers: what a scan reads of each file, without a pixel, and the row of the catalog that it makes."""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning

from sass.catalog import Scene, size_and_time
from sass.errors import SceneError
from sass.gdal import DRIVERS, TROUBLE, check_sources, is_remote
from sass.sources import Candidate, shown

MOST_BANDS = 1024
"""More are no image: a window of them all would not fit into memory."""
LARGEST_BLOCK = 1 << 30
"""Bytes of a raster's own blocks, each of which GDAL must hold whole, all bands that lie together in it."""
EMPTY, LARGE = 100_000, 10**10
"""Bytes of pixels for one byte of file, in rasters of more pixels: no compression comes near it."""
THREADS = 8
"""Readers of headers: they mostly wait for the disk or the network."""
SAME_GRID = 0.05
"""Files of one scene may lie apart by this share of a pixel: coordinates are rounded differently."""


class Broken(SceneError):
    """A file that cannot be part of a scene."""

    def __init__(self, path: str, reason: str):
        super().__init__(reason)
        self.path = shown(path)


def read_rows(
    candidates: list[Candidate], standing: list[Scene | None], vrt_folders: Iterable[str] = ()
) -> list[Scene | Broken]:
    """Return a row for each candidate, or why it is broken, in the same order.

    A row has no id yet, unless it is that of an earlier scan (``standing``), which is taken over where the
    files are unchanged. ``vrt_folders`` are those that VRTs may draw on besides their own.
    """
    row = partial(_row, vrt_folders=tuple(vrt_folders))
    with warnings.catch_warnings():
        # set once for all threads: the list of filters belongs to the process
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(row, candidates, standing))


def _row(candidate: Candidate, standing: Scene | None, vrt_folders: tuple[str, ...]) -> Scene | Broken:
    try:
        return _read_row(candidate, standing, vrt_folders)
    except Broken as error:
        return error
    except TROUBLE as error:  # a CRS that opens and cannot be compared or written
        reason = " ".join(str(error).split())
        return Broken(candidate.paths[0], f"has a header that makes no sense ({reason}); mend or remove it")


def _read_row(candidate: Candidate, standing: Scene | None, vrt_folders: tuple[str, ...]) -> Scene:
    if candidate.reason:
        raise Broken(candidate.paths[0], candidate.reason)
    for path in candidate.paths:
        _check_path(path)
    unchanged = (
        standing
        and standing.paths == candidate.paths
        and (standing.size, standing.modified) == size_and_time(candidate.paths)
    )
    # the sources of a VRT may change while it does not, and show only when it is opened
    if unchanged and standing.driver != "VRT":
        return replace(standing, time=candidate.time, sensor=candidate.sensor)
    headers = [_read_header(path, vrt_folders) for path in candidate.paths]
    if len(headers) > 1:
        _check_bands(candidate, headers)
    return _joined(candidate, headers)


def _check_bands(candidate: Candidate, headers: list["Header"]) -> None:
    """Refuse files that cannot be the bands of one scene."""
    for path, header in zip(candidate.paths[1:], headers[1:]):
        if difference := _difference(headers[0], header):
            raise Broken(
                path,
                f"{difference} as {candidate.paths[0]}, so both cannot be bands of scene {candidate.name!r}",
            )
    for path, header in zip(candidate.paths, headers):
        if len(header.dtypes) > 1:
            raise Broken(
                path,
                f"has {len(header.dtypes)} bands, but scene {candidate.name!r} joins files of one band; "
                "scan it as a scene of its own",
            )


def _joined(candidate: Candidate, headers: list["Header"]) -> Scene:
    first = headers[0]
    size, modified = size_and_time(file for header in headers for file in header.files)
    a, b, _, d, e, _ = first.transform
    in_name = time_in_name(candidate.name) or time_in_name(Path(candidate.paths[0]).stem)
    return Scene(
        id="",
        paths=candidate.paths,
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
    if is_remote(path):
        raise Broken(
            path, "lies on another machine or inside an archive; copy it to a local folder and scan that"
        )
    if shown(path) != path:
        raise Broken(path, "its name is not UTF-8 and cannot be written to a catalog; rename it")
    if os.path.isdir(path):
        raise Broken(path, "is a folder that may not be read, so its scenes are missing; give the permission")
    if not os.path.isfile(path):
        raise Broken(path, "there is no such file")


def _read_header(path: str, vrt_folders: tuple[str, ...]) -> Header:
    # TRUE: side-cars (world files, .aux.xml) are looked for by name, without listing a folder of thousands
    try:
        check_sources(path, vrt_folders)
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"),
            rasterio.open(path) as raster,
        ):
            return _header(path, raster)
    except Broken:
        raise
    except SceneError as error:
        raise Broken(path, str(error)) from None
    # a text that is not UTF-8, or a number beyond its type, where there should be a header
    except (*TROUBLE, OSError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise Broken(
            path,
            f"cannot be read as a raster ({reason}); fetch it again, remove it, or convert it to GeoTIFF",
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
    _check_size(path, raster)
    files = raster.files if raster.driver == "VRT" else [path]
    place = raster.transform
    if not np.isfinite(place[:6]).all() or place.determinant == 0:
        raise Broken(
            path,
            f"has the transform {tuple(place)[:6]}, which gives pixels no area; mend it by gdal_edit -a_ullr",
        )
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


def _check_size(path: str, raster: rasterio.DatasetReader) -> None:
    """Refuse what would fill the memory, or what takes days and holds nothing."""
    if raster.count > MOST_BANDS:
        raise Broken(path, f"has {raster.count} bands, and more than {MOST_BANDS} are no image; divide it")
    item = max(np.dtype(dtype).itemsize for dtype in raster.dtypes)
    together = raster.count if raster.interleaving == Interleaving.pixel else 1
    height, width = max(raster.block_shapes, key=np.prod)
    if height * width * item * together > LARGEST_BLOCK:
        raise Broken(
            path,
            f"is laid out in blocks of {height} x {width} pixels, each of which takes "
            f"{height * width * item * together / 1e9:.1f} GB of memory; rewrite it with gdal_translate "
            "-co TILED=YES",
        )
    pixels, size = raster.height * raster.width, sum(size_and_time([file])[0] for file in raster.files)
    if pixels > LARGE and pixels * item * raster.count > EMPTY * size:
        raise Broken(
            path,
            f"claims {raster.height} x {raster.width} pixels in {size:,} bytes, so its header is damaged or "
            "it holds next to nothing; fetch it again, or cut out what holds data",
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


def unreadable(row: Scene, candidate: Candidate) -> Scene:
    """Return the row of a scene whose files are damaged now: it keeps its place until they are repaired.

    Its size and time are those of no file, so that no stage opens what the scan has refused.
    """
    return replace(row, paths=candidate.paths, size=0, modified=0)


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
