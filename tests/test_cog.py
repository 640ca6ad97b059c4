"""The rasters a GIS opens: COGs with colours, overviews and a scale, on the pixels of the scene."""

import shutil
import struct
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from builders import NOWHERE, UTM
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from sass.cog import class_type, new_classes, new_codes, new_confidence
from sass.colours import class_colour
from sass.georeference import Georeference
from sass.grid import Window


def blobs(shape: tuple[int, int], classes: int, nodata: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (shape[0] // 64 + 1, shape[1] // 64 + 1))
    out = np.kron(coarse, np.ones((64, 64), np.int64))[: shape[0], : shape[1]]
    out[: shape[0] // 5, : shape[1] // 5] = nodata
    return out


def write_classes(path: Path, classes: int, shape=(1300, 1100), place: Georeference = UTM) -> np.ndarray:
    """Write a class raster by windows and return what was written."""
    dtype, nodata = class_type(classes)
    pixels = blobs(shape, classes, nodata).astype(dtype)
    with new_classes(path, shape, place, classes) as target:
        for y in range(0, shape[0], 500):
            rows = pixels[y : y + 500]
            target.write(rows, Window(y, 0, len(rows), shape[1]))
    return pixels


def first_directories(path: Path) -> tuple[int, list[int]]:
    """Return the size of a TIFF and the offsets of its image directories, in the order of their chain."""
    data = path.read_bytes()
    assert data[:4] == b"II*\x00"
    (offset,) = struct.unpack("<I", data[4:8])
    offsets = []
    while offset:
        offsets.append(offset)
        (entries,) = struct.unpack("<H", data[offset : offset + 2])
        end = offset + 2 + 12 * entries
        (offset,) = struct.unpack("<I", data[end : end + 4])
    return len(data), offsets


def test_classes_are_a_cog(tmp_path):
    path = tmp_path / "segments.tif"
    pixels = write_classes(path, 6)
    with rasterio.open(path) as raster:
        assert raster.driver == "GTiff"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.block_shapes == [(512, 512)]
        assert raster.overviews(1) == [2, 4]
        assert raster.dtypes == ("uint8",)
        assert raster.nodata == 255
        assert raster.crs.to_epsg() == 32633
        assert raster.transform == UTM.transform
        assert np.array_equal(raster.read(1), pixels)
        assert raster.descriptions == ("class",)
    size, directories = first_directories(path)
    assert len(directories) == 3  # the image and its overviews
    assert max(directories) < 4096 < size  # all of them at the head of the file, before any pixel


def test_threads_change_no_byte(tmp_path):
    classes = np.random.default_rng(0).integers(0, 5, (1200, 900), np.uint8)
    for threads in (1, 2):
        with new_classes(tmp_path / f"{threads}.tif", classes.shape, UTM, 5, threads=threads) as target:
            target.write(classes)
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()


def test_class_colours_are_in_the_file(tmp_path):
    path = tmp_path / "segments.tif"
    write_classes(path, 20)
    with rasterio.open(path) as raster:
        assert raster.colorinterp == (ColorInterp.palette,)
        table = raster.colormap(1)
    assert [table[c][:3] for c in range(20)] == [class_colour(c) for c in range(20)]
    assert all(table[c][3] == 255 for c in range(20))
    assert table[255][3] == 0  # no data is transparent


def test_overviews_hold_classes_not_their_means(tmp_path):
    path = tmp_path / "segments.tif"
    shape = (1200, 1200)
    dots = np.where(np.random.default_rng(0).random(shape) < 0.2, 4, 0).astype(np.uint8)
    with new_classes(path, shape, UTM, 6) as target:
        target.write(dots)
    with rasterio.open(path, overview_level=0) as overview:
        assert set(np.unique(overview.read(1))) <= {0, 4}
    with rasterio.open(path, overview_level=1) as overview:
        assert (overview.read(1) == 0).mean() > 0.9  # 0 is the commonest, the mean would be 1


def test_overviews_of_confidence_leave_nodata_out_of_the_mean(tmp_path):
    path = tmp_path / "confidence.tif"
    values = np.full((1100, 1100), 100, np.uint8)
    values[::2] = 200
    values[:, 1::2] = 255
    with new_confidence(path, values.shape, UTM) as target:
        target.write(values)
    with rasterio.open(path, overview_level=0) as overview:
        assert (overview.read(1) == 150).all()


def test_confidence_reads_as_a_fraction(tmp_path):
    path = tmp_path / "confidence.tif"
    with new_confidence(path, (40, 30), UTM) as target:
        target.write(np.arange(1200).reshape(40, 30).astype(np.uint8))
    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.nodata == 255
        assert raster.scales[0] * 254 == pytest.approx(1)
        assert raster.offsets == (0,)
        assert raster.descriptions == ("confidence",)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("place", [UTM, NOWHERE], ids=["utm", "nowhere"])
@pytest.mark.parametrize("kind", ["classes", "many classes", "confidence", "codes", "small"])
def test_rio_cogeo_finds_no_fault_in_any_raster(tmp_path, kind, place):
    path, shape = tmp_path / "raster.tif", (40, 30) if kind == "small" else (1300, 1100)
    if kind == "confidence":
        with new_confidence(path, shape, place) as target:
            target.write(np.full(shape, 7, np.uint8))
    elif kind == "codes":
        with new_codes(path, shape, place, 64, stride=4) as target:
            target.write(np.full(shape, 7, np.uint8))
    else:
        write_classes(path, 300 if kind == "many classes" else 6, shape, place)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.skipif(not shutil.which("gdal_translate"), reason="GDAL's own tools are not installed")
@pytest.mark.parametrize("place", [UTM, NOWHERE], ids=["utm", "nowhere"])
def test_gdals_own_tools_read_the_same_pixels_and_what_they_mean(tmp_path, place):
    classes, trust = tmp_path / "segments.tif", tmp_path / "confidence.tif"
    pixels = write_classes(classes, 300, (333, 222), place)
    with new_confidence(trust, (2, 3), place) as target:
        target.write(np.array([[0, 127, 254], [255, 1, 2]], np.uint8))

    said = subprocess.run(["gdalinfo", classes], capture_output=True, text=True, check=True).stdout
    assert "NoData Value=65535" in said
    assert ("Origin = (500000" in said) == place.known == ("Pixel Size" in said)
    plain = tmp_path / "plain.bin"
    subprocess.run(["gdal_translate", "-q", "-of", "ENVI", classes, plain], check=True)
    assert np.array_equal(np.fromfile(plain, np.uint16).reshape(333, 222), pixels)

    fractions = tmp_path / "fractions.bin"
    wanted = ["-of", "ENVI", "-unscale", "-ot", "Float32", "-a_nodata", "none"]
    subprocess.run(["gdal_translate", "-q", *wanted, trust, fractions], check=True)
    found = np.fromfile(fractions, np.float32)
    assert found[[0, 1, 2, 4]] == pytest.approx([0, 0.5, 1, 1 / 254], abs=1e-6)


def test_a_scene_without_georeference_stays_aligned_pixel_for_pixel(tmp_path):
    path = tmp_path / "segments.tif"
    pixels = write_classes(path, 6, shape=(333, 222), place=NOWHERE)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as raster:
        assert raster.crs is None
        assert raster.transform.is_identity
        assert np.array_equal(raster.read(1), pixels)


@pytest.mark.parametrize(
    ("classes", "dtype", "nodata"), [(254, "uint8", 255), (255, "uint16", 65535), (1024, "uint16", 65535)]
)
def test_more_than_254_classes_take_two_bytes(tmp_path, classes, dtype, nodata):
    assert class_type(classes) == (dtype, nodata)
    path = tmp_path / "segments.tif"
    pixels = write_classes(path, classes)
    with rasterio.open(path) as raster:
        assert (raster.dtypes[0], raster.nodata) == (dtype, nodata)
        assert np.array_equal(raster.read(1), pixels)


def test_every_class_has_a_colour_of_its_own():
    colours = [class_colour(c) for c in range(254)]
    assert len(set(colours)) > 250
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    first = np.array(colours[:16], float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 999 * np.eye(16)
    assert distances.min() > 30


MAP = ["segments.qml", "segments.tif", "segments.tif.aux.xml"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_but_the_raster_is_left_in_the_folder(tmp_path):
    write_classes(tmp_path / "segments.tif", 6)
    with new_confidence(tmp_path / "confidence.tif", (10, 10), UTM) as target:
        target.write(np.zeros((10, 10), np.uint8))
    assert files(tmp_path) == ["confidence.tif", *MAP]


def test_a_broken_off_map_leaves_the_old_one_and_no_rest(tmp_path):
    path = tmp_path / "segments.tif"
    write_classes(path, 6)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), new_classes(path, (100, 100), UTM, 6):
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert files(tmp_path) == MAP


@pytest.mark.parametrize("lost", ["end", "block", "overview"])
def test_what_gdal_has_lost_in_silence_is_an_error_and_the_old_map_stays(tmp_path, monkeypatch, lost):
    path = tmp_path / "segments.tif"
    write_classes(path, 6)
    before = path.read_bytes()
    real = rasterio.shutil.copy

    def copy(source, target, **options):
        """Write a file as a full disk leaves it: GDAL does not tell of blocks that it loses at closing."""
        if lost == "block":
            with rasterio.open(source) as whole, rasterio.open(target, "w", **whole.profile) as made:
                for _, window in list(whole.block_windows(1))[:-1]:
                    made.write(whole.read(1, window=window), 1, window=window)
            return
        real(source, target, **options)
        size = target.stat().st_size
        with target.open("r+b") as file:
            if lost == "end":
                file.truncate(size - 100)
            else:  # overviews stand before the full resolution
                file.seek(first_block(target, level=1))
                file.write(bytes(20))

    monkeypatch.setattr(rasterio.shutil, "copy", copy)
    with pytest.raises(OSError, match=r"GDAL could not write all of it.*segments\.tif"):
        write_classes(path, 6, shape=(1300, 1000))
    assert path.read_bytes() == before
    assert files(tmp_path) == MAP


def first_block(path: Path, level: int) -> int:
    """Return where the first block of an overview begins in a file."""
    with rasterio.open(path, overview_level=level) as overview:
        return int(overview.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))


def test_equal_pixels_give_equal_bytes(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one.tif", "two.tif"):
            write_classes(tmp_path / name, 6)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
