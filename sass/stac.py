"""STAC items: what each map is, where it lies, when its scene was taken."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sass import __version__
from sass.catalog import Scene
from sass.cog import CONFIDENCE_STEPS, class_type
from sass.colours import UNCHANGED, Colour, class_colours
from sass.errors import SassError
from sass.files import read_json
from sass.footprint import footprint
from sass.georeference import Georeference
from sass.run import Run

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
VERSION = "1.1.0"
"""Of STAC."""
SCHEMAS = "https://stac-extensions.github.io"
EXTENSIONS = [
    f"{SCHEMAS}/projection/v2.0.0/schema.json",
    f"{SCHEMAS}/classification/v2.0.0/schema.json",
    f"{SCHEMAS}/raster/v1.1.0/schema.json",
    f"{SCHEMAS}/processing/v1.1.0/schema.json",
    f"{SCHEMAS}/file/v2.1.0/schema.json",
]
COLLECTION = "segments"
"""Id of the collection that the maps of a run are in."""
CHANGES = "changes"
"""Id of the collection of its change maps, inside the other."""
ROOT = "../../stac/collection.json"
"""Where the collection of maps stands, from the folder of an item."""
OPEN = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
"""The interval by which an item says that its time is not known."""
SHA2_256 = "1220"
"""How a multihash of this kind begins: the code of the function, then 32 bytes."""


def segment_item(
    folder: Path,
    scene: Scene,
    shape: tuple[int, int],
    place: Georeference,
    counts: dict[int, int],
    classes: int,
    names: Sequence[str] = (),
    *,
    codes: int,
    stride: int,
) -> dict[str, Any]:
    """Return the STAC 1.1 item of a scene's maps, which stand in ``folder`` and whose classes may have names.

    A scene without georeference has no geometry. A scene whose time is not known says so by an open interval.

    Parameters
    ----------
    counts
        Pixels of each class that is met.
    codes, stride
        Number of the fine codes, and pixels of the scene that each of their cells covers along an axis.
    """
    geometry, bbox = footprint(shape, place)
    projection: dict[str, Any] = {"proj:shape": list(shape), "proj:transform": list(place.transform)[:6]}
    if place.crs is not None:
        code = place.crs.to_epsg()
        projection["proj:code"] = f"EPSG:{code}" if code else None
        if not code:
            projection["proj:wkt2"] = place.crs.to_wkt(version="WKT2_2019")
    (dtype, nodata), (code_dtype, no_code) = class_type(classes), class_type(codes)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": scene.id,
        "collection": COLLECTION,
        "geometry": geometry,
        "properties": {
            **time_properties(scene.time),
            **projection,
            "processing:software": {"sass": __version__},
            "processing:level": "L4",
        },
        "links": [
            *({"rel": rel, "href": ROOT} for rel in ("root", "parent", "collection")),
            *({"rel": "derived_from", "href": Path(path).as_uri()} for path in scene.paths),
        ],
        "assets": {
            "segments": {
                "href": "./segments.tif",
                "type": COG_TYPE,
                "title": f"{classes} classes, {'named by a few places' if names else 'found without labels'}",
                "roles": ["data"],
                "bands": [{"name": "class", "data_type": dtype, "nodata": nodata}],
                "classification:classes": [
                    {**known, "count": counts.get(value, 0)}
                    for value, known in enumerate(class_objects(classes, names))
                ],
            },
            "confidence": _confidence("Confidence: 0, the next class is as near; 1, no other class is near"),
            "codes": {
                "href": "./codes.tif",
                "type": COG_TYPE,
                "title": f"Fine codes, of which classes are made, in cells of {stride} x {stride} pixels",
                "roles": ["data"],
                "bands": [{"name": "code", "data_type": code_dtype, "nodata": no_code}],
                "proj:shape": [-(-side // stride) for side in shape],
                "proj:transform": list(place.coarsened(stride).transform)[:6],
            },
            "style": _style("./segments.qml", "Colours and names of the classes for QGIS"),
        },
    }
    if bbox is not None:
        item["bbox"] = bbox
    for asset in item["assets"].values():
        asset |= file_properties(folder / asset["href"])
    return item


def change_item(
    folder: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    classes: int,
    names: Sequence[str],
    transitions: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """Return the STAC 1.1 item of a change map, which stands in ``folder``, from the items of its two maps.

    It lies where the later map does, and its time is the interval between both.

    Parameters
    ----------
    transitions
        Class before, class after and pixels of each pair that occurs. What has stayed is one value, 0.
    """
    dtype, nodata = class_type(1 + classes**2)
    known = class_objects(classes, names)
    pixels = {1 + a * classes + b: count for a, b, count, *_ in transitions if a != b}
    objects = [
        {
            "value": 0,
            "name": "unchanged",
            "color_hint": _hexadecimal(UNCHANGED),
            "count": sum(count for a, b, count, *_ in transitions if a == b),
        }
    ]
    for value, count in pixels.items():
        a, b = (known[c] for c in divmod(value - 1, classes))
        named = {"title": f"{a['title']} to {b['title']}"} if names else {}
        objects.append(
            {"value": value, "name": f"{a['name']}-to-{b['name']}"}
            | named
            | {"color_hint": b["color_hint"], "count": count}
        )
    times = {
        "datetime": None,
        "start_datetime": before["properties"]["datetime"] or before["properties"]["start_datetime"],
        "end_datetime": after["properties"]["datetime"] or after["properties"]["end_datetime"],
    }
    item = after | {
        "collection": CHANGES,
        "properties": after["properties"] | times,
        "links": [
            {"rel": "root", "href": ROOT},
            *({"rel": rel, "href": f"../../stac/{CHANGES}.json"} for rel in ("parent", "collection")),
            *({"rel": "derived_from", "href": _item_of(each["id"])} for each in (before, after)),
        ],
        "assets": {
            "change": {
                "href": "./change.tif",
                "type": COG_TYPE,
                "title": f"What has become of each pixel since {before['id']}",
                "roles": ["data"],
                "bands": [{"name": "change", "data_type": dtype, "nodata": nodata}],
                "classification:classes": objects,
            },
            "confidence": _confidence("Confidence of the less sure of both maps"),
            "style": _style("./change.qml", "Colours and names of the changes for QGIS"),
        },
    }
    for asset in item["assets"].values():
        asset |= file_properties(folder / asset["href"])
    return item


def read_item(run: Run, folder: Path) -> dict[str, Any]:
    """Read the item of the maps in a folder.

    Raises
    ------
    SassError
        It is missing or damaged.
    """
    path = folder / "item.json"
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError) as error:
        raise SassError(
            f"{path} cannot be read ({error}), so nothing says what the maps of scene {folder.name} are: run "
            f"`sass verify {run.root} --repair`, then the workflow"
        ) from None


def class_objects(classes: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the classification extension says of each class, which may have names."""
    return [
        {
            "value": value,
            "name": f"class-{value}",
            **({"title": names[value]} if names else {}),
            "color_hint": _hexadecimal(colour),
        }
        for value, colour in enumerate(class_colours(classes, names))
    ]


def _hexadecimal(colour: Colour) -> str:
    return "{:02X}{:02X}{:02X}".format(*colour)


def _item_of(scene: str) -> str:
    """Return where the item of a scene's maps stands, from the folder of another item."""
    return f"../../segments/{scene}/item.json"


def _confidence(title: str) -> dict[str, Any]:
    return {
        "href": "./confidence.tif",
        "type": COG_TYPE,
        "title": title,
        "roles": ["data"],
        "bands": [{"name": "confidence", "data_type": "uint8", "nodata": 255}],
        "raster:bands": [{"data_type": "uint8", "nodata": 255, "scale": 1 / CONFIDENCE_STEPS, "offset": 0}],
    }


def _style(href: str, title: str) -> dict[str, Any]:
    return {"href": href, "type": "application/xml", "title": title, "roles": ["style"]}


def file_properties(path: Path) -> dict[str, Any]:
    """Return what the file extension says of a file: its bytes, and their SHA-256 as a multihash."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file:size": path.stat().st_size, "file:checksum": SHA2_256 + found}


def time_properties(time: str | None) -> dict[str, str | None]:
    """Return the time properties of an ISO time, date or year; a time without zone is taken as UTC."""
    if time is None:
        return {
            "datetime": None,
            "start_datetime": OPEN[0],
            "end_datetime": OPEN[1],
        }
    if len(time) == 4:
        return {
            "datetime": None,
            "start_datetime": f"{time}-01-01T00:00:00Z",
            "end_datetime": f"{time}-12-31T23:59:59Z",
        }
    if len(time) == 10:
        return {"datetime": f"{time}T00:00:00Z"}
    moment = datetime.fromisoformat(time)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return {"datetime": moment.isoformat().replace("+00:00", "Z")}
