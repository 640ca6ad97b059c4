"""The encoder: how far it sees, that windows and threads leave no trace, and that it survives a file."""

import numpy as np
import pytest
import torch
from builders import lively_encoder

from sass.config import Model
from sass.grid import Window, tiles
from sass.model.encoder import Encoder, build_encoder, receptive_radius
from sass.model.interface import load_encoder, save_encoder

DEPTHS = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1)]


def all_seeing(stages: int, blocks: int) -> Encoder:
    """Return an encoder in which nothing cancels out: a gradient reaches every pixel that can matter."""
    encoder = build_encoder(1, {"widths": [1] * stages, "blocks": blocks, "dim": 1}, seed=0).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_().add_(0.1)
    return encoder


def reach(encoder: Encoder, y: int, x: int, side: int) -> int:
    """Return how far from its 4 x 4 block the embedding ``(y, x)`` sees, in pixels, on an image of ones."""
    image = torch.ones(1, 2, side, side, requires_grad=True)
    encoder(image)[0, 0, y, x].backward()
    ys, xs = (image.grad[0].abs().sum(0) > 0).nonzero().T
    return max(4 * y - ys.min(), ys.max() - (4 * y + 3), 4 * x - xs.min(), xs.max() - (4 * x + 3)).item()


@pytest.mark.parametrize(("stages", "blocks"), DEPTHS)
def test_the_farthest_pixel_an_embedding_sees_is_the_receptive_radius(stages, blocks):
    encoder = all_seeing(stages, blocks)
    radius = receptive_radius(stages, blocks)
    side = -(-(2 * radius + 80) // 32) * 32
    middle = side // 8
    places = [(middle + dy, middle + dx) for dy, dx in ((0, 0), (1, 2), (3, 5), (6, 7), (4, 1))]
    # how far exactly depends on where the cell lies in the coarse grids; the farthest is the radius
    assert max(reach(encoder, y, x, side) for y, x in places) == radius
    assert encoder.halo >= radius


def test_documented_reaches():
    assert [receptive_radius(stages, 2) for stages in (2, 3, 4)] == [59, 131, 275]


@pytest.mark.parametrize(("stages", "blocks"), DEPTHS)
def test_halo_is_the_radius_rounded_up_to_the_alignment(stages, blocks):
    encoder = build_encoder(3, {"widths": [4] * stages, "blocks": blocks, "dim": 4}, seed=0)
    assert encoder.alignment == 4 * 2 ** (stages - 1)
    assert encoder.halo % encoder.alignment == 0
    assert 0 <= encoder.halo - receptive_radius(stages, blocks) < encoder.alignment


@pytest.mark.parametrize("pixel", [(100, 100), (101, 98), (99, 103), (0, 0), (191, 130)])
def test_a_pixel_changes_no_embedding_beyond_the_halo_and_some_within(pixel):
    encoder = lively_encoder(2)
    image = torch.randn(1, 3, 192, 192, generator=torch.Generator().manual_seed(1))
    other = image.clone()
    other[0, :, pixel[0], pixel[1]] += 5
    with torch.inference_mode():
        changed = (encoder(image) != encoder(other)).any(1)[0]
    ys, xs = changed.nonzero().T
    far = max(
        (max(4 * y - pixel[0], pixel[0] - 4 * y - 3, 4 * x - pixel[1], pixel[1] - 4 * x - 3))
        for y, x in zip(ys.tolist(), xs.tolist())
    )
    assert changed[pixel[0] // 4, pixel[1] // 4]
    assert far <= encoder.halo


# narrow and wide layers, sides of every kind of window: PyTorch would choose other libraries for some of them
@pytest.mark.parametrize(
    "model",
    [
        {"widths": [8, 16], "blocks": 1, "dim": 8},
        {"widths": [8, 8, 8], "blocks": 2, "dim": 8},
        {"widths": [64, 128, 256], "blocks": 1, "dim": 64},
    ],
    ids=["narrow", "deep", "wide"],
)
def test_windows_and_threads_change_no_bit_of_an_embedding(model):
    encoder = lively_encoder(2, model)
    shape = (256, 192)
    image = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(1))

    def run(window: Window) -> torch.Tensor:
        piece = image[:, :, *window.slices].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return encoder(piece)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = run(Window(0, 0, *shape))
        for size, origin in ((128, (0, 0)), (64, (32, 16))):
            for window in tiles(shape, size, origin):
                outer = window.grown(encoder.halo, shape)
                inner = window.coarsened(4).inside(outer.coarsened(4))
                assert torch.equal(run(outer)[:, :, *inner], whole[:, :, *window.coarsened(4).slices])
        torch.set_num_threads(2)
        assert torch.equal(run(Window(0, 0, *shape)), whole)
    finally:
        torch.set_num_threads(threads)


def test_a_file_gives_back_the_same_encoder(tmp_path):
    model = Model(widths=[8, 16], blocks=1, dim=8).model_dump(mode="json")
    statistics = {"bands": [{"name": "red"}, {"name": "nir"}], "clip": 4.0}
    encoder = lively_encoder(2, model)
    save_encoder(tmp_path / "encoder.safetensors", encoder, model, statistics)
    loaded, about = load_encoder(tmp_path / "encoder.safetensors")
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded(image), encoder(image))
    claims = {"bands": 2, "dim": 8, "stride": 4, "alignment": 8, "halo": encoder.halo, "exact": True}
    assert about == {"model": model, "statistics": statistics, "normalisation": None, **claims}
    save_encoder(tmp_path / "again.safetensors", loaded, model, statistics)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "encoder.safetensors").read_bytes()


def test_the_seed_alone_decides_the_weights_and_nothing_else_is_drawn():
    model = {"widths": [8], "blocks": 1, "dim": 4}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = build_encoder(3, model, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    again, other = build_encoder(3, model, seed=5).state_dict(), build_encoder(3, model, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


@pytest.mark.parametrize("bands", [1, 3, 13])
def test_any_number_of_bands_gives_one_embedding_for_4_x_4_pixels(bands):
    encoder = build_encoder(bands, {"widths": [8, 8], "blocks": 1, "dim": 6}, seed=0).eval()
    with torch.inference_mode():
        assert encoder(torch.zeros(2, bands + 1, 64, 32)).shape == (2, 6, 16, 8)
    assert np.isfinite(encoder.state_dict()["stem.0.weight"].numpy()).all()
