"""Refine: classes keep to edges, and windows with their halo have the shares of the whole."""

import numpy as np
import pytest

from sass.grid import tiles
from sass.refine import reach, refined, steps


def made(shape=(70, 90), classes=3, seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make shares, pixels and a mask with holes."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(classes), shape).astype(np.float32)
    pixels = random.normal(0, 0.3, (2, *shape)).astype(np.float32)
    return np.moveaxis(shares, -1, 0).copy(), pixels, random.random(shape) > 0.1


def windowed(shares, pixels, held, radius, halo) -> np.ndarray:
    """Refine by windows of 16."""
    out = np.empty_like(shares)
    for window in tiles(held.shape, 16, origin=(5, 3)):
        outer = window.grown(halo, held.shape)
        cut = (slice(None), *outer.slices)
        part = refined(shares[cut], pixels[cut], held[outer.slices], radius)
        out[(slice(None), *window.slices)] = part[(slice(None), *window.inside(outer))]
    return out


@pytest.mark.parametrize("radius", [1, 3, 7, 10, 15])
def test_windows_with_their_halo_have_the_shares_of_the_whole_and_need_all_of_it(radius):
    scene = made()
    whole = refined(*scene, radius)
    assert np.array_equal(windowed(*scene, radius, reach(radius)), whole)
    assert not np.array_equal(windowed(*scene, radius, reach(radius) - 1), whole)


def test_rounds_reach_no_farther_than_the_radius():
    assert [steps(radius) for radius in (0, 1, 2, 3, 31)] == [[], [1], [1], [1, 2], [1, 2, 4, 8, 16]]
    assert all(reach(radius) <= radius for radius in range(65))


def test_a_border_beside_an_edge_moves_to_it_and_specks_vanish():
    edge = np.zeros((1, 40, 60), np.float32)
    edge[:, :, 30:] = 3
    right = np.clip(
        (np.arange(60) - 20) / 12, 0, 1
    )  # a border smeared over columns 20 to 32, its middle at 26
    shares = np.stack([np.tile(share, (40, 1)) for share in (1 - right, right)]).astype(np.float32)
    shares[:, 20, 10] = 0, 1
    assert (shares[1] > shares[0])[:, 27:30].all()
    after = refined(shares, edge, np.ones((40, 60), bool), 31)
    assert np.array_equal(after[1] > after[0], edge[0] > 0)
    np.testing.assert_allclose(after.sum(0), 1, rtol=1e-5)


def test_pixels_without_data_neither_give_nor_get():
    shares, pixels, held = made()
    before = refined(shares, pixels, held, 15)
    shares[:, ~held], pixels[:, ~held] = 7, 0
    after = refined(shares, pixels, held, 15)
    assert np.array_equal(after, before)
    assert (after[:, ~held] == 0).all()
    alone = np.zeros(held.shape, bool)
    alone[8, 9] = True
    np.testing.assert_allclose(refined(shares, pixels, alone, 15)[:, 8, 9], shares[:, 8, 9], rtol=1e-5)


def test_a_scene_smaller_than_the_reach_is_refined():
    shares, pixels, held = made((3, 5))
    assert np.isfinite(refined(shares, pixels, held, 63)).all()
