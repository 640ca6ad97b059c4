"""The archive as a STAC catalogue: a collection, a table of all items, and the encoder as a model.

Everything stands in ``stac/`` and is made from the items beside the maps, shard by shard, so memory does not
grow with the archive.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rasterio.crs import CRS

from sass.encoder_item import encoder_header, encoder_item
from sass.files import replacing, write_json
from sass.geoparquet import BOX, EDGES, geo, geometry, write_batches
from sass.manifest import scenes_of
from sass.run import Run
from sass.stac import CHANGES, COLLECTION, EXTENSIONS, OPEN, VERSION, file_properties, read_item

_BAND = pa.struct(
    [
        ("name", pa.string()),
        ("data_type", pa.string()),
        ("nodata", pa.int64()),
    ]
)
_RASTER_BAND = pa.struct(
    [
        ("data_type", pa.string()),
        ("nodata", pa.int64()),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
    ]
)
_CLASS = pa.struct(
    [
        ("value", pa.int64()),
        ("name", pa.string()),
        ("title", pa.string()),
        ("color_hint", pa.string()),
        ("count", pa.int64()),
    ]
)
_FILE = [
    ("href", pa.string()),
    ("type", pa.string()),
    ("title", pa.string()),
    ("roles", pa.list_(pa.string())),
    ("file:size", pa.int64()),
    ("file:checksum", pa.string()),
]
_BANDS = ("bands", pa.list_(_BAND))
_TIME = pa.timestamp("us", "UTC")
ITEMS = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BOX),
        ("links", pa.list_(pa.struct([("rel", pa.string()), ("href", pa.string())]))),
        (
            "assets",
            pa.struct(
                [
                    (
                        "segments",
                        pa.struct([*_FILE, _BANDS, ("classification:classes", pa.list_(_CLASS))]),
                    ),
                    ("confidence", pa.struct([*_FILE, _BANDS, ("raster:bands", pa.list_(_RASTER_BAND))])),
                    (
                        "codes",
                        pa.struct(
                            [
                                *_FILE,
                                _BANDS,
                                ("proj:shape", pa.list_(pa.int64())),
                                ("proj:transform", pa.list_(pa.float64())),
                            ]
                        ),
                    ),
                    ("style", pa.struct(_FILE)),
                ]
            ),
        ),
        ("collection", pa.string()),
        ("datetime", _TIME),
        ("start_datetime", _TIME),
        ("end_datetime", _TIME),
        ("proj:shape", pa.list_(pa.int64())),
        ("proj:transform", pa.list_(pa.float64())),
        ("proj:code", pa.string()),
        ("proj:wkt2", pa.string()),
        ("processing:level", pa.string()),
        ("processing:software", pa.struct([("sass", pa.string())])),
    ]
)
"""Columns of ``items.parquet``: an item's own, and its properties among them, as stac-geoparquet has it."""


@dataclass
class _Extent:
    """Where and when the items lie that were seen: west, south, east, north; the first and the last time."""

    box: list[float] | None = None
    times: list[str] | None = None

    def add(self, item: dict[str, Any]) -> None:
        if "bbox" in item:
            west, south, east, north = item["bbox"]
            if west > east:  # across the antimeridian
                west, east = -180.0, 180.0
            known = self.box or [west, south, east, north]
            self.box = [
                min(known[0], west), min(known[1], south), max(known[2], east), max(known[3], north)
            ]  # fmt: skip
        said = {item["properties"].get(key) for key in ("datetime", "start_datetime", "end_datetime")}
        if times := said - {None, *OPEN}:
            times |= set(self.times or ())
            self.times = [min(times), max(times)]

    def as_json(self) -> dict[str, Any]:
        box, times = self.box or [-180.0, -90.0, 180.0, 90.0], self.times or [None, None]
        return {"spatial": {"bbox": [box]}, "temporal": {"interval": [times]}}


def write_collection(run: Run, shards: list[str], title: str, following: Sequence[str] = ()) -> None:
    """Write ``stac/`` anew.

    ``collection.json`` leads to a catalogue of each shard in ``shards/``, which leads to the items beside the
    maps. ``items.parquet`` holds all of them as one table; what they point to is relative to ``stac/``.
    ``encoder.json`` is there where an encoder is; ``changes.json``, a collection of its own, where there are
    change maps.

    Parameters
    ----------
    following
        The shards whose change maps are in it.

    Raises
    ------
    SassError
        The item of a map is missing.
    """
    extent, learnt, filled, first = _Extent(), _Extent(), [], {}
    about, weights = encoder_header(run.encoder) if run.encoder.exists() else (None, 0)
    fitted = about["statistics"]["from"]["shards"] if about else []

    def batches(folder: Path) -> Iterator[pa.RecordBatch]:
        for shard, items in _shards(run, "segment", COLLECTION, shards, folder / "shards"):
            for item in items:
                extent.add(item)
                if shard in fitted:
                    learnt.add(item)
            first.update(items[0] if not first else {})
            filled.append(shard)
            yield pa.RecordBatch.from_pylist([_row(item) for item in items], ITEMS)

    with replacing(run.stac) as folder:
        folder.mkdir()
        crs = CRS.from_user_input("OGC:CRS84")
        said = {
            "geo": geo(crs, ["Polygon", "MultiPolygon"], orientation="counterclockwise", edges="planar"),
            "stac-geoparquet": {"version": "1.0.0"},
        }
        write_batches(folder / "items.parquet", ITEMS, batches(folder), said)
        if about:
            write_json(
                folder / "encoder.json", encoder_item(run.encoder, about, weights, learnt.box, learnt.times)
            )
        children = [f"./shards/{shard}.json" for shard in filled]
        if changes := _write_changes(run, folder, following):
            children.append(changes)
        made = _collection(COLLECTION, title, extent, children, first) | {
            "description": "Maps of an archive in one set of classes, with their confidence",
            "assets": {
                "items": {
                    "href": "./items.parquet",
                    "type": "application/vnd.apache.parquet",
                    "title": "All items as stac-geoparquet",
                    "roles": ["collection-mirror"],
                    **file_properties(folder / "items.parquet"),
                }
            },
        }
        made["links"] += [{"rel": "related", "href": "./encoder.json"}] if about else []
        write_json(folder / "collection.json", made)


def _shards(
    run: Run, stage: str, collection: str, shards: Sequence[str], folder: Path
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Write into a folder the catalogue of each shard that has maps of a stage; yield its name and items."""
    for shard in shards:
        if names := sorted(scenes_of(run, stage, shard)):
            items = [read_item(run, run.payload(stage, name)) for name in names]
            write_json(folder / f"{shard}.json", _catalogue(collection, shard, names))
            yield shard, items


def _write_changes(run: Run, folder: Path, shards: Sequence[str]) -> str | None:
    """Write the collection of change maps; return its address, or None where there are none."""
    extent, children, first = _Extent(), [], {}
    for shard, items in _shards(run, "change", CHANGES, shards, folder / CHANGES):
        for item in items:
            extent.add(item)
        first = first or items[0]
        children.append(f"./{CHANGES}/{shard}.json")
    if not first:
        return None
    made = _collection(CHANGES, "What has changed", extent, children, first)
    made["description"] = "What has become of each pixel since the scene before it, of the same footprint"
    made["links"].append({"rel": "parent", "href": "./collection.json"})
    write_json(folder / f"{CHANGES}.json", made)
    return f"./{CHANGES}.json"


def _row(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as a row of the table."""

    def moved(entry: dict[str, Any]) -> dict[str, Any]:
        href = entry["href"]
        if ":" not in href:  # relative to the item
            href = posixpath.normpath(f"../segments/{item['id']}/{href}")
        return entry | {"href": href}

    said = item["properties"]
    times = {key: _moment(said.get(key)) for key in ("datetime", "start_datetime", "end_datetime")}
    bbox = dict(zip(EDGES, item["bbox"])) if "bbox" in item else None
    return (
        {key: value for key, value in item.items() if key != "properties"}
        | said
        | times
        | {
            "geometry": geometry(item["geometry"]),
            "bbox": bbox,
            "links": [moved(link) for link in item["links"]],
            "assets": {name: moved(asset) for name, asset in item["assets"].items()},
        }
    )


def _moment(time: str | None) -> datetime | None:
    return None if time is None else datetime.fromisoformat(time).astimezone(UTC)


def _catalogue(collection: str, shard: str, names: list[str]) -> dict[str, Any]:
    """Return what leads to the items of a shard, which stand in the folder called as their collection."""
    above = "collection" if collection == COLLECTION else collection
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": shard,
        "description": f"{collection.capitalize()} of shard {shard}",
        "links": [
            {"rel": "root", "href": "../collection.json"},
            {"rel": "parent", "href": f"../{above}.json"},
            *({"rel": "item", "href": f"../../{collection}/{name}/item.json"} for name in names),
        ],
    }


def _collection(
    name: str, title: str, extent: _Extent, children: list[str], first: dict[str, Any]
) -> dict[str, Any]:
    """Return what a collection says of itself and, by the first of its items, of them."""
    kept = ("type", "title", "roles", "bands", "raster:bands")
    kinds = {
        kind: {key: asset[key] for key in kept if key in asset}
        for kind, asset in first.get("assets", {}).items()
    }
    if "segments" in kinds:
        classes = first["assets"]["segments"]["classification:classes"]
        plain = [{key: value for key, value in each.items() if key != "count"} for each in classes]
        kinds["segments"]["classification:classes"] = plain
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [uri for uri in EXTENSIONS if "/processing/" not in uri],  # which is of items
        "id": name,
        "title": title,
        "license": "other",
        "extent": extent.as_json(),
        "item_assets": kinds,
        "links": [
            {"rel": "root", "href": "./collection.json"},
            *({"rel": "child", "href": child} for child in children),
        ],
    }
