"""What codes mean, by a handful of labelled places: pure arithmetic on counts and the merge tree.

A code with places of its own goes mostly by them; one without goes by those of its neighbours in the tree, as
far as the many trees held the two together (shrinkage in a hierarchy; McCallum et al. 1998). What nobody has
said anything about stays unknown: beliefs add up to less than 1, and the rest is that.
"""

from collections.abc import Sequence

import numpy as np

PRIOR = 1.0
"""Places that what the neighbours say is worth."""
NAMED = 0.5
"""A code takes a name that it is believed to mean with at least this; else it abstains."""
FOLDS = 10
"""Parts of the places, each of which is left out once to see what the others say of it."""

Merges = Sequence[Sequence[float]]


def kept(height: float) -> float:
    """Return how far what is below a merge belongs together, 0 to 1: the root of the share that held it so.

    The share counts every number of classes up to many; codes that only the finer cuts part mean the same
    more often than it says.
    """
    return max(1 - height, 0.0) ** 0.5


def closeness(merges: Merges) -> np.ndarray:
    """Return how far two codes belong together, float64 ``(K, K)``: `kept` where they first meet."""
    k = len(merges) + 1
    close = np.eye(k)
    members: list[list[int]] = [[code] for code in range(k)]
    for a, b, height in merges:
        one, other = members[int(a)], members[int(b)]
        close[np.ix_(one, other)] = close[np.ix_(other, one)] = kept(height)
        members.append(one + other)
    return close


def beliefs(counts: np.ndarray, merges: Merges) -> np.ndarray:
    """Return how far each code is believed to have each name, float64 ``(K, names)``; rows sum to below 1.

    From the root down, ``belief = (counts + PRIOR * share * belief of the parent) / (all counts + PRIOR)``.
    The share of a node is what its members keep of their closeness from it to its parent: over a path of
    nodes without places, the shares multiply to the closeness of the code to where there are some.

    Parameters
    ----------
    counts
        Weight of the places of each name in each code, float ``(K, names)``.
    """
    k = len(merges) + 1
    total = np.zeros((2 * k - 1, counts.shape[1]))
    held = np.ones(2 * k - 1)
    total[:k] = counts
    for i, (a, b, height) in enumerate(merges):
        total[k + i] = total[int(a)] + total[int(b)]
        held[k + i] = kept(height)
    weight = total.sum(1, keepdims=True) + PRIOR
    belief = total / weight
    for i in reversed(range(len(merges))):
        for child in map(int, merges[i][:2]):
            share = held[k + i] / held[child] if held[child] else 0.0
            belief[child] += PRIOR * share * belief[k + i] / weight[child]
    return belief[:k]


def decided(belief: np.ndarray) -> np.ndarray:
    """Return the index of each code's name, int64 ``(K)``; -1 where it abstains."""
    best = belief.argmax(1)
    return np.where(belief[np.arange(len(belief)), best] >= NAMED, best, -1)


def left_out(
    places: np.ndarray, codes: np.ndarray, names: np.ndarray, weights: np.ndarray, merges: Merges, count: int
) -> np.ndarray:
    """Return what the other places would have called the code of each cell, int64 ``(N)``; -1 for no name.

    Parameters
    ----------
    places, codes, names
        Place, code and name of each labelled cell, ``(N)``. A place may have many; it is left out whole.
    weights
        Weight of each cell, float ``(N)``.
    count
        Number of names.
    """
    said = np.full(len(codes), -1, np.int64)
    for fold in range(FOLDS):
        out = places % FOLDS == fold
        if out.any():
            rest = tally(codes[~out], names[~out], weights[~out], len(merges) + 1, count)
            said[out] = decided(beliefs(rest, merges))[codes[out]]
    return said


def tally(codes: np.ndarray, names: np.ndarray, weights: np.ndarray, k: int, count: int) -> np.ndarray:
    """Add up the weights of cells by code and name, float64 ``(k, count)``."""
    return np.bincount(codes * count + names, weights, minlength=k * count).reshape(k, count)


def most_telling(belief: np.ndarray, sizes: np.ndarray, close: np.ndarray, wanted: int) -> list[int]:
    """Return the codes to label next, the one that tells most first.

    A label tells of its own code and, as far as they belong together, of others; what is to be gained is the
    area whose name is not sure. Codes are taken one by one, and what one has told is not gained again.
    """
    open_area = sizes * (1 - belief.max(1))
    chosen: list[int] = []
    for _ in range(min(wanted, len(sizes))):
        gain = close @ open_area
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        open_area = open_area * (1 - close[chosen[-1]])
    return chosen
