"""A raster on another grid: reprojected and resampled as it is read, with no seam between windows."""

import math

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError
from rasterio.vrt import WarpedVRT
from rasterio.warp import aligned_target, calculate_default_transform
from rasterio.warp import transform as warp_points

from sass.catalog import Scene
from sass.config import Ingest
from sass.errors import ConfigError, SceneError
from sass.gdal import TROUBLE, cause


def warped_view(source, settings: Ingest, scene: Scene):
    """Return the source itself, or a view of it on another grid, aligned to multiples of the pixel size.

    Raises
    ------
    SceneError
        The source has no CRS, or its place cannot be brought to the one that is asked for.
    ConfigError
        ``ingest.crs`` is none.
    """
    resolution = settings.resolution
    if isinstance(resolution, dict):
        resolution = resolution.get(scene.sensor)
    if settings.crs is None and resolution is None:
        return source
    if source.crs is None:
        raise SceneError(
            "has no CRS, so ingest.crs and ingest.resolution cannot be applied; "
            "give it one with gdal_edit -a_srs"
        )
    try:
        crs = CRS.from_user_input(settings.crs) if settings.crs else source.crs
    except CRSError as error:
        raise ConfigError(
            f"ingest.crs: {settings.crs!r} is no CRS ({cause(error)}); expected one such as EPSG:32633"
        ) from None
    if crs == source.crs and resolution is None:
        return source
    try:
        return _view(source, crs, resolution, settings)
    # what GDAL cannot compute comes as any of these
    except (*TROUBLE, RuntimeError, ZeroDivisionError) as error:
        raise SceneError(
            f"its place cannot be brought to {crs.to_string()} ({cause(error)}); "
            "mend its georeference, or leave it out"
        ) from error


def _view(source, crs: CRS, resolution: float | None, settings: Ingest) -> WarpedVRT:
    extent = (source.crs, crs, source.width, source.height, *source.bounds)
    transform, width, height = calculate_default_transform(*extent, resolution=resolution)
    if resolution is not None:
        transform, width, height = aligned_target(transform, width, height, resolution)
    scale = _scale(source, crs, transform, (height, width))
    return WarpedVRT(
        source,
        crs=crs,
        transform=transform,
        width=width,
        height=height,
        resampling=Resampling[settings.resampling],
        tolerance=1e-3,  # pixels; the exact transform takes three times as long
        # left to itself, GDAL works these out for each block, with seams between them
        XSCALE=scale[0],
        YSCALE=scale[1],
        **_masking(source, settings.nodata),
    )


def _scale(source, crs: CRS, transform: Affine, shape: tuple[int, int]) -> tuple[float, float]:
    """Return how many pixels of a grid lie along one of the source, x and y, in the middle of the scene."""
    y, x = shape[0] / 2, shape[1] / 2
    at = [transform * point for point in ((x, y), (x + 1, y), (x, y + 1))]
    xs, ys = warp_points(crs, source.crs, *zip(*at))
    middle, right, below = (~source.transform * point for point in zip(xs, ys))
    return 1 / math.dist(middle, right), 1 / math.dist(middle, below)


def _masking(source, override: float | None) -> dict:
    """Return how a warped view marks its pixels without data, those beyond the raster among them."""
    dtype = np.dtype(source.dtypes[0])
    possible = dtype.kind not in "ui" or override in range(np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    if override is not None and possible:
        return {"src_nodata": override, "nodata": override}
    if ColorInterp.alpha in source.colorinterp:
        return {"src_nodata": None, "nodata": None}
    if override is None and MaskFlags.nodata in source.mask_flag_enums[0]:
        return {}
    return {"src_nodata": None, "nodata": None, "add_alpha": True}
