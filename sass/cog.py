"""Cloud-optimised GeoTIFFs: what a GIS opens. Written by windows, memory bounded by the window."""

import contextlib
import errno
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from sass.colours import Colour, class_colours
from sass.files import remove, replacing
from sass.georeference import Georeference
from sass.grid import Window
from sass.style import write_styles

CONFIDENCE_STEPS = 254
"""A stored confidence of 254 is 1; 255 is no data."""


def class_type(classes: int) -> tuple[str, int]:
    """Return the dtype of a class raster and its nodata value."""
    return ("uint8", 255) if classes <= 254 else ("uint16", 65535)


class NewRaster:
    """A raster of one band that is written by windows, every pixel once."""

    def __init__(self, target: rasterio.io.DatasetWriter):
        self.target, self.nodata = target, int(target.nodata)
        self.held = np.zeros(self.nodata + 1, np.int64)
        """Pixels written, by value."""

    def write(self, values: np.ndarray, window: Window | None = None) -> None:
        """Write ``(y, x)`` pixels of the raster's dtype, if any, to all of it if no window is given."""
        if not values.size:
            return
        window = window or Window(0, 0, *values.shape)
        where = RasterWindow(window.x, window.y, window.width, window.height)
        self.target.write(values, 1, window=where)
        self.held += np.bincount(values.ravel(), minlength=len(self.held))


@contextlib.contextmanager
def new_classes(
    path: Path,
    shape: tuple[int, int],
    place: Georeference,
    classes: int,
    names: Sequence[str] = (),
    colours: Sequence[Colour] = (),
    threads: int = 1,
) -> Iterator[NewRaster]:
    """Open a class raster for writing by windows; it becomes a COG with colours and overviews when closed.

    Names of the classes, where they have some, stand in the tags ``class_0``, ``class_1`` ... of the band.
    Colours are those of `class_colours` unless others are given. Names and colours also stand beside the
    raster (`sass.style`). Blocks are compressed on ``threads`` threads in the end, to the same bytes.

    Raises
    ------
    OSError
        Not all that was written is in the file, as on a full disk.
    """
    dtype, nodata = class_type(classes)
    colours = colours or class_colours(classes, names)
    with _new(path, shape, place, dtype, nodata, "mode", threads) as raster:
        raster.target.set_band_description(1, "class")
        raster.target.update_tags(1, **{f"class_{c}": name for c, name in enumerate(names)})
        if dtype == "uint8":
            raster.target.write_colormap(
                1, {c: (*colour, 255) for c, colour in enumerate(colours)} | {nodata: (0, 0, 0, 0)}
            )
        yield raster
    write_styles(path, names or [f"class {c}" for c in range(classes)], colours)


@contextlib.contextmanager
def new_confidence(
    path: Path, shape: tuple[int, int], place: Georeference, threads: int = 1
) -> Iterator[NewRaster]:
    """Open a confidence raster for writing by windows: uint8, scaled so that a GIS reads 0 to 1.

    ``threads`` are those of `new_classes`.

    Raises
    ------
    OSError
        As `new_classes` does.
    """
    with _new(path, shape, place, "uint8", 255, "average", threads) as raster:
        raster.target.set_band_description(1, "confidence")
        raster.target.scales, raster.target.offsets = (1 / CONFIDENCE_STEPS,), (0.0,)
        yield raster


@contextlib.contextmanager
def new_codes(
    path: Path, shape: tuple[int, int], place: Georeference, codes: int, stride: int
) -> Iterator[NewRaster]:
    """Open a raster of the fine codes for writing by windows, on the grid of the embeddings.

    The tag ``stride`` of the band says how many pixels of the scene one of it covers, along an axis.

    Raises
    ------
    OSError
        As `new_classes` does.
    """
    dtype, nodata = class_type(codes)
    with _new(path, shape, place, dtype, nodata, "mode") as raster:
        raster.target.set_band_description(1, "code")
        raster.target.update_tags(1, stride=stride)
        yield raster


@contextlib.contextmanager
def _new(
    path: Path,
    shape: tuple[int, int],
    place: Georeference,
    dtype: str,
    nodata: int,
    resampling: str,
    threads: int = 1,
) -> Iterator[NewRaster]:
    where = {"crs": place.crs, "transform": place.transform} if place.known else {}
    form = {"height": shape[0], "width": shape[1], "count": 1, "dtype": dtype, "nodata": nodata}
    plain = path.with_name(f".{path.name}.plain.tif")
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=64 << 20, GDAL_NUM_THREADS=1):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(
                plain, "w", driver="GTiff", **form, **where, tiled=True, blockxsize=512, blockysize=512,
                compress="zstd", zstd_level=1, bigtiff="if_safer",
            ) as target:  # fmt: skip
                raster = NewRaster(target)
                yield raster
            with replacing(path) as temporary:
                rasterio.shutil.copy(
                    plain, temporary, driver="COG", blocksize=512, compress="deflate", predictor="no",
                    overview_resampling=resampling, bigtiff="if_safer", num_threads=threads,
                )  # fmt: skip
                # GDAL says nothing of a block that it failed to write while closing a file
                held = _held(temporary, len(raster.held))
                if not np.array_equal(held[:nodata], raster.held[:nodata]):
                    raise RasterioError("blocks are missing")
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(errno.EIO, f"GDAL could not write all of it ({error})", str(path)) from error
        finally:
            remove(plain)


def _held(path: Path, values: int) -> np.ndarray:
    """Read a raster with its overviews; return the pixels of each value in its band."""
    counts = np.zeros(values, np.int64)
    with rasterio.open(path) as file:
        levels = range(len(file.overviews(1)))
        for _, window in file.block_windows(1):
            counts += np.bincount(file.read(1, window=window).ravel(), minlength=values)
    for level in levels:
        with rasterio.open(path, overview_level=level) as file:
            for _, window in file.block_windows(1):
                file.read(1, window=window)
    return counts
