"""Any raster by windows: several files as one scene, masks from nodata, alpha or mask band, reprojection."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import aligned_target, calculate_default_transform
from rasterio.windows import Window as RasterWindow

from sass.catalog import Scene
from sass.config import Ingest
from sass.errors import SceneError
from sass.grid import Window
from sass.store import Georeference

GDAL_OPTIONS = {"GDAL_CACHEMAX": 256, "GDAL_NUM_THREADS": 1, "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}
"""A bounded block cache in MB, no hidden threads, side-car masks are looked for."""


class SceneReader:
    """The pixels of one catalog row on the grid the settings ask for. A context manager, safe for threads.

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
        self._bands = _kept_bands(scene, settings)

    def __enter__(self) -> "SceneReader":
        self._stack.enter_context(rasterio.Env(**GDAL_OPTIONS))
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
        self.names = self.settings.band_names or self._own_names()
        if len(self.names) != len(self._bands):
            raise SceneError(
                f"ingest.band_names has {len(self.names)} names for {len(self._bands)} bands kept"
            )
        return self

    def __exit__(self, *exc) -> None:
        self._stack.close()

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
        except RasterioError as error:
            raise SceneError(
                f"{self.scene.paths[0]} cannot be read at y {window.y}, x {window.x} ({_cause(error)}); "
                "the file is damaged or cut short: fetch it again and scan once more"
            ) from error

    def _read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        outer = window.grown(self.settings.erode, self.shape)
        where = RasterWindow(outer.x, outer.y, outer.width, outer.height)
        pixels = np.empty((len(self._bands), *outer.shape), self.dtype)
        valid = np.ones(outer.shape, bool)
        for source, bands, positions in self._by_source():
            values = source.read(bands, window=where)
            valid &= _mask(source, bands, values, where, self.settings.nodata)
            pixels[positions] = values
        if self.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=0)
        if self.settings.erode:
            from scipy.ndimage import binary_erosion

            valid = binary_erosion(
                valid, np.ones((3, 3), bool), iterations=self.settings.erode, border_value=1
            )
        inner = window.inside(outer)
        pixels, valid = pixels[(slice(None), *inner)], valid[inner]
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                source = rasterio.open(path)
            except RasterioError as error:
                raise SceneError(
                    f"{path} cannot be opened ({_cause(error)}); it has changed since the scan"
                ) from error
            warped = _warped(source, self.settings, self.scene)
        with self._lock:
            for handle in {id(h): h for h in (source, warped)}.values():
                self._stack.callback(handle.close)
        return warped, source.count  # a warped view may have an alpha band more

    def _own_names(self) -> list[str]:
        return [self.scene.band_names[b - 1] for b in self._bands]


def _kept_bands(scene: Scene, settings: Ingest) -> list[int]:
    if settings.bands is None:
        return _without_alpha(scene)
    wrong = [b for b in settings.bands if b > scene.bands]
    if wrong:
        raise SceneError(f"ingest.bands asks for band {wrong[0]}, the scene has {scene.bands}")
    # bands come in the order of the files; a different order inside one file is kept
    return list(settings.bands)


def _without_alpha(scene: Scene) -> list[int]:
    if len(scene.paths) > 1:
        return list(range(1, scene.bands + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(scene.paths[0]) as source:
                return [b for b, role in enumerate(source.colorinterp, 1) if role != ColorInterp.alpha]
        except RasterioError as error:
            raise SceneError(
                f"{scene.paths[0]} cannot be opened ({_cause(error)}); it has changed since the scan"
            ) from error


def _mask(
    source, bands: list[int], values: np.ndarray, where: RasterWindow, override: float | None
) -> np.ndarray:
    """Return where every band has data, ``(y, x)`` bool, without a second read where the values tell it."""
    if override is not None:
        return (values != override).all(axis=0)
    valid = np.ones(values.shape[1:], bool)
    for band, value in zip(bands, values):
        flags = source.mask_flag_enums[band - 1]
        if MaskFlags.all_valid in flags:
            continue
        if flags == [MaskFlags.nodata]:
            nodata = source.nodatavals[band - 1]
            valid &= ~np.isnan(value) if np.isnan(nodata) else value != nodata
        else:
            valid &= source.read_masks(band, window=where) > 0
    return valid


def _warped(source, settings: Ingest, scene: Scene):
    """Return the source itself, or a view of it on another grid, aligned to multiples of the pixel size."""
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
    crs = CRS.from_user_input(settings.crs) if settings.crs else source.crs
    transform, width, height = calculate_default_transform(
        source.crs, crs, source.width, source.height, *source.bounds, resolution=resolution
    )
    if resolution is not None:
        transform, width, height = aligned_target(transform, width, height, resolution)
    masked = source.nodata is not None or ColorInterp.alpha in source.colorinterp
    return WarpedVRT(
        source,
        crs=crs,
        transform=transform,
        width=width,
        height=height,
        resampling=Resampling[settings.resampling],
        tolerance=1e-9,  # all but exact at every pixel, so that windows agree with each other; 0 is refused
        add_alpha=not masked,
    )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
