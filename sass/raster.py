"""Any raster by windows: several files as one scene, masks from nodata, alpha or mask band."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from sass.catalog import Scene, size_and_time
from sass.config import Ingest
from sass.errors import SceneError
from sass.gdal import OPTIONS, TROUBLE, cause
from sass.georeference import Georeference
from sass.grid import Window, ceil_to
from sass.warp import warped_view

GDAL_OPTIONS = OPTIONS | {
    "GDAL_CACHEMAX": 128 << 20, "GDAL_NUM_THREADS": 1, "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"
}  # fmt: skip
"""What holds everywhere; a bounded block cache (rasterio takes bytes), no hidden threads, side-car masks."""

LARGEST = np.finfo(np.float32).max
"""Larger values are no data: all that follows computes in float32."""


class SceneReader:
    """The pixels of one catalog row on the grid the settings ask for. A context manager, safe for threads.

    Pickled, it opens the files anew where it arrives.

    Attributes
    ----------
    shape
        Height and width in pixels.
    place
        CRS and transform.
    names
        Names of the bands kept.
    dtype
        The dtype that holds all of them.
    """

    def __init__(self, scene: Scene, settings: Ingest):
        self.scene = scene
        self.settings = settings
        self._local = threading.local()
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> "SceneReader":
        with contextlib.ExitStack() as on_error:
            on_error.callback(self._stack.close)
            self._stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
            with _blamed(self.scene.paths[0]):
                self.check_unchanged()
                self._bands = _kept_bands(self.scene, self.settings)
                self._look()
            on_error.pop_all()
        return self

    def _look(self) -> None:
        first, _ = self._sources()[0]
        self.shape = (first.height, first.width)
        placed = first.crs and first.transform != Affine.identity()
        self.place = (
            Georeference(first.crs, first.transform) if placed else Georeference(None, Affine.identity())
        )
        types = [source.dtypes[band - 1] for source, bands, _ in self._by_source() for band in bands]
        self.dtype = np.result_type(*types)
        if self.dtype.kind not in "uif":
            raise SceneError(
                f"pixels of type {self.dtype} have no order; convert them to integer or float bands"
            )
        self.names = self.settings.band_names or [self.scene.band_names[b - 1] for b in self._bands]
        if len(self.names) != len(self._bands):
            raise SceneError(
                f"ingest.band_names has {len(self.names)} names for {len(self._bands)} bands kept"
            )

    def __exit__(self, *exc) -> None:
        self._stack.close()

    def check_unchanged(self) -> None:
        """See that the files are those that were scanned.

        Raises
        ------
        SceneError
            They have changed since.
        """
        files = self.scene.paths
        if not all(map(os.path.exists, files)):
            return  # that is told when they are opened
        if not self.scene.modified:
            raise SceneError(
                f"{files[0]} was refused by the last scan, which names the reason; mend it and scan once more"
            )
        if self.scene.driver == "VRT":
            with _quietly_opened(files[0]) as raster:
                files = raster.files
        if size_and_time(files) != (self.scene.size, self.scene.modified):
            raise SceneError(
                f"{self.scene.paths[0]} has changed since the scan, so its row in the catalog may be wrong; "
                "scan once more and run again"
            )

    def __reduce__(self):
        return _reopened, (self.scene, self.settings)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read pixels ``(band, y, x)`` and the mask ``(y, x)``, True where every band has data.

        Pixels without data are 0.

        Raises
        ------
        SceneError
            The raster cannot be read there.
        """
        try:
            return self._read(window)
        except TROUBLE as error:
            raise SceneError(
                f"{self.scene.paths[0]} cannot be read at y {window.y}, x {window.x} ({cause(error)}); "
                "the file is damaged or cut short: fetch it again and scan once more"
            ) from error

    def _read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        outer = window.grown(self.settings.erode, self.shape)
        parts = []
        for source, bands, positions in self._by_source():
            read = _read_blocks if isinstance(source, WarpedVRT) else _read_at_once
            parts.append((positions, *read(source, bands, outer, self.settings.nodata)))
        if len(parts) == 1:
            ((_, pixels, valid),) = parts  # nothing to put together
        else:
            pixels = np.empty((len(self._bands), *outer.shape), self.dtype)
            valid = np.ones(outer.shape, bool)
            for positions, values, held in parts:
                pixels[positions] = values
                valid &= held
        if self.dtype.kind == "f":
            valid &= (np.abs(pixels) <= LARGEST).all(axis=0)  # not so for NaN
        if self.settings.erode:
            from scipy.ndimage import binary_erosion

            valid = binary_erosion(
                valid, np.ones((3, 3), bool), iterations=self.settings.erode, border_value=1
            )
        inner = window.inside(outer)
        pixels, valid = pixels[(slice(None), *inner)], valid[inner]
        if not valid.all():
            pixels[:, ~valid] = 0
        return pixels, valid

    def _by_source(self) -> Iterator[tuple[rasterio.DatasetReader, list[int], list[int]]]:
        """Give each open file with those of its bands that are kept and their positions among all kept."""
        first = 1  # bands are counted through all files
        for source, count in self._sources():
            held = [(b - first + 1, i) for i, b in enumerate(self._bands) if first <= b < first + count]
            if held:
                yield source, [b for b, _ in held], [i for _, i in held]
            first += count

    def _sources(self) -> list[tuple]:
        """Return this thread's open files and how many bands each has.

        One handle must not serve two threads.
        """
        if not hasattr(self._local, "sources"):
            self._local.sources = [self._open(path) for path in self.scene.paths]
        return self._local.sources

    def _open(self, path: str) -> tuple:
        source = _quietly_opened(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            warped = warped_view(source, self.settings, self.scene)
        with self._lock:
            for handle in {id(h): h for h in (source, warped)}.values():
                self._stack.callback(handle.close)
        return warped, source.count  # a warped view may have an alpha band more


def _reopened(scene: Scene, settings: Ingest) -> SceneReader:
    return SceneReader(scene, settings).__enter__()


def _kept_bands(scene: Scene, settings: Ingest) -> list[int]:
    if settings.bands is None:
        return _without_alpha(scene)
    wrong = [b for b in settings.bands if b > scene.bands]
    if wrong:
        raise SceneError(f"ingest.bands asks for band {wrong[0]}, the scene has {scene.bands}")
    return list(settings.bands)


def _without_alpha(scene: Scene) -> list[int]:
    if len(scene.paths) > 1:
        return list(range(1, scene.bands + 1))
    with _quietly_opened(scene.paths[0]) as source, _blamed(scene.paths[0]):
        return [b for b, role in enumerate(source.colorinterp, 1) if role != ColorInterp.alpha]


@contextlib.contextmanager
def _blamed(path: str) -> Iterator[None]:
    """Set the scene aside for what GDAL cannot make of its header."""
    try:
        yield
    except TROUBLE as error:
        raise SceneError(
            f"{path} has a header that makes no sense ({cause(error)}); fetch it again, or remove it"
        ) from error


def _quietly_opened(path: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except TROUBLE as error:
            with contextlib.suppress(FileNotFoundError, PermissionError), open(path, "rb"):
                pass  # that too many files are open is no fault of the scene, and comes out here
            raise SceneError(
                f"{path} cannot be opened ({cause(error)}); it has changed since the scan"
            ) from error


def _read_at_once(
    source, bands: list[int], window: Window, override: float | None
) -> tuple[np.ndarray, np.ndarray]:
    where = RasterWindow(window.x, window.y, window.width, window.height)
    values = source.read(bands, window=where)
    return values, _mask(source, bands, values, where, override)


def _read_blocks(
    source: WarpedVRT, bands: list[int], window: Window, override: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a warped view by its own blocks: what GDAL makes of a pixel depends on what is asked with it."""
    height, width = source.block_shapes[0]
    y, x = window.y // height * height, window.x // width * width
    outer = Window(
        y, x, ceil_to(window.y + window.height, height) - y, ceil_to(window.x + window.width, width) - x
    ).cut(source.shape)
    pixels = np.empty((len(bands), *outer.shape), np.result_type(*(source.dtypes[b - 1] for b in bands)))
    valid = np.empty(outer.shape, bool)
    for y in range(outer.y, outer.y + outer.height, height):
        for x in range(outer.x, outer.x + outer.width, width):
            block = Window(y, x, height, width).cut(source.shape)
            inside = block.inside(outer)
            values, held = _read_at_once(source, bands, block, override)
            pixels[(slice(None), *inside)], valid[inside] = values, held
    inner = window.inside(outer)
    return pixels[(slice(None), *inner)], valid[inner]


def _mask(
    source, bands: list[int], values: np.ndarray, where: RasterWindow, override: float | None
) -> np.ndarray:
    """Return where every band has data, ``(y, x)`` bool, without a second read where the values tell it."""
    valid = np.ones(values.shape[1:], bool)
    if override is not None:
        for value in values:
            valid &= _differs(value, override)
        if not isinstance(source, WarpedVRT):
            return valid  # beyond the raster, a warped view knows better
    for band, value in zip(bands, values):
        flags = source.mask_flag_enums[band - 1]
        if MaskFlags.per_dataset in flags:
            return valid & (source.read_masks(band, window=where) > 0)
        if flags == [MaskFlags.nodata]:
            valid &= _differs(value, source.nodatavals[band - 1])
        elif MaskFlags.all_valid not in flags:
            valid &= source.read_masks(band, window=where) > 0
    return valid


def _differs(values: np.ndarray, nodata: float) -> np.ndarray:
    """Say where values are data; integers are compared as such, which is faster than as floats."""
    if np.isnan(nodata):
        return ~np.isnan(values)
    whole = int(nodata) if values.dtype.kind in "ui" and float(nodata).is_integer() else nodata
    return values != whole
