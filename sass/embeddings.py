"""Embeddings that others have made: a Zarr store or a raster with many bands, read by windows.

``features.source`` names one for each scene. Nothing is resampled: the grid must be the scene's, coarser by a
whole number of pixels.
"""

import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from sass.errors import SceneError
from sass.georeference import Georeference
from sass.grid import Window
from sass.store import SceneStore

VARIABLE = "embedding"
"""Variable of a Zarr store that holds the embeddings."""
CACHE = 128 << 20
"""Bytes of GDAL's block cache, which otherwise grows with the machine."""
SLACK = 0.01
"""Pixels of the scene by which corners may lie apart: what is left of coordinates written in another form."""


class Embeddings:
    """Embeddings of one scene, opened for reading. A context manager.

    Parameters
    ----------
    path
        A folder is opened as Zarr: variable ``embedding``, dimensions ``(embedding, y, x)``, the first of any
        name. A file is opened as a raster whose bands are the components. Scale, offset and fill value are
        applied.

    Attributes
    ----------
    shape
        Length of an embedding, rows and columns.
    place
        CRS and transform; unknown where the file does not say both.

    Raises
    ------
    SceneError
        The file cannot be opened or has another form.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stack = ExitStack()
        try:
            self._open_zarr() if path.is_dir() else self._open_raster()
        except (RasterioError, OSError, KeyError, ValueError) as error:  # zarr raises any of the last three
            self._stack.close()
            raise SceneError(
                f"its embeddings {path} cannot be opened ({' '.join(str(error).split())}); expected a "
                f"raster, or a Zarr store with a variable {VARIABLE!r} of dimensions (embedding, y, x)"
            ) from error

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *exc) -> None:
        self._stack.close()

    def _open_zarr(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Numcodecs codecs are not in the Zarr version 3.*")
            cube = xr.open_zarr(self.path, consolidated=False, decode_coords="all", chunks=None)
        self._stack.callback(cube.close)
        self._array = cube[VARIABLE]
        if self._array.dims[1:] != ("y", "x"):
            raise ValueError(f"{VARIABLE} has dimensions {self._array.dims}")
        self.shape = self._array.shape
        self.place = Georeference(None, Affine.identity())
        if (crs := self._array.rio.crs) is not None:
            try:
                self.place = Georeference(crs, self._array.rio.transform())
            except rioxarray.exceptions.RioXarrayError:  # a single row or column without a transform
                return

    def _open_raster(self) -> None:
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._array = self._stack.enter_context(rasterio.open(self.path))
            transform = self._array.transform
        self.shape = (self._array.count, self._array.height, self._array.width)
        placed = self._array.crs and transform != Affine.identity()
        self.place = (
            Georeference(self._array.crs, transform) if placed else Georeference(None, Affine.identity())
        )

    def read(self, window: Window) -> np.ndarray:
        """Read a window, in embeddings: float32 ``(embedding, y, x)``, NaN without data.

        Raises
        ------
        SceneError
            The file cannot be read there.
        """
        try:
            if isinstance(self._array, xr.DataArray):
                rows, columns = window.slices
                return self._array[:, rows, columns].to_numpy().astype(np.float32)
            where = RasterWindow(window.x, window.y, window.width, window.height)
            values = self._array.read(window=where, masked=True).astype(np.float32)
        except (RasterioError, OSError, ValueError, RuntimeError) as error:
            raise SceneError(
                f"its embeddings {self.path} cannot be read at row {window.y}, column {window.x} ({error}); "
                "the file is damaged or cut short: write it again"
            ) from error
        scale, offset = (
            np.array(row, np.float32)[:, None, None] for row in (self._array.scales, self._array.offsets)
        )
        return (values * scale + offset).filled(np.nan)

    def stride_over(self, scene: SceneStore) -> int:
        """Return the pixels of a scene per embedding, along an axis.

        Raises
        ------
        SceneError
            The embeddings do not cover the scene, or not by a whole number of pixels.
        """
        grid, (height, width) = self.shape[1:], scene.shape
        known = self.place.known and scene.place.known
        if known:
            stride = round(
                np.hypot(*_column(self.place.transform)) / np.hypot(*_column(scene.place.transform))
            )
        else:
            stride = -(-height // grid[0])
        stride = max(stride, 1)
        if grid != (-(-height // stride), -(-width // stride)):
            raise SceneError(
                f"its embeddings {self.path} have {grid[0]} x {grid[1]} cells for {height} x {width} pixels, "
                "which is no whole number of pixels each; make them for the whole scene as it stands in "
                "scenes/, the last row and column filled up"
            )
        if known and (apart := self._apart(scene, stride)):
            raise SceneError(
                f"its embeddings {self.path} do not lie on it ({apart}); make them on the grid of the scene "
                "as it stands in scenes/, rows in the same order, or take a wrong CRS out of their file"
            )
        return stride

    def _apart(self, scene: SceneStore, stride: int) -> str:
        """Say how the grid differs from that of the scene, coarsened; empty where it does not."""
        if self.place.crs != scene.place.crs:
            return f"CRS {self.place.crs.to_string()}, the scene has {scene.place.crs.to_string()}"
        mine, wanted = self.place.transform, scene.place.coarsened(stride).transform
        rows, columns = self.shape[1:]
        for corner in ((0, 0), (columns, 0), (0, rows)):
            x, y = ~scene.place.transform * (mine * corner)
            x0, y0 = ~scene.place.transform * (wanted * corner)
            if max(abs(x - x0), abs(y - y0)) > SLACK:
                return f"a corner is {x - x0:.2f} pixels to the right and {y - y0:.2f} below"
        return ""


def identity(path: Path) -> list | None:
    """Return what tells that embeddings have changed: name, size and time of each file; None without any."""
    if not path.exists():
        return None
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    state = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    return [[name, about.st_size, about.st_mtime_ns] for name, about in state]


def _column(transform: Affine) -> tuple[float, float]:
    """Return the step from one column to the next, in units of the CRS."""
    return transform.a, transform.d
