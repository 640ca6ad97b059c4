"""Cloud-optimised GeoTIFFs: what a GIS opens. Written by windows, memory bounded by the window."""

import colorsys
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning

from sass.manifest import remove, replacing
from sass.store import Georeference

CONFIDENCE_STEPS = 254
"""A stored confidence of 254 is 1; 255 is no data."""

PALETTE = (
    "4e79a7", "f28e2b", "59a14f", "e15759", "76b7b2", "edc948", "b07aa1", "9c755f", "bab0ac", "d37295",
    "2f4b7c", "a0cbe8", "8cd17d", "ff9d9a", "b6992d", "499894",
)  # fmt: skip
"""Colours of the first classes, told apart by lightness too; further ones walk around the colour circle."""


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the red, green and blue (0-255) of a class."""
    if number < len(PALETTE):
        return tuple(bytes.fromhex(PALETTE[number]))  # type: ignore[return-value]
    hue = (number * 0.618034) % 1  # the golden angle keeps neighbours apart
    value = (0.9, 0.65, 0.8)[number % 3]
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.55, value))  # type: ignore[return-value]


def class_type(classes: int) -> tuple[str, int]:
    """Return the dtype of a class raster and its nodata value."""
    return ("uint8", 255) if classes <= 254 else ("uint16", 65535)


@contextlib.contextmanager
def new_classes(
    path: Path, shape: tuple[int, int], place: Georeference, classes: int, names: Sequence[str] = ()
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a class raster for writing by windows; it becomes a COG with colours and overviews when closed.

    Names of the classes, where they have some, stand in the tags ``class_0``, ``class_1`` ... of the band.
    """
    dtype, nodata = class_type(classes)
    with _new(path, shape, place, dtype, nodata, "mode") as target:
        target.set_band_description(1, "class")
        target.update_tags(1, **{f"class_{c}": name for c, name in enumerate(names)})
        if dtype == "uint8":
            target.write_colormap(
                1, {c: (*class_colour(c), 255) for c in range(classes)} | {nodata: (0, 0, 0, 0)}
            )
        yield target


@contextlib.contextmanager
def new_confidence(
    path: Path, shape: tuple[int, int], place: Georeference
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a confidence raster for writing by windows: uint8, scaled so that a GIS reads 0 to 1."""
    with _new(path, shape, place, "uint8", 255, "average") as target:
        target.set_band_description(1, "confidence")
        target.scales, target.offsets = (1 / CONFIDENCE_STEPS,), (0.0,)
        yield target


@contextlib.contextmanager
def _new(path: Path, shape: tuple[int, int], place: Georeference, dtype: str, nodata: int, resampling: str):
    where = {"crs": place.crs, "transform": place.transform} if place.known else {}
    form = {"height": shape[0], "width": shape[1], "count": 1, "dtype": dtype, "nodata": nodata}
    plain = path.with_name(f".{path.name}.plain.tif")
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=128 << 20, GDAL_NUM_THREADS=1):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(
                plain, "w", driver="GTiff", **form, **where, tiled=True, blockxsize=512, blockysize=512,
                compress="zstd", zstd_level=1, bigtiff="if_safer",
            ) as target:  # fmt: skip
                yield target
            with replacing(path) as temporary:
                rasterio.shutil.copy(
                    plain, temporary, driver="COG", blocksize=512, compress="deflate", predictor="no",
                    overview_resampling=resampling, bigtiff="if_safer",
                )  # fmt: skip
        finally:
            remove(plain)
