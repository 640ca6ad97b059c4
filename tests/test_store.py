"""The Zarr stores, as xarray and rioxarray read them and as the stages do."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from affine import Affine
from rasterio.crs import CRS

from sass.georeference import Georeference
from sass.grid import Window
from sass.store import INT8_SCALE, FeatureStore, SceneStore, create_features, create_scene

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_400_000)
PLACES = {
    "utm": Georeference(CRS.from_epsg(32633), NORTH_UP),
    "degrees": Georeference(CRS.from_epsg(4326), Affine(0.1, 0, -3.25, 0, -0.2, 51.5)),
    "south-up": Georeference(CRS.from_epsg(3857), Affine(2, 0, 100, 0, 2, -700)),
    "rotated": Georeference(CRS.from_epsg(32633), NORTH_UP * Affine.rotation(30)),
    "own": Georeference(
        CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=-81 +ellps=GRS80"), Affine.scale(30, -30)
    ),
    "none": Georeference(None, Affine.identity()),
}


def scene(path, place: Georeference, shape=(3, 40, 50), dtype="uint16", chunk=16, shard=32) -> np.ndarray:
    """Write a scene store; return its pixels."""
    pixels = np.random.default_rng(0).integers(1, 200, shape).astype(dtype)
    group = create_scene(path, shape, dtype, ["red", "green", "nir"][: shape[0]], place, chunk, shard, 8)
    group["bands"][:] = pixels
    group["valid"][:] = 1
    group["valid"][:5] = 0
    return pixels


def opened(path) -> xr.Dataset:
    """Open as the format's reference says, with no help from this package."""
    return xr.open_zarr(path, consolidated=False, mask_and_scale=False, decode_coords="all")


@pytest.mark.parametrize("name", PLACES)
def test_xarray_and_rioxarray_find_pixels_names_and_place(tmp_path, name):
    place = PLACES[name]
    pixels = scene(tmp_path / "a.zarr", place)
    data = opened(tmp_path / "a.zarr")
    assert data.bands.dims == ("band", "y", "x")
    assert data.valid.dims == ("y", "x")
    assert data.bands.dtype == np.uint16
    assert np.array_equal(data.bands, pixels)
    assert data.attrs["band_names"] == ["red", "green", "nir"]
    assert data.rio.crs == place.crs
    assert data.bands.rio.transform() == place.transform
    if name != "rotated":  # there is no x of a column then
        height, width = pixels.shape[1:]
        columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
        assert np.allclose(data.x, [(place.transform * (column, 0))[0] for column in columns])
        assert np.allclose(data.y, [(place.transform * (0, row))[1] for row in rows])


@pytest.mark.parametrize("name", PLACES)
def test_the_place_survives_the_store(tmp_path, name):
    scene(tmp_path / "a.zarr", PLACES[name])
    assert SceneStore(tmp_path / "a.zarr").place == PLACES[name]
    assert Georeference.from_json(PLACES[name].as_json()) == PLACES[name]
    assert PLACES[name].known is (name != "none")


def test_the_package_opens_it_lazily_and_without_warnings(tmp_path):
    pixels = scene(tmp_path / "a.zarr", PLACES["utm"])
    data = SceneStore(tmp_path / "a.zarr").to_xarray()
    assert not data.bands.variable._in_memory
    assert np.array_equal(data.bands[1, 7:9], pixels[1, 7:9])
    assert data.rio.crs == PLACES["utm"].crs


@pytest.mark.parametrize("window", [Window(0, 0, 40, 50), Window(3, 20, 30, 30), Window(39, 49, 1, 1)])
def test_windows_are_parts_of_the_whole(tmp_path, window):
    pixels = scene(tmp_path / "a.zarr", PLACES["utm"])
    store = SceneStore(tmp_path / "a.zarr")
    part, valid = store.read(window)
    assert np.array_equal(part, pixels[(slice(None), *window.slices)])
    assert valid.dtype == bool
    assert np.array_equal(valid, np.broadcast_to(np.arange(40)[:, None] >= 5, (40, 50))[window.slices])
    assert store.shape == (40, 50)
    assert store.band_names == ["red", "green", "nir"]


@pytest.mark.parametrize(
    "shape, shards",
    [((1, 40, 50), 4), ((1, 16, 16), 1), ((1, 5, 3), 1), ((1, 33, 32), 2)],
)
def test_a_shard_is_a_file_and_no_larger_than_the_scene(tmp_path, shape, shards):
    scene(tmp_path / "a.zarr", PLACES["utm"], shape)
    files = [p for p in (tmp_path / "a.zarr" / "bands" / "c").rglob("*") if p.is_file()]
    assert len(files) == shards
    assert SceneStore(tmp_path / "a.zarr").bands.shards[1] <= max(-(-max(shape[1:]) // 16) * 16, 16)


def test_a_constant_scene_of_no_data_takes_no_files(tmp_path):
    create_scene(tmp_path / "a.zarr", (3, 400, 500), "uint8", ["a", "b", "c"], PLACES["utm"], 16, 32, 8)
    assert not (tmp_path / "a.zarr" / "bands" / "c").exists()
    pixels, valid = SceneStore(tmp_path / "a.zarr").read(Window(0, 0, 400, 500))
    assert not pixels.any() and not valid.any()


# --------------------------------------------------------------------------------------------------- features


def unit(shape) -> np.ndarray:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=0)


@pytest.mark.parametrize("name", PLACES)
def test_a_feature_store_lies_on_its_scene(tmp_path, name):
    place = PLACES[name]
    parts = {"embedding": 8, "colour": 3, "texture": 1}
    create_features(tmp_path / "f.zarr", parts, (10, 13), "float16", place, 4, 8, 16)
    store = FeatureStore(tmp_path / "f.zarr")
    assert (store.stride, store.shape) == (4, (10, 13))
    assert list(store.parts.items()) == list(parts.items())
    assert store.embedding.shape == (12, 10, 13)
    assert store.place.crs == place.crs
    # the corners of a pixel of features are those of 4 x 4 pixels
    for x, y in [(0, 0), (1, 0), (3, 7), (13, 10)]:
        assert store.place.transform * (x, y) == pytest.approx(place.transform * (4 * x, 4 * y))
    data = opened(tmp_path / "f.zarr")
    assert data.embedding.dims == ("embedding", "y", "x")
    assert data.rio.crs == place.crs
    assert data.embedding.rio.transform() == store.place.transform


@pytest.mark.parametrize("dtype, error", [("float16", 2**-11), ("int8", INT8_SCALE / 2)])
def test_embeddings_come_back_as_float32_to_the_precision_of_the_store(tmp_path, dtype, error):
    values = unit((8, 10, 13))
    group = create_features(tmp_path / "f.zarr", {"embedding": 8}, (10, 13), dtype, PLACES["utm"], 4, 8, 16)
    group["embedding"][:] = values.astype(dtype) if dtype == "float16" else np.rint(values / INT8_SCALE)
    group["valid"][2:] = 1
    part, valid = FeatureStore(tmp_path / "f.zarr").read(Window(1, 2, 9, 11))
    assert part.dtype == np.float32
    # half of float16's last digit below 1, and half a step of int8
    assert np.abs(part - values[:, 1:, 2:]).max() <= error
    assert valid.sum() == 8 * 11
    assert np.allclose(
        xr.open_zarr(tmp_path / "f.zarr", consolidated=False).embedding[:, 1:, 2:], part, atol=1e-6
    ), "xarray scales by itself"
