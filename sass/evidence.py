"""Places whose name somebody knows: points, polygons or label rasters, brought onto the grids of the scenes.

Points come as CSV or GeoJSON, polygons as GeoJSON, rasters as anything GDAL reads. What is kept of a place is
the cells of embeddings in it, in every scene that shows it.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import geometry_mask
from rasterio.warp import transform, transform_geom

from sass.errors import SassError, SceneError
from sass.gdal import TROUBLE, check_sources
from sass.georeference import Georeference
from sass.grid import Window, tiles
from sass.store import FeatureStore

FIELDS = ("label", "class", "name")
"""Fields that hold the name, the first that is there."""
MOST = 256
"""Cells kept of a polygon."""
LATTICE = 1024
"""Cells of a scene at which a label raster is looked up."""
WGS84 = "EPSG:4326"

MALFORMED = (csv.Error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What comes of a table or a tree in which things are not what they should be."""

Cell = tuple[str, int, int]
"""A scene, and row and column of an embedding in it."""


@dataclass(frozen=True)
class Grid:
    """The grid of a scene as it was ingested, and where its features are."""

    scene: str
    shape: tuple[int, int]
    place: Georeference
    features: Path

    @cached_property
    def stride(self) -> int:
        """Pixels for one embedding, along an axis."""
        return FeatureStore(self.features).stride

    @cached_property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of embeddings."""
        return tuple(-(-side // self.stride) for side in self.shape)  # type: ignore[return-value]

    @property
    def coarse(self) -> Affine:
        """Transform of the grid of embeddings."""
        return self.place.coarsened(self.stride).transform

    def cell(self, x: float, y: float) -> Cell | None:
        """Return the cell at a place in the scene's CRS; None beyond the scene."""
        col, row = ~self.place.transform @ (x, y)
        return self.at(row, col)

    def at(self, row: float, col: float) -> Cell | None:
        """Return the cell at a pixel; None beyond the scene."""
        if 0 <= row < self.shape[0] and 0 <= col < self.shape[1]:
            return self.scene, int(row // self.stride), int(col // self.stride)
        return None


@dataclass
class Places:
    """Labelled places: each a name and the cells that it is made of."""

    found: list[dict[str, Any]] = field(default_factory=list)
    beyond: int = 0
    """Places that no scene shows."""

    def add(self, name: str, cells: list[Cell]) -> None:
        """Take up a place, or count it as lying beyond all scenes."""
        if cells:
            step = max(-(-len(cells) // MOST), 1)
            self.found.append({"name": name, "cells": [list(cell) for cell in sorted(cells)[::step]]})
        else:
            self.beyond += 1


def read_places(
    path: Path, grids: list[Grid], named_by: str | None, crs: str | None, names: dict[int, str]
) -> Places:
    """Read a file of labelled places.

    Parameters
    ----------
    grids
        Of the scenes that places may lie in.
    named_by
        Field of the name; the first of `FIELDS` that is there by default.
    crs
        CRS of coordinates in a CSV; degrees (EPSG:4326) by default.
    names
        Names of the ids of a label raster.

    Raises
    ------
    SassError
        The file cannot be read, has no field of names, or no place of it lies in a scene.
    """
    if not path.exists():
        raise SassError(
            f"{path} is not there, so nothing can be named by it; check the path given with --points"
        )
    kind = {".csv": _csv, ".geojson": _geojson, ".json": _geojson}.get(path.suffix.lower())
    try:
        places = kind(path, grids, named_by, crs) if kind else _raster(path, grids, names)
    except (*MALFORMED, *TROUBLE) as error:
        raise SassError(
            f"{path} is malformed ({error!r}), so nothing can be named by it; write it anew, in UTF-8"
        ) from None
    if not places.found:
        where = (
            f"none of its {places.beyond} labelled places lies in a scene"
            if places.beyond
            else "it labels no place"
        )
        raise SassError(
            f"{path}: {where}, so nothing can be named by it; check its CRS and its order of x and y"
        )
    return places


def _csv(path: Path, grids: list[Grid], named_by: str | None, crs: str | None) -> Places:
    """Read rows with a name and either scene, row and col (pixels) or x and y (or lon and lat)."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        key = columns[_field(path, columns, named_by)]
        rows = [row for row in reader if (row[key] or "").strip()]  # a row that nobody has labelled yet
    places = Places()
    if {"scene", "row", "col"} <= columns.keys():
        by_scene = {grid.scene: grid for grid in grids}
        for number, row in enumerate(rows, 2):
            grid = by_scene.get(row[columns["scene"]])
            cell = grid and grid.at(*(_number(path, number, row, columns[axis]) for axis in ("row", "col")))
            places.add(row[key].strip(), [cell] if cell else [])
        return places
    axes = next((pair for pair in (("x", "y"), ("lon", "lat")) if set(pair) <= columns.keys()), None)
    if axes is None:
        raise SassError(
            f"{path}: its columns {', '.join(columns)} do not say where a place is; give x and y (with "
            "--crs), lon and lat, or scene, row and col"
        )
    points = [tuple(_number(path, i, row, columns[a]) for a in axes) for i, row in enumerate(rows, 2)]
    for row, cells in zip(rows, _cells_of_points(path, points, crs or WGS84, grids)):
        places.add(row[key].strip(), cells)
    return places


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise SassError(f"{path}, row {line}: {column} is {row[column]!r}, which is no number") from None


def _field(path: Path, there: Any, named_by: str | None) -> str:
    wanted = (named_by.lower(),) if named_by else FIELDS
    for name in wanted:
        if name in there:
            return name
    raise SassError(
        f"{path} has no field {' or '.join(wanted)} that names its places, only "
        f"{', '.join(there) or 'none'}; say which it is with --field"
    )


def _geojson(path: Path, grids: list[Grid], named_by: str | None, crs: str | None) -> Places:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        features = [f for f in tree["features"] if f.get("geometry")]
        named = tree.get("crs") or {}  # of before RFC 7946; QGIS still writes it
        given = crs or (named.get("properties") or {}).get("name") or WGS84
        properties = [{str(k).lower(): v for k, v in (f.get("properties") or {}).items()} for f in features]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SassError(
            f"{path} is no GeoJSON FeatureCollection ({error!r}), so nothing can be named by it"
        ) from None
    key = _field(path, {k: None for p in properties for k in p}, named_by)
    places = Places()
    for feature, fields in zip(features, properties):
        name = str(fields.get(key) or "").strip()
        if not name:
            continue
        geometry = feature["geometry"]
        points = {"Point": lambda c: [c], "MultiPoint": list}.get(geometry["type"])
        if points:
            cells = _cells_of_points(path, [p[:2] for p in points(geometry["coordinates"])], given, grids)
            places.add(name, sorted({cell for held in cells for cell in held}))
        else:
            places.add(name, list(_cells_of_polygon(path, geometry, given, grids)))
    return places


def _cells_of_points(path: Path, points: list, crs: str, grids: list[Grid]) -> list[list[Cell]]:
    """Return the cells of each point, one for every scene that shows it."""
    cells: list[list[Cell]] = [[] for _ in points]
    moved: dict[str, list[tuple[float, float]]] = {}
    for grid in grids:
        if grid.place.crs is None or not points:
            continue
        wkt = grid.place.crs.to_wkt()
        if wkt not in moved:
            xs, ys = transform(_crs(path, crs), grid.place.crs, *zip(*points))
            moved[wkt] = list(zip(xs, ys))
        for held, (x, y) in zip(cells, moved[wkt]):
            if cell := grid.cell(x, y):
                held.append(cell)
    return cells


def _cells_of_polygon(path: Path, geometry: dict[str, Any], crs: str, grids: list[Grid]) -> Iterator[Cell]:
    moved: dict[str, dict[str, Any]] = {}
    for grid in grids:
        if grid.place.crs is None:
            continue
        wkt = grid.place.crs.to_wkt()
        if wkt not in moved:
            try:
                moved[wkt] = transform_geom(_crs(path, crs), grid.place.crs, geometry)
            except (ValueError, KeyError, TypeError, SystemError, *TROUBLE) as error:  # 1e999 and the like
                raise SassError(f"{path}: a {geometry.get('type')} cannot be placed ({error})") from None
        for window in tiles(grid.cells, 1024):  # not a mask of a whole scene at once
            inside = _inside(moved[wkt], grid.coarse, window)
            for row, col in zip(*np.nonzero(inside)):
                yield grid.scene, int(row) + window.y, int(col) + window.x


def _inside(geometry: dict[str, Any], place: Affine, window: Window) -> np.ndarray:
    """Return which cells of a window have their centre in a polygon."""
    return geometry_mask(
        [geometry], window.shape, place @ Affine.translation(window.x, window.y), invert=True
    )


def _raster(path: Path, grids: list[Grid], names: dict[int, str]) -> Places:
    """Take cells of a label raster on a lattice over each scene that it covers; each is a place."""
    places = Places()
    try:
        check_sources(str(path))
        with rasterio.open(path) as source:
            if source.crs is None:
                raise SassError(
                    f"{path} has no CRS, so it lies in no scene; give it one, or name places by a CSV"
                )
            for grid in grids:
                if grid.place.crs is None:
                    continue
                step = int(np.ceil(np.sqrt(np.prod(grid.cells) / LATTICE)))
                rows, cols = (i.ravel() for i in np.mgrid[: grid.cells[0] : step, : grid.cells[1] : step])
                xs, ys = transform(grid.place.crs, source.crs, *(grid.coarse @ (cols + 0.5, rows + 0.5)))
                inside = source.sample(zip(xs, ys), 1, masked=True)
                for row, col, (value,) in zip(rows.tolist(), cols.tolist(), inside):
                    if value is not np.ma.masked:
                        places.add(names.get(int(value), f"label {int(value)}"), [(grid.scene, row, col)])
    except (*TROUBLE, SceneError, OSError) as error:
        raise SassError(f"{path} can be read neither as CSV, as GeoJSON nor as a raster ({error})") from None
    return places


def _crs(path: Path, text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise SassError(
            f"{path}: {text!r} is no CRS ({error}); give one such as EPSG:32633 with --crs"
        ) from None
