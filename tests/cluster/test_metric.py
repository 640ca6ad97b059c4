"""The metric: every part of the features counts as much as it is told to."""

import numpy as np
import pytest

from sass.cluster.metric import FAINTEST, fit_metric
from sass.config import Weights
from sass.errors import SassError

PARTS = {"embedding": 4, "colour": 3, "texture": 1}
SLICES = {"embedding": slice(0, 4), "colour": slice(4, 7), "texture": slice(7, 8)}


def sample(seed: int = 0, count: int = 4000) -> np.ndarray:
    """Make embeddings whose parts differ in size and whose bands rise and fall together."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 4)) * [3, 1, 0.5, 2]
    bright = rng.normal(size=(count, 1))
    colour = 0.2 + 0.1 * bright + 0.01 * rng.normal(size=(count, 3))
    texture = rng.gamma(2, 0.02, (count, 1))
    return np.concatenate([vectors, colour, texture], 1).astype(np.float32)


@pytest.mark.parametrize(
    "weights", [{}, {"embedding": 2, "texture": 0.5}, {"colour": 0}, {"embedding": 0, "texture": 3}], ids=str
)
def test_each_part_has_the_variance_of_its_weight(weights):
    settings = Weights(**weights)
    mapped = fit_metric(sample(), PARTS, settings).apply(sample())
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped.mean(0), 0, atol=1e-5)
    for name, own in SLICES.items():
        assert mapped[:, own].var(0).sum() == pytest.approx(getattr(settings, name) ** 2, rel=1e-4)


def test_parts_do_not_mix_and_the_embedding_is_only_scaled():
    metric = fit_metric(sample(), PARTS, Weights())
    for name, own in SLICES.items():
        others = np.delete(metric.matrix[own], np.arange(own.start, own.stop), axis=1)
        assert not others.any(), name
    own = metric.matrix[:4, :4]
    np.testing.assert_array_equal(own, own[0, 0] * np.eye(4, dtype=np.float32))


def test_colour_is_half_whitened_by_hand():
    # sum and difference of two bands, uncorrelated, of deviation 9 and 1
    bright, tint = np.meshgrid([-9.0, 9.0], [-1.0, 1.0])
    axes = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    colours = np.stack([bright.ravel(), tint.ravel()], 1) @ axes
    mapped = fit_metric(colours.astype(np.float32), {"colour": 2}, Weights()).apply(colours)
    # whitened half way they are of deviation 3 and 1: nine tenths of the variance and one, no longer 81 to 1
    along = sorted(np.abs(mapped[:2]).T.tolist())
    np.testing.assert_allclose(along, [[np.sqrt(0.1)] * 2, [np.sqrt(0.9)] * 2], rtol=1e-5)


def test_what_differs_by_rounding_alone_is_not_raised():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(1000, 1))
    copied = np.concatenate([first, first + FAINTEST / 10 * rng.normal(size=(1000, 1))], 1)
    mapped = fit_metric(copied.astype(np.float32), {"colour": 2}, Weights()).apply(copied)
    assert np.linalg.matrix_rank(mapped, tol=1e-3) == 1


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_never_varies_counts_for_nothing(name):
    vectors = sample()
    vectors[:, SLICES[name]] = np.float16(0.3)
    mapped = fit_metric(vectors, PARTS, Weights()).apply(sample(1))
    assert not mapped[:, SLICES[name]].any()
    assert all(mapped[:, own].any() for other, own in SLICES.items() if other != name)


def test_all_weights_zero_is_a_clear_error():
    with pytest.raises(SassError, match="the features hold embedding, colour, texture, all of weight 0"):
        fit_metric(sample(), PARTS, Weights(embedding=0, colour=0, texture=0))
    with pytest.raises(SassError, match="the features hold embedding, all of weight 0"):
        fit_metric(sample()[:, :4], {"embedding": 4}, Weights(embedding=0))


def test_the_map_is_affine():
    # so that segment may interpolate scores in the place of embeddings
    metric = fit_metric(sample(), PARTS, Weights())
    one, two = sample(1, 50), sample(2, 50)
    between = metric.apply(0.3 * one + 0.7 * two)
    np.testing.assert_allclose(between, 0.3 * metric.apply(one) + 0.7 * metric.apply(two), atol=1e-4)
