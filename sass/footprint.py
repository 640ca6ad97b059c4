"""Where a scene lies on the globe, as GeoJSON has it: across the antimeridian and around a pole too."""

from typing import Any

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from sass.georeference import Georeference

STEPS = 8
"""Points along each side of a scene: straight lines of a projection are curves in longitude and latitude."""
DIGITS = 7
"""Of degrees: a centimetre."""

Ring = list[tuple[float, float]]


def footprint(
    shape: tuple[int, int], place: Georeference
) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Return the outline of a scene of height and width, and its bounding box, in degrees of WGS 84.

    As RFC 7946 wants it, an outline across the antimeridian is cut there in two, and its box begins in the
    west with a longitude larger than that in which it ends. One around a pole reaches up to it. There is none
    without georeference, nor where the CRS has no place on Earth.
    """
    if place.crs is None:
        return None, None
    along = np.linspace(0, 1, STEPS, endpoint=False)
    zero, one = np.zeros(STEPS), np.ones(STEPS)
    columns = np.concatenate([along, one, 1 - along, zero]) * shape[1]
    rows = np.concatenate([zero, along, one, 1 - along]) * shape[0]
    a, b, c, d, e, f = list(place.transform)[:6]
    xs, ys = a * columns + b * rows + c, d * columns + e * rows + f
    try:
        lon, lat = (np.array(values) for values in transform(place.crs, "EPSG:4326", xs, ys))
    except (RasterioError, CPLE_BaseError):  # another planet
        return None, None
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None, None
    lon, lat = np.unwrap(np.append(lon, lon[0]), period=360), np.append(lat, lat[0])
    lon -= 360 * np.floor((lon.min() + 180) / 360)
    ring = list(zip(lon.tolist(), lat.tolist()))
    around = abs(lon[-1] - lon[0]) > 180
    if around:
        pole = float(np.copysign(90, lat.mean()))
        ring += [(ring[-1][0], pole), (ring[0][0], pole)]
    parts = [part for west in (-180, 180) if (part := _within(ring, west))]
    south, north = (round(edge(y for part in parts for _, y in part), DIGITS) for edge in (min, max))
    if around:
        bbox = [-180.0, south, 180.0, north]
    else:
        bbox = [min(x for x, _ in parts[0]), south, max(x for x, _ in parts[-1]), north]
    rings = [[[list(point) for point in part]] for part in parts]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}, bbox
    return {"type": "MultiPolygon", "coordinates": rings}, bbox


def _within(ring: Ring, west: float) -> Ring:
    """Return what of a ring lies in the 360 degrees from `west` on, as -180 to 180: closed, anticlockwise."""
    east = west + 360
    ring = _cut(_cut(ring, west, 1), east, -1)
    area = sum(x * v - u * y for (x, y), (u, v) in zip(ring, ring[1:] + ring[:1]))
    if abs(area) < 1e-12:
        return []
    moved = [(round(x - west - 180, DIGITS), round(y, DIGITS)) for x, y in (ring if area > 0 else ring[::-1])]
    kept = [point for i, point in enumerate(moved) if point != moved[i - 1]]
    return [*kept, kept[0]]


def _cut(ring: Ring, meridian: float, side: int) -> Ring:
    """Cut a ring at a meridian; keep what lies east (side 1) or west (-1). Sutherland and Hodgman, 1974."""
    kept: Ring = []
    for (x, y), (u, v) in zip(ring[-1:] + ring[:-1], ring):
        if (x - meridian) * side * ((u - meridian) * side) < 0:
            kept.append((meridian, y + (v - y) * (meridian - x) / (u - x)))
        if (u - meridian) * side >= 0:
            kept.append((u, v))
    return kept
