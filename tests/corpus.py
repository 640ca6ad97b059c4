"""Bad and odd inputs, each made by code, with what becomes of it: the table behind ``docs/inputs.md``.

Each case is made in a folder of its own. What is accepted comes with the pixels, the mask and the place that
its store must hold; what is refused, with the stage that refuses it and words of the reason.
"""

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from scenes import make_geotiff, pixels

SHAPE = (2, 24, 40)
PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
UTM = "EPSG:32633"


@dataclass(frozen=True)
class Truth:
    """What a store must hold: pixels ``(band, y, x)``, their mask ``(y, x)``, CRS and transform."""

    image: np.ndarray
    valid: np.ndarray | None = None
    """None where all pixels have data."""
    crs: str | None = UTM
    transform: tuple[float, ...] = PLACE


@dataclass(frozen=True)
class Case:
    """An input: ``make(folder)`` writes it and returns what its stores must hold, by id."""

    about: str
    make: Callable[[Path], dict[str, Truth] | None]
    refused: str = ""
    """Words of the reason; empty where it is accepted."""
    stage: str = "scan"
    """The stage that refuses it."""
    after_scan: Callable[[Path], object] | None = None
    """What happens to it between scan and ingest."""


CASES: dict[str, Case] = {}


def case(about: str, refused: str = "", stage: str = "scan", after_scan: Callable | None = None):
    """Enter a function into the table under its own name."""

    def enter(make: Callable) -> Callable:
        CASES[make.__name__] = Case(about, make, refused, stage, after_scan)
        return make

    return enter


def scene(folder: Path, name: str = "a.tif", image: np.ndarray | None = None, **options) -> dict[str, Truth]:
    """Write a raster that is as it should be but for the options, and say what it holds."""
    image = pixels(SHAPE) if image is None else image
    truth = {k: options.pop(k) for k in ("valid", "place", "where") if k in options}
    make_geotiff(
        folder / name, data=image, **{"nodata": None, "dtype": image.dtype.name, "crs": UTM} | options
    )
    crs = None if options.get("crs", UTM) is None else truth.get("where", options.get("crs", UTM))
    place = truth.get("place", PLACE if crs else tuple(Affine.identity())[:6])
    return {Path(name).stem: Truth(image, truth.get("valid"), crs, place)}


def vrt(path: Path, *sources: str, relative: bool | None = None, kind: str = "", inside: str = "") -> None:
    """Write a VRT of one band for each source, without looking at them."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"{kind}>{inside}<SimpleSource><SourceFilename '
        f'relativeToVRT="{int(not source.startswith("/") if relative is None else relative)}">{source}'
        "</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, source in enumerate(sources, 1)
    )
    a, b, c, d, e, f = PLACE
    path.write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="24"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{c},{a},{b},{f},{d},{e}</GeoTransform>{bands}</VRTDataset>"
    )


def damaged(path: Path, at: float, length: int = 400) -> None:
    """Overwrite bytes at a share of a file."""
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + length] = b"\xa5" * length
    path.write_bytes(content)


def noise(shape: tuple[int, int, int] = (1, 128, 128)) -> np.ndarray:
    """Return pixels that do not compress, so that every tile lies at a place of its own in the file."""
    return np.random.default_rng(5).integers(1, 255, shape).astype("uint8")


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    """Return a little-endian TIFF of one directory: entries of tag, type, count and value."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + tail


def grey(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    """Return the header of a grey TIFF of 8 bits that says so and has nothing behind it."""
    return tiff(
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), *more
    )


# ------------------------------------------------------------------------------- no rasters, or none of ours

NO_RASTER = "cannot be read as a raster"
NOT_OURS = "it does not begin as TIFF, JPEG 2000, JPEG, PNG or VRT does"
SERVICE = "<GDAL_WMS><Service name='TMS'/></GDAL_WMS>"


def plain(name: str, about: str, content: bytes, refused: str = NO_RASTER, file: str = "a.tif") -> None:
    """Enter a case that is one file of given bytes."""
    CASES[name] = Case(about, lambda folder: (folder / file).write_bytes(content) and None, refused)


plain("empty", "a file of no bytes", b"", "it is empty")
plain("text", "a text named .tif", b"I am not a raster\n", NOT_OURS)
plain("page", "a web page with an error, named .tif", b"<!DOCTYPE html><title>404</title>", NOT_OURS)
plain(
    "numbers",
    "a text of numbers, which GDAL takes for a raster",
    b"1 2 3\n2 2 3\n1 3 3\n",
    NOT_OURS,
)
plain(
    "grid",
    "an ASCII grid named .tif",
    b"ncols 2\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2\n",
    "begin as",
)
plain(
    "service", "a description of a web map service", b"<GDAL_WMS><Service name='TMS'/></GDAL_WMS>", "begin as"
)
plain("pdf", "a PDF named .tif", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", NOT_OURS)
plain("hdf", "an HDF5 file named .tif", b"\x89HDF\r\n\x1a\n" + bytes(64), NOT_OURS)
plain("gzip", "a raster packed by gzip", gzip.compress(grey(8, 8)), NOT_OURS)
plain("short_header", "a TIFF of six bytes", b"II*\0\x08\0")
plain("magic", "a TIFF whose magic number is 41", b"II)\0" + bytes(60), NOT_OURS)
plain("offset", "a TIFF whose directory lies behind its end", b"II*\0" + struct.pack("<I", 1 << 30))
plain("no_width", "a TIFF of width 0", grey(0, 8))
plain("no_strips", "a TIFF that says nothing of where its pixels are", tiff((256, 4, 1, 8), (257, 4, 1, 8)))
plain("negative", "a TIFF of height 2^32 - 1", grey(8, (1 << 32) - 1))
plain("png_cut", "a PNG of its signature only", b"\x89PNG\r\n\x1a\n", file="a.png")
plain("jpeg_cut", "a JPEG of its first bytes", b"\xff\xd8\xff\xe0\0\x10JFIF\0", file="a.jpg")
plain("jp2_cut", "a JPEG 2000 file of its signature only", b"\0\0\0\x0cjP  \r\n\x87\n", file="a.jp2")
plain(
    "huge",
    "a header of 400,000 x 400,000 pixels with nothing behind it",
    grey(400_000, 400_000, (322, 4, 1, 4096), (323, 4, 1, 4096), (324, 4, 1, 8), (325, 4, 1, 8)),
    "claims 400000 x 400000 pixels in 122 bytes",
)
plain(
    "block_bomb",
    "a header of one tile that takes 1.6 GB",
    grey(40_000, 40_000, (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8), (325, 4, 1, 8)),
    "GB of memory",
)


@case("a zip archive named .tif", NOT_OURS)
def archive(folder):
    with zipfile.ZipFile(folder / "a.tif", "w") as packed:
        packed.writestr("a.tif", grey(8, 8))


@case("complex pixels", "holds complex64 pixels, which have no order")
def complex_pixels(folder):
    make_geotiff(folder / "a.tif", (1, 8, 8), dtype="complex64", nodata=None)


@case("complex pixels of integers", "which have no order")
def complex_integers(folder):
    # a TIFF of 32 bits a pixel whose sample format says: complex integers of 16 bits
    entries = ((256, 8), (257, 8), (258, 32), (259, 1), (262, 1), (277, 1), (278, 8), (279, 256), (339, 5))
    content = tiff(*((tag, 4 if tag == 279 else 3, 1, value) for tag, value in entries), (273, 4, 1, 200))
    (folder / "a.tif").write_bytes(content + bytes(300))


@case("2,000 bands", "has 2000 bands")
def many_bands(folder):
    make_geotiff(folder / "a.tif", (2000, 1, 1), nodata=None)


@case("a header of 200,000 x 200,000 pixels, all of them absent", "200000 x 200000 pixels in ")
def sparse_and_huge(folder):
    with rasterio.open(
        folder / "a.tif", "w", "GTiff", 200_000, 200_000, 1, UTM, Affine(*PLACE), "uint8",
        tiled=True, blockxsize=4096, blockysize=4096, sparse_ok=True,
    ):  # fmt: skip
        pass


# ----------------------------------------------------------------------------------- damaged where it counts

CUT = "the file is damaged or cut short: fetch it again"


@case("pixels cut off behind a good header", CUT, "ingest")
def truncated(folder):
    scene(folder, image=noise(), **TILED)
    os.truncate(folder / "a.tif", (folder / "a.tif").stat().st_size - 3000)


@case("a broken tile in the middle", CUT, "ingest")
def broken_tile(folder):
    scene(folder, image=noise(), **TILED)
    damaged(folder / "a.tif", 0.5)


@case("a PNG cut in the middle", CUT, "ingest")
def png_half(folder):
    scene(folder, "a.png", noise(), driver="PNG", crs=None)
    os.truncate(folder / "a.png", (folder / "a.png").stat().st_size // 2)


@case("a JPEG 2000 file cut in the middle", CUT, "ingest")
def jp2_half(folder):
    scene(folder, "a.jp2", noise(), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    os.truncate(folder / "a.jp2", (folder / "a.jp2").stat().st_size // 2)


@case("a JPEG 2000 file with a box of no length, which GDAL follows for ever", "boxes make no sense at byte")
def jp2_endless(folder):
    scene(folder, "a.jp2", noise(), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    content = (folder / "a.jp2").read_bytes()
    at = content.index(b"colr") - 4
    (folder / "a.jp2").write_bytes(content[:at] + bytes(4) + content[at + 4 :])


@case("a JPEG cut in the middle", CUT, "ingest")
def jpeg_half(folder):
    scene(folder, "a.jpg", noise((3, 128, 128)), driver="JPEG", crs=None)
    os.truncate(folder / "a.jpg", (folder / "a.jpg").stat().st_size // 2)


@case("a PNG damaged in the middle", CUT, "ingest")
def png_damaged(folder):
    scene(folder, "a.png", noise(), driver="PNG", crs=None)
    damaged(folder / "a.png", 0.5)


@case("a JPEG damaged in the middle", CUT, "ingest")
def jpeg_damaged(folder):
    scene(folder, "a.jpg", noise((3, 128, 128)), driver="JPEG", crs=None)
    damaged(folder / "a.jpg", 0.5)


@case("no pixel with data", "none of its 24 x 40 pixels has data", "ingest")
def all_nodata(folder):
    scene(folder, image=np.zeros(SHAPE, "uint8"), nodata=0)


@case("nothing but NaN", "none of its 24 x 40 pixels has data", "ingest")
def all_nan(folder):
    scene(folder, image=np.full(SHAPE, np.nan, "float32"))


@case("deleted between scan and ingest", "cannot be opened", "ingest", lambda f: (f / "a.tif").unlink())
def deleted(folder):
    scene(folder)


@case(
    "replaced by one of other bands between scan and ingest",
    "has changed since the scan",
    "ingest",
    lambda f: scene(f, image=pixels((5, 30, 30))),
)
def replaced(folder):
    scene(folder)


@case(
    "emptied between scan and ingest",
    "has changed since the scan",
    "ingest",
    lambda f: (f / "a.tif").write_bytes(b""),
)
def emptied(folder):
    scene(folder)


@case(
    "a VRT whose source was replaced between scan and ingest",
    "has changed since the scan",
    "ingest",
    lambda f: scene(f, "source.data", seed=9),
)
def vrt_source_replaced(folder):
    scene(folder, "source.data")
    vrt(folder / "v.vrt", "source.data")


@case("a VRT whose source is damaged", CUT, "ingest")
def vrt_source_damaged(folder):
    scene(folder, "source.data", noise((1, 24, 40)), **TILED)
    damaged(folder / "source.data", 0.5)
    vrt(folder / "v.vrt", "source.data")


# ------------------------------------------------------------------------------------------- hostile rasters


@case("a VRT of a file that is not there", "which is not there")
def vrt_of_nothing(folder):
    vrt(folder / "v.vrt", "none.tif")


@case("a VRT of itself", "draws on itself")
def vrt_of_itself(folder):
    vrt(folder / "v.vrt", "v.vrt")


@case("two VRTs of each other", "draws on itself")
def vrt_ring(folder):
    vrt(folder / "v.vrt", "other.xml")
    vrt(folder / "other.xml", "v.vrt")


@case("a VRT of /etc/passwd", "which lies outside the VRT's folder")
def vrt_of_passwd(folder):
    vrt(folder / "v.vrt", "/etc/passwd")


@case("a VRT of /etc/passwd by a link beside it", "which lies outside the VRT's folder")
def vrt_of_link(folder):
    (folder / "innocent.data").symlink_to("/etc/passwd")
    vrt(folder / "v.vrt", "innocent.data")


@case("a VRT that climbs out by ../", "which lies outside the VRT's folder")
def vrt_climbs(folder):
    (folder / "below").mkdir()
    scene(folder, "outside.data")
    vrt(folder / "below" / "v.vrt", "../outside.data")


@case("a VRT that takes any file for raw pixels", "vrtrawrasterband, which can read any file")
def vrt_raw(folder):
    vrt(folder / "v.vrt", "v.vrt", kind=' subClass="VRTRawRasterBand"')


@case("a VRT with code in Python", "holds code in Python, which is not run")
def vrt_python(folder):
    code = "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    scene(folder, "source.data")
    vrt(folder / "v.vrt", "source.data", kind=' subClass="VRTDerivedRasterBand"', inside=code)


@case("a VRT of processing steps, which name files in arguments", "which can read any file")
def vrt_processed(folder):
    (folder / "v.vrt").write_text(
        '<VRTDataset subClass="VRTProcessedDataset"><Input><SourceFilename>a</SourceFilename></Input>'
        "</VRTDataset>"
    )


REMOTE = {
    "http": "http://127.0.0.1:9/x.tif",
    "vsicurl": "/vsicurl/http://127.0.0.1:9/x.tif",
    "vsis3": "/vsis3/bucket/x.tif",
    "vsizip": "/vsizip/archive.zip/x.tif",
    "vsistdin": "/vsistdin/",
    "vsisubfile": "/vsisubfile/0_100,/etc/passwd",
}
for _kind, _url in REMOTE.items():
    CASES[f"vrt_{_kind}"] = Case(
        f"a VRT of {_url.replace('127.0.0.1:9', 'HOST')}",
        lambda folder, url=_url: vrt(folder / "v.vrt", url, relative=False),
        "which is no local file",
    )


@case("a VRT of a VRT of another machine", "which is no local file")
def vrt_nested(folder):
    vrt(folder / "inner.xml", REMOTE["vsicurl"])
    vrt(folder / "v.vrt", "inner.xml")


@case("the same, its elements written in capitals", "which is no local file")
def vrt_capitals(folder):
    vrt(folder / "v.vrt", REMOTE["vsicurl"])
    text = (folder / "v.vrt").read_text()
    (folder / "v.vrt").write_text(text.replace("SourceFilename", "SOURCEFILENAME"))


@case("a VRT of another machine named .tif", "which is no local file")
def vrt_named_tif(folder):
    vrt(folder / "a.tif", REMOTE["vsicurl"])


@case("a VRT of a description of a web map service", "cannot be read as a raster (it does not begin")
def vrt_of_service(folder):
    (folder / "service.xml").write_text(SERVICE)
    vrt(folder / "v.vrt", "service.xml")


@case("a VRT that is no XML", "no well-formed XML")
def vrt_malformed(folder):
    (folder / "v.vrt").write_text("<VRTDataset rasterXSize='8'><VRTRasterBand>")


@case("a VRT whose entities unfold to gigabytes", "no well-formed XML")
def vrt_laughs(folder):
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 50}">' for i in range(1, 9))
    (folder / "v.vrt").write_text(
        f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><VRTDataset><SRS>&e8;</SRS></VRTDataset>'
    )


@case("a raster whose side-car mask is a VRT of another machine", "is a virtual raster, which could draw")
def mask_is_vrt(folder):
    scene(folder)
    vrt(folder / "a.tif.msk", REMOTE["vsicurl"])


@case(
    "a raster whose side-car overviews are a VRT of another machine", "is a virtual raster, which could draw"
)
def overviews_are_vrt(folder):
    scene(folder)
    vrt(folder / "a.tif.ovr", REMOTE["vsicurl"])


# ------------------------------------------------------------------------------------------ names and places


@case("a link to nothing", "there is no such file")
def dangling(folder):
    (folder / "a.tif").symlink_to("none.tif")


@case("a link to itself", "there is no such file")
def link_to_itself(folder):
    (folder / "a.tif").symlink_to("a.tif")


@case("a name that is not UTF-8", "not UTF-8 and cannot be written to a catalog")
def not_utf8(folder):
    scene(folder)
    os.rename(os.fsencode(folder / "a.tif"), os.fsencode(folder) + b"/caf\xe9.tif")


@case("folders that link to each other and to themselves")
def link_loops(folder):
    for name in ("x", "y"):
        (folder / name).mkdir()
        for other in ("x", "y", "."):
            (folder / name / f"to-{other.strip('.') or 'here'}").symlink_to(folder / other)
    return scene(folder, "x/a.tif")


@case("a folder and a pipe named .tif beside a scene")
def folder_and_pipe(folder):
    (folder / "folder.tif").mkdir()
    os.mkfifo(folder / "pipe.tif")
    return scene(folder)


@case("a link to a scene of another name")
def link(folder):
    truth = scene(folder, "a.data")
    (folder / "linked.tif").symlink_to("a.data")
    return {"linked": truth["a"]}


NAMES = {
    "spaces": ("a name with spaces", "my own  scene.tif", "my-own-scene"),
    "quotes": ("a name with quotes, a dollar and backticks", "a'b\"c$(d)`e`.tif", "a-b-c-d-e"),
    "newline": ("a name with a newline and an escape sequence", "a\nb\x1b[31mc.tif", "a-b-31mc"),
    "unicode": ("a name in Unicode", "été 東京.tif", "ete"),
    "script": ("a name that is HTML", "<script>alert(1)<script>.tif", "script-alert-1-script"),
    "dots": ("a name that begins with a dash and dots", "-..a.tif", "a"),
    "braces": ("a name with the placeholders of patterns", "{scene}{band}*.tif", "scene-band"),
    "long": ("a name of 200 letters", "x" * 200 + ".tif", "x" * 100),
}


def _named(file: str, expected: str) -> Callable[[Path], dict[str, Truth]]:
    return lambda folder: {expected: next(iter(scene(folder, file).values()))}


for _key, (_about, _file, _id) in NAMES.items():
    CASES[f"name_{_key}"] = Case(_about, _named(_file, _id))


@case("two scenes of the same content")
def same_content(folder):
    return scene(folder, "one.tif") | scene(folder, "two.tif")


@case("two scenes of the same name in two folders")
def same_name(folder):
    truth = scene(folder, "north/a.tif", pixels(SHAPE, 1)), scene(folder, "south/a.tif", pixels(SHAPE, 2))
    return {"north": truth[0]["a"], "south": truth[1]["a"]}


# -------------------------------------------------------------------------------------- odd but right: place


@case("no CRS")
def no_crs(folder):
    return scene(folder, crs=None)


@case("a CRS, but pixel coordinates for a place")
def no_transform(folder):
    return scene(folder, transform=None, where=None, place=tuple(Affine.identity())[:6])


@case("ground control points only")
def gcps(folder):
    points = [GroundControlPoint(y, x, 5e5 + x, 5.4e6 - y) for y in (0, 8) for x in (0, 8)]
    return scene(folder, transform=None, gcps=points, where=None, place=tuple(Affine.identity())[:6])


def placed(name: str, about: str, crs: str, transform: Affine, stated: str | None = None) -> None:
    """Enter a case of a place that is odd, and stays as it is."""
    place = tuple(transform)[:6]
    CASES[name] = Case(
        about, lambda folder: scene(folder, crs=crs, transform=transform, place=place, where=stated or crs)
    )


MARS = 'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447]],PRIMEM["Reference_Meridian",0],UNIT["Degree",0.0174532925199433],AXIS["Latitude",NORTH],AXIS["Longitude",EAST]]'  # noqa: E501
SITE = 'LOCAL_CS["site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]'
placed("rotated", "a rotated transform", UTM, Affine(8, 6, 5e5, 6, -8, 5.4e6))
placed("sheared", "a sheared transform", UTM, Affine(10, 4, 5e5, 0, -10, 5.4e6))
placed("south_up", "rows that go north", UTM, Affine(10, 0, 5e5, 0, 10, 5.4e6))
placed("mirrored", "columns that go west", UTM, Affine(-10, 0, 5e5, 0, -10, 5.4e6))
placed("oblong", "pixels that are not square", UTM, Affine(10, 0, 5e5, 0, -25, 5.4e6))
placed("degrees", "degrees (EPSG:4326)", "EPSG:4326", Affine(1e-4, 0, 14, 0, -1e-4, 48))
placed("antimeridian", "across the antimeridian", "EPSG:4326", Affine(1e-3, 0, 179.99, 0, -1e-3, -17))
placed("pole", "around the pole", "EPSG:3413", Affine(1000, 0, -20_000, 0, -1000, 12_000))
placed("beyond_pole", "degrees beyond the pole", "EPSG:4326", Affine(1, 0, 0, 0, -1, 95))
placed("mars", "another planet", MARS, Affine(1e-3, 0, 137, 0, -1e-3, -4))
placed("site", "the CRS of a building site", SITE, Affine(0.1, 0, 0, 0, -0.1, 100))
placed("fine", "another resolution than the rest, 1 cm", UTM, Affine(0.01, 0, 5e5, 0, -0.01, 5.4e6))
placed("zone", "another UTM zone than the rest", "EPSG:32632", Affine(10, 0, 5e5, 0, -10, 5.4e6))


@case("a transform that is not finite", "which gives pixels no area")
def endless(folder):
    scene(folder, transform=Affine(10, 0, float("inf"), 0, -10, 5.4e6))


@case("rows and columns that run the same way", "which gives pixels no area")
def no_area(folder):
    scene(folder, transform=Affine(10, 10, 5e5, 10, 10, 5.4e6))


@case("a PNG with a world file, without a CRS")
def world_file(folder):
    image = pixels((1, 24, 40))
    scene(folder, "a.png", image, driver="PNG", crs=None)
    (folder / "a.pgw").write_text("10\n0\n0\n-10\n500005\n5399995\n")
    return {"a": Truth(image, crs=None, transform=tuple(Affine.identity())[:6])}


# ------------------------------------------------------------------------------------- odd but right: values


def typed(dtype: str) -> Callable[[Path], dict[str, Truth]]:
    return lambda folder: scene(folder, image=(pixels(SHAPE) // 2).astype(dtype))


for _dtype in ("int8", "uint16", "int16", "uint32", "int32", "float32", "float64"):
    CASES[f"as_{_dtype}"] = Case(f"pixels of type {_dtype}", typed(_dtype))


@case("negative values")
def negative_values(folder):
    return scene(folder, image=pixels(SHAPE).astype("int16") - 300)


def odd_floats() -> tuple[np.ndarray, np.ndarray]:
    image = pixels(SHAPE, dtype="float32")
    image[0, 3], image[1, :, 4], image[1, 5, 6] = np.nan, np.inf, -np.inf
    return image, np.isfinite(image).all(axis=0)


@case("NaN and infinities that nothing declares")
def nan(folder):
    image, valid = odd_floats()
    return scene(folder, image=image, valid=valid)


@case("NaN declared as no data")
def nan_declared(folder):
    image, valid = odd_floats()
    return scene(folder, image=image, valid=valid, nodata=np.nan)


@case("values beyond float32")
def beyond_float32(folder):
    image = pixels(SHAPE, dtype="float64")
    image[0, 3] = 1e300
    return scene(folder, image=image, valid=image[0] < 1e300)


@case("no declared value for no data: zeros are data")
def nodata_missing(folder):
    image = pixels(SHAPE)
    image[:, :3] = 0
    return scene(folder, image=image)


@case("a value for no data that pixels in the scene have too: they are no data")
def nodata_is_data(folder):
    image = pixels(SHAPE)
    image[:, 10:12, 10:12] = 200
    return scene(folder, image=image, nodata=200, valid=(image != 200).all(axis=0))


@case("no data in one band only: the pixel has none")
def nodata_in_one_band(folder):
    image = pixels(SHAPE)
    image[1, 5] = 0
    return scene(folder, image=image, nodata=0, valid=image[1] > 0)


@case("a value for no data that the type cannot hold: all is data")
def impossible_nodata(folder):
    truth = scene(folder, nodata=255)
    content = (folder / "a.tif").read_bytes()
    assert content.count(b"255\0") == 1  # the text of the tag; rasterio would not write what follows
    (folder / "a.tif").write_bytes(content.replace(b"255\0", b"-99\0"))
    return truth


@case("an alpha band: a mask and no band")
def alpha(folder):
    image = pixels((4, 24, 40))
    image[3] = 255
    image[3, :5, :7] = 0
    make_geotiff(folder / "a.tif", data=image, nodata=None)
    with rasterio.open(folder / "a.tif", "r+") as raster:
        raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return {"a": Truth(image[:3], image[3] > 0)}


def masked(internal: bool) -> Callable[[Path], dict[str, Truth]]:
    def make(folder: Path) -> dict[str, Truth]:
        mask = np.full(SHAPE[1:], 255, "uint8")
        mask[5:9, 20:] = 0
        truth = scene(folder, valid=mask > 0)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(folder / "a.tif", "r+") as raster:
            raster.write_mask(mask)
        return truth

    return make


CASES["mask_inside"] = Case("a mask inside the file", masked(True))
CASES["mask_beside"] = Case("a mask in a side-car file", masked(False))


@case("a constant band")
def constant(folder):
    image = pixels(SHAPE)
    image[1] = 7
    return scene(folder, image=image)


@case("colours of a palette: the indices are the pixels")
def palette(folder):
    image = pixels((1, 24, 40)) % 4
    truth = scene(folder, image=image, photometric="palette")
    with rasterio.open(folder / "a.tif", "r+") as raster:
        raster.write_colormap(1, {i: (i, 0, 0, 255) for i in range(4)})
    return truth


@case("one bit a pixel")
def one_bit(folder):
    return scene(folder, image=pixels((1, 24, 40)) % 2, nbits=1)


@case("a scale and an offset: pixels stay as stored")
def scaled(folder):
    truth = scene(folder)
    with rasterio.open(folder / "a.tif", "r+") as raster:
        raster.scales, raster.offsets = (0.1, 0.1), (-5, -5)
    return truth


# --------------------------------------------------------------------------------------- odd but right: form


def formed(
    name: str, about: str, shape: tuple[int, int, int] = SHAPE, file: str = "a.tif", **options
) -> None:
    """Enter a case of a form that is odd and holds what any other would."""
    CASES[name] = Case(about, lambda folder: scene(folder, file, pixels(shape), **options))


formed("single", "1 x 1 pixels", (2, 1, 1))
formed("wide", "1 x 100,000 pixels", (1, 1, 100_000))
formed("tall", "100,000 x 1 pixels", (1, 100_000, 1))
formed("bands", "65 bands", (65, 24, 40))
formed("other_bands", "another number of bands than the rest", (5, 24, 40))
formed("planar", "bands one after the other", interleave="band")
formed("big_endian", "big-endian", ENDIANNESS="BIG")
formed("bigtiff", "BigTIFF", BIGTIFF="YES")
formed("zstd", "Zstandard with a predictor", compress="zstd", predictor=2)
formed("lerc", "LERC", compress="lerc", MAX_Z_ERROR=0)
formed("lzw", "LZW in one strip", compress="lzw", blockysize=24)
formed("cog", "cloud-optimised, with overviews", (2, 600, 700), driver="COG")
formed("jp2", "JPEG 2000", (1, 64, 64), driver="JP2OpenJPEG", file="a.jp2", QUALITY="100", REVERSIBLE="YES")
formed("png", "a PNG", (3, 24, 40), driver="PNG", file="a.png", crs=None)
formed("sixteen_jpg", "a PNG named .jpg", (3, 24, 40), driver="PNG", file="a.jpg", crs=None)


@case("overviews that are damaged: they are not read")
def damaged_overviews(folder):
    truth = scene(folder, image=pixels((1, 300, 300)))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(folder / "a.tif", "r+") as raster:
        raster.build_overviews([2, 4])
    damaged(folder / "a.tif.ovr", 0.5)
    return truth


@case("several directories in one file: the first is the scene")
def directories(folder):
    truth = scene(folder)
    with rasterio.open(folder / "a.tif", "r+") as raster:
        raster.build_overviews([2, 4])
    return truth


@case("a directory that names itself as the next")
def directory_ring(folder):
    truth = scene(folder)
    content = bytearray((folder / "a.tif").read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    (folder / "a.tif").write_bytes(content)
    return truth


@case("absent tiles of a sparse file, which are no data")
def sparse(folder):
    image = np.zeros((1, 64, 64), "uint8")
    image[:, :16, :16] = pixels((1, 16, 16))
    return scene(folder, image=image, nodata=0, valid=image[0] > 0, sparse_ok=True, **TILED)


@case("a VRT of rasters beside it")
def vrt_beside(folder):
    image = pixels(SHAPE)
    for band, name in enumerate(("red.data", "nir.data")):
        scene(folder, f"parts/{name}", image[band : band + 1])
    vrt(folder / "v.vrt", "parts/red.data", "parts/nir.data")
    return {"v": Truth(image)}


@case("a VRT of a raster in a folder that catalog.vrt_folders names")
def vrt_allowed(folder):
    (folder / "here").mkdir()
    scene(folder.parent / ALLOWED, "source.data", pixels((1, 24, 40)))
    vrt(folder / "here" / "v.vrt", str(folder.parent / ALLOWED / "source.data"))
    return {"v": Truth(pixels((1, 24, 40)))}


ALLOWED = "sources"
"""Folder beside those of the cases that VRTs may draw on."""


def table() -> str:
    """Return the cases as the table of ``docs/inputs.md``."""
    lines = ["| input | what becomes of it |", "|---|---|"]
    for kind in (True, False):
        for each in CASES.values():
            if bool(each.refused) is not kind:
                continue
            said = each.refused.replace("<", "&lt;")
            fate = f"{each.stage} sets it aside: “… {said} …”" if kind else "accepted, every pixel right"
            lines.append(f"| {each.about} | {fate} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
