"""GDAL, held back: archives come from others, and a raster must not make it fetch, run or read what it wants.

Two walls. The network, code in virtual rasters and standard input are closed for the whole process, whatever
a file asks for. And before GDAL sees a virtual raster (VRT), its text is read here: what it draws on must be
plain local files of the formats that are read, beside it or below, or in a folder that the user has named.
"""

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator

from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError

from sass import jp2
from sass.errors import SceneError

OPTIONS = {
    # file systems of other machines (/vsicurl, /vsis3 and their like), standard input, code in a VRT
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "CPL_ALLOW_VSISTDIN": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    # drivers that fetch, or that read files named in a text; and those that hand a file to a large library of
    # its own, such as that of netCDF, which has been overrun by crafted files (CVE-2026-49014)
    "GDAL_SKIP": "HTTP,WMS,WMTS,WCS,DAAS,EEDA,EEDAI,PLMOSAIC,STACIT,STACTA,GTI,MRF,"
    "netCDF,HDF4,HDF4Image,HDF5,HDF5Image,BAG,S102,S104,S111,GRIB,PDF",
    # left to itself, GDAL reads a PNG that is cut short without a word, and makes up the rest
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # and passes over damage in a JPEG
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
}
"""What holds for the whole process."""
os.environ.update(OPTIONS)  # drivers are registered when rasterio is first used, not when it is imported

TROUBLE = (RasterioError, CRSError, CPLE_BaseError, UnicodeDecodeError, OverflowError)
"""What comes of a damaged raster: errors of GDAL, which have no public name where rasterio lets them through,
and texts of GDAL that hold bytes of the file."""

DRIVERS = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "VRT", "JPEG", "PNG")
"""GDAL recognises files by content and takes a text of numbers for a raster: only these are taken."""
FORMATS = "TIFF, JPEG 2000, JPEG, PNG or VRT"

SIGNATURES = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",  # TIFF, BigTIFF
    jp2.SIGNATURE, b"\xff\x4f\xff\x51",  # JPEG 2000
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
)  # fmt: skip
"""How the files of these formats begin, but for VRT."""
VRT, HEAD = b"<vrtdataset", 1 << 16
"""What shows that a text is a VRT, in any case, and the bytes in which it is looked for."""
LARGEST_VRT = 1 << 28
"""Bytes; a mosaic of 100,000 files has a tenth of it."""
KINDS = {"", "vrtwarpeddataset", "vrtpansharpeneddataset"}
"""Kinds of virtual datasets that are read; others read files by names of their own."""
BAND_KINDS = {
    "", "vrtsourcedrasterband", "vrtwarpedrasterband", "vrtderivedrasterband", "vrtpansharpenedrasterband"
}  # fmt: skip
SOURCES = {"sourcefilename", "sourcedataset"}
SIDECARS = (".ovr", ".msk")


def cause(error: BaseException) -> str:
    """Return in a line what has led to an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def is_remote(path: str) -> bool:
    """Whether a path leads to another machine or into an archive; only local files are read."""
    return path.startswith("/vsi") or "://" in path


def check_sources(path: str, folders: Iterable[str] = ()) -> None:
    """Refuse what is no raster of the formats that are read, or draws on what it should not.

    Parameters
    ----------
    path
        A local file.
    folders
        Where the sources of a VRT may lie, besides its own folder and those below.

    Raises
    ------
    OSError
        It cannot be read.
    SceneError
        It begins like none of the formats. Or it, a side-car of it or a VRT that it draws on names another
        machine, an archive, or a file that is not there, is no raster or lies elsewhere; or it is a virtual
        raster of a kind that reads more than rasters.
    """
    if fault := _no_raster(path):
        raise SceneError(
            f"cannot be read as a raster ({fault}); fetch it again, remove it, or convert it to GeoTIFF"
        )
    allowed = [os.path.realpath(folder) for folder in (os.path.dirname(os.path.realpath(path)), *folders)]
    for side in SIDECARS:
        if os.path.isfile(path + side) and _is_vrt(path + side):
            raise SceneError(
                f"its side-car {path + side} is a virtual raster, which could draw on anything; remove it or "
                "make it a GeoTIFF"
            )
    waiting, seen = [os.path.realpath(path)], set()
    while waiting:
        vrt = waiting.pop()
        if vrt in seen or not _is_vrt(vrt):
            continue
        seen.add(vrt)
        for source in _sources(vrt):
            _check_source(vrt, source, allowed)
            if source in seen or source == vrt:
                raise SceneError(f"{vrt} draws on itself, so it has no pixels; build the VRT again")
            waiting.append(source)


def _check_source(vrt: str, source: str, allowed: list[str]) -> None:
    if not os.path.isfile(source):
        raise SceneError(f"{vrt} draws on {source!r}, which is not there; fetch it, or build the VRT again")
    if not any(os.path.commonpath([folder, source]) == folder for folder in allowed):
        raise SceneError(
            f"{vrt} draws on {source}, which lies outside the VRT's folder; if that is meant, name a folder "
            "that holds it in catalog.vrt_folders, or move the VRT"
        )
    try:
        fault = _no_raster(source)
    except OSError as error:
        fault = error.strerror
    if fault:
        raise SceneError(
            f"{vrt} draws on {source}, which cannot be read as a raster ({fault}); convert it to GeoTIFF and "
            "build the VRT again"
        )


def _no_raster(path: str) -> str | None:
    """Say why a file cannot be of the formats that are read, by how it begins."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
        if head.startswith(jp2.SIGNATURE) and (fault := jp2.malformed(stream)):
            return fault
    if not head:
        return "it is empty"
    if head.startswith(SIGNATURES) or VRT in head.lower():
        return None
    return f"it does not begin as {FORMATS} does"


def _is_vrt(path: str) -> bool:
    with open(path, "rb") as stream:
        return VRT in stream.read(HEAD).lower()


def _sources(vrt: str) -> Iterator[str]:
    """Yield the absolute real paths of what a VRT draws on.

    GDAL takes names of elements in any case, and an attribute for an element: so does this.
    """
    if os.path.getsize(vrt) > LARGEST_VRT:
        raise SceneError(f"{vrt} is a VRT of {os.path.getsize(vrt):,} bytes: no mosaic needs that; divide it")
    try:
        tree = ET.parse(vrt)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SceneError(f"{vrt} is a VRT that is no well-formed XML ({error}); build it again") from None
    for element in tree.iter():
        name, values = element.tag.lower(), {key.lower(): value for key, value in element.attrib.items()}
        _check_kind(vrt, name, values, element)
        given = [element.text or ""] if name in SOURCES else []
        for text in [*given, *(value for key, value in values.items() if key in SOURCES)]:
            yield _located(vrt, text.strip(), _value(element, values, "relativetovrt") == "1")


def _check_kind(vrt: str, name: str, values: dict[str, str], element: ET.Element) -> None:
    kinds = {"vrtdataset": KINDS, "vrtrasterband": BAND_KINDS}.get(name)
    own = _value(element, values, "subclass")
    if (kinds and own not in kinds) or name == "group":
        raise SceneError(
            f"{vrt} is a virtual raster of the kind {own or name}, which can read any file; convert it to "
            "GeoTIFF"
        )
    if name == "pixelfunctionlanguage" and (element.text or "").strip().lower() == "python":
        raise SceneError(f"{vrt} holds code in Python, which is not run; convert it to GeoTIFF")


def _value(element: ET.Element, values: dict[str, str], name: str) -> str:
    """Return an attribute, or a child in its place, in lower case."""
    child = next((e.text or "" for e in element if e.tag.lower() == name), "")
    return values.get(name, child).strip().lower()


def _located(vrt: str, text: str, relative: bool) -> str:
    if is_remote(text):
        raise SceneError(f"{vrt} draws on {text}, which is no local file; copy that and build the VRT again")
    folder = os.path.dirname(vrt) if relative else os.getcwd()
    try:
        return os.path.realpath(os.path.join(folder, text))
    except ValueError:  # a byte of zero, which no name has
        raise SceneError(
            f"{vrt} draws on {text!r}, which is no name of a file; build the VRT again"
        ) from None
