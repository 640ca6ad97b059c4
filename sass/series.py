"""Series: scenes of one footprint, taken one after the other."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

from sass.catalog import Scene

OVERLAP = 0.9
"""Scenes are of one footprint if what they share is such a part of what they cover together."""

Box = tuple[float, float, float, float]


def earlier_scenes(rows: Mapping[str, Scene]) -> dict[str, str]:
    """Return for each scene the one before it: of the same footprint and CRS, the latest of an earlier time.

    Scenes without georeference or without a time have none and are none. Of several taken at the same time
    the one whose id comes last counts.
    """
    placed = [row for row in rows.values() if row.crs and row.time and row.shape[0] and row.shape[1]]
    seen: dict[tuple, list[tuple[Box, Scene]]] = defaultdict(list)
    found = {}
    for row in sorted(placed, key=lambda row: (row.time, row.id)):
        box = bounds(row)
        near = [
            other
            for cell in _cells(box, around=True)
            for place, other in seen[row.crs, *cell]
            if other.time < row.time and overlap(place, box) >= OVERLAP
        ]
        if near:
            found[row.id] = max(near, key=lambda other: (other.time, other.id)).id
        for cell in _cells(box):
            seen[row.crs, *cell].append((box, row))
    return dict(sorted(found.items()))


def bounds(scene: Scene) -> Box:
    """Return the left, lower, right and upper bound of a scene in its CRS."""
    a, b, c, d, e, f = scene.transform
    height, width = scene.shape
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    xs, ys = ([p * x + q * y + r for x, y in corners] for p, q, r in ((a, b, c), (d, e, f)))
    return min(xs), min(ys), max(xs), max(ys)


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share over the area that they cover together."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / both if both > 0 else 0.0


def _cells(box: Box, around: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield the cell of a box in a grid about as wide as itself; or all where one of its footprint may be.

    The widths of two such boxes differ by a tenth at most, and so do the places of their centres.
    """
    level = round(math.log2(max(box[2] - box[0], box[3] - box[1])))
    reach = (-1, 0, 1) if around else (0,)
    for size in (level + step for step in reach):
        x, y = (math.floor((box[i] + box[i + 2]) / 2 / 2.0**size) for i in (0, 1))
        yield from ((size, x + dx, y + dy) for dx in reach for dy in reach)
