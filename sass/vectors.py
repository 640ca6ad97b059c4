"""Polygons of the maps, on request: GeoParquet or GeoPackage, a file for each scene."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from sass.cog import CONFIDENCE_STEPS
from sass.errors import SassError, SceneError
from sass.files import replacing
from sass.geoparquet import BOX, geo, polygon, write_batches
from sass.manifest import scenes_of
from sass.polygons import Patches, polygonise
from sass.run import Run

WINDOW = 1024
"""Side in pixels of the tile that is turned into polygons at a time. Sets memory and the order of rows."""
ROWS = 1 << 15
"""Polygons in a row group of GeoParquet, at least."""
CACHE = 64 << 20
"""Bytes of GDAL's block cache, which otherwise grows with the machine."""
SUFFIX = {"geoparquet": ".parquet", "gpkg": ".gpkg"}
"""Ending of a file of each format."""

SCHEMA = pa.schema(
    [
        ("scene", pa.string()),
        ("class", pa.int32()),
        ("name", pa.string()),
        ("pixels", pa.int64()),
        ("area_m2", pa.float64()),
        ("confidence", pa.float64()),
        ("bbox", BOX),
        ("geometry", pa.binary()),
    ]
)


def scenes_with_maps(run: Run, shards: list[str], wanted: list[str]) -> list[str]:
    """Return the scenes of some shards that have a map, or those of them that are wanted.

    Raises
    ------
    SassError
        One that is wanted has none.
    """
    there = [scene for shard in shards for scene in sorted(scenes_of(run, "segment", shard))]
    if missing := sorted(set(wanted) - set(there)):
        raise SassError(
            f"{', '.join(missing)}: no such scene has a map in {run.root}, so it has no polygons; "
            f"`ls {run.root / 'segments'}` shows those that have"
        )
    return [scene for scene in there if scene in wanted] if wanted else there


def write_polygons(run: Run, scene: str, form: str, folder: Path) -> tuple[Path, int]:
    """Write the polygons of a scene's map; return the file and how many there are.

    Each patch of one class, whose pixels touch by their edges, is a polygon, its corners in the CRS of the
    map (pixels to the right and down without one). ``area_m2`` is that in the plane of a projected CRS, and
    null in others. ``confidence`` is the mean over the pixels, 0 to 1.

    Parameters
    ----------
    form
        A key of `SUFFIX`.

    Raises
    ------
    SceneError
        The map cannot be read.
    """
    path = folder / f"{scene}{SUFFIX[form]}"
    maps = run.segments(scene)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            classes, trust = (
                stack.enter_context(rasterio.open(maps / name)) for name in ("segments.tif", "confidence.tif")
            )
            batches = _batches(scene, classes, trust)
            if form == "gpkg":
                return path, _write_geopackage(path, batches, classes.crs)
            said = {"geo": geo(classes.crs, ["Polygon"], orientation="counterclockwise", edges="planar")}
            return path, write_batches(path, SCHEMA, batches, said)
        except RasterioError as error:
            raise SceneError(
                f"its map cannot be read ({error}), so it has no polygons; `sass verify {run.root} --repair` "
                "and a run of the workflow make it anew"
            ) from error


def _batches(
    scene: str, classes: rasterio.DatasetReader, trust: rasterio.DatasetReader
) -> Iterator[pa.RecordBatch]:
    """Yield the polygons of a map, `ROWS` or a few more at a time."""
    tags, crs, transform = classes.tags(1), classes.crs, classes.transform
    square = (
        abs(transform.determinant) * crs.linear_units_factor[1] ** 2 if crs and crs.is_projected else None
    )

    def reader(file: rasterio.DatasetReader):
        return lambda w: file.read(1, window=RasterWindow(w.x, w.y, w.width, w.height))

    def table(patches: Patches) -> pa.RecordBatch:
        outlines, boxes = _geometries(patches, transform)
        means = patches.sums / patches.pixels / CONFIDENCE_STEPS
        columns = [
            [scene] * len(patches.classes),
            patches.classes,
            [tags.get(f"class_{c}", f"class {c}") for c in patches.classes.tolist()],
            patches.pixels,
            [None if square is None else pixels * square for pixels in patches.pixels.tolist()],
            np.round(means, 6),
            pa.StructArray.from_arrays([pa.array(edge) for edge in boxes.T], fields=list(BOX)),
            outlines,
        ]
        return pa.record_batch(
            [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types)], schema=SCHEMA
        )

    held, rows = [], 0
    for patches in polygonise(reader(classes), reader(trust), classes.shape, int(classes.nodata), WINDOW):
        if len(patches.classes):
            held.append(table(patches))
            rows += len(held[-1])
        if rows >= ROWS:
            yield pa.concat_batches(held)
            held, rows = [], 0
    if held:
        yield pa.concat_batches(held)


def _geometries(patches: Patches, transform: Affine) -> tuple[list[bytes], np.ndarray]:
    """Return patches as well-known binary, outer rings anticlockwise on the map, and boxes ``(n, 4)``."""
    x, y = patches.corners.T.astype(np.float64)
    a, b, c, d, e, f = list(transform)[:6]
    corners = np.stack([a * x + b * y + c, d * x + e * y + f], 1)
    ends = np.cumsum(patches.lengths)
    # rings run clockwise where y points down, and so do they on a map that is not mirrored
    way = -1 if transform.determinant < 0 else 1
    rings = [
        np.concatenate([corners[end - length : end], corners[end - length : end - length + 1]])[::way]
        for end, length in zip(ends.tolist(), patches.lengths.tolist())
    ]
    first = np.searchsorted(patches.owners, np.arange(len(patches.classes) + 1))
    outlines = [polygon(rings[a:b]) for a, b in zip(first.tolist(), first[1:].tolist())]
    starts = (ends - patches.lengths)[first[:-1]]
    low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
    return outlines, np.concatenate([low, high], 1)


def _write_geopackage(path: Path, batches: Iterator[pa.RecordBatch], crs: CRS | None) -> int:
    rows = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            rows += len(batch)
            yield batch.drop_columns(["bbox"])  # a GeoPackage has an index of its own

    schema = SCHEMA.remove(SCHEMA.get_field_index("bbox"))
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "1970-01-01T00:00:00.000Z"})  # no clock in the file
    try:
        with replacing(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, counted()),
                temporary,
                layer="polygons",
                driver="GPKG",
                VERSION="1.2",  # which every GDAL and QGIS of today reads without a warning
                geometry_name="geometry",
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
            )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
    return rows
