"""How near each class is: scores of codes at embeddings, and of classes at the pixels between them.

In the codebook's metric, itself affine, the squared distance of an embedding x to a code c is |x|^2 - 2 s
with the score s = x.c - |c|^2 / 2, and s is affine in x. Interpolating scores between embeddings is therefore
the same as interpolating embeddings, and costs a matrix product for every embedding instead of one for every
pixel. Where one code is the best of its class at four neighbours, it is so between them, and the class needs
no other; so most pixels cost as much as there are classes, not codes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sass.cluster.classes import Classes
from sass.cluster.codebook import Codes
from sass.grid import Window
from sass.store import FeatureStore

STRIP = 1 << 20
"""Scores of codes held at once, in numbers: 4 MB."""


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


def code_scores(values: np.ndarray, seen: np.ndarray, classifier: Classifier) -> np.ndarray:
    """Return the scores of all codes for embeddings ``(D, y, x)``, float16 or float32.

    Scores are float32 ``(K + 1, y, x)``, 0 where ``seen (y, x)`` is False, and the last is ``seen`` itself.
    The last bits of a product depend on its size. In float64 they are far below what float32 holds, so
    windows of any size agree.
    """
    # numpy gives the same float64, but takes several times as long from float16
    product = classifier.weights @ torch.from_numpy(values).double().flatten(1).numpy()
    scores = np.empty((len(product) + 1, *seen.shape), np.float32)
    of_codes = scores[:-1].reshape(product.shape)
    np.subtract(product, classifier.bias[:, None], out=of_codes, casting="same_kind")
    if not seen.all():
        of_codes *= seen.ravel()
    scores[-1] = seen
    return scores


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
    features: FeatureStore,
    window: Window,
    classifier: Classifier,
    reduce: Reduce,
    codes: np.ndarray,
    two: bool = False,
) -> Iterator[tuple[Window, list[np.ndarray], np.ndarray]]:
    """Score each class at each pixel of a window by its best code, and reduce that strip by strip.

    Columns stand in an order of their own until the end: all that are equally far from the embedding before
    them, then the next.

    Parameters
    ----------
    codes
        Of each embedding of `Window.cells`, ``(y, x)``: filled on the way with the number of the nearest code
        where there is an embedding.
    two
        Whether ``reduce`` looks at the two best classes of a pixel only. Scores of others may then be too
        high, though never as high as these.

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
    gaps, bands = outer.width - 1, outer.height - 1
    largest = max(len(classifier.numbers), (classifier.classes + 1) * stride**2 // 4)
    some = max(STRIP // (largest * outer.width), 1)
    for first in range(0, bands, some):
        count = min(some, bands - first)
        rows = slice(first, first + count + 1)
        scores = code_scores(values[:, rows], seen[rows], classifier)
        best, nearest = _best_codes(scores, classifier.bounds)
        number = np.take_along_axis(nearest, best[:-1].argmax(0)[None], 0)[0]
        for i in range(max(first, own.y - y), min(rows.stop, own.y - y + own.height)):
            found = classifier.numbers[number[i - first, columns]]
            np.copyto(codes[i + y - own.y], found, "unsafe", where=seen[i, columns])
        between = _between(best, shares)
        differ = _corners(np.minimum, nearest) != _corners(np.maximum, nearest)
        if two:
            differ &= _corners(np.maximum, best[:-1]) >= _second(scores[:-1], classifier.bounds)
        _mend(between, scores, differ, classifier.bounds, shares)
        top = (y + first) * stride + half
        start, end = max(window.y, top), min(window.y + window.height, top + count * stride)
        flat = between.numpy().reshape(len(best), count * stride, stride, gaps)[:, start - top : end - top]
        weight = flat[-1]
        scores = flat[:-1] if (weight == 1).all() else flat[:-1] / np.maximum(weight, np.float32(1e-6))

        def placed(values: np.ndarray) -> np.ndarray:
            pixels = values.swapaxes(-1, -2).reshape(*values.shape[:-2], stride * gaps)
            return pixels[..., left : left + window.width]

        strip = Window(start, window.x, end - start, window.width)
        yield strip, [placed(values) for values in reduce(scores)], placed(weight > 0)


def _best_codes(scores: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scores ``(n + 1, y, x)`` of classes among those of codes, and which codes have them.

    The last is ``seen``, as in ``scores (K + 1, y, x)``. Codes are int16 ``(n, y, x)``, the first of equals.
    """
    best = np.empty((len(bounds), *scores.shape[1:]), np.float32)
    nearest = np.empty((len(bounds) - 1, *scores.shape[1:]), np.int16)
    for number, (a, b) in enumerate(pairwise(bounds)):
        highest = torch.from_numpy(scores[a:b]).max(0)
        best[number], nearest[number] = highest.values, highest.indices
    best[-1] = scores[-1]
    nearest += bounds[:-1, None, None].astype(np.int16)
    return best, nearest


def _between(corners: np.ndarray, shares: list[float]) -> Tensor:
    """Interpolate ``(n, y, x)`` at shares of the way between neighbours.

    Returns
    -------
    Tensor
        Float32 ``(n, y - 1, share of y, share of x, x - 1)``.
    """
    values = torch.from_numpy(corners)
    wide = torch.stack([torch.lerp(values[..., :-1], values[..., 1:], share) for share in shares], 2)
    return torch.stack([torch.lerp(wide[:, :-1], wide[:, 1:], share) for share in shares], 2)


def _second(scores: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return what two classes reach all over between neighbours ``(y - 1, x - 1)``.

    A class whose score is nowhere as high is not among the best two there. What a class reaches for sure is
    the lowest corner of one of its codes.
    """
    lowest = _corners(np.minimum, scores)
    return best_two(np.stack([lowest[a:b].max(0) for a, b in pairwise(bounds)]))[1]


def _mend(
    between: Tensor, scores: np.ndarray, differ: np.ndarray, bounds: np.ndarray, shares: list[float]
) -> None:
    """Correct the scores of classes ``between`` neighbours whose best codes ``differ (n, y - 1, x - 1)``.

    What is interpolated from the best of each corner is too high there. So all codes of the class are
    interpolated, in the same order, and the best of them taken at each pixel.
    """
    held, width = scores.reshape(len(scores), -1), scores.shape[-1]
    stride, gaps = len(shares), width - 1
    for (a, b), some, scored in zip(pairwise(bounds), differ, between):
        at = np.flatnonzero(some)
        rows, columns = np.divmod(at, gaps)
        at += rows  # in rows that are one longer
        left, right, low_left, low_right = (
            torch.from_numpy(held[a:b].take(at + more, axis=1)) for more in (0, 1, width, width + 1)
        )
        into, first = scored.numpy().reshape(-1), rows * stride**2 * gaps + columns
        for i, share in enumerate(shares):
            top, low = torch.lerp(left, right, share), torch.lerp(low_left, low_right, share)
            for j, down in enumerate(shares):
                into[first + (j * stride + i) * gaps] = torch.lerp(top, low, down).amax(0).numpy()


def _corners(reduce: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Reduce each four neighbours of ``(..., y, x)`` to one: ``(..., y - 1, x - 1)``."""
    wide = reduce(values[..., :-1], values[..., 1:])
    return reduce(wide[..., :-1, :], wide[..., 1:, :])


def _read(features: FeatureStore, outer: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read embeddings, float16 or float32; those beyond the end of the scene are like the last."""
    held = outer.cut(features.shape)
    inside = held.inside(outer)
    stored = features.embedding
    dtype = stored.dtype if stored.dtype == np.float16 else np.float32
    values = np.empty((stored.shape[0], *outer.shape), dtype)
    _, seen = features.read(held, values[(slice(None), *inside)])
    rows, columns = inside
    values[:, : rows.start, columns] = values[:, rows.start : rows.start + 1, columns]
    values[:, rows.stop :, columns] = values[:, rows.stop - 1 : rows.stop, columns]
    values[:, :, : columns.start] = values[:, :, columns.start : columns.start + 1]
    values[:, :, columns.stop :] = values[:, :, columns.stop - 1 : columns.stop]
    beyond = [(inner.start, size - inner.stop) for inner, size in zip(inside, outer.shape)]
    return values, np.pad(seen, beyond, "edge")
