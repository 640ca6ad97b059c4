"""Embeddings that others have made: from a Zarr store or a raster to maps."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from builders import (
    NOWHERE,
    UTM,
    add_codes,
    add_features,
    add_maps,
    class_map,
    make_run,
    ramps,
    read_features,
    store_scene,
)
from rasterio.errors import NotGeoreferencedWarning

from sass.cli import main
from sass.config import Features
from sass.embeddings import Embeddings
from sass.errors import SassError
from sass.features import features_shard
from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.grid import Window
from sass.run import Run
from sass.store import FeatureStore

SHAPE = (130, 210)
LENGTH, STRIDE = 5, 8
GRID = (17, 27)
PLACE = UTM.coarsened(STRIDE)
HALF = 2**-11
"""What float16 rounds a component of 1 by, at most."""


def vectors(seed: int = 0) -> np.ndarray:
    """Make embeddings of any length, ``(embedding, y, x)``, the last two columns without data."""
    out = np.random.default_rng(seed).normal(0, 3, (LENGTH, *GRID)).astype(np.float32)
    out[:, :, -2:] = np.nan
    out[2, 3, 4] = np.nan  # the rest of this one is there
    return out


def write_zarr(path: Path, values: np.ndarray, place: Georeference = PLACE, zarr_format: int = 3) -> None:
    cube = xr.Dataset({"embedding": (("band", "y", "x"), values)})
    if place.known:
        cube = cube.rio.write_crs(place.crs).rio.write_transform(place.transform)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Zarr's own formats and names
        cube.to_zarr(path, mode="w", consolidated=False, zarr_format=zarr_format)


def write_tiff(path: Path, values: np.ndarray, place: Georeference = PLACE) -> None:
    count, height, width = values.shape
    about = {"dtype": "float32", "nodata": -9999, "tiled": True, "blockxsize": 16, "blockysize": 16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", "GTiff", width, height, count, place.crs, place.transform, **about
        ) as raster:
            raster.write(np.nan_to_num(values, nan=-9999))


def with_embeddings(root: Path, kind: str, place: Georeference = UTM) -> tuple[Run, str]:
    """Make a run of two scenes, one of them with embeddings, and no encoder; return it and the pattern."""
    root.mkdir(exist_ok=True)
    valid = np.ones(SHAPE, bool)
    valid[:40, :50] = False
    pixels = ramps(SHAPE), valid
    run = make_run(root / "run", {"s00000": {"a": pixels, "b": ramps(SHAPE, 1)}}, place=place)
    run.encoder.unlink()
    coarse = place.coarsened(STRIDE) if place.known else place
    if kind == "zarr":
        write_zarr(root / "a.zarr", vectors(), coarse)
        return run, f"{root}/{{scene}}.zarr"
    write_tiff(root / "a.tif", vectors(), coarse)
    return run, f"{root}/{{scene}}.tif"


def failure(run: Run, source: str, scene: str = "a", appearance: bool = False) -> str:
    """Return why a scene was set aside."""
    return features_shard(run, "s00000", Features(source=source, appearance=appearance), 1).failed[scene]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of maps, read by the test
@pytest.mark.parametrize("place", [UTM, NOWHERE], ids=["placed", "nowhere"])
@pytest.mark.parametrize("kind", ["zarr", "tif"])
def test_embeddings_become_maps_and_windows_leave_no_trace(tmp_path, kind, place, monkeypatch):
    run, source = with_embeddings(tmp_path, kind, place)
    asked = []
    real = Embeddings.read
    monkeypatch.setattr(Embeddings, "read", lambda self, window: asked.append(window) or real(self, window))
    outcome = features_shard(run, "s00000", Features(source=source, window=64), 1)
    assert outcome.computed == ["a"]
    assert f"has no embeddings at {tmp_path}/b.{kind}; write them there" in outcome.failed["b"]
    assert {max(window.shape) for window in asked} <= {8, 3}  # memory is that of a window
    tiled = read_features(run)
    add_codes(run, ["s00000"])
    add_maps(run, ["s00000"], window=64)
    classes = class_map(run, "a")
    features_shard(run, "s00000", Features(source=source, window=1024), 1)
    add_maps(run, ["s00000"], window=1024)
    assert np.array_equal(tiled, read_features(run)) and np.array_equal(classes, class_map(run, "a"))

    store = FeatureStore(run.features("a"))
    assert store.stride == STRIDE and store.embedding.shape == (LENGTH + 3, *GRID)
    assert store.parts == {"embedding": LENGTH, "colour": 2, "texture": 1}
    given = np.nan_to_num(vectors())
    seen = store.valid[:].astype(bool)
    assert not seen[:, -2:].any() and not seen[:5, :6].any() and seen[3, 7] and seen[5, 6]
    unit = given / np.maximum(np.linalg.norm(given, axis=0), 1e-9)
    np.testing.assert_allclose(tiled[:LENGTH], unit * seen, atol=HALF)
    assert np.abs(tiled[LENGTH:, seen]).max() > 0.1
    assert (classes[:40, :50] == 255).all()  # the scene has no data
    assert (classes[:, 25 * STRIDE + STRIDE // 2 :] == 255).all()  # no embedding to interpolate from
    assert len(np.unique(classes)) == 6


def test_without_appearance_the_embeddings_are_alone_and_need_no_bands(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    features_shard(run, "s00000", Features(source=source, appearance=False, dtype="int8"), 1)
    assert read_features(run).shape == (LENGTH, *GRID)
    np.testing.assert_allclose(np.linalg.norm(read_features(run)[:, 10, 10]), 1, atol=0.02)


def test_what_stands_is_kept_and_changed_embeddings_are_read_again(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    settings = Features(source=source)
    assert features_shard(run, "s00000", settings, 1).computed == ["a"]
    assert features_shard(run, "s00000", settings, 1).kept == ["a"]
    write_zarr(tmp_path / "a.zarr", vectors(seed=1))
    write_zarr(tmp_path / "b.zarr", vectors(seed=2))
    assert features_shard(run, "s00000", settings, 1).computed == ["a", "b"]


def test_the_features_of_another_run_are_embeddings(tmp_path):
    first = make_run(tmp_path / "first", {"s00000": {"a": ramps(SHAPE)}})
    add_features(first, ["s00000"], dtype="int8", appearance=False)
    run = make_run(tmp_path / "run", {"s00000": {"a": ramps(SHAPE)}})
    add_features(run, ["s00000"], source=f"{first.root}/features/{{scene}}.zarr", appearance=False)
    assert FeatureStore(run.features("a")).stride == 4
    np.testing.assert_allclose(read_features(run), read_features(first), atol=0.02)


def test_a_store_of_the_older_zarr_format(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    values = vectors()
    values[1, 6, 6] = 0  # xarray takes the fill value of such a store, which is NaN, for no data, and not 0
    write_zarr(tmp_path / "a.zarr", values, zarr_format=2)
    features_shard(run, "s00000", Features(source=source, appearance=False), 1)
    assert read_features(run)[1, 6, 6] == 0 and read_features(run)[0, 6, 6] != 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v[:, :16],
            r"have 16 x 27 cells for 130 x 210 pixels, .*the last row and column filled up",
        ),
        (lambda v: v[:, :, ::2], r"have 17 x 14 cells"),
    ],
)
@pytest.mark.parametrize("kind", ["zarr", "tif"])
def test_another_grid_is_refused(tmp_path, kind, change, message):
    run, source = with_embeddings(tmp_path, kind)
    write = write_zarr if kind == "zarr" else write_tiff
    write(Path(source.replace("{scene}", "a")), change(vectors()))
    assert re.search(message, failure(run, source))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            Georeference(UTM.crs, Affine(80, 0, 500_080, 0, -80, 5_400_000)),
            "a corner is 8.00 pixels to the right",
        ),
        (Georeference(UTM.crs, Affine(80, 0, 500_000, 0, 80, 5_398_640)), "rows in the same order"),
        (
            Georeference(rasterio.CRS.from_epsg(32634), UTM.coarsened(8).transform),
            "CRS EPSG:32634, the scene",
        ),
        (Georeference(UTM.crs, UTM.coarsened(7).transform), "which is no whole number of pixels each"),
    ],
    ids=["shifted", "upside down", "other CRS", "other stride"],
)
def test_another_place_is_refused(tmp_path, place, message):
    run, source = with_embeddings(tmp_path, "zarr")
    write_zarr(tmp_path / "a.zarr", vectors(), place)
    assert message in failure(run, source)


def test_what_is_no_embedding_is_named(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    cube = xr.Dataset({"embedding": (("time", "embedding", "y", "x"), np.zeros((1, 2, *GRID)))})
    cube.to_zarr(tmp_path / "a.zarr", mode="w", consolidated=False)
    assert "dimensions ('time', 'embedding', 'y', 'x')" in failure(run, source)
    xr.Dataset({"other": (("y", "x"), np.zeros(GRID))}).to_zarr(
        tmp_path / "a.zarr", mode="w", consolidated=False
    )
    assert "a.zarr cannot be opened" in failure(run, source)
    (tmp_path / "a.tif").write_bytes(b"no raster")
    assert "a.tif cannot be opened" in failure(run, f"{tmp_path}/{{scene}}.tif")


def test_a_raster_cut_short_is_named(tmp_path):
    run, source = with_embeddings(tmp_path, "tif")
    os.truncate(tmp_path / "a.tif", (tmp_path / "a.tif").stat().st_size // 2)
    assert "cannot be read at row" in failure(run, source)


def test_embeddings_of_unlike_lengths_are_refused(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    write_zarr(tmp_path / "b.zarr", vectors()[:3])
    features_shard(run, "s00000", Features(source=source), 1)
    with pytest.raises(SassError, match="scene b has embeddings of length 6, those before it of 8"):
        add_codes(run, ["s00000"])


def test_a_scene_of_other_bands_is_set_aside_where_appearance_is_joined(tmp_path):
    run, source = with_embeddings(tmp_path, "zarr")
    manifest = read_json(run.manifest("ingest", "s00000"))
    manifest["scenes"]["c"] = store_scene(run, "c", ramps(SHAPE, bands=3))
    write_json(run.manifest("ingest", "s00000"), manifest)
    write_zarr(tmp_path / "c.zarr", vectors())
    assert "has 3 bands" in failure(run, source, "c", appearance=True)
    assert "c" not in features_shard(run, "s00000", Features(source=source, appearance=False), 1).failed


def test_the_command_line_trains_nothing_and_needs_no_encoder(tmp_path, capsys):
    run, source = with_embeddings(tmp_path, "zarr")
    write_zarr(tmp_path / "b.zarr", vectors(seed=2))
    own = ["--set", f"features.source={source}"]
    assert main(["train", str(run.root), *own]) == 0
    assert "nothing to train" in capsys.readouterr().out and not run.encoder.exists()
    assert main(["features", str(run.root), *own]) == 0
    assert main(["features", str(run.root)]) == 1
    assert "run `sass train" in capsys.readouterr().err


def test_read_gives_nothing_beyond_what_is_asked(tmp_path):
    write_tiff(tmp_path / "a.tif", vectors())
    with Embeddings(tmp_path / "a.tif") as source:
        assert source.read(Window(2, 3, 4, 5)).shape == (LENGTH, 4, 5)
        np.testing.assert_array_equal(source.read(Window(2, 3, 4, 5)), vectors()[:, 2:6, 3:8])
