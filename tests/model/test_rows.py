"""The encoder over rows that come in strips makes what it makes of the whole image."""

import pytest
import torch
from builders import lively_encoder

from sass.model.rows import Rows

MODELS = {
    "three stages": {"widths": [8, 16, 24], "blocks": 2, "dim": 8},
    "two stages": {"widths": [8, 16], "blocks": 1, "dim": 8},
    "one stage": {"widths": [8], "blocks": 1, "dim": 4},
    "four stages": {"widths": [8, 8, 8, 8], "blocks": 1, "dim": 8},
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_strips_of_any_height_give_the_embeddings_of_the_whole(model):
    encoder = lively_encoder(2, model)
    unit = encoder.alignment
    image = torch.randn(1, 3, 12 * unit, 3 * unit, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = encoder(image)
    for heights in ([12], [1] * 12, [5, 1, 2, 4], [1, 11], [11, 1]):
        rows, parts = Rows(encoder), []
        for i, part in enumerate(image.split([height * unit for height in heights], dim=2)):
            parts.append(rows(part, last=i == len(heights) - 1))
        got = torch.cat(parts, 2)
        assert got.shape == whole.shape
        # normalisation multiplied into weights rounds otherwise: a few steps of float32
        assert (got - whole).abs().max() < 1e-5 * whole.abs().max()


def test_rows_come_as_soon_as_nothing_below_can_change_them():
    encoder = lively_encoder(2, MODELS["two stages"])
    image = torch.randn(1, 3, 160, 32, generator=torch.Generator().manual_seed(1))
    early = Rows(encoder)(image[:, :, :96], last=False)
    assert early.shape[2] >= (96 - encoder.halo) // encoder.stride
    other = image.clone()
    other[:, :, 96:] = 7
    with torch.inference_mode():
        for whole in (encoder(image), encoder(other)):
            part = whole[:, :, : early.shape[2]]
            assert (early - part).abs().max() < 1e-5 * part.abs().max()


def test_rows_compute_in_half_precision_where_that_is_asked_for():
    """As on a GPU; bfloat16 keeps eight bits, and some dozen layers round."""
    encoder = lively_encoder(2, MODELS["two stages"])
    image = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rows = Rows(encoder)
        halves = torch.cat([rows(image[:, :, :32], False), rows(image[:, :, 32:], True)], 2)
    with torch.inference_mode():
        whole = encoder(image)
    cosine = torch.nn.functional.cosine_similarity(halves.float(), whole)
    assert cosine.min() > 0.99
