"""What pixels look like around a place: their mean colour and how much they vary, on the grid of embeddings.

An encoder that has learned to see through changes of light knows less of colour than a map needs. So its
embeddings are joined by these plain measures before they are clustered. All sums are taken value by value in
one order, so that a scene in windows equals the scene whole.
"""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import minimum_filter

COLOUR = 3
"""Side in embeddings of the square whose pixels the colour is the mean of."""
TEXTURE = 5
"""Side in embeddings of the squares whose pixels the deviation is taken over."""


def reach(stride: int) -> int:
    """Return how many pixels beyond an embedding's own block its appearance looks."""
    return max(COLOUR // 2, 2 * (TEXTURE // 2)) * stride


def appearance(pixels: np.ndarray, valid: np.ndarray, stride: int, clip: float) -> np.ndarray:
    """Return the local mean of each band, and how much the bands vary around a place.

    That is the mean over bands of their standard deviation, in that square around the place where it is the
    smallest: on either side of an edge there is a square without it (Kuwahara et al. 1976), and shores and
    roadsides do not pass for rough ground.

    Parameters
    ----------
    pixels
        Normalised pixels, float32 ``(band, y, x)`` within ``-clip`` and ``clip``, 0 without data; the sides
        are multiples of ``stride``.
    valid
        Bool ``(y, x)``.
    stride
        Pixels per embedding, along an axis.

    Returns
    -------
    numpy.ndarray
        Float32 ``(band + 1, y / stride, x / stride)``, divided by ``clip`` and so within -1 and 1. Pixels
        without data count for nothing; where there are no others, it is 0.
    """
    held = _block_sums(valid, stride)
    sums = _block_sums(pixels, stride)
    squares = _block_sums(np.square(pixels, dtype=np.float64), stride)
    colour = _around(sums, COLOUR) / np.maximum(_around(held, COLOUR), 1)
    seen = _around(held, TEXTURE)
    count = np.maximum(seen, 1)
    mean = _around(sums, TEXTURE) / count
    variance = np.maximum(_around(squares, TEXTURE) / count - mean**2, 0)
    rough = np.where(seen > 0, np.sqrt(variance).mean(axis=0), np.inf)
    texture = minimum_filter(rough, TEXTURE, mode="constant", cval=np.inf)
    texture[np.isinf(texture)] = 0
    return (np.concatenate([colour, texture[None]]) / clip).astype(np.float32)


def _block_sums(image: np.ndarray, stride: int) -> np.ndarray:
    """Sum the ``stride`` x ``stride`` pixels of each embedding: float64 ``(..., y / stride, x / stride)``."""
    rows = image[..., ::stride, :].astype(np.float64)
    for i in range(1, stride):
        rows += image[..., i::stride, :]
    sums = rows[..., ::stride].copy()
    for j in range(1, stride):
        sums += rows[..., j::stride]
    return sums


def _around(sums: np.ndarray, side: int) -> np.ndarray:
    """Sum over a square of embeddings around each; beyond the image there is nothing to add."""
    for axis in (-2, -1):
        sums = sum(_shifted(sums, side // 2, axis))
    return sums


def _shifted(sums: np.ndarray, radius: int, axis: int) -> Iterator[np.ndarray]:
    around = [(0, 0)] * sums.ndim
    around[axis] = (radius, radius)
    padded = np.moveaxis(np.pad(sums, around), axis, 0)
    for start in range(2 * radius + 1):
        yield np.moveaxis(padded[start : start + sums.shape[axis]], 0, axis)
