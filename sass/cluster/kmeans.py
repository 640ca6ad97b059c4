"""K-means in memory: first centres that lie far apart, then passes of Lloyd.

Small on purpose: float32 throughout, one matrix product a pass. What is larger than memory is refined by
`sass.cluster.codebook`, by the same assignment and the same sums.
"""

import numpy as np
from scipy.sparse import csr_array

BLOCK = 8192
"""Vectors whose scores with all centres are held at once."""


def nearest(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each vector ``(N, D)`` and the squared distance to it, both ``(N)``."""
    half = (centres**2).sum(1) / 2
    first, distance = np.empty(len(vectors), np.int64), np.empty(len(vectors), vectors.dtype)
    for start in range(0, len(vectors), BLOCK):
        block, here = vectors[start : start + BLOCK], slice(start, start + BLOCK)
        # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)
        scores = block @ centres.T
        scores -= half
        first[here] = scores.argmax(1)
        own = scores[np.arange(len(block)), first[here]]
        distance[here] = np.maximum((block**2).sum(1) - 2 * own, 0)
    return first, distance


def sums(vectors: np.ndarray, of: np.ndarray, k: int) -> np.ndarray:
    """Add up the vectors ``(N, D)`` of each centre, ``of`` from 0 to k - 1: ``(k, D)``, in their order."""
    n = len(vectors)
    return csr_array((np.ones(n, vectors.dtype), of, np.arange(n + 1)), (n, k)).T @ vectors


def seeds(vectors: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Draw k of the vectors ``(N, D)``, each by its squared distance to those drawn before it.

    k-means++ (Arthur and Vassilvitskii 2007). Where fewer than k vectors differ, some are drawn twice.
    """
    norms = (vectors**2).sum(1)
    chosen = np.empty(k, np.int64)
    chosen[0] = random.integers(len(vectors))
    far = np.full(len(vectors), np.inf, np.float32)
    for i in range(1, k):
        last = chosen[i - 1]
        np.minimum(far, np.maximum(norms - 2 * (vectors @ vectors[last]) + norms[last], 0), out=far)
        upto = np.cumsum(far, dtype=np.float64)
        chosen[i] = min(np.searchsorted(upto, random.random() * upto[-1], "right"), len(vectors) - 1)
    return vectors[chosen]


def lloyd(vectors: np.ndarray, centres: np.ndarray, passes: int) -> np.ndarray:
    """Move centres ``(K, D)`` to the mean of the vectors nearest to them, several times (Lloyd 1982).

    A centre that nothing is nearest to stays where it is.
    """
    centres = centres.astype(np.float32)  # a copy
    for _ in range(passes):
        of = nearest(vectors, centres)[0]
        sizes = np.bincount(of, minlength=len(centres))
        held = sizes > 0
        centres[held] = sums(vectors, of, len(centres))[held] / sizes[held, None]
    return centres
