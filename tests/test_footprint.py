"""Outlines on the globe: where the scene is, cut where GeoJSON wants it, whole around a pole."""

from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from sass.footprint import footprint
from sass.georeference import Georeference


def outline(crs: str | int, left: float, top: float, res: float, shape: tuple[int, int] = (100, 100)):
    known = CRS.from_epsg(crs) if isinstance(crs, int) else CRS.from_user_input(crs)
    return footprint(shape, Georeference(known, Affine(res, 0, left, 0, -res, top)))


def rings(geometry: dict) -> list[np.ndarray]:
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    assert all(len(part) == 1 for part in parts)
    return [np.array(part[0]) for part in parts]


def area(ring: np.ndarray) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2


def inside(geometry: dict, lon: float, lat: float) -> bool:
    """Say by counting crossings whether a place lies in an outline."""
    crossings = 0
    for ring in rings(geometry):
        for (x, y), (u, v) in pairwise(ring):
            crossings += (y > lat) != (v > lat) and lon < (u - x) * (lat - y) / (v - y) + x
    return crossings % 2 == 1


@pytest.mark.parametrize(
    ("crs", "left", "top", "res", "kind"),
    [
        pytest.param(32633, 500_000, 5_400_000, 10, "Polygon", id="Europe"),
        pytest.param(32601, 150_000, 2_000_000, 1_000, "MultiPolygon", id="across the antimeridian"),
        pytest.param(4326, 175, -10, 0.1, "MultiPolygon", id="degrees that run on past 180"),
        pytest.param(4326, 190, -10, 0.1, "Polygon", id="degrees from 0 to 360"),
        pytest.param(4326, -180, 90, 1.8, "Polygon", id="the whole globe, 180 degrees high"),
        pytest.param(3413, -1_000_000, 1_000_000, 20_000, "Polygon", id="around the north pole"),
        pytest.param(3031, -1_000_000, 1_000_000, 20_000, "MultiPolygon", id="around the south pole"),
        pytest.param(3031, 500_000, 500_000, 2_000, "Polygon", id="beside the south pole"),
    ],
)
def test_what_lies_in_the_scene_lies_in_its_outline_and_box(crs, left, top, res, kind):
    shape = (100, 200) if crs == 4326 and res > 1 else (100, 100)
    geometry, (west, south, east, north) = outline(crs, left, top, res, shape)
    assert geometry["type"] == kind
    for ring in rings(geometry):
        assert (ring[0] == ring[-1]).all()
        assert area(ring) > 0  # anticlockwise
        assert (np.abs(ring[:, 0]) <= 180).all() and (np.abs(ring[:, 1]) <= 90).all()
    random = np.random.default_rng(0)
    rows, columns = random.uniform(0.03, 0.97, (2, 200)) * np.array(shape)[:, None]
    lon, lat = transform(CRS.from_epsg(crs), "EPSG:4326", left + res * columns, top - res * rows)
    for x, y in zip(((np.array(lon) + 180) % 360 - 180).tolist(), lat):
        assert inside(geometry, x, y), (x, y)
        assert south <= y <= north
        assert west <= x <= east if west <= east else x >= west or x <= east
    assert (west > east) == (kind == "MultiPolygon" and [west, east] != [-180, 180])
    outer_rows, outer_columns = [-9, 50, 109, 50], [50, 109, 50, -9]
    if (crs, res) != (4326, 1.8):
        lon, lat = transform(
            CRS.from_epsg(crs),
            "EPSG:4326",
            [left + res * x for x in outer_columns],
            [top - res * y for y in outer_rows],
        )
        for x, y in zip(((np.array(lon) + 180) % 360 - 180).tolist(), lat):
            assert not inside(geometry, x, y)


def test_a_sheared_and_turned_scene_has_its_own_four_corners():
    place = Georeference(CRS.from_epsg(4326), Affine(0.03, 0.01, 10, 0.01, -0.02, 50))
    geometry, _ = footprint((10, 20), place)
    (ring,) = rings(geometry)
    for row, column in ((0, 0), (0, 20), (10, 20), (10, 0)):
        assert np.abs(ring - place.transform * (column, row)).sum(1).min() < 1e-6


def test_without_a_place_on_earth_there_is_no_outline():
    assert footprint((10, 10), Georeference(None, Affine.identity())) == (None, None)
    moon = "+proj=longlat +R=1737400 +no_defs"
    assert outline(moon, 10, 10, 0.1) == (None, None)
    assert outline(32633, 1e12, 1e12, 10) == (None, None)
