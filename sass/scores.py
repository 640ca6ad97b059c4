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

STRIP = 1 << 22
"""Scores of classes held at once at full resolution, in numbers: 16 MB."""
CACHE = 1 << 18
"""Scores of codes held at once at full resolution, in numbers: they stay in the cache of a core."""


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
    """Return the scores of all codes for embeddings ``(D, y, x)``, and which code is the nearest.

    Scores are float32 ``(K + 1, y, x)``, 0 where ``seen (y, x)`` is False, and the last is ``seen`` itself.
    The nearest is an index among the classifier's codes, int64 ``(y, x)``. The last bits of a product depend
    on its size. In float64 they are far below what float32 holds, so windows of any size agree.
    """
    scores = np.empty((len(classifier.bias) + 1, *seen.shape), np.float32)
    nearest = np.empty(seen.shape, np.int64)
    for y in range(len(seen)):  # by rows, which stay in the cache
        product = classifier.weights @ values[:, y]
        product -= classifier.bias[:, None]
        product *= seen[y]
        scores[:-1, y] = product
        torch.argmax(torch.from_numpy(scores[:-1, y]), 0, out=torch.from_numpy(nearest[y]))
    scores[-1] = seen
    return scores, nearest


Reduce = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""Of scores of classes ``(n, ...)`` what is wanted, ``(..., *)`` each. It looks at pixels one by one."""
Strips = Iterator[tuple[Window, list[np.ndarray], np.ndarray]]


def class_scores(
    features: FeatureStore, window: Window, classifier: Classifier, reduce: Reduce
) -> tuple[np.ndarray, np.ndarray, Strips]:
    """Score each class at each pixel of a window by its best code, and reduce that strip by strip.

    Returns
    -------
    codes, known
        Number of the nearest code of each embedding of `Window.cells`, int64 ``(y, x)``, and whether there is
        an embedding.
    strips
        Windows of whole rows, what ``reduce`` gives of them, ``(..., y, x)`` each, and whether any embedding
        is near, bool ``(y, x)``.
    """
    stride, half = features.stride, features.stride // 2
    # a pixel lies between the centres of two embeddings, along each axis
    y, x = (window.y - half) // stride, (window.x - half) // stride
    last_y, last_x = window.y + window.height - 1, window.x + window.width - 1
    outer = Window(y, x, (last_y - half) // stride + 2 - y, (last_x - half) // stride + 2 - x)
    values, seen = _read(features, outer)
    scores, nearest = code_scores(values, seen, classifier)
    own = window.cells(stride).inside(outer)
    corner = y * stride + half, x * stride + half
    strips = _strips(torch.from_numpy(scores), corner, window, stride, classifier, reduce)
    return classifier.numbers[nearest[own]], seen[own], strips


def _read(features: FeatureStore, outer: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read embeddings; those beyond the end of the scene are like the last."""
    held = outer.cut(features.shape)
    values, seen = features.read(held)
    if held == outer:
        return values, seen
    rows, columns = (
        np.arange(start, start + length).clip(first, first + count - 1) - first
        for start, length, first, count in (
            (outer.y, outer.height, held.y, held.height),
            (outer.x, outer.width, held.x, held.width),
        )
    )
    return values[:, rows][:, :, columns], seen[rows][:, columns]


def _strips(
    maps: torch.Tensor,
    corner: tuple[int, int],
    window: Window,
    stride: int,
    classifier: Classifier,
    reduce: Reduce,
) -> Strips:
    """Interpolate maps ``(K + 1, y, x)``, the best of each class taken; pixels start at ``corner``.

    Scores of all codes are held for a few rows of pixels only. Columns stand in an order of their own until
    the end: all that are equally far from the embedding before them, then the next.
    """
    shares = [(i + (0 if stride % 2 else 0.5)) / stride for i in range(stride)]
    gaps = maps.shape[2] - 1
    bands = max(STRIP // ((classifier.classes + 1) * stride * stride * gaps), 1)
    left = window.x - corner[1]
    below = _widened(maps[:, 0], shares)
    for first in range(0, maps.shape[1] - 1, bands):
        count = min(bands, maps.shape[1] - 1 - first)
        best = torch.empty(classifier.classes + 1, count, stride, stride * gaps)
        for i in range(count):
            above, below = below, _widened(maps[:, first + i + 1], shares)
            _best(above, below, shares, classifier.bounds, best[:, i])
        top, rows = corner[0] + first * stride, count * stride
        strip = Window(top, window.x, rows, window.width)
        inner = slice(max(window.y - top, 0), min(window.y + window.height - top, rows))
        flat = best.reshape(classifier.classes + 1, rows, stride, gaps)[:, inner]
        weight = flat[-1]
        scores = flat[:-1] if bool((weight == 1).all()) else flat[:-1] / weight.clamp(min=1e-6)

        def placed(values: torch.Tensor) -> np.ndarray:
            pixels = values.transpose(-1, -2).flatten(-2)
            return pixels[..., left : left + window.width].numpy()

        strip = Window(top + inner.start, window.x, inner.stop - inner.start, window.width)
        yield strip, [placed(values) for values in reduce(scores)], placed(weight > 0)


def _widened(row: torch.Tensor, shares: list[float]) -> torch.Tensor:
    """Interpolate ``(K + 1, x)`` along the row: ``(K + 1, share, gap between two)``, flattened."""
    row = row.contiguous()
    out = torch.empty(len(row), len(shares), row.shape[1] - 1)
    for i, share in enumerate(shares):
        torch.lerp(row[:, :-1], row[:, 1:], share, out=out[:, i])
    return out.flatten(1)


def _best(
    above: torch.Tensor, below: torch.Tensor, shares: list[float], bounds: np.ndarray, best: torch.Tensor
) -> None:
    """Interpolate between two rows and write the best code of each class to ``best (n + 1, share, x)``."""
    some = max(CACHE // above.numel(), 1)
    buffer = torch.empty(len(above), some, above.shape[1])
    values, out = buffer.numpy(), best.numpy()
    for start in range(0, len(shares), some):
        rows = range(start, min(start + some, len(shares)))
        for i, row in enumerate(rows):
            torch.lerp(above, below, shares[row], out=buffer[:, i])
        for held, (a, b) in zip(out, pairwise((*bounds, len(above)))):
            np.maximum.reduce(values[a:b, : len(rows)], axis=0, out=held[rows.start : rows.stop])
