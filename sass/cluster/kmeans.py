"""K-means in memory: first centres that lie far apart, then passes of Lloyd.

Small on purpose: float32 throughout, one matrix product a pass. What is larger than memory is refined by
`sass.cluster.codebook`, by the same assignment.
"""

import numpy as np


def nearest(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each vector ``(N, D)`` and the squared distance to it, both ``(N)``."""
    # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2)
    scores = vectors @ centres.T - (centres**2).sum(1) / 2
    first = scores.argmax(1)
    return first, np.maximum((vectors**2).sum(1) - 2 * scores[np.arange(len(vectors)), first], 0)


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
        starts = (np.cumsum(sizes) - sizes)[held]
        sums = np.add.reduceat(vectors[np.argsort(of, kind="stable")], starts, axis=0)
        centres[held] = sums / sizes[held, None]
    return centres
