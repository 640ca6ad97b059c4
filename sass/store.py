"""The Zarr stores of a scene and of its features: layout, conventions, reading by windows.

A store is a Zarr v3 group that xarray opens (``consolidated=False``) and whose CRS rioxarray finds. One
file holds one shard of many chunks, and one task writes one shard: two writers corrupt it silently.

Scene store
    ``bands (band, y, x)`` in the raster's dtype; ``valid (y, x)`` uint8, 1 where all bands have data;
    ``histogram (band, bin)`` uint64 over `sass.statistics` bins; ``x``, ``y`` pixel centres in units of
    the CRS; ``spatial_ref`` the CRS.
Feature store
    ``embedding (embedding, y, x)`` at the encoder's stride, float16 or int8 with ``scale_factor``; beside
    int8, ``remainder (look, y, x)`` int8, what rounding took off the last components, colour and texture;
    ``valid (y, x)`` uint8, 1 where the pixels below hold any data; ``spatial_ref``, ``x``, ``y`` alike.
"""

import warnings
from functools import cached_property
from itertools import product
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
import zarr
from affine import Affine
from rasterio.crs import CRS
from zarr.buffer import cpu
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from sass.errors import SassError
from sass.georeference import Georeference
from sass.grid import Window, ceil_to

INT8_SCALE = 1 / 127
"""Components of a unit embedding lie in [-1, 1], so one scale serves every int8 store."""
REMAINDER_SCALE = INT8_SCALE / 254
"""That of what rounding takes off. Texture varies over a few steps of int8 only, and would be lost."""
PIXELS_CODEC, EMBEDDINGS_CODEC = "zstd", "lz4"
"""Embeddings are noise in most of their bits: lz4 leaves a twentieth more bytes, in a third of the time."""


def create_scene(
    path: Path,
    shape: tuple[int, int, int],
    dtype: str,
    names: list[str],
    place: Georeference,
    chunk: int,
    shard: int,
    bins: int,
) -> zarr.Group:
    """Create an empty scene store of ``(band, y, x)`` pixels and return its group, open for writing."""
    bands, height, width = shape
    group = _create(path, place, (height, width), {"band_names": names})
    # a shard never reaches far beyond a small scene
    side = min(shard, ceil_to(max(height, width), chunk))
    _array(group, "bands", shape, dtype, ("band", "y", "x"), (bands, chunk, chunk), (bands, side, side))
    _array(group, "valid", (height, width), "uint8", ("y", "x"), (chunk, chunk), (side, side))
    _array(group, "histogram", (bands, bins), "uint64", ("band", "bin"), (1, bins), None)
    return group


def create_features(
    path: Path,
    parts: dict[str, int],
    shape: tuple[int, int],
    dtype: str,
    place: Georeference,
    stride: int,
    chunk: int,
    shard: int,
) -> zarr.Group:
    """Create an empty feature store of ``(embedding, y, x)`` components and return its group.

    ``parts`` are the lengths, by name, of what the components are made up of, in this order.
    """
    dim, (height, width) = sum(parts.values()), shape
    named = [[name, length] for name, length in parts.items()]  # JSON objects have no order to rely on
    group = _create(path, place.coarsened(stride), shape, {"stride": stride, "parts": named})
    side = min(shard, ceil_to(max(height, width), chunk))
    extra = {"scale_factor": INT8_SCALE} if dtype == "int8" else {}
    _array(
        group,
        "embedding",
        (dim, height, width),
        dtype,
        ("embedding", "y", "x"),
        (dim, chunk, chunk),
        (dim, side, side),
        extra,
        EMBEDDINGS_CODEC,
    )
    looks = dim - parts["embedding"]
    if dtype == "int8" and looks:
        extra = {"scale_factor": REMAINDER_SCALE}
        form = ((looks, height, width), dtype, ("look", "y", "x"), (looks, chunk, chunk), (looks, side, side))
        _array(group, "remainder", *form, extra, EMBEDDINGS_CODEC)
    _array(group, "valid", (height, width), "uint8", ("y", "x"), (chunk, chunk), (side, side))
    return group


def _create(
    path: Path, place: Georeference, shape: tuple[int, int], attributes: dict[str, Any]
) -> zarr.Group:
    group = zarr.create_group(path, zarr_format=3, attributes={"Conventions": "CF-1.11", **attributes})
    template = xr.DataArray(np.zeros((), np.int32)).rio.write_transform(place.transform)
    if place.crs is not None:
        template = template.rio.write_crs(place.crs)
    # attributes are given at once: each one set later would write the file again
    about = {k: v for k, v in template.spatial_ref.attrs.items() if v is not None}
    about["transform"] = list(place.transform)[:6]
    group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=about)
    for axis, length in zip("yx", shape):
        steps = np.arange(length) + 0.5
        rotated = place.transform.b or place.transform.d
        origin, step = (
            (place.transform.f, place.transform.e) if axis == "y" else (place.transform.c, place.transform.a)
        )
        centres = steps if rotated else origin + steps * step
        group.create_array(
            axis,
            data=centres,
            dimension_names=(axis,),
            chunks=(max(length, 1),),
            attributes={"axis": axis.upper()},
        )
    return group


def _array(group, name, shape, dtype, dims, chunk, shard, extra=None, codec=PIXELS_CODEC):
    dims_of_raster = dims[-2:] == ("y", "x")
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunk,
        shards=shard,
        compressors=BloscCodec(cname=codec, clevel=1, shuffle="bitshuffle"),
        fill_value=0,
        dimension_names=dims,
        attributes={**({"grid_mapping": "spatial_ref"} if dims_of_raster else {}), **(extra or {})},
    )


METADATA = "zarr.json"
"""Name of the file that says what an array is."""


def encode(metadata: bytes, window: Window, values: np.ndarray) -> dict[str, bytes]:
    """Return the files of whole Zarr shards, and write none.

    Parameters
    ----------
    metadata
        What ``zarr.json`` of the array holds.
    window
        Whole shards, cut off where the array ends.
    values
        What lies there, ``(..., y, x)``.

    Returns
    -------
    dict
        Path below the array to bytes. A shard of nothing but the fill value has no file.
    """
    files = {METADATA: cpu.Buffer.from_bytes(metadata)}
    write(zarr.open_array(MemoryStore(files), mode="r+"), window, values)
    return {name: held.to_bytes() for name, held in files.items() if name != METADATA}


def write(array: zarr.Array, window: Window, values: np.ndarray) -> None:
    """Write whole Zarr shards ``(..., y, x)``, cut off where the array ends."""
    if _no_chunk_is_empty(values, array.chunks[-1]):
        # Zarr need not look: it compares every value of every chunk, which takes a sixth of the time
        array = array.with_config({"write_empty_chunks": True})
    array[(..., *window.slices)] = values


def _no_chunk_is_empty(values: np.ndarray, side: int) -> bool:
    """Say whether each chunk holds something other than 0; the first such value of it tells."""
    height, width = values.shape[-2:]
    corners = product(range(0, height, side), range(0, width, side))
    return all(values[..., y : y + side, x : x + side].any() for y, x in corners)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write what `encode` gave."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


PATIENCE = 30.0
"""Seconds in which what another machine has written must show on a file system that two share."""


def _opened(path: Path) -> zarr.Group:
    until = monotonic() + PATIENCE
    while True:
        try:
            return zarr.open_group(path, mode="r", use_consolidated=False)
        except FileNotFoundError:
            if monotonic() > until:
                raise SassError(
                    f"{path} is written down as finished and is not there, {PATIENCE:g} s after it was asked "
                    "for: the file system shows it late, or it was removed; give the same command again, or "
                    "see what else is missing by `sass verify`"
                ) from None
            sleep(1)


class _Store:
    """A store opened for reading. Open it in the process that reads."""

    def __init__(self, path: Path):
        self.path = path
        self.group = _opened(path)

    @cached_property
    def valid(self) -> zarr.Array:
        """The validity mask ``(y, x)``, uint8."""
        return self.group["valid"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.valid.shape

    @property
    def place(self) -> Georeference:
        """CRS and transform."""
        attributes = self.group["spatial_ref"].attrs
        wkt = attributes.get("crs_wkt")
        return Georeference(CRS.from_wkt(wkt) if wkt else None, Affine(*attributes["transform"]))

    def read_valid(self, window: Window) -> np.ndarray:
        """Read the mask of a window as bool ``(y, x)``."""
        return self.valid[window.slices].astype(bool)

    def to_xarray(self) -> xr.Dataset:
        """Open the store lazily; values are as stored and the CRS is found by ``.rio``."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Numcodecs codecs are not in the Zarr version 3.*")
            return xr.open_zarr(
                self.path, consolidated=False, mask_and_scale=False, decode_coords="all", chunks=None
            )


class SceneStore(_Store):
    """An ingested scene."""

    @cached_property
    def bands(self) -> zarr.Array:
        """The pixels ``(band, y, x)`` in the raster's dtype."""
        return self.group["bands"]

    @property
    def band_names(self) -> list[str]:
        """Names of the bands."""
        return list(self.group.attrs["band_names"])

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window: pixels ``(band, y, x)`` as stored and the mask ``(y, x)`` as bool."""
        return self.bands[(slice(None), *window.slices)], self.read_valid(window)


class FeatureStore(_Store):
    """The embeddings of a scene."""

    @cached_property
    def embedding(self) -> zarr.Array:
        """The stored components ``(embedding, y, x)``."""
        return self.group["embedding"]

    @cached_property
    def _remainder(self) -> zarr.Array | None:
        return self.group.get("remainder")

    @property
    def stride(self) -> int:
        """Pixels of the scene per embedding, along an axis."""
        return int(self.group.attrs["stride"])

    @property
    def parts(self) -> dict[str, int]:
        """Lengths of what the components are made up of, by name, in their order."""
        return {name: int(length) for name, length in self.group.attrs["parts"]}

    def read(self, window: Window, into: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Read a window, in units of the stride: float32 ``(embedding, y, x)`` and bool mask ``(y, x)``.

        With ``into``, of that shape, the embeddings are put there, and it is returned; where they are stored
        as float16, an array of that will do.
        """
        stored = self.embedding[(slice(None), *window.slices)]
        values = np.empty(stored.shape, np.float32) if into is None else into
        values[:] = stored
        if stored.dtype == np.int8:
            values *= INT8_SCALE
            if (rest := self._remainder) is not None:
                values[-rest.shape[0] :] += rest[(slice(None), *window.slices)] * np.float32(REMAINDER_SCALE)
        return values, self.read_valid(window)
