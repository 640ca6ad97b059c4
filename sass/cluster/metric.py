"""The metric in which embeddings are clustered: how much each part of them counts.

Parts are what an embedding is made up of: the encoder's vector, colour, texture (`sass.appearance`). Each is
brought to the same variance over the archive, and then to its weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from sass.config import Weights
from sass.errors import SassError

WHITENING = 0.5
"""How far colour is decorrelated: 0 leaves it alone, 1 gives all its principal components one variance.

Bands rise and fall together, so that nearly all variance of colour is brightness, and what tells vegetation
from water is a small rest. Half way raises that rest without raising noise to the same size.
"""
FAINTEST = 1e-3
"""Components with less than this share of the largest one's deviation are taken for noise of rounding."""


@dataclass(frozen=True)
class Metric:
    """An affine map into the space in which distances are taken: ``(x - offset) @ matrix``.

    ``offset (D)`` and ``matrix (D, D)``, float32.
    """

    offset: np.ndarray
    matrix: np.ndarray

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Map stored embeddings ``(N, D)`` to float32 ``(N, D)``."""
        return (vectors - self.offset) @ self.matrix


def fit_metric(sample: np.ndarray, parts: Mapping[str, int], weights: Weights) -> Metric:
    """Fit the metric on a sample of embeddings ``(S, D)``.

    Parameters
    ----------
    parts
        Lengths of the parts, by name, in their order; they add up to D.
    weights
        Root of the variance that each part shall have. A part that never varies counts for nothing.

    Raises
    ------
    SassError
        All parts that the embeddings have are given the weight 0.
    """
    if not any(getattr(weights, name) for name in parts):
        raise SassError(
            f"codebook.weights leaves nothing to cluster: the features hold {', '.join(parts)}, all of "
            "weight 0; give one of them a weight"
        )
    offset = sample.mean(axis=0, dtype=np.float64)
    matrix = np.zeros((len(offset), len(offset)))
    start = 0
    with threadpool_limits(1):  # several threads add in an order of their own
        for name, length in parts.items():
            own = slice(start, start + length)
            block = sample[:, own] - offset[own]
            covariance = block.T @ block / len(block)
            turned = _half_whitened(covariance) if name == "colour" else np.eye(length)
            variance = np.trace(turned.T @ covariance @ turned)
            matrix[own, own] = turned * (getattr(weights, name) / np.sqrt(variance) if variance > 0 else 0)
            start += length
    return Metric(offset.astype(np.float32), matrix.astype(np.float32))


def _half_whitened(covariance: np.ndarray) -> np.ndarray:
    """Turn to principal components, the fainter ones raised by a power of their deviation."""
    variance, axes = np.linalg.eigh(covariance)
    deviation = np.sqrt(np.maximum(variance, 0))
    largest = deviation[-1]
    held = deviation > FAINTEST * largest
    return axes * np.where(held, np.where(held, deviation, 1) ** -WHITENING, 0)
