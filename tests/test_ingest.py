"""Ingest: any raster becomes a store with the same pixels, an honest mask and the right place."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from scenes import make_geotiff, pixels

from sass.catalog import load_index, load_shard
from sass.cli import main
from sass.commands import SET_ASIDE
from sass.config import Catalog, Ingest
from sass.errors import ConfigError, SceneError
from sass.files import read_json
from sass.grid import Window
from sass.ingest import ingest_shard
from sass.manifest import Outcome, scenes_of
from sass.raster import SceneReader
from sass.run import Run
from sass.scan import scan
from sass.statistics import BINS, bin_of
from sass.store import SceneStore

SHARD = "s00000"
SMALL = {"chunk": 16, "shard": 32}


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "run")


@pytest.fixture
def archive(tmp_path) -> Path:
    return tmp_path / "archive"


def ingest(run: Run, *patterns, threads: int = 1, **settings) -> Outcome:
    """Scan where patterns are given, then ingest the first shard."""
    if patterns:
        scan(run, [str(pattern) for pattern in patterns], settings=Catalog(), labels=[])
    return ingest_shard(run, SHARD, Ingest(**{**SMALL, **settings}), threads)


def held(run: Run, scene: str = "a") -> tuple[np.ndarray, np.ndarray]:
    """Return all pixels and the mask of a scene's store."""
    store = SceneStore(run.scene(scene))
    return store.read(Window(0, 0, *store.shape))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------------------------------------- pixels, names


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_a_store_holds_the_pixels_names_and_place_of_the_raster(run, archive, dtype):
    names = ["red", "green", "nir"]
    image = pixels((3, 48, 70), dtype="uint8") // 2
    path = make_geotiff(archive / "a.tif", data=image, dtype=dtype, nodata=None, band_names=names)
    assert ingest(run, path).computed == ["a"]
    store = SceneStore(run.scene("a"))
    found, valid = held(run)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (3, 48, 70))
    assert np.array_equal(found, image.astype(dtype))
    assert valid.all()
    assert store.band_names == names
    with rasterio.open(path) as source:
        assert (store.place.crs, store.place.transform) == (source.crs, source.transform)
        data = store.to_xarray()
        assert data.rio.crs == source.crs
        assert data.bands.rio.transform() == source.transform
        assert (float(data.x[7]), float(data.y[3])) == source.xy(3, 7)


def test_the_manifest_says_what_the_store_is(run, archive):
    image = pixels((2, 20, 30))
    image[:, :4] = 0
    make_geotiff(archive / "a.tif", data=image)
    ingest(run, archive)
    record = scenes_of(run, "ingest", SHARD)["a"]
    assert {k: record[k] for k in ("shape", "bands", "dtype", "valid", "band_names")} == {
        "shape": [20, 30],
        "bands": 2,
        "dtype": "uint8",
        "valid": 16 * 30,
        "band_names": ["band_1", "band_2"],
    }
    assert CRS.from_wkt(record["crs"]) == CRS.from_epsg(32633)
    assert record["transform"] == [10, 0, 500_000, 0, -10, 5_400_000]
    assert str(archive) not in run.manifest("ingest", SHARD).read_text(), "an archive may be moved"


def test_the_histogram_counts_the_pixels_with_data(run, archive):
    image = pixels((2, 40, 50), dtype="int16")
    image[0, 5:9] = -7
    make_geotiff(archive / "a.tif", data=image, dtype="int16", nodata=-7)
    ingest(run, archive)
    counts = SceneStore(run.scene("a")).group["histogram"][:]
    kept = image[:, image[0] != -7]
    assert np.array_equal(counts, [np.bincount(bin_of(band), minlength=BINS) for band in kept])


def test_bands_are_chosen_ordered_and_named(run, archive):
    image = pixels((4, 20, 20))
    make_geotiff(archive / "a.tif", data=image, band_names=["blue", "green", "red", "nir"])
    ingest(run, archive, bands=[4, 1])
    assert np.array_equal(held(run)[0], image[[3, 0]])
    assert SceneStore(run.scene("a")).band_names == ["nir", "blue"]
    ingest(run, bands=[3, 2, 1], band_names=["R", "G", "B"])
    assert np.array_equal(held(run)[0], image[[2, 1, 0]])
    assert SceneStore(run.scene("a")).band_names == ["R", "G", "B"]


def test_nodata_in_a_band_not_kept_does_not_matter(run, archive):
    image = pixels((2, 20, 20))
    image[1, :10] = 0
    make_geotiff(archive / "a.tif", data=image)
    ingest(run, archive, bands=[1])
    assert held(run)[1].all()


def test_files_of_a_scene_keep_their_own_nodata_and_share_a_dtype(run, archive):
    first, second, third = pixels((3, 24, 40))[:, None].astype("int64")
    first[0, :3], second[0, 2:6], third[0, :, :5] = 255, -9999, 0
    third[0, 20, 20] = 255  # another file's nodata is a value here
    make_geotiff(archive / "n" / "x_1.tif", data=first, nodata=255)
    make_geotiff(archive / "n" / "x_2.tif", data=second, dtype="int16", nodata=-9999)
    make_geotiff(archive / "n" / "x_3.tif", data=third, nodata=0)
    ingest(run, archive / "{scene}" / "x_{band}.tif")
    found, valid = held(run, "n")
    expected = np.ones((24, 40), bool)
    expected[:6] = expected[:, :5] = False
    assert found.dtype == np.int16
    assert np.array_equal(valid, expected)
    assert np.array_equal(found, np.concatenate([first, second, third]) * expected)
    ingest(run, bands=[3, 1])
    found, valid = held(run, "n")
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.concatenate([third, first]) * valid)
    assert valid[4, 10], "band 2 is not kept, nor what it lacks"


@pytest.mark.parametrize("driver, exact", [("PNG", True), ("JPEG", False)])
def test_pictures_without_a_place(run, archive, driver, exact):
    image = pixels((3, 32, 48))
    name = f"a.{driver.lower()}"
    make_geotiff(archive / name, data=image, nodata=None, crs=None, driver=driver)
    assert ingest(run, archive).computed == ["a"]
    found, valid = held(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(archive / name) as source:
            assert np.array_equal(found, source.read())
    assert np.array_equal(found, image) is exact
    assert valid.all()
    store = SceneStore(run.scene("a"))
    assert not store.place.known
    data = store.to_xarray()
    assert data.rio.crs is None
    assert (float(data.x[0]), float(data.y[31])) == (0.5, 31.5)


def test_a_raster_whose_rows_go_north(run, archive):
    image = pixels((2, 20, 30))
    up = Affine(10, 0, 500_000, 0, 10, 5_400_000)
    make_geotiff(archive / "a.tif", data=image, transform=up)
    ingest(run, archive)
    assert np.array_equal(held(run)[0], image)
    store = SceneStore(run.scene("a"))
    assert store.place.transform == up
    assert store.to_xarray().y[:2].values.tolist() == [5_400_005, 5_400_015]
    ingest(run, crs="EPSG:32633", resolution=10)
    assert SceneStore(run.scene("a")).place.transform == Affine(10, 0, 500_000, 0, -10, 5_400_200)
    assert np.array_equal(held(run)[0], image[:, ::-1])


# ------------------------------------------------------------------------------------------------------ masks


def test_an_alpha_band_is_a_mask_and_no_band(run, archive):
    image = pixels((4, 20, 30))
    image[3] = 255
    image[3, :5, :7] = 0
    image[3, 10, 10] = 128  # half transparent is data
    path = make_geotiff(archive / "a.tif", data=image, nodata=None)
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    ingest(run, archive)
    found, valid = held(run)
    assert np.array_equal(valid, image[3] > 0)
    assert np.array_equal(found, image[:3] * valid)


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_inside_the_file_or_beside_it(run, archive, internal):
    image = pixels((3, 20, 30))
    mask = np.full((20, 30), 255, "uint8")
    mask[5:9, 20:] = 0
    path = make_geotiff(archive / "a.tif", data=image, nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as raster:
        raster.write_mask(mask)
    assert (archive / "a.tif.msk").exists() is not internal
    assert ingest(run, archive / "a.tif").computed == ["a"]
    found, valid = held(run)
    assert np.array_equal(valid, mask > 0)
    assert np.array_equal(found, image * valid)


def test_nan_is_no_data_whether_declared_or_not(run, archive):
    image = pixels((2, 20, 30), dtype="float32")
    image[0, 3], image[1, :, 4] = np.nan, np.inf
    make_geotiff(archive / "a.tif", data=image, dtype="float32", nodata=np.nan)
    make_geotiff(archive / "b.tif", data=image, dtype="float32", nodata=None)
    make_geotiff(archive / "c.tif", data=image, dtype="float32", nodata=-9999)
    ingest(run, archive)
    for name in "abc":
        found, valid = held(run, name)
        assert np.array_equal(valid, np.isfinite(image).all(axis=0))
        assert np.array_equal(found, np.where(valid, image, 0))


def test_values_beyond_float32_are_no_data(run, archive):
    image = pixels((1, 20, 30), dtype="float64")
    image[0, 3] = np.finfo("float64").min
    make_geotiff(archive / "a.tif", data=image, dtype="float64", nodata=None)
    ingest(run, archive)
    assert np.array_equal(held(run)[1], image[0] > 0)


def test_a_pixel_without_data_in_one_band_has_none(run, archive):
    image = pixels((3, 20, 30))
    image[0, 2], image[1, 5], image[2, :, 8] = 0, 0, 0
    make_geotiff(archive / "a.tif", data=image)
    ingest(run, archive)
    found, valid = held(run)
    assert np.array_equal(valid, (image > 0).all(axis=0))
    assert not found[:, ~valid].any(), "and its other bands are not kept"


@pytest.mark.parametrize("nodata, lost", [(7, [2]), (250, []), (-9999, []), (7.5, [])])
def test_another_nodata_replaces_that_of_the_raster(run, archive, nodata, lost):
    image = np.full((2, 6, 6), 9, "uint8")
    image[:, 1], image[:, 2] = 0, 7
    make_geotiff(archive / "a.tif", data=image, nodata=0)
    ingest(run, archive, nodata=nodata)
    assert np.flatnonzero(~held(run)[1].all(axis=1)).tolist() == lost


def eroded(valid: np.ndarray, steps: int) -> np.ndarray:
    """Take away what is within so many pixels of a pixel without data."""
    out = valid.copy()
    for y, x in np.argwhere(~valid):
        out[max(y - steps, 0) : y + steps + 1, max(x - steps, 0) : x + steps + 1] = False
    return out


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_edge_of_the_data_is_stripped_and_that_of_the_raster_is_not(run, archive, steps):
    image = pixels((1, 90, 75))
    image[0, 30:34, 31:33] = 0  # across the border of windows
    image[0, :, 70:] = 0
    make_geotiff(archive / "a.tif", data=image)
    ingest(run, archive, erode=steps)
    windowed = held(run)
    assert np.array_equal(windowed[1], eroded(image[0] > 0, steps))
    ingest(run, erode=steps, shard=96)
    assert np.array_equal(windowed[1], held(run)[1])
    assert np.array_equal(windowed[0], held(run)[0])


# ----------------------------------------------------------------------------------------------- another grid


def warped(path: Path, like: SceneStore, resampling: str) -> np.ndarray:
    """Bring a raster to the grid of a store, all at once and by the exact transform, as rasterio does it."""
    with rasterio.open(path) as source:
        out = np.zeros((source.count, *like.shape), source.dtypes[0])
        # rasterio takes it from the two sizes in whole pixels, which is rough for a small scene
        step = like.place.transform.a
        scale = {"XSCALE": 10 / step, "YSCALE": 10 / step} if like.place.crs == source.crs else {}
        rasterio.warp.reproject(
            rasterio.band(source, list(range(1, source.count + 1))),
            out,
            dst_transform=like.place.transform,
            dst_crs=like.place.crs,
            dst_nodata=0,
            resampling=Resampling[resampling],
            tolerance=0,
            **scale,
        )
    return out


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "grid",
    [
        {"crs": "EPSG:32632"},
        {"crs": "EPSG:4326"},
        {"resolution": 23.0},
        {"resolution": 4.0},
        {"crs": "EPSG:32632", "resolution": 10.0},
    ],
    ids=["zone", "degrees", "coarser", "finer", "both"],
)
def test_a_window_at_a_time_gives_the_same_bytes_as_the_scene_at_once(run, archive, grid, resampling):
    image = pixels((2, 140, 120), seed=3)
    image[:, 60:80, 90:100] = 0
    path = make_geotiff(archive / "a.tif", data=image)
    ingest(run, path, **grid, resampling=resampling, shard=64)
    store = SceneStore(run.scene("a"))
    small = held(run)
    ingest(run, **grid, resampling=resampling, chunk=1024, shard=1024)
    for one, other in zip(small, held(run)):
        assert np.array_equal(one, other)
    ingest(run, **grid, resampling=resampling, shard=48, erode=2)
    eroded_pixels, valid = held(run)
    assert np.array_equal(valid, eroded(small[1], 2))
    assert np.array_equal(eroded_pixels, small[0] * valid)
    reference = warped(path, store, resampling)
    same = np.abs(small[0].astype(int) - reference) <= 1
    assert same.mean() > 0.99, "the transform is within a thousandth of a pixel, the kernel of a percent"


def test_the_grid_asked_for(run, archive):
    make_geotiff(archive / "a.tif", (1, 50, 40), origin=(500_003.0, 5_400_004.0))
    ingest(run, archive, resolution=20)
    store = SceneStore(run.scene("a"))
    a, _, c, _, e, f = store.place.transform[:6]
    assert (a, e) == (20, -20)
    assert (c % 20, f % 20) == (0, 0), "scenes of one resolution share their pixel borders"
    assert c <= 500_003 and f >= 5_400_004
    height, width = store.shape
    assert c + width * 20 >= 500_403 and f - height * 20 <= 5_399_504
    ingest(run, crs="EPSG:3857")
    assert SceneStore(run.scene("a")).place.crs == CRS.from_epsg(3857)


def test_a_scene_that_is_in_the_crs_is_left_alone(run, archive):
    image = pixels((2, 30, 40))
    uneven = Affine(10, 0, 500_003, 0, -20, 5_400_004)
    make_geotiff(archive / "a.tif", data=image, transform=uneven)
    ingest(run, archive, crs="EPSG:32633")
    assert np.array_equal(held(run)[0], image)
    assert SceneStore(run.scene("a")).place.transform == uneven


def test_one_resolution_per_sensor(run, archive):
    for name, res in (("fine", 5.0), ("coarse", 20.0), ("other", 7.0)):
        make_geotiff(archive / f"{name}.tif", (1, 30, 30), res=res)
    (archive / "list.csv").write_text("path,sensor\nfine.tif,drone\ncoarse.tif,satellite\nother.tif,kite\n")
    ingest(run, archive / "list.csv", resolution={"drone": 10, "satellite": 40})
    sizes = {name: SceneStore(run.scene(name)).place.transform.a for name in ("fine", "coarse", "other")}
    assert sizes == {"fine": 10, "coarse": 40, "other": 7}


def corners_are_empty(valid: np.ndarray) -> bool:
    return not (valid[0, 0] or valid[0, -1] or valid[-1, 0] or valid[-1, -1])


@pytest.mark.parametrize("kind", ["none", "nodata", "alpha", "mask", "override", "impossible override"])
def test_beyond_the_raster_there_is_no_data_however_the_mask_is_kept(run, archive, kind):
    image = pixels((3, 100, 100))
    hole = (slice(40, 60), slice(40, 60))
    extra = {"nodata": None}
    settings = {}
    if kind == "nodata":
        image[(slice(None), *hole)], extra = 0, {"nodata": 0}
    if kind == "override":
        image[(slice(None), *hole)], settings = 251, {"nodata": 251}
    if kind == "impossible override":
        settings = {"nodata": -9999}
    if kind == "alpha":
        image = np.concatenate([image, np.full((1, 100, 100), 255, "uint8")])
        image[(3, *hole)] = 0
    path = make_geotiff(archive / "a.tif", data=image, **extra)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        if kind == "alpha":
            raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        if kind == "mask":
            mask = np.full((100, 100), 255, "uint8")
            mask[hole] = 0
            raster.write_mask(mask)
    # half a zone away the scene lies turned in its new frame
    ingest(run, archive, crs="EPSG:32631", **settings)
    found, valid = held(run)
    assert len(found) == 3
    assert corners_are_empty(valid)
    # the area of the data stays, to what a border of one pixel can change
    expected = 100 * 100 - (20 * 20 if kind in ("nodata", "alpha", "mask", "override") else 0)
    border = 4 * 100 + 4 * 20
    area = valid.sum() * SceneStore(run.scene("a")).place.transform.a ** 2 / 100
    assert abs(area - expected) < border * 2
    assert not found[:, ~valid].any()
    middle = valid.shape[0] // 2, valid.shape[1] // 2
    assert valid[middle] == (kind in ("none", "impossible override"))
    # no value of the data is mixed with the value that means there is none
    assert found[:, valid].max() <= 250 and found[:, valid].min() >= 1


def test_resampling_a_scene_without_a_crs_is_its_own_fault(run, archive):
    make_geotiff(archive / "a.tif", (1, 20, 20), crs=None)
    make_geotiff(archive / "b.tif", (1, 20, 20))
    outcome = ingest(run, archive, crs="EPSG:3857")
    assert outcome.computed == ["b"]
    assert "no CRS" in outcome.failed["a"] and "gdal_edit -a_srs" in outcome.failed["a"]


@pytest.mark.parametrize(
    "fault",
    [
        {"origin": (5e9, 5e9)},
        {"crs": "EPSG:4326", "res": 1, "origin": (0, 95)},
        {"crs": 'LOCAL_CS["site",UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]'},
    ],
    ids=["off the earth", "beyond the pole", "a building site"],
)
def test_a_place_that_cannot_be_reprojected_stops_no_other_scene(run, archive, fault):
    make_geotiff(archive / "a.tif", (1, 20, 20), **fault)
    make_geotiff(archive / "b.tif", (1, 20, 20))
    outcome = ingest(run, archive, crs="EPSG:3857")
    assert outcome.computed == ["b"]
    assert "its place cannot be brought to EPSG:3857 (" in outcome.failed["a"]
    assert "mend its georeference" in outcome.failed["a"]


def test_a_crs_that_is_none_stops_the_stage_with_its_key(run, archive):
    make_geotiff(archive / "a.tif", (1, 20, 20))
    with pytest.raises(ConfigError, match=r"ingest\.crs: 'EPSG:1' is no CRS .* such as EPSG:32633"):
        ingest(run, archive, crs="EPSG:1")


# -------------------------------------------------------------------------------------------------- set aside


def truncated(path: Path) -> Path:
    """Write a raster whose header is whole and whose pixels are not."""
    noise = np.random.default_rng(5).integers(1, 255, (1, 64, 64))
    make_geotiff(path, data=noise, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    os.truncate(path, path.stat().st_size - 1500)
    return path


def test_broken_scenes_are_named_and_the_good_ones_are_as_without_them(run, archive, tmp_path):
    for name in ("a", "c"):
        make_geotiff(archive / f"{name}.tif", (2, 40, 40), seed=ord(name))
    alone = Run(tmp_path / "alone")
    ingest(alone, archive)
    truncated(archive / "b.tif")
    make_geotiff(archive / "empty.tif", data=np.zeros((2, 20, 20)))
    make_geotiff(archive / "two.tif", (2, 20, 20))
    gone = make_geotiff(archive / "gone.tif", (2, 20, 20))
    scan(run, [str(archive)], settings=Catalog(), labels=[])
    gone.unlink()
    outcome = ingest(run)
    assert sorted(outcome.failed) == ["b", "empty", "gone"]
    assert f"{archive / 'b.tif'} cannot be read at y " in outcome.failed["b"]
    assert "damaged or cut short: fetch it again" in outcome.failed["b"]
    assert "none of its 20 x 20 pixels has data" in outcome.failed["empty"]
    assert "ingest.nodata" in outcome.failed["empty"]
    assert f"{gone} cannot be opened" in outcome.failed["gone"]
    assert sorted(p.name for p in run.scene("x").parent.iterdir()) == ["a.zarr", "c.zarr", "two.zarr"]
    for name in ("a", "c"):
        assert content(run.scene(name)) == content(alone.scene(name))
        assert scenes_of(run, "ingest", SHARD)[name] == scenes_of(alone, "ingest", SHARD)[name]


def test_a_scene_with_too_few_bands_is_told_from_the_others(run, archive):
    make_geotiff(archive / "rgb.tif", (3, 20, 20))
    make_geotiff(archive / "grey.tif", (1, 20, 20))
    outcome = ingest(run, archive, bands=[3, 2, 1])
    assert outcome.computed == ["rgb"]
    assert outcome.failed == {"grey": "ingest.bands asks for band 3, the scene has 1"}
    outcome = ingest(run, band_names=["red", "green", "blue"])
    assert outcome.failed == {"grey": "ingest.band_names has 3 names for 1 bands kept"}


def test_the_exit_code_says_that_scenes_were_set_aside(run, archive, capsys):
    make_geotiff(archive / "a.tif", (1, 20, 20))
    truncated(archive / "b.tif")
    scan(run, [str(archive)], settings=Catalog(), labels=[])
    assert main(["ingest", str(run.root), "--threads", "1"]) == SET_ASIDE
    assert "scene b is set aside" in capsys.readouterr().err
    assert main(["ingest", str(run.root), "--threads", "1", "--set-aside"]) == 0
    shutil.copy(archive / "a.tif", archive / "b.tif")
    scan(run, [str(archive)], settings=Catalog(), labels=[])
    assert main(["ingest", str(run.root), "--threads", "1"]) == 0
    assert read_json(run.manifest("ingest", SHARD))["failed"] == {}


def test_a_reader_that_fails_leaves_no_file_open(run, archive):
    make_geotiff(archive / "a.tif", (1, 20, 20))
    ingest(run, archive)
    scene = load_shard(run, SHARD)["a"]
    wrong = Ingest(band_names=["x", "y"])
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else pytest.skip("no /proc")
    for _ in range(20):
        with pytest.raises(SceneError, match="2 names for 1 bands"), SceneReader(scene, wrong):
            pass
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1


# --------------------------------------------------------------------------------------------- same and again


def test_threads_change_no_byte(run, archive, tmp_path):
    image = pixels((3, 200, 170), dtype="float32")
    image[:, 40:50] = np.nan
    make_geotiff(archive / "a.tif", data=image, dtype="float32", nodata=None)
    ingest(run, archive, threads=1)
    for number, threads in enumerate((4, 4)):
        other = Run(tmp_path / f"other{number}")
        ingest(other, archive, threads=threads)
        assert content(other.root / "scenes") == content(run.root / "scenes")
        assert content(other.root / "manifests") == content(run.root / "manifests")


@pytest.mark.parametrize("threads", [1, 4])
def test_a_warped_scene_is_the_same_on_any_number_of_threads(run, archive, threads, tmp_path):
    make_geotiff(archive / "a.tif", (2, 300, 300), seed=1)
    ingest(run, archive, crs="EPSG:32632", threads=1)
    other = Run(tmp_path / "other")
    ingest(other, archive, crs="EPSG:32632", threads=threads)
    assert content(other.root / "scenes") == content(run.root / "scenes")


def test_the_window_changes_no_pixel(run, archive):
    image = pixels((2, 100, 130))
    image[:, 20:35, 20:50] = 0
    make_geotiff(archive / "a.tif", data=image)
    ingest(run, archive)
    first = held(run)
    counts = SceneStore(run.scene("a")).group["histogram"][:]
    for shard in (16, 64, 1024):
        assert ingest(run, shard=shard).computed == ["a"]
        for one, other in zip(first, held(run)):
            assert np.array_equal(one, other)
        assert np.array_equal(SceneStore(run.scene("a")).group["histogram"][:], counts)


def test_a_rerun_keeps_what_stands(run, archive):
    for name in "abc":
        make_geotiff(archive / f"{name}.tif", (1, 40, 40), seed=ord(name))
    ingest(run, archive)
    before = content(run.root)
    stamps = {p: p.stat().st_mtime_ns for p in run.root.rglob("*") if p.is_file()}
    assert ingest(run, archive).kept == ["a", "b", "c"]
    assert content(run.root) == before
    assert {p: p.stat().st_mtime_ns for p in run.root.rglob("*") if p.is_file()} == stamps


def test_only_what_changed_is_made_again(run, archive):
    for name in "abc":
        make_geotiff(archive / f"{name}.tif", (1, 40, 40), seed=ord(name))
    ingest(run, archive)
    make_geotiff(archive / "b.tif", (1, 40, 40), seed=99)
    os.utime(archive / "b.tif", ns=(1, 1))
    assert ingest(run, archive).computed == ["b"]
    assert np.array_equal(held(run, "b")[0], pixels((1, 40, 40), seed=99))
    assert ingest(run, erode=1).computed == ["a", "b", "c"], "other settings, other stores"


def test_an_archive_that_moved_is_not_read_again(run, archive, tmp_path):
    make_geotiff(archive / "a.tif", (1, 40, 40))
    ingest(run, archive)
    archive.rename(tmp_path / "moved")
    assert ingest(run, tmp_path / "moved").kept == ["a"]


def test_what_a_killed_job_left_is_cleaned_and_the_rest_is_as_if_nothing_had_happened(run, archive, tmp_path):
    for name in "ab":
        make_geotiff(archive / f"{name}.tif", (1, 40, 40), seed=ord(name))
    undisturbed = Run(tmp_path / "undisturbed")
    ingest(undisturbed, archive)
    ingest(run, archive)
    # as after a kill in the middle of b: a stands, b is half there, nothing is gathered
    store = run.scene("b")
    store.rename(store.with_name(".b.zarr.partial.zarr"))
    shutil.rmtree(store.with_name(".b.zarr.partial.zarr") / "valid")
    run.record("ingest", SHARD, "b").unlink()
    run.manifest("ingest", SHARD).unlink()
    outcome = ingest(run)
    assert (outcome.kept, outcome.computed) == (["a"], ["b"])
    assert content(run.root / "scenes") == content(undisturbed.root / "scenes")
    assert content(run.root / "manifests") == content(undisturbed.root / "manifests")


def test_a_scene_that_left_the_archive_leaves_no_store(run, archive):
    for name in "ab":
        make_geotiff(archive / f"{name}.tif", (1, 40, 40))
    ingest(run, archive)
    (archive / "b.tif").unlink()
    assert ingest(run, archive).kept == ["a"]
    assert [p.name for p in run.scene("x").parent.iterdir()] == ["a.zarr"]
    assert list(load_index(run)) == [SHARD]
    assert list(scenes_of(run, "ingest", SHARD)) == ["a"]
