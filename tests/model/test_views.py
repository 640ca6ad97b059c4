"""Views: two windows of one place that agree on where it is, and radiometry that stays mild."""

import math

import pytest
import torch

from sass.config import Views
from sass.model.views import Draws, Warp, cut, jitter, random_warps, sample, shared_places

TILE, CROP, N = 128, 64, 24
VIEWS = Views().model_dump(mode="json")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(seed: int = 0) -> Draws:
    return Draws(generator(seed))


def coordinates(n: int = N, tile: int = TILE) -> torch.Tensor:
    """Return tiles whose two bands are the coordinates (y, x) of the pixels' centres, all with data."""
    steps = torch.arange(tile) + 0.5
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
    return torch.cat([grid, torch.ones(1, tile, tile)]).expand(n, -1, -1, -1).clone()


def warp(angle: float = 0.0, zoom: float = 1.0, centre=(TILE / 2, TILE / 2)) -> Warp:
    sin, cos = math.sin(angle) * zoom, math.cos(angle) * zoom
    return Warp(torch.tensor([centre]), torch.tensor([[[cos, sin], [-sin, cos]]]), CROP)


def away_from_edges(points: torch.Tensor) -> torch.Tensor:
    """Say which points of a view lie between the centres of its pixels, so that nothing is extrapolated."""
    return ((points >= 0.5) & (points <= CROP - 0.5)).all(-1)


def test_a_view_holds_what_lies_at_its_places_in_the_tile():
    tiles = coordinates()
    for w in random_warps(N, TILE, CROP, VIEWS, draws()):
        view = cut(tiles, w)
        steps = torch.arange(CROP) + 0.5
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(1, -1, 2)
        expected = w.to_tile(places.expand(N, -1, -1)).reshape(N, CROP, CROP, 2).permute(0, 3, 1, 2)
        held = view[:, 2:].bool()
        assert held.float().mean() > 0.8
        # bands that are linear in the place are interpolated exactly; at the end of the tile a thousandth of
        # the weight may fall on what lies beyond
        assert ((view[:, :2] - expected).abs() * held).max() < TILE / 1000 + 1e-3


def test_the_same_place_in_both_views_has_the_same_coordinates():
    tiles = coordinates()
    a, b = random_warps(N, TILE, CROP, VIEWS, draws(1))
    views = [cut(tiles, w) for w in (a, b)]
    points_a, points_b, kept = shared_places(a, b, views[0][:, 2:], views[1][:, 2:], 50, 4, draws(2))
    assert kept.shape == (N, 50)
    assert 0.2 < kept.float().mean() < 1  # the views overlap, but are not the same
    at_a, at_b = (sample(view[:, :2], points, CROP) for view, points in zip(views, (points_a, points_b)))
    assert (at_a - at_b)[away_from_edges(points_b) & kept].abs().max() < 1e-3
    assert (at_a - at_b)[kept].abs().max() < 1  # half a pixel of the edge, at a zoom of 2 at most
    assert (points_a % 4 == 2).all()  # centres of embeddings
    assert (points_b[kept] > 0).all()
    assert (points_b[kept] < CROP).all()


def test_places_are_shared_only_where_both_views_have_data():
    tiles = coordinates()
    tiles[:, :, 40:90, 40:90] = 0
    a, b = random_warps(N, TILE, CROP, VIEWS, draws(1))
    views = [cut(tiles, w) for w in (a, b)]
    points_a, points_b, kept = shared_places(a, b, views[0][:, 2:], views[1][:, 2:], 50, 4, draws(2))
    at_a, at_b = (sample(view[:, :2], points, CROP) for view, points in zip(views, (points_a, points_b)))
    assert (kept & away_from_edges(points_b)).any()
    assert (at_a - at_b)[away_from_edges(points_b) & kept].abs().max() < 1e-3
    inside_hole = ((at_a > 41) & (at_a < 89)).all(-1)
    assert not (inside_hole & kept).any()


def test_to_tile_and_from_tile_are_inverse():
    a, _ = random_warps(N, TILE, CROP, VIEWS, draws(3))
    points = torch.rand(N, 20, 2, generator=generator(4)) * CROP
    assert (a.from_tile(a.to_tile(points)) - points).abs().max() < 1e-3


def test_an_unmoved_view_is_the_middle_of_the_tile():
    tiles = torch.randn(1, 3, TILE, TILE, generator=generator())
    tiles[:, 2] = 1
    view = cut(tiles, warp())
    assert torch.allclose(view, tiles[:, :, 32:96, 32:96], atol=1e-5)


def test_a_quarter_turn_is_a_quarter_turn():
    tiles = torch.randn(1, 2, TILE, TILE, generator=generator())
    tiles[:, 1] = 1
    turned = cut(tiles, warp(angle=math.pi / 2))[0, 0]
    middle = tiles[0, 0, 32:96, 32:96]
    assert any(torch.allclose(turned, torch.rot90(middle, k), atol=1e-3) for k in (1, 3))


def test_a_pixel_has_data_where_all_it_is_interpolated_from_has():
    tiles = coordinates(1)
    tiles[:, :, 60, 60] = 0  # one pixel without data
    view = cut(tiles, warp(centre=(TILE / 2 + 0.5, TILE / 2 + 0.5)))
    missing = (view[0, 2] == 0).nonzero().tolist()
    assert missing == [[27, 27], [27, 28], [28, 27], [28, 28]]  # between four pixels, all four count
    assert (view[0, :2, 27:29, 27:29] == 0).all()


def test_beyond_the_tile_there_is_no_data():
    view = cut(coordinates(1), warp(zoom=4.0))  # sees twice as far as the tile reaches
    assert view[0, 2].mean() == pytest.approx(0.25, abs=0.03)
    assert (view[0, :2][:, view[0, 2] == 0] == 0).all()


def test_views_stay_inside_the_tile_where_they_can():
    a, b = random_warps(500, 2 * CROP, CROP, VIEWS, draws())
    for w in (a, b):
        zoom = w.matrix.pow(2).sum((1, 2)).div(2).sqrt()
        assert zoom.min() >= 0.5 - 1e-6
        assert zoom.max() <= 2 + 1e-6
        room = (CROP * (2 - zoom) / 2)[:, None]
        assert ((w.centre - CROP).abs() <= room + 1e-3).all()
    assert (a.centre - b.centre).abs().max() <= VIEWS["shift"] * CROP + CROP  # both were moved into the tile


def test_rotate_false_keeps_up_up():
    still = {**VIEWS, "rotate": False}
    for w in random_warps(50, TILE, CROP, still, draws()):
        zoom = w.matrix[:, 0, 0]
        assert torch.equal(w.matrix, zoom[:, None, None] * torch.eye(2))
        assert (zoom > 0).all()


def test_jitter_is_mild_and_leaves_no_data_alone():
    view = torch.randn(40, 4, 32, 32, generator=generator()).clamp(-4, 4)
    view[:, 3] = 1
    view[:, :, :10, :20] = 0
    out = jitter(view, VIEWS, 4.0, draws(1))
    assert torch.equal(out[:, 3], view[:, 3])
    assert (out[:, :, :10, :20] == 0).all()
    assert out.abs().max() <= 4
    before, after = view[:, :3, 12:, 22:].flatten(2), out[:, :3, 12:, 22:].flatten(2)
    pairs = torch.stack([before.flatten(0, 1), after.flatten(0, 1)])
    correlation = torch.tensor([torch.corrcoef(pairs[:, i])[0, 1] for i in range(pairs.shape[1])])
    assert correlation.min() > 0.6  # the blurred ones
    assert correlation.median() > 0.97  # colour keeps its meaning
    assert (before.mean(2) - after.mean(2)).abs().max() < 0.25  # offset 0.1, gain and gamma 10 %
    assert (after - before).abs().mean() > 0.02  # but something does change


def test_jitter_turned_off_changes_nothing():
    off = {**VIEWS, "gain": 0, "offset": 0, "gamma": 0, "noise": 0, "blur": 0}
    view = torch.randn(4, 3, 16, 16, generator=generator()).clamp(-4, 4)
    view[:, 2] = 1
    assert torch.allclose(jitter(view, off, 4.0, draws()), view, atol=1e-5)


def test_equal_generators_give_equal_views_and_torch_itself_draws_nothing():
    before = torch.get_rng_state()
    tiles = coordinates(4)

    def make(seed: int) -> torch.Tensor:
        own = draws(seed)
        a, b = random_warps(4, TILE, CROP, VIEWS, own)
        views = torch.cat([jitter(cut(tiles, w), VIEWS, 200.0, own) for w in (a, b)])
        return torch.cat(
            [views.flatten(), shared_places(a, b, views[:4, 2:], views[4:, 2:], 9, 4, own)[1].flatten()]
        )

    assert torch.equal(make(5), make(5))
    assert not torch.equal(make(5), make(6))
    assert torch.equal(torch.get_rng_state(), before)
