"""Polygons: those of the whole map, whatever the tiles; every patch once, valid, with its own numbers."""

import numpy as np
import pytest
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapely.geometry import Polygon, shape

from sass.grid import Window
from sass.polygons import Patches, polygonise

NODATA = 255


def made(classes: np.ndarray, size: int, weights: np.ndarray | None = None) -> list[Patches]:
    weights = np.zeros(classes.shape, np.uint8) if weights is None else weights
    return list(
        polygonise(lambda w: classes[w.slices], lambda w: weights[w.slices], classes.shape, NODATA, size)
    )


def polygons(batches: list[Patches]) -> list[tuple[int, int, int, Polygon]]:
    """Return class, pixels, sum and outline of each patch."""
    out = []
    for batch in batches:
        ends = np.cumsum(batch.lengths)
        rings = [batch.corners[end - n : end] for end, n in zip(ends.tolist(), batch.lengths.tolist())]
        for i, (value, pixels, total) in enumerate(zip(batch.classes, batch.pixels, batch.sums)):
            shell, *holes = (ring for ring, owner in zip(rings, batch.owners) if owner == i)
            out.append((int(value), int(pixels), int(total), Polygon(shell, holes)))
    return out


def known(polygon: Polygon) -> tuple:
    """Return what equal polygons have in common: their rings, in one order and each from one corner on."""
    plain = polygon.normalize()
    return tuple(plain.exterior.coords), tuple(sorted(tuple(ring.coords) for ring in plain.interiors))


def whole(classes: np.ndarray) -> list[tuple]:
    """Polygonise a map at once, by GDAL."""
    found = rasterio.features.shapes(classes.astype(np.int32), classes != NODATA, connectivity=4)
    return sorted((int(value), known(shape(outline))) for outline, value in found)


def blobs(side: tuple[int, int], seed: int, kinds: int, width: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=side), width) for _ in range(kinds)])
    classes = fields.argmax(0).astype(np.uint8)
    classes[ndimage.gaussian_filter(rng.normal(size=side), width) > 0.9 / (1 + 2 * width)] = NODATA
    return classes


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.integers(1, 45),
    seed=st.integers(0, 1 << 30),
    kinds=st.integers(1, 4),
    width=st.sampled_from([0.0, 0.7, 2.0]),
)
def test_polygons_by_tiles_are_those_of_the_whole_map(side, size, seed, kinds, width):
    classes = blobs(side, seed, kinds, width)
    found = polygons(made(classes, size))
    assert sorted((value, known(outline)) for value, _, _, outline in found) == whole(classes)
    for _, pixels, _, outline in found:
        assert outline.is_valid
        assert outline.area == pixels


@pytest.mark.parametrize("size", [7, 16, 100])
def test_a_patch_has_its_pixels_and_the_sum_of_what_lies_in_it_wherever_tiles_end(size):
    classes = blobs((60, 47), 3, 3, 1.5)
    weights = np.random.default_rng(0).integers(0, 255, classes.shape).astype(np.uint8)
    found = polygons(made(classes, size, weights))
    assert sum(pixels for _, pixels, _, _ in found) == (classes != NODATA).sum()
    for value, pixels, total, outline in found:
        inside = rasterio.features.geometry_mask(
            [outline], classes.shape, rasterio.Affine.identity(), invert=True
        )
        assert (classes[inside] == value).all()
        assert (inside.sum(), weights[inside].sum()) == (pixels, total)


def test_a_patch_that_touches_itself_by_corners_is_valid():
    classes = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], np.uint8)
    for size in (1, 2, 3, 4):
        found = polygons(made(classes, size))
        assert all(outline.is_valid for *_, outline in found)
        (ring,) = [outline for *_, outline in found if outline.area == 8]
        assert [hole.bounds for hole in ring.interiors] == [(1, 1, 2, 2)]


def test_only_open_patches_are_held_back():
    classes = np.zeros((40, 40), np.uint8)
    classes[3:6, 3:6] = 1  # inside the first tile of 20
    classes[10:14, 18:23] = 2  # over the first two
    classes[19:22, 30:33] = 3  # from the second to the fourth
    batches = made(classes, 20)
    assert [batch.classes.tolist() for batch in batches] == [[1], [2], [], [0, 3]]


def test_a_map_without_data_has_no_polygon():
    assert polygons(made(np.full((9, 5), NODATA, np.uint8), 4)) == []


def test_windows_are_read_where_the_map_is():
    asked: list[Window] = []

    def read(window: Window) -> np.ndarray:
        asked.append(window)
        assert window.y >= 0 and window.x >= 0 and window.height <= 12 and window.width <= 12
        return np.zeros(window.shape, np.uint8)

    list(polygonise(read, read, (35, 25), NODATA, 10))
    assert max(w.y + w.height for w in asked) == 35
    assert max(w.x + w.width for w in asked) == 25
