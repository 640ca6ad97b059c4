"""The catalogue of a run: pystac, geopandas and stac-geoparquet read it, and find every map."""

import hashlib
import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import pyarrow.parquet as pq
import pystac
import pytest
from affine import Affine
from builders import MODEL, NOWHERE, UTM, catalog_row, lively_encoder
from rasterio.crs import CRS
from stac_geoparquet.arrow import stac_table_to_items
from stac_schemas import faults

from sass.collection import write_collection
from sass.config import Model
from sass.errors import SassError
from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.model.interface import save_encoder
from sass.run import Run
from sass.stac import change_item, read_item, segment_item

SHAPE = (390, 310)
FIJI = Georeference(CRS.from_epsg(32760), Affine(100, 0, 800_000, 0, -100, 8_200_000))
"""Across the antimeridian."""
SCENES = {
    "s00000": {"fitted": (UTM, "2019-05-04"), "old": (UTM, "1957")},
    "s00001": {"fiji": (FIJI, "2021-01-01T10:30:00+02:00"), "film": (NOWHERE, None)},
    "s00002": {},
}


def make(root: Path, scenes: dict = SCENES, encoder: bool = True) -> Run:
    """Make the items of a run and, if asked for, its encoder."""
    run = Run(root)
    for shard, inside in scenes.items():
        write_json(run.manifest("segment", shard), {"scenes": {name: {} for name in inside}})
        for name, (place, time) in inside.items():
            folder = run.segments(name)
            folder.mkdir(parents=True)
            for file in ("segments.tif", "confidence.tif", "codes.tif", "segments.qml"):
                (folder / file).write_text(f"{file} of {name}")
            scene, names = catalog_row(name, SHAPE, time), ["a", "b", "ü"]
            item = segment_item(folder, scene, SHAPE, place, {0: 7}, 3, names, codes=64, stride=4)
            write_json(folder / "item.json", item)
    if encoder:
        bands = [{"name": name, "median": 1, "scale": 1} for name in ("red", "green")]
        statistics = {"bands": bands, "from": {"scenes": {}, "shards": ["s00000"]}}
        run.encoder.parent.mkdir(parents=True)
        save_encoder(run.encoder, lively_encoder(2), Model(**MODEL).model_dump(mode="json"), statistics)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = make(tmp_path_factory.mktemp("run"))
    write_collection(made, list(SCENES), "Fields")
    return made


def test_everything_is_valid_by_the_official_schemas(run):
    parts = sorted(run.stac.rglob("*.json")) + sorted(run.root.glob("segments/*/item.json"))
    assert len(parts) == 2 + 2 + 4  # collection and encoder; catalogues of shards that have maps; items
    assert {path.name: faults(read_json(path)) for path in parts if faults(read_json(path))} == {}


def test_pystac_walks_from_the_collection_to_every_file(run):
    collection = pystac.Collection.from_file(run.stac / "collection.json")
    items = {item.id: item for item in collection.get_items(recursive=True)}
    assert set(items) == {"fitted", "old", "fiji", "film"}
    for item in items.values():
        assert item.get_collection().title == "Fields"
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href())
            checksum = bytes.fromhex(asset.extra_fields["file:checksum"])
            assert checksum[:2] == bytes([0x12, 32])  # SHA2-256, of 32 bytes
            assert checksum[2:] == hashlib.sha256(path.read_bytes()).digest()
            assert asset.extra_fields["file:size"] == path.stat().st_size
    table = Path(collection.assets["items"].get_absolute_href())
    assert collection.assets["items"].extra_fields["file:size"] == table.stat().st_size


def test_the_collection_says_where_when_and_which_classes(run):
    collection = read_json(run.stac / "collection.json")
    extent = collection["extent"]
    west, south, east, north = extent["spatial"]["bbox"][0]
    assert (west, east) == (-180, 180)  # for a scene lies across the antimeridian
    assert south < -16 and north == pytest.approx(48.75, abs=0.01)
    assert extent["temporal"]["interval"] == [["1957-01-01T00:00:00Z", "2021-01-01T08:30:00Z"]]
    classes = collection["item_assets"]["segments"]["classification:classes"]
    assert [each["title"] for each in classes] == ["a", "b", "ü"]
    assert "count" not in classes[0]


def test_an_archive_without_place_and_time_says_so(tmp_path):
    run = make(tmp_path, {"s00000": {"film": (NOWHERE, None)}}, encoder=False)
    write_collection(run, ["s00000"], "Film")
    collection = read_json(run.stac / "collection.json")
    assert faults(collection) == []
    assert collection["extent"]["spatial"]["bbox"] == [[-180, -90, 180, 90]]
    assert collection["extent"]["temporal"]["interval"] == [[None, None]]
    assert not (run.stac / "encoder.json").exists()
    assert "related" not in {link["rel"] for link in collection["links"]}


def test_change_maps_are_a_collection_inside_that_of_the_maps(tmp_path):
    run = make(tmp_path)
    write_json(run.manifest("change", "s00000"), {"scenes": {"fitted": {}}})
    write_json(run.manifest("change", "s00001"), {"scenes": {}})
    folder = run.changes("fitted")
    folder.mkdir(parents=True)
    for file in ("change.tif", "confidence.tif", "change.qml"):
        (folder / file).write_text(file)
    before, after = (read_item(run, run.segments(name)) for name in ("old", "fitted"))
    write_json(
        folder / "item.json", change_item(folder, before, after, 3, "abc", [[0, 0, 5, 1], [0, 2, 2, 0]])
    )
    write_collection(run, list(SCENES), "Fields", ["s00000", "s00001"])
    parts = [folder / "item.json", *run.stac.rglob("*.json")]
    assert {path.name: faults(read_json(path)) for path in parts if faults(read_json(path))} == {}
    (changes,) = (
        each
        for each in pystac.Collection.from_file(run.stac / "collection.json").get_children()
        if isinstance(each, pystac.Collection)
    )
    assert changes.extent.temporal.intervals == [
        [datetime(1957, 1, 1, tzinfo=UTC), datetime(2019, 5, 4, tzinfo=UTC)]
    ]
    (item,) = changes.get_items(recursive=True)
    assert item.get_collection().id == "changes"
    assert item.get_root().id == "segments"
    assert Path(item.assets["change"].get_absolute_href()).read_text() == "change.tif"
    write_collection(run, list(SCENES), "Fields")
    assert not (run.stac / "changes.json").exists()
    assert not (run.stac / "changes").exists()


def moment(time: str | None) -> datetime | None:
    return None if time is None else datetime.fromisoformat(time)


def test_the_table_holds_what_the_items_do(run):
    table = pq.read_table(run.stac / "items.parquet")
    assert table["id"].to_pylist() == ["fitted", "old", "fiji", "film"]
    placed = table.filter(table["geometry"].is_valid())  # the reader takes no item without a box
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader's own
        rows = {row["id"]: row for row in stac_table_to_items(placed)}
    assert list(rows) == ["fitted", "old", "fiji"]
    for name, row in rows.items():
        item, row = read_json(run.segments(name) / "item.json"), json.loads(json.dumps(row))
        for key in ("id", "type", "stac_version", "stac_extensions", "collection", "geometry"):
            assert row[key] == item[key]
        assert row.get("bbox") == item.get("bbox")
        for key, value in item["properties"].items():
            held = row["properties"].get(key)
            assert (moment(held) == moment(value)) if key.endswith("datetime") else held == value, key
        for key, asset in item["assets"].items():
            held = row["assets"][key]
            path = (run.stac / held["href"]).resolve()
            assert path == (run.segments(name) / asset["href"]).resolve()
            assert held["file:checksum"] == asset["file:checksum"]
        assert (
            row["assets"]["segments"]["classification:classes"]
            == item["assets"]["segments"]["classification:classes"]
        )
        said = row["properties"].items()  # a table has a place for what an item does not say
        row["properties"] = {key: value for key, value in said if value is not None or key == "datetime"}
        assert faults(row) == []


def test_geopandas_finds_scenes_by_their_outline(run):
    frame = geopandas.read_parquet(run.stac / "items.parquet")
    assert frame.crs.to_epsg() is None or frame.crs.to_epsg() == 4326
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    frame = frame.set_index("id")
    assert frame.loc["fiji"].geometry.geom_type == "MultiPolygon"
    assert frame.loc["film"].geometry is None
    assert frame.loc["fitted"].geometry.contains(frame.loc["old"].geometry.centroid)
    assert frame.loc["fitted"].datetime.isoformat() == "2019-05-04T00:00:00+00:00"


def test_the_encoder_says_what_goes_in_and_what_comes_out(run):
    encoder = pystac.Item.from_file(run.stac / "encoder.json")
    said = encoder.properties
    assert said["mlm:input"][0]["bands"] == ["red", "green"]
    assert said["mlm:input"][0]["input"]["shape"] == [-1, 3, -1, -1]  # with the mask
    assert said["mlm:output"][0]["result"]["shape"] == [-1, MODEL["dim"], -1, -1]
    assert said["mlm:total_parameters"] == sum(
        len(w.ravel()) for w in lively_encoder(2).state_dict().values()
    )
    assert (said["start_datetime"], said["end_datetime"]) == ("1957-01-01T00:00:00Z", "2019-05-04T00:00:00Z")
    assert encoder.bbox == pytest.approx(read_json(run.segments("fitted") / "item.json")["bbox"])
    weights = Path(encoder.assets["weights"].get_absolute_href())
    assert weights.samefile(run.encoder)


def test_the_same_items_give_the_same_bytes(run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.stac.rglob("*") if path.is_file()}
    write_collection(run, list(SCENES), "Fields")
    assert {path.name: path.read_bytes() for path in run.stac.rglob("*") if path.is_file()} == before


def test_a_lost_item_is_named_and_the_old_catalogue_stays(tmp_path):
    run = make(tmp_path)
    write_collection(run, list(SCENES), "Fields")
    before = (run.stac / "collection.json").read_bytes()
    (run.segments("old") / "item.json").unlink()
    with pytest.raises(
        SassError, match=r"nothing says what the maps of scene old are: run `sass verify .* --repair`"
    ):
        write_collection(run, list(SCENES), "Fields")
    assert (run.stac / "collection.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
