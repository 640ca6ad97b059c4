"""Names: a handful of labelled places gives every class a name, and says where it does not know."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from builders import NOWHERE, UTM, add_codes, add_features, class_map, make_run
from rasterio.warp import transform, transform_geom

from sass.cli import main
from sass.config import Segment, Weights
from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.run import Run
from sass.segment import segment_shard

SIDE = 256
GROUND = {"water": (40, 200), "field": (130, 120), "rock": (220, 40)}
"""Values of two bands."""


def ground(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a scene of three grounds in stripes, the same in all dates, and which ground each pixel is."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat([0, 1, 2, 1], SIDE // 4)[None].repeat(SIDE, 0)
    values = np.array(list(GROUND.values()))[kinds].transpose(2, 0, 1)
    return (values + rng.normal(0, 5, values.shape)).clip(1, 255).astype(np.uint8), kinds


def coded(root: Path, shards: dict, place: Georeference = UTM) -> Run:
    """Make a run with features and codes, fitted on its first shard."""
    made = make_run(root, shards, fit=["s00000"], place=place)
    entries = {
        shard: {"fit": shard == "s00000", "scenes": len(scenes), "labels": 0, "pixels": len(scenes) * SIDE**2}
        for shard, scenes in shards.items()
    }
    write_json(made.catalog, {"shards": entries})
    add_features(made, list(shards), window=256)
    add_codes(made, ["s00000"], weights=Weights(embedding=0, texture=0))  # the encoder has learnt nothing
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    shards = {"s00000": {"a": ground(0)[0], "b": ground(1)[0]}, "s00001": {"later": ground(2)[0]}}
    return coded(tmp_path_factory.mktemp("run"), shards)


@pytest.fixture(autouse=True)
def unnamed(run):
    yield
    assert main(["name", str(run.root), "--forget"]) == 0


def xy(row: float, col: float) -> tuple[float, float]:
    return UTM.transform @ (col + 0.5, row + 0.5)


def write_points(path: Path, places: list[tuple[int, int]], crs: str | None = None) -> Path:
    """Write places of scene a, as row and column, with the name of their ground, in lon and lat."""
    kinds, names = ground(0)[1], list(GROUND)
    xs, ys = transform(UTM.crs, "EPSG:4326", *zip(*(xy(*place) for place in places)))
    rows = [[x, y, names[kinds[place]]] for x, y, place in zip(xs, ys, places)]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["lon", "lat", "label"], *rows])
    return path


def named(run: Run, capsys, *arguments: str | Path) -> str:
    assert main(["name", str(run.root), *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def accuracy(run: Run, scene: str, seed: int) -> float:
    """Map every scene anew; return the share of a scene's pixels that have the name of their ground."""
    for shard in ("s00000", "s00001"):
        segment_shard(run, shard, Segment(classes=5, window=128), 1)
    names = read_json(run.names)["names"]
    called = np.array([*names, *[""] * 256], object)[class_map(run, scene)]
    return float((called == np.array(list(GROUND), object)[ground(seed)[1]]).mean())


PLACES = [(row, col) for row in (30, 120, 210) for col in (30, 100, 160, 230)]


def test_a_dozen_points_name_every_scene_one_of_which_was_never_fitted_on(run, tmp_path, capsys):
    said = named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES))
    assert said.splitlines()[1].split()[:2] == ["field", "6"]  # the largest first, with its places
    assert set(GROUND) <= set(read_json(run.names)["names"])
    assert accuracy(run, "a", 0) > 0.9
    assert accuracy(run, "later", 2) > 0.9


def test_a_map_says_the_names(run, tmp_path, capsys):
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES))
    accuracy(run, "a", 0)
    names = read_json(run.names)["names"]
    with rasterio.open(run.segments("a") / "segments.tif") as raster:
        assert [raster.tags(1)[f"class_{i}"] for i in range(len(names))] == names
    item = read_json(run.segments("a") / "item.json")
    assert [c["title"] for c in item["assets"]["segments"]["classification:classes"]] == names


def test_a_number_of_classes_is_refused_while_names_stand(run, tmp_path, capsys):
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES))
    assert main(["segment", str(run.root), "--classes", "2"]) == 1
    said = capsys.readouterr().err
    assert "--classes 2 would change nothing" in said
    assert f"sass name {run.root} --forget" in said
    assert main(["name", str(run.root), "--forget"]) == 0
    assert main(["segment", str(run.root), "--classes", "2"]) == 0
    assert set(np.unique(class_map(run, "a"))) == {0, 1}


def test_where_nobody_said_anything_the_map_says_unnamed(run, tmp_path, capsys):
    water_and_rock = [place for place in PLACES if ground(0)[1][place] != 1]
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", water_and_rock))
    held = read_json(run.names)
    assert held["names"][-1] == "unnamed" and held["unnamed"] > 0.2
    accuracy(run, "a", 0)
    silent = class_map(run, "a") == len(held["names"]) - 1
    assert silent[ground(0)[1] == 1].mean() > 0.5 > silent[ground(0)[1] != 1].mean()


def test_polygons_in_degrees_say_the_same_as_points(run, tmp_path, capsys):
    features = []
    for kind, col in ((0, 10), (1, 75), (2, 140)):
        ring = [xy(row, c) for row, c in ((20, col), (20, col + 40), (90, col + 40), (90, col), (20, col))]
        geometry = transform_geom(UTM.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        features.append({"type": "Feature", "geometry": geometry, "properties": {"kind": list(GROUND)[kind]}})
    path = tmp_path / "p.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    named(run, capsys, "--points", path, "--field", "kind")
    places = {row["name"]: row["places"] for row in read_json(run.names)["evidence"]}
    assert places == dict.fromkeys(GROUND, 1)
    assert accuracy(run, "later", 2) > 0.9


def test_a_polygon_that_lies_nowhere_is_named(run, tmp_path, capsys):
    path = tmp_path / "p.geojson"
    ring = "[[15, 48], [15.01, 48], [15, 48.1e99974], [15, 48]]"
    polygon = f'{{"type": "Polygon", "coordinates": [{ring}]}}'
    feature = f'{{"type": "Feature", "geometry": {polygon}, "properties": {{"label": "x"}}}}'
    path.write_text(f'{{"type": "FeatureCollection", "features": [{feature}]}}')
    assert main(["name", str(run.root), "--points", str(path)]) == 1
    assert "p.geojson: a Polygon cannot be placed" in capsys.readouterr().err


def test_a_small_raster_will_do(run, tmp_path, capsys):
    ids = np.zeros((64, SIDE), np.uint8)
    ids[:] = ground(0)[1][:64] + 1
    with rasterio.open(
        tmp_path / "r.tif", "w", "GTiff", SIDE, 64, 1, UTM.crs, UTM.transform, "uint8", nodata=0
    ) as raster:
        raster.write(ids, 1)
    named(run, capsys, "--points", tmp_path / "r.tif", "--set", "evaluate.class_names={1: water, 2: field}")
    assert {row["name"] for row in read_json(run.names)["evidence"]} == {"water", "field", "label 3"}


def test_the_proposed_places_can_be_filled_in_and_given_back(run, tmp_path, capsys):
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES[:4]), "--next", "6")
    before = read_json(run.names)["unnamed"]
    proposed = run.names.with_name("next.csv")
    rows = list(csv.DictReader(proposed.read_text().splitlines()))
    assert 1 <= len(rows) <= 6 and all(row["label"] == "" for row in rows)
    points = read_json(run.names.with_name("next.geojson"))["features"]
    assert [p["properties"]["scene"] for p in points] == [row["scene"] for row in rows]
    seeds = {"a": 0, "b": 1}
    for row in rows:
        row["label"] = list(GROUND)[ground(seeds[row["scene"]])[1][int(row["row"]), int(row["col"])]]
    filled = tmp_path / "filled.csv"
    with filled.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    named(run, capsys, "--points", tmp_path / "p.csv", "--points", filled)
    assert read_json(run.names)["places"] == 4 + len(rows)
    assert read_json(run.names)["unnamed"] <= before


def test_the_same_places_give_the_same_bytes_and_are_kept(run, tmp_path, capsys):
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES))
    first = [path.read_bytes() for path in sorted(run.names.parent.iterdir())]
    named(run, capsys)
    assert [path.read_bytes() for path in sorted(run.names.parent.iterdir())] == first


def test_names_of_another_codebook_are_not_taken_for_those_of_this(run, tmp_path, capsys):
    named(run, capsys, "--points", write_points(tmp_path / "p.csv", PLACES))
    held = read_json(run.names)
    run.names.write_text(json.dumps(held | {"codebook": "0" * 32}))
    assert main(["segment", str(run.root)]) == 1
    assert "names the codes of another codebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lon,lat,label\n", "labels no place"),
        ("lon,lat,label\n0,0,water\n", "none of its 1 labelled places lies in a scene"),
        ("lon,lat,label\neast,0,water\n", "row 2: lon is 'east', which is no number"),
        ("lon,lat,kind\n15,48,water\n", "no field label or class or name"),
        ("place,label\nhere,water\n", "do not say where a place is"),
        ("scene,row,col,label\nz,5,5,water\n", "none of its 1 labelled places lies in a scene"),
    ],
)
def test_a_file_that_names_nothing_says_why(run, tmp_path, capsys, text, said):
    (tmp_path / "p.csv").write_text(text)
    assert main(["name", str(run.root), "--points", str(tmp_path / "p.csv")]) == 1
    assert said in capsys.readouterr().err


def test_scenes_without_georeference_are_named_by_row_and_column(tmp_path, capsys):
    made = coded(tmp_path / "run", {"s00000": {"a": ground(0)[0]}}, NOWHERE)
    kinds, names = ground(0)[1], list(GROUND)
    rows = [f"a,{row},{col},{names[kinds[row, col]]}" for row, col in PLACES]
    (tmp_path / "p.csv").write_text("\n".join(["scene,row,col,label", *rows]))
    named(made, capsys, "--points", tmp_path / "p.csv")
    assert read_json(made.names.with_name("next.geojson"))["features"] == []
    assert read_json(made.names)["places"] == len(PLACES)
