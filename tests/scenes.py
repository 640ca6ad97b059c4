"""Small rasters made on the spot, for tests."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning


def pixels(shape: tuple[int, int, int], seed: int = 0, dtype: str = "uint8") -> np.ndarray:
    """Make patches of several levels with a little noise, ``(band, y, x)``, values 1 to 250, never 0."""
    bands, height, width = shape
    rng = np.random.default_rng(seed)
    patch = 16
    levels = rng.integers(20, 230, size=(bands, -(-height // patch), -(-width // patch)))
    image = np.kron(levels, np.ones((1, patch, patch), dtype=np.int64))[:, :height, :width]
    return np.clip(image + rng.integers(-10, 11, size=shape), 1, 250).astype(dtype)


def make_geotiff(
    path: Path,
    shape: tuple[int, int, int] = (3, 48, 64),
    seed: int = 0,
    dtype: str = "uint8",
    nodata: float | None = 0,
    crs: str | None = "EPSG:32633",
    res: float = 10.0,
    origin: tuple[float, float] = (500_000.0, 5_400_000.0),
    *,
    data: np.ndarray | None = None,
    tags: dict[str, str] | None = None,
    band_names: list[str] | None = None,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF and return its path.

    Parameters
    ----------
    shape
        Bands, height and width; ignored where ``data`` is given.
    seed
        Seed of the pixels, see `pixels`.
    crs
        None gives a raster without georeference.
    res
        Side of a pixel in units of the CRS.
    origin
        Coordinates ``(x, y)`` of the upper left corner.
    data
        Pixels ``(band, y, x)`` to write instead of made ones, in ``dtype``.
    **profile
        Further creation options, such as ``driver="PNG"`` or ``tiled=True, blockxsize=16, blockysize=16``.
    """
    image = pixels(shape, seed, dtype) if data is None else data.astype(dtype)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # GDAL opens what it overwrites, and fails on a broken file
    place = {} if crs is None else {"crs": crs, "transform": Affine(res, 0, origin[0], 0, -res, origin[1])}
    size = {"count": image.shape[0], "height": image.shape[1], "width": image.shape[2]}
    options = {"driver": "GTiff", "dtype": dtype, "nodata": nodata, **size, **place, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **options) as raster:
            # before the pixels: written after them, the header of a GeoTIFF moves to the end of the file
            if tags:
                raster.update_tags(**tags)
            for band, name in enumerate(band_names or [], start=1):
                raster.set_band_description(band, name)
            raster.write(image)
    return path
