"""STAC items: what each map is, where it lies, when its scene was taken."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sass import __version__
from sass.catalog import Scene
from sass.cog import CONFIDENCE_STEPS, class_colour, class_type
from sass.footprint import footprint
from sass.store import Georeference

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
SCHEMAS = "https://stac-extensions.github.io"
EXTENSIONS = [
    f"{SCHEMAS}/projection/v2.0.0/schema.json",
    f"{SCHEMAS}/classification/v2.0.0/schema.json",
    f"{SCHEMAS}/raster/v2.0.0/schema.json",
    f"{SCHEMAS}/processing/v1.2.0/schema.json",
]


def segment_item(
    scene: Scene,
    shape: tuple[int, int],
    place: Georeference,
    counts: dict[int, int],
    classes: int,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the STAC 1.1 item of a scene's maps, whose classes may have names.

    A scene without georeference has no geometry. A scene whose time is not known says so by an open interval.
    """
    geometry, bbox = footprint(shape, place)
    projection: dict[str, Any] = {"proj:shape": list(shape), "proj:transform": list(place.transform)[:6]}
    if place.crs is not None:
        code = place.crs.to_epsg()
        projection["proj:code"] = f"EPSG:{code}" if code else None
        if not code:
            projection["proj:wkt2"] = place.crs.to_wkt(version="WKT2_2019")
    dtype, nodata = class_type(classes)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": scene.id,
        "geometry": geometry,
        "properties": {
            **_time(scene.time),
            **projection,
            "processing:software": {"sass": __version__},
            "processing:level": "L4",
        },
        "links": [{"rel": "derived_from", "href": Path(path).as_uri()} for path in scene.paths],
        "assets": {
            "segments": {
                "href": "./segments.tif",
                "type": COG_TYPE,
                "title": f"{classes} classes, {'named by a few places' if names else 'found without labels'}",
                "roles": ["data"],
                "bands": [{"name": "class", "data_type": dtype, "nodata": nodata}],
                "classification:classes": [
                    {
                        "value": value,
                        "name": f"class-{value}",
                        **({"title": names[value]} if names else {}),
                        "color_hint": "{:02X}{:02X}{:02X}".format(*class_colour(value)),
                        "count": counts.get(value, 0),
                    }
                    for value in range(classes)
                ],
            },
            "confidence": {
                "href": "./confidence.tif",
                "type": COG_TYPE,
                "title": "Confidence: 0, the next class is as near; 1, no other class is near",
                "roles": ["data"],
                "bands": [
                    {
                        "name": "confidence",
                        "data_type": "uint8",
                        "nodata": 255,
                        "raster:scale": 1 / CONFIDENCE_STEPS,
                        "raster:offset": 0,
                    }
                ],
            },
        },
    }
    if bbox is not None:
        item["bbox"] = bbox
    return item


def _time(time: str | None) -> dict[str, str | None]:
    """Return the time properties of an ISO time, date or year; a time without zone is taken as UTC."""
    if time is None:
        return {
            "datetime": None,
            "start_datetime": "0001-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
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
