"""Potsdam from both layouts: what is cut, what is fitted on, what is scored, and what is said of it."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from scipy.io import loadmat, savemat
from small_potsdam import LABEL_COLOURS, make_archive, make_image, make_tiles, make_truth

from sass.benchmark.potsdam import SCORED_TILES, Sizes, enlarged, halved, read_crops, write_crops
from sass.errors import SassError

SMALL = Sizes(crop=96, across=2, enlarged=160)
"""Tiles of 384 x 384."""


def crops_of(root, protocol, sizes=SMALL):
    return {crop.name: crop for crop in read_crops(root, protocol, sizes)}


def test_tiles_become_halved_crops_in_their_places(tmp_path):
    make_tiles(tmp_path, ("2_10", "2_13"), SMALL.tile)
    crops = crops_of(tmp_path, "iic")
    assert list(crops) == [
        f"{tile}_{y:02}_{x:02}" for tile in ("2_10", "2_13") for y in (0, 1) for x in (0, 1)
    ]
    truth = make_truth(SMALL.tile, 0, 24)
    image = make_image(truth, 0)
    crop = crops["2_10_01_00"]
    assert crop.pixels.shape == (4, 96, 96)
    assert crop.pixels.dtype == np.uint8
    mean = image.reshape(4, 192, 2, 192, 2).mean(axis=(2, 4))[:, 96:, :96]
    assert np.abs(crop.pixels - mean).max() <= 0.5
    assert np.array_equal(crop.labels, truth[192::2, :192:2])
    assert crops["2_13_00_00"].labels is None  # its labels are there, but no published score counts them


def test_the_default_sizes_are_those_of_the_data_set():
    sizes = Sizes()
    assert (sizes.tile, sizes.crop, sizes.enlarged) == (6000, 200, 320)
    assert 38 * sizes.across**2 == 8550
    assert len(SCORED_TILES) * sizes.across**2 == 5400


def test_the_mean_of_four_is_rounded_not_cut():
    four = np.array([[[255, 254], [254, 254]]], np.uint8)
    assert halved(four).item() == 254
    assert halved(np.full((1, 2, 2), 255, np.uint8)).item() == 255
    assert halved(np.array([[[1, 0], [1, 0]]], np.uint8)).item() == 1


@pytest.mark.parametrize(
    "benchmark, classes", [("potsdam3", [0, 1, 2, 2, 0, 1]), ("potsdam6", [0, 1, 2, 3, 4, 5])]
)
def test_crops_are_written_with_classes_merged_and_infrared_kept(tmp_path, benchmark, classes):
    make_archive(tmp_path / "iic", ["7"], [], ["12"], side=96)
    counts = write_crops(tmp_path / "crops", read_crops(tmp_path / "iic", "iic", SMALL), benchmark)
    assert counts == (2, 1)
    truth = make_truth(96, 7, 25)
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "crops" / "images" / "7.tif") as raster,
    ):
        assert np.array_equal(raster.read(), make_image(truth, 7))
        assert rasterio.enums.ColorInterp.alpha not in raster.colorinterp
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "crops" / "labels" / "7.tif") as raster,
    ):
        assert np.array_equal(raster.read(1), np.array(classes)[truth])
    assert not (tmp_path / "crops" / "labels" / "12.tif").exists()


def test_the_lists_say_what_is_fitted_and_what_is_scored(tmp_path):
    make_archive(tmp_path, ["3", "10"], ["5"], ["6"], side=96)
    crops = crops_of(tmp_path, "stego")
    assert list(crops) == ["train-3", "train-10", "test-5"]
    assert crops["train-3"].pixels.shape == (3, 96, 96)
    assert crops["train-3"].labels is None
    assert crops["test-5"].pixels.shape == (3, 160, 160)
    small = loadmat(tmp_path / "gt" / "5.mat")["gt"]
    at = ((np.arange(160) + 0.5) * 96 / 160).astype(int)
    assert np.array_equal(crops["test-5"].labels, small[np.ix_(at, at)])


def test_pixels_are_enlarged_between_their_neighbours():
    ramp = np.tile(np.arange(0, 200, 20, np.uint8), (10, 1))
    wide = enlarged(ramp, 20, Image.Resampling.BILINEAR)
    assert wide.shape == (20, 20)
    assert (np.diff(wide[0].astype(int)) <= 10).all()


def test_tiles_alone_cannot_give_the_split(tmp_path):
    make_tiles(tmp_path, ("2_10",), SMALL.tile)
    with pytest.raises(SassError, match=r"lists of the IIC archive.*or --protocol iic"):
        read_crops(tmp_path, "stego", SMALL)


def test_a_folder_of_neither_layout_is_refused(tmp_path):
    with pytest.raises(SassError, match=r"neither 4_Ortho_RGBIR .* nor imgs"):
        read_crops(tmp_path, "iic", SMALL)


def test_a_list_that_is_missing_or_odd_is_named(tmp_path):
    make_archive(tmp_path, ["3"], ["5"], [], side=96)
    (tmp_path / "labelled_test.txt").write_text("../5\n")
    with pytest.raises(SassError, match=r"labelled_test.txt names '../5'"):
        crops_of(tmp_path, "stego")
    (tmp_path / "labelled_test.txt").unlink()
    with pytest.raises(SassError, match=r"labelled_test.txt cannot be read .* no seed"):
        crops_of(tmp_path, "stego")


def test_a_tile_of_another_size_is_refused(tmp_path):
    make_tiles(tmp_path, ("2_10",), SMALL.tile)
    with pytest.raises(SassError, match=r"is 4 x 384 x 384 uint8 .* 4 x 6000 x 6000 uint8"):
        crops_of(tmp_path, "iic", Sizes())


def test_a_label_colour_that_is_no_class_is_named(tmp_path, monkeypatch):
    black = np.vstack([LABEL_COLOURS[:5], [[0, 0, 0]]])
    monkeypatch.setattr("small_potsdam.LABEL_COLOURS", black)
    make_tiles(tmp_path, ("2_10",), SMALL.tile)
    with pytest.raises(SassError, match=r"2_10_label.tif holds the colour \(0, 0, 0\).*with boundaries"):
        crops_of(tmp_path, "iic")


@pytest.mark.parametrize(
    "part, content, message",
    [
        ("imgs", {"img": np.array([{}, {}], object)}, "'img', not whole numbers"),
        ("imgs", {"other": np.zeros((96, 96, 4), np.uint8)}, "has nothing for 'img'"),
        ("gt", {"gt": np.full((96, 96), 6, np.int32)}, "holds the label 6"),
        ("gt", {"gt": np.full((96, 96), -1, np.int32)}, "holds values from -1"),
        ("gt", {"gt": np.zeros((96, 95), np.int32)}, r"int32 \(96, 95\)"),
    ],
)
def test_a_file_that_is_no_crop_is_refused(tmp_path, part, content, message):
    make_archive(tmp_path, ["3"], [], [], side=96)
    savemat(tmp_path / part / "3.mat", content)
    with pytest.raises(SassError, match=rf"3.mat .*{message}"):
        crops_of(tmp_path, "iic")


def test_a_damaged_file_is_named(tmp_path):
    make_archive(tmp_path, ["3"], [], [], side=96)
    (tmp_path / "imgs" / "3.mat").write_bytes(b"\x80\x04 not a matlab file" * 20)
    with pytest.raises(SassError, match=r"3.mat cannot be read"):
        crops_of(tmp_path, "iic")
