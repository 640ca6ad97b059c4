"""How near each class is: scores of codes at embeddings, and of classes at the pixels between them.

In the codebook's metric, itself affine, the squared distance of an embedding x to a code c is |x|^2 - 2 s
with the score s = x.c - |c|^2 / 2, and s is affine in x. Interpolating scores between embeddings is therefore
the same as interpolating embeddings, and costs a matrix product for every embedding instead of one for every
pixel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from sass.cluster.classes import Classes
from sass.cluster.codebook import Codes
from sass.grid import Window
from sass.store import FeatureStore

STRIP = 1 << 20
"""Scores of classes held at once at full resolution, in numbers: 4 MB."""
CACHE = 1 << 20
"""Scores of codes held at once at full resolution, in numbers: 4 MB. More would leave the cache of a core."""


@dataclass(frozen=True)
class Classifier:
    """Codes grouped into classes.

    The score of a code is ``weights[i] . x - bias[i]`` for a stored embedding x: in the codebook's metric,
    x.c - |c|^2 / 2. ``weights (K, D)`` and ``bias (K)`` are float64, ordered by class; ``numbers (K)`` are
    those of the codes in the codebook; ``bounds (n + 1)``, where each class starts; ``spread``, mean squared
    distance of an embedding to its code; ``names`` of the classes, empty where they have none.
    """

    weights: np.ndarray
    bias: np.ndarray
    numbers: np.ndarray
    bounds: np.ndarray
    spread: float
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, codes: Codes, classes: Classes) -> "Classifier":
        """Group codes by class."""
        order = np.argsort(classes.of_code, kind="stable")
        ordered, matrix = codes.codes[order].astype(np.float64), codes.metric.matrix.astype(np.float64)
        weights = ordered @ matrix.T
        bias = weights @ codes.metric.offset.astype(np.float64) + (ordered**2).sum(1) / 2
        bounds = np.searchsorted(classes.of_code[order], np.arange(classes.count + 1))
        return cls(weights, bias, order, bounds, max(codes.spread, 1e-9), classes.names)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bounds) - 1


def code_scores(
    values: np.ndarray, seen: np.ndarray, classifier: Classifier
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of all codes for a row of embeddings ``(D, x)``, and which code is the nearest.

    Scores are float32 ``(K + 1, x)``, 0 where ``seen (x)`` is False, and the last is ``seen`` itself. The
    nearest is an index among the classifier's codes, int64 ``(x)``. The last bits of a product depend on its
    size. In float64 they are far below what float32 holds, so windows of any size agree.
    """
    product = classifier.weights @ values
    product -= classifier.bias[:, None]
    product *= seen
    scores = np.empty((len(product) + 1, len(seen)), np.float32)
    scores[:-1], scores[-1] = product, seen
    return scores, scores[:-1].argmax(0)


def best_two(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return along the first axis the highest score, the second highest, and the index of the highest."""
    best, index = scores[0].copy(), np.zeros(scores[0].shape, np.uint16)
    second, lower = np.full_like(best, -np.inf), np.empty_like(best)
    for i, more in enumerate(scores[1:], 1):
        np.maximum(second, np.minimum(best, more, out=lower), out=second)
        np.maximum(index, (more > best) * np.uint16(i), out=index)
        np.maximum(best, more, out=best)
    return best, second, index


Reduce = Callable[[np.ndarray], tuple[np.ndarray, ...]]
"""Of scores of classes ``(n, ...)`` what is wanted, ``(..., *)`` each. It looks at pixels one by one."""


def class_scores(
    features: FeatureStore, window: Window, classifier: Classifier, reduce: Reduce, codes: np.ndarray
) -> Iterator[tuple[Window, list[np.ndarray], np.ndarray]]:
    """Score each class at each pixel of a window by its best code, and reduce that strip by strip.

    Scores of all codes are held for a few rows of pixels only. Columns stand in an order of their own until
    the end: all that are equally far from the embedding before them, then the next.

    Parameters
    ----------
    codes
        Of each embedding of `Window.cells`, ``(y, x)``: filled on the way with the number of the nearest code
        where there is an embedding.

    Yields
    ------
    tuple
        A window of whole rows, what ``reduce`` gives of it, ``(..., y, x)`` each, and whether any embedding
        is near, bool ``(y, x)``.
    """
    stride, half, own = features.stride, features.stride // 2, window.cells(features.stride)
    # a pixel lies between the centres of two embeddings, along each axis
    y, x = (window.y - half) // stride, (window.x - half) // stride
    last_y, last_x = window.y + window.height - 1, window.x + window.width - 1
    outer = Window(y, x, (last_y - half) // stride + 2 - y, (last_x - half) // stride + 2 - x)
    values, seen = _read(features, outer)
    shares = [(i + (0 if stride % 2 else 0.5)) / stride for i in range(stride)]
    columns, left = own.inside(outer)[1], window.x - (x * stride + half)

    def row_of(i: int) -> torch.Tensor:
        scores, nearest = code_scores(values[:, i], seen[i], classifier)
        if 0 <= i + y - own.y < own.height:
            np.copyto(
                codes[i + y - own.y], classifier.numbers[nearest[columns]], "unsafe", where=seen[i, columns]
            )
        return _widened(torch.from_numpy(scores), shares)

    gaps, bands = outer.width - 1, outer.height - 1
    some = max(STRIP // ((classifier.classes + 1) * stride * stride * gaps), 1)
    below = row_of(0)
    for first in range(0, bands, some):
        count = min(some, bands - first)
        best = np.empty((classifier.classes + 1, count, stride, stride * gaps), np.float32)
        for i in range(count):
            above, below = below, row_of(first + i + 1)
            _best(above, below, shares, classifier.bounds, best[:, i])
        top = (y + first) * stride + half
        start, end = max(window.y, top), min(window.y + window.height, top + count * stride)
        flat = best.reshape(len(best), count * stride, stride, gaps)[:, start - top : end - top]
        weight = flat[-1]
        scores = flat[:-1] if (weight == 1).all() else flat[:-1] / np.maximum(weight, np.float32(1e-6))

        def placed(values: np.ndarray) -> np.ndarray:
            pixels = values.swapaxes(-1, -2).reshape(*values.shape[:-2], stride * gaps)
            return pixels[..., left : left + window.width]

        strip = Window(start, window.x, end - start, window.width)
        yield strip, [placed(values) for values in reduce(scores)], placed(weight > 0)


def _read(features: FeatureStore, outer: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read embeddings; those beyond the end of the scene are like the last."""
    held = outer.cut(features.shape)
    values, seen = features.read(held)
    if held == outer:
        return values, seen
    beyond = [(inner.start, size - inner.stop) for inner, size in zip(held.inside(outer), outer.shape)]
    return np.pad(values, [(0, 0), *beyond], "edge"), np.pad(seen, beyond, "edge")


def _widened(row: torch.Tensor, shares: list[float]) -> torch.Tensor:
    """Interpolate ``(K + 1, x)`` along the row: ``(K + 1, share, gap between two)``, flattened."""
    out = torch.empty(len(row), len(shares), row.shape[1] - 1)
    for i, share in enumerate(shares):
        torch.lerp(row[:, :-1], row[:, 1:], share, out=out[:, i])
    return out.flatten(1)


def _best(
    above: torch.Tensor, below: torch.Tensor, shares: list[float], bounds: np.ndarray, best: np.ndarray
) -> None:
    """Interpolate between two rows and write the best code of each class to ``best (n + 1, share, x)``."""
    some = max(CACHE // above.numel(), 1)
    buffer = torch.empty(len(above), some, above.shape[1])
    values = buffer.numpy()
    for start in range(0, len(shares), some):
        rows = range(start, min(start + some, len(shares)))
        for i, row in enumerate(rows):
            torch.lerp(above, below, shares[row], out=buffer[:, i])
        for held, (a, b) in zip(best, pairwise((*bounds, len(above)))):
            np.maximum.reduce(values[a:b, : len(rows)], axis=0, out=held[rows.start : rows.stop])
