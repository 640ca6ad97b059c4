"""Appearance: means and deviations of what holds data, the same in windows as whole."""

import numpy as np
import pytest

from sass.appearance import COLOUR, TEXTURE, appearance, reach
from sass.grid import tiles

CLIP = 4.0
STRIDES = [1, 2, 4, 8]


def scene(stride: int, cells: tuple[int, int] = (13, 17), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make normalised pixels of three bands with a hole wider than a square, and scattered pixels missing."""
    rng = np.random.default_rng(seed)
    height, width = (side * stride for side in cells)
    valid = rng.random((height, width)) > 0.2
    valid[: 7 * stride, : 6 * stride] = False
    pixels = np.clip(rng.normal(0.5, 2, (3, height, width)), -CLIP, CLIP).astype(np.float32)
    return np.where(valid, pixels, 0).astype(np.float32), valid


def by_loop(pixels: np.ndarray, valid: np.ndarray, stride: int) -> np.ndarray:
    """Compute the same in the plainest way, from lists of pixels."""
    height, width = (side // stride for side in valid.shape)
    out, rough = np.zeros((len(pixels) + 1, height, width)), np.full((height, width), np.inf)
    for y, x in np.ndindex(height, width):
        held = []
        for side in (COLOUR, TEXTURE):
            beside = side // 2
            rows = slice(max(y - beside, 0) * stride, (y + beside + 1) * stride)
            cols = slice(max(x - beside, 0) * stride, (x + beside + 1) * stride)
            held.append(pixels[:, rows, cols][:, valid[rows, cols]].astype(np.float64))
        if held[0].size:
            out[:-1, y, x] = held[0].mean(1)
        if held[1].size:
            rough[y, x] = held[1].std(1).mean()
    for y, x in np.ndindex(height, width):
        beside = TEXTURE // 2
        least = rough[max(y - beside, 0) : y + beside + 1, max(x - beside, 0) : x + beside + 1].min()
        out[-1, y, x] = least if np.isfinite(least) else 0
    return out / CLIP


@pytest.mark.parametrize("stride", STRIDES)
def test_values_are_those_of_a_plain_loop(stride):
    pixels, valid = scene(stride)
    looks = appearance(pixels, valid, stride, CLIP)
    assert looks.shape == (4, 13, 17) and looks.dtype == np.float32
    np.testing.assert_allclose(looks, by_loop(pixels, valid, stride), atol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_a_window_with_its_reach_around_it_equals_the_whole_bit_by_bit(stride):
    pixels, valid = scene(stride)
    whole = appearance(pixels, valid, stride, CLIP)
    for window in tiles(valid.shape, 4 * stride):
        outer = window.grown(reach(stride), valid.shape)
        part = appearance(pixels[(slice(None), *outer.slices)], valid[outer.slices], stride, CLIP)
        cell, around = window.coarsened(stride), outer.coarsened(stride)
        inner = part[(slice(None), *cell.inside(around))]
        assert np.array_equal(inner, whole[(slice(None), *cell.slices)])


@pytest.mark.parametrize("stride", STRIDES)
def test_values_lie_within_minus_one_and_one_at_the_ends_too(stride):
    rng = np.random.default_rng(1)
    pixels = np.where(rng.random((2, 9 * stride, 8 * stride)) < 0.5, -CLIP, CLIP).astype(np.float32)
    valid = np.ones(pixels.shape[1:], bool)
    pixels[:, : 4 * stride] = CLIP
    looks = appearance(pixels, valid, stride, CLIP)
    assert np.abs(looks).max() == 1
    assert (looks[-1] >= 0).all()
    assert (looks[-1, 0] == 0).all()  # all alike


def test_where_there_is_no_data_it_is_zero():
    pixels, valid = scene(4)
    looks = appearance(pixels, valid, 4, CLIP)
    assert (looks[:, :3, :2] == 0).all()  # farther than a square of squares from any pixel
    assert not appearance(0 * pixels, np.zeros_like(valid), 4, CLIP).any()
    assert np.isfinite(looks).all()


def test_pixels_without_data_count_for_nothing():
    valid = np.ones((40, 40), bool)
    valid[::3] = False
    looks = appearance(np.where(valid, np.float32(2), 0)[None].astype(np.float32), valid, 4, CLIP)
    np.testing.assert_allclose(looks[0], 0.5)
    np.testing.assert_allclose(looks[1], 0, atol=1e-7)


def test_an_edge_between_smooth_grounds_is_not_rough_and_rough_ground_is():
    rng = np.random.default_rng(2)
    pixels = np.zeros((1, 96, 96), np.float32)
    pixels[:, :, 41:] = 3  # an edge within embeddings
    pixels[:, 64:] += rng.normal(0, 0.5, (1, 32, 96)).astype(np.float32)
    looks = appearance(pixels, np.ones((96, 96), bool), 4, CLIP)[1] * CLIP
    assert np.delete(looks[:12], 10, axis=1).max() < 0.01  # all but the column that the edge runs through
    assert looks[:12, 10].max() < 1  # a square centred on it would have 1.5
    assert looks[21:, 13:].min() > 0.4
