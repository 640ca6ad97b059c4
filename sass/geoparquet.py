"""GeoParquet 1.1, batch by batch: geometries as well-known binary, and the metadata that explain them."""

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import CRS as ProjCRS
from rasterio.crs import CRS

from sass.files import replacing

EDGES = ("xmin", "ymin", "xmax", "ymax")
BOX = pa.struct([(edge, pa.float64()) for edge in EDGES])
"""Type of a column of boxes, by which readers leave out what lies elsewhere."""


def polygon(rings: Iterable[np.ndarray]) -> bytes:
    """Return a polygon of closed rings, each float64 ``(corners, 2)`` of x and y, as well-known binary."""
    parts = [struct.pack("<I", len(ring)) + np.ascontiguousarray(ring, "<f8").tobytes() for ring in rings]
    return struct.pack("<BII", 1, 3, len(parts)) + b"".join(parts)


def geometry(geojson: dict[str, Any] | None) -> bytes | None:
    """Return a polygon or multipolygon of GeoJSON as well-known binary."""
    if geojson is None:
        return None
    if geojson["type"] == "Polygon":
        return polygon(map(np.array, geojson["coordinates"]))
    parts = [polygon(map(np.array, rings)) for rings in geojson["coordinates"]]
    return struct.pack("<BII", 1, 6, len(parts)) + b"".join(parts)


def write_batches(
    path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], metadata: dict[str, Any]
) -> int:
    """Write batches, each a row group, under a temporary name, then rename; return the number of rows.

    ``metadata`` are keys of the file's metadata to what JSON can hold.
    """
    rows = 0
    said = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema.with_metadata(said), compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(said), row_group_size=max(len(batch), 1))
            rows += len(batch)
    return rows


def geo(crs: CRS | None, types: list[str], **column: Any) -> dict[str, Any]:
    """Return what the key ``geo`` says of a file with a column ``geometry`` and one of boxes, ``bbox``."""
    edges = {edge: ["bbox", edge] for edge in EDGES}
    said = {"encoding": "WKB", "geometry_types": types, "covering": {"bbox": edges}, **column}
    said["crs"] = None if crs is None else ProjCRS.from_wkt(crs.to_wkt()).to_json_dict()
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": said}}
