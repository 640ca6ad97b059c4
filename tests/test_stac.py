"""STAC items: valid, placed where the scene is, and honest about what is not known."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pystac
import pytest
from affine import Affine
from builders import NOWHERE, UTM, catalog_row
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from rasterio.crs import CRS
from stac_schemas import faults

from sass.colours import class_colour
from sass.georeference import Georeference
from sass.stac import segment_item

SHAPE = (390, 310)
COUNTS = {0: 700, 2: 30}
FILES = ("segments.tif", "confidence.tif", "codes.tif", "segments.qml")


@pytest.fixture
def item(tmp_path) -> Callable[..., dict]:
    """Return what makes an item of files that hold their own names, and sends it through JSON."""
    for name in FILES:
        (tmp_path / name).write_text(name)

    def make(place: Georeference = UTM, time: str | None = "2019-05-04", classes: int = 4) -> dict:
        scene = catalog_row("scene_1", SHAPE, time)
        made = segment_item(tmp_path, scene, SHAPE, place, COUNTS, classes, codes=64, stride=4)
        return json.loads(json.dumps(made, allow_nan=False))

    return make


PLACES = {
    "utm": UTM,
    "degrees": Georeference(CRS.from_epsg(4326), Affine(0.001, 0, 8, 0, -0.001, 48)),
    "own crs": Georeference(
        CRS.from_proj4("+proj=laea +lat_0=40 +lon_0=-100 +datum=WGS84 +units=m"), Affine(30, 0, 0, 0, -30, 0)
    ),
    "rotated": Georeference(CRS.from_epsg(32633), Affine(7, 7, 500_000, 7, -7, 5_400_000)),
    "nowhere": NOWHERE,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("time", [None, "2019", "2019-05-04", "2019-05-04T10:30:00-05:00"])
def test_items_are_valid(item, place, time):
    plain = item(place, time)
    assert faults(plain) == []
    read = pystac.Item.from_dict(plain)
    again = read.to_dict(include_self_link=False, transform_hrefs=False)
    assert again["assets"] == plain["assets"]
    assert again["properties"] == plain["properties"]
    assert again["geometry"] == plain["geometry"]
    assert read.stac_extensions
    assert (read.geometry is None) == (read.bbox is None) == (not place.known)


def test_the_footprint_lies_where_the_scene_does(item):
    west, south, east, north = item()["bbox"]
    # 310 x 390 pixels of 10 m, east of the central meridian of zone 33, which is 15 degrees
    assert west == pytest.approx(15.0, abs=1e-3)
    assert north == pytest.approx(48.75, abs=0.01)
    assert (east - west) * 111_320 * 0.66 == pytest.approx(3100, rel=0.01)
    assert (north - south) * 111_200 == pytest.approx(3900, rel=0.01)
    ring = item()["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))
    assert area > 0  # counter-clockwise, as GeoJSON wants


def test_projection_says_how_pixels_lie(item):
    properties = item()["properties"]
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == list(SHAPE)
    assert properties["proj:transform"] == [10, 0, 500_000, 0, -10, 5_400_000]
    own = item(PLACES["own crs"])["properties"]
    assert own["proj:code"] is None
    assert CRS.from_wkt(own["proj:wkt2"]) == PLACES["own crs"].crs
    assert "proj:code" not in item(NOWHERE)["properties"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2019-05-04", datetime(2019, 5, 4, tzinfo=UTC)),
        ("2019-05-04T10:30:00", datetime(2019, 5, 4, 10, 30, tzinfo=UTC)),
        ("2019-05-04T10:30:00Z", datetime(2019, 5, 4, 10, 30, tzinfo=UTC)),
        ("2019-05-04T10:30:00+02:00", datetime(2019, 5, 4, 8, 30, tzinfo=UTC)),
        ("2019-05-04T22:30:00-05:00", datetime(2019, 5, 5, 3, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_given_in_utc(item, time, expected):
    assert item(time=time)["properties"]["datetime"].endswith("Z")
    assert pystac.Item.from_dict(item(time=time)).datetime == expected


def test_a_year_is_an_interval_and_no_time_an_open_one(item):
    year = pystac.Item.from_dict(item(time="1957"))
    assert year.datetime is None
    assert year.common_metadata.start_datetime == datetime(1957, 1, 1, tzinfo=UTC)
    assert year.common_metadata.end_datetime.year == 1957
    unknown = item(time=None)["properties"]
    assert unknown["datetime"] is None
    assert unknown["start_datetime"] < "1800"
    assert unknown["end_datetime"] > "2999"


def test_assets_say_what_a_pixel_means(item):
    segments, confidence = (item()["assets"][name] for name in ("segments", "confidence"))
    assert segments["href"] == "./segments.tif"
    assert segments["bands"] == [{"name": "class", "data_type": "uint8", "nodata": 255}]
    listed = segments["classification:classes"]
    assert [entry["value"] for entry in listed] == [0, 1, 2, 3]
    assert [entry["count"] for entry in listed] == [700, 0, 30, 0]
    assert bytes.fromhex(listed[2]["color_hint"]) == bytes(class_colour(2))
    assert confidence["raster:bands"][0]["scale"] * 254 == pytest.approx(1)
    assert item(classes=300)["assets"]["segments"]["bands"][0]["nodata"] == 65535


def test_the_item_leads_back_to_the_scene(item):
    links = item()["links"]
    assert {"rel": "derived_from", "href": "file:///archive/scene_1.tif"} in links
    assert item()["collection"] == "segments"
    (above,) = (link for link in links if link["rel"] == "collection")
    assert Path("run/segments/scene_1", above["href"]).resolve() == Path("run/stac/collection.json").resolve()


def test_files_are_proven_by_a_multihash_of_their_bytes(item):
    read = pystac.Item.from_dict(item())
    assert {Path(asset.href).name for asset in read.assets.values()} == set(FILES)
    for asset in read.assets.values():
        text = Path(asset.href).name.encode()
        file = FileExtension.ext(asset)
        assert file.size == len(text)
        # 0x12: SHA2-256; 0x20: its 32 bytes
        assert bytes.fromhex(file.checksum) == b"\x12\x20" + hashlib.sha256(text).digest()


def test_readers_of_the_extensions_find_what_is_theirs(item):
    read = pystac.Item.from_dict(item())
    assert ProjectionExtension.ext(read).epsg == 32633
    assert ProjectionExtension.ext(read).shape == list(SHAPE)
    codes = ProjectionExtension.ext(read.assets["codes"])
    assert codes.shape == [98, 78]
    assert codes.transform == [40, 0, 500_000, 0, -40, 5_400_000]
    (confidence,) = RasterExtension.ext(read.assets["confidence"]).bands
    assert (confidence.scale * 254, confidence.offset, confidence.nodata) == (pytest.approx(1), 0, 255)
    classes = ClassificationExtension.ext(read.assets["segments"]).classes
    assert [each.value for each in classes] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("properties", "datetime", 3),
        ("properties", "proj:shape", [1]),
        ("properties", "processing:level", 4),
        ("assets", "segments", {"href": "x", "classification:classes": [{"name": "no value"}]}),
        ("assets", "segments", {"href": "x", "file:checksum": "not a multihash"}),
        ("assets", "confidence", {"href": "x", "raster:bands": [{"scale": "1/254"}]}),
    ],
)
def test_each_schema_would_notice_a_fault(item, part, key, value):
    wrong = item()
    wrong[part][key] = value
    assert faults(wrong)
