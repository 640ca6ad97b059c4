"""Polygons in files: what geopandas and GDAL read of them is the map, its names, areas and confidence."""

import os
import shutil
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio.features
from affine import Affine
from builders import NOWHERE, UTM
from rasterio.crs import CRS

import sass.vectors
from sass.cli import main
from sass.cog import new_classes, new_confidence
from sass.files import write_json
from sass.georeference import Georeference
from sass.run import Run

SHAPE = (90, 70)
NAMES = ["forest", "water", 'built & "paved" <land>']
PLACES = {
    "utm": UTM,
    "degrees": Georeference(CRS.from_epsg(4326), Affine(0.001, 0, 8, 0, -0.001, 48)),
    "feet": Georeference(CRS.from_epsg(2264), Affine(3, 0, 2_000_000, 0, -3, 800_000)),
    "rotated": Georeference(CRS.from_epsg(32633), Affine(7, 7, 500_000, 7, -7, 5_400_000)),
    "nowhere": NOWHERE,
}


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Draw a map of three classes, with a hole and a margin without data, and its confidence."""
    rng = np.random.default_rng(2)
    classes = np.kron(rng.integers(0, 3, (9, 7)), np.ones((10, 10), int)).astype(np.uint8)
    classes[:, :5] = 255
    classes[33:36, 43:46] = (classes[33, 43] + 1) % 3
    return classes, np.where(classes == 255, 255, rng.integers(0, 255, SHAPE)).astype(np.uint8)


def make(root: Path, places: dict[str, Georeference], names: list[str] = NAMES) -> Run:
    """Make the maps of a run, a scene for each place."""
    run = Run(root)
    classes, trust = pixels()
    for scene, place in places.items():
        run.segments(scene).mkdir(parents=True)
        with new_classes(run.segments(scene) / "segments.tif", SHAPE, place, 3, names) as target:
            target.write(classes)
        with new_confidence(run.segments(scene) / "confidence.tif", SHAPE, place) as target:
            target.write(trust)
    shard = {"fit": True, "scenes": len(places), "labels": 0, "pixels": 1}
    write_json(run.catalog, {"shards": {"s00000": shard}})
    write_json(run.manifest("segment", "s00000"), {"scenes": {scene: {} for scene in places}, "failed": {}})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Give the maps of one scene in each place, and their polygons in both formats."""
    made = make(tmp_path_factory.mktemp("run"), PLACES)
    for form in ("geoparquet", "gpkg"):
        assert main(["polygons", str(made.root), "--format", form]) == 0
    return made


def read(run: Run, scene: str, form: str) -> geopandas.GeoDataFrame:
    if form == "gpkg":
        return geopandas.read_file(run.root / "polygons" / f"{scene}.gpkg")
    return geopandas.read_parquet(run.root / "polygons" / f"{scene}.parquet")


@pytest.mark.parametrize("form", ["geoparquet", "gpkg"])
@pytest.mark.parametrize("scene", PLACES)
def test_polygons_lie_where_the_map_does(run, scene, form):
    frame, place = read(run, scene, form), PLACES[scene]
    classes, trust = pixels()
    assert (frame.crs is None) if place.crs is None else CRS.from_user_input(frame.crs.to_wkt()) == place.crs
    assert frame.geometry.is_valid.all()
    drawn = zip(frame.geometry, frame["class"])
    burnt = rasterio.features.rasterize(drawn, SHAPE, fill=255, transform=place.transform, dtype="uint8")
    assert np.array_equal(burnt, classes)
    assert frame["pixels"].sum() == (classes != 255).sum()
    assert (frame["confidence"] * frame["pixels"]).sum() * 254 == pytest.approx(
        trust[trust != 255].sum(), rel=1e-5
    )
    assert frame["name"].tolist() == [NAMES[c] for c in frame["class"]]
    assert set(frame["scene"]) == {scene}


@pytest.mark.parametrize("form", ["geoparquet", "gpkg"])
def test_areas_are_square_metres_where_the_crs_is_projected_and_missing_elsewhere(run, form):
    for scene, pixel in {"utm": 100, "feet": 9 * (1200 / 3937) ** 2, "rotated": 98}.items():
        frame = read(run, scene, form)
        np.testing.assert_allclose(frame["area_m2"], frame["pixels"] * pixel, rtol=1e-9)
    np.testing.assert_allclose(read(run, "utm", form).area, read(run, "utm", form)["area_m2"])
    for scene in ("degrees", "nowhere"):
        assert read(run, scene, form)["area_m2"].isna().all()


def test_outer_rings_run_anticlockwise_as_the_file_says(run):
    for scene in PLACES:
        frame = read(run, scene, "geoparquet")
        assert all(shape.exterior.is_ccw for shape in frame.geometry)
        assert any(len(shape.interiors) for shape in frame.geometry)
        assert not any(ring.is_ccw for shape in frame.geometry for ring in shape.interiors)


def test_geoparquet_is_read_by_places(run):
    path = run.root / "polygons" / "utm.parquet"
    west, south, *_ = (frame := geopandas.read_parquet(path)).total_bounds
    part = geopandas.read_parquet(path, bbox=(west, south, west + 90, south + 90))
    expected = frame.cx[west : west + 90, south : south + 90]
    assert 0 < len(part) < len(frame)
    assert set(expected.geometry.to_wkb()) <= set(part.geometry.to_wkb())


@pytest.mark.skipif(not shutil.which("ogrinfo"), reason="GDAL's own tools are not installed")
def test_gdal_names_layer_and_columns_and_warns_of_nothing(run):
    path = run.root / "polygons" / "utm.gpkg"
    # drivers that this package does without are not known to every GDAL
    plain = {name: value for name, value in os.environ.items() if name != "GDAL_SKIP"}
    words = ["ogrinfo", "-so", path, "polygons"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=plain)
    assert done.stderr == ""
    assert "Geometry: Polygon" in done.stdout
    assert 'ID["EPSG",32633]' in done.stdout
    assert "area_m2: Real" in done.stdout


@pytest.mark.parametrize("form", ["geoparquet", "gpkg"])
def test_the_same_map_gives_the_same_bytes(run, tmp_path, form):
    ask = ["polygons", str(run.root), "--scene", "utm", "--format", form, "--into", str(tmp_path)]
    assert main(ask) == 0
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == (run.root / "polygons" / path.name).read_bytes()


def test_classes_without_names_are_called_by_their_number(tmp_path):
    run = make(tmp_path, {"a": UTM}, [])
    assert main(["polygons", str(run.root)]) == 0
    assert set(read(run, "a", "geoparquet")["name"]) == {"class 0", "class 1", "class 2"}


@pytest.mark.parametrize("form", ["geoparquet", "gpkg"])
def test_a_map_without_data_has_no_polygons(tmp_path, form):
    run = make(tmp_path, {"a": UTM})
    with new_classes(run.segments("a") / "segments.tif", SHAPE, UTM, 3) as target:
        target.write(np.full(SHAPE, 255, np.uint8))
    assert main(["polygons", str(run.root), "--format", form]) == 0
    found = read(run, "a", form)
    assert len(found) == 0
    assert {"class", "name", "area_m2", "confidence"} <= set(found.columns)


def test_the_last_polygons_may_fill_a_batch(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sass.vectors, "ROWS", len(read(run, "utm", "geoparquet")))
    assert main(["polygons", str(run.root), "--scene", "utm", "--into", str(tmp_path)]) == 0
    assert (tmp_path / "utm.parquet").read_bytes() == (run.root / "polygons" / "utm.parquet").read_bytes()


def test_a_map_that_cannot_be_read_is_set_aside_and_the_others_are_written(tmp_path, capsys):
    run = make(tmp_path, {"a": UTM, "b": UTM})
    (run.segments("a") / "segments.tif").write_bytes(b"II*\0 and no more")
    assert main(["polygons", str(run.root)]) == 3
    assert "scene a is set aside: its map cannot be read" in capsys.readouterr().err
    assert [path.name for path in (run.root / "polygons").iterdir()] == ["b.parquet"]


def test_a_scene_without_a_map_is_named(run, capsys):
    assert main(["polygons", str(run.root), "--scene", "utm", "--scene", "nobody"]) == 1
    assert "nobody: no such scene has a map" in capsys.readouterr().err
