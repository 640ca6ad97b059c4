"""Windows and tiles: every pixel once, halos that end where the scene ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sass.grid import Window, ceil_to, tiles

# a busy machine is no failure
calm = settings(deadline=None)

sides = st.integers(1, 60)
shapes = st.tuples(sides, sides)
origins = st.tuples(st.integers(-100, 100), st.integers(-100, 100))


@st.composite
def placed(draw) -> tuple[Window, tuple[int, int]]:
    """Draw a window and the shape of a scene that it lies in."""
    height, width = draw(shapes)
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(y, x, draw(st.integers(1, height - y)), draw(st.integers(1, width - x))), (height, width)


@calm
@given(shapes, st.integers(1, 70), origins)
def test_tiles_cover_every_pixel_exactly_once(shape, size, origin):
    seen = np.zeros(shape, int)
    for tile in tiles(shape, size, origin):
        assert 1 <= tile.height <= size and 1 <= tile.width <= size
        seen[tile.slices] += 1
    assert (seen == 1).all()


@calm
@given(shapes, st.integers(1, 70), origins)
def test_tiles_lie_on_the_grid_and_come_row_by_row(shape, size, origin):
    found = list(tiles(shape, size, origin))
    assert found == sorted(found)
    for tile in found:
        assert tile.y == 0 or (tile.y - origin[0]) % size == 0
        assert tile.x == 0 or (tile.x - origin[1]) % size == 0


@calm
@given(shapes, st.integers(1, 70), origins)
def test_origins_a_tile_apart_are_the_same_grid(shape, size, origin):
    assert list(tiles(shape, size, origin)) == list(tiles(shape, size, (origin[0] - size, origin[1] + size)))


@calm
@given(placed(), st.integers(0, 80))
def test_a_grown_window_holds_all_within_the_halo_and_nothing_beyond_the_scene(where, halo):
    window, shape = where
    scene = np.zeros(shape, bool)
    scene[window.slices] = True
    outer = window.grown(halo, shape)
    within = np.zeros(shape, bool)
    y, x = np.nonzero(scene)
    within[max(y.min() - halo, 0) : y.max() + halo + 1, max(x.min() - halo, 0) : x.max() + halo + 1] = True
    assert np.array_equal(np.argwhere(within).min(0), [outer.y, outer.x])
    assert within.sum() == outer.height * outer.width


@calm
@given(placed(), st.integers(0, 80))
def test_what_is_cut_out_of_the_grown_window_is_the_window(where, halo):
    window, shape = where
    scene = np.arange(shape[0] * shape[1]).reshape(shape)
    outer = window.grown(halo, shape)
    assert np.array_equal(scene[outer.slices][window.inside(outer)], scene[window.slices])


@calm
@given(placed(), st.sampled_from([2, 4, 16]))
def test_a_coarsened_window_is_the_window_in_coarse_pixels(where, stride):
    window, _ = where
    fine = Window(*(v * stride for v in (window.y, window.x, window.height, window.width)))
    assert fine.coarsened(stride) == window


@pytest.mark.parametrize(
    "window, shape, cut",
    [
        (Window(0, 0, 10, 10), (4, 6), Window(0, 0, 4, 6)),
        (Window(2, 3, 10, 10), (4, 6), Window(2, 3, 2, 3)),
        (Window(-2, -3, 10, 10), (4, 6), Window(0, 0, 4, 6)),
        (Window(1, 1, 2, 2), (4, 6), Window(1, 1, 2, 2)),
    ],
)
def test_cut(window, shape, cut):
    assert window.cut(shape) == cut


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Window(0, 0, -1, 4), r"cannot be -1 x 4 pixels"),
        (lambda: Window(0, 0, 8, 8).inside(Window(0, 0, 8, 7)), r"does not lie inside"),
        (lambda: Window(0, 0, 8, 8).inside(Window(1, 0, 8, 8)), r"does not lie inside"),
        (lambda: Window(0, 2, 8, 8).coarsened(4), r"not aligned to 4 pixels"),
        (lambda: list(tiles((4, 4), 0)), r"cannot be 0 pixels wide"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@calm
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_ceil_to(value, multiple):
    up = ceil_to(value, multiple)
    assert up % multiple == 0 and 0 <= up - value < multiple
