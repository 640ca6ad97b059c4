"""Label rasters: their ids, read by windows on the grid of a map.

A label raster on another grid, or under another CRS, is brought onto that of the map by nearest neighbour.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from sass.errors import SceneError
from sass.gdal import TROUBLE, check_sources
from sass.grid import Window
from sass.metrics import NO_LABEL

WARP = {"add_alpha": True, "tolerance": 0.001}
"""An alpha band tells pixels without a label; places are right to a thousandth of a pixel (0 fails)."""


@contextlib.contextmanager
def label_reader(path: Path, grid: rasterio.DatasetReader) -> Iterator[Callable[[Window], np.ndarray]]:
    """Open a label raster and give a function that reads its ids on the grid of a map.

    The function takes a window and returns ids ``(y, x)``, int64, with `sass.metrics.NO_LABEL` where there
    is none.

    Raises
    ------
    SceneError
        The label raster cannot be opened or read, does not fit the scene or holds no label ids.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(opened(path, "label raster"))
        if source.count != 1:
            raise SceneError(
                f"the label raster {path} has {source.count} bands, so it holds colours and no label ids; "
                "convert it to one band of integer ids"
            )
        if not _same_grid(source, grid):
            # the view's second band is 0 where there is no label: beyond the raster, or where it has no data
            size = {"height": grid.height, "width": grid.width}
            place = {"crs": grid.crs, "transform": grid.transform, "resampling": Resampling.nearest}
            try:
                source = stack.enter_context(WarpedVRT(source, **size, **place, **WARP))
            except (*TROUBLE, ValueError) as error:
                raise SceneError(
                    f"the label raster {path} cannot be brought to the grid of the scene ({error}), so the "
                    "scene is not scored; mend its georeference"
                ) from error

        def read(window: Window) -> np.ndarray:
            values, *alpha = read_window(source, path, window)
            known = alpha[0] > 0 if alpha else source.read_masks(1, window=_raster_window(window)) > 0
            return _as_ids(values, known, path)

        yield read


def _same_grid(labels: rasterio.DatasetReader, grid: rasterio.DatasetReader) -> bool:
    """Whether pixels correspond one to one without moving any; without georeference the shapes decide."""
    if not (_placed(labels) and _placed(grid)):
        if labels.shape != grid.shape:
            raise SceneError(
                f"the label raster {labels.name} is {labels.height} x {labels.width} pixels and the scene "
                f"{grid.height} x {grid.width} (y, x), and without georeference on both they cannot be laid "
                "over each other; give both a CRS, or make a label raster of the scene's shape"
            )
        return True
    if labels.crs != grid.crs or labels.shape != grid.shape:
        return False
    corners = np.array([(x, y, 1) for x in (0, grid.width) for y in (0, grid.height)]).T
    moved = np.reshape(labels.transform, (3, 3)) @ corners - np.reshape(grid.transform, (3, 3)) @ corners
    hundredth_of_a_pixel = 0.01 * abs(grid.transform.determinant) ** 0.5
    return bool((np.abs(moved) < hundredth_of_a_pixel).all())


def _placed(raster: rasterio.DatasetReader) -> bool:
    return raster.crs is not None and raster.transform != Affine.identity()


def _as_ids(values: np.ndarray, known: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype.kind == "f":
        known = known & ~np.isnan(values)
    held = values[known]
    whole = np.isfinite(held) & (held == np.rint(held)) & (np.abs(held.astype(np.float64)) < 2**31)
    wrong = held[~whole]
    if wrong.size:
        raise SceneError(
            f"the label raster {path} holds {wrong[0]}, which is no label id (a whole number below 2^31), so "
            "the scene is not scored; convert it to an integer raster of class ids"
        )
    ids = np.full(values.shape, NO_LABEL, np.int64)
    ids[known] = held
    return ids


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster of a scene; ``what`` it is stands in the message if that fails (`SceneError`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            check_sources(str(path))
            raster = rasterio.open(path)
        except (*TROUBLE, SceneError, OSError) as error:
            raise SceneError(
                f"the {what} {path} cannot be opened ({error}), so the scene is not scored; put it back in "
                "place or mend it, and run once more"
            ) from error
    with raster:
        yield raster


def read_window(raster: rasterio.DatasetReader, path: Path, window: Window) -> np.ndarray:
    """Read all bands of a window ``(band, y, x)``; a damaged file raises `SceneError`."""
    try:
        return raster.read(window=_raster_window(window))
    except TROUBLE as error:
        raise SceneError(
            f"{path} cannot be read at y {window.y}, x {window.x} ({error}), so the scene is not scored; the "
            "file is damaged or cut short: fetch it again and scan once more"
        ) from error


def _raster_window(window: Window) -> RasterWindow:
    return RasterWindow(window.x, window.y, window.width, window.height)
