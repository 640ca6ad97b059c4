"""Refine: class shares that keep to the edges in the scene's own pixels.

Embeddings are several pixels apart and look far beyond their own place, so borders between classes lie only
about where the ground changes. Each pixel's shares are therefore averaged with those of the pixels around it
that look like it, in a few rounds whose taps lie 1, 2, 4, ... pixels apart (edge-avoiding wavelets: Dammertz
et al. 2010, High Performance Graphics, 67). Every sum is taken pixel by pixel in one order, so a window with
a halo of `reach` has the shares of the whole scene.
"""

import numpy as np

ALIKE = 0.3
"""Root mean square difference over normalised bands that leaves a neighbour a quarter of its weight."""
TAPS = ((0, 1, 2), (1, 0, 2), (1, 1, 1), (1, -1, 1))
"""Rows and columns to a neighbour in steps, and its weight against 4 of the pixel; the other way, too."""


def steps(radius: int) -> list[int]:
    """Return the distances of the taps, one a round: powers of 2 that together are at most ``radius``."""
    return [2**i for i in range((radius + 1).bit_length() - 1)]


def reach(radius: int) -> int:
    """Return how many pixels around a pixel its shares depend on."""
    return sum(steps(radius))


def refined(shares: np.ndarray, pixels: np.ndarray, held: np.ndarray, radius: int) -> np.ndarray:
    """Average shares over like neighbours.

    Parameters
    ----------
    shares
        Of each class in each pixel, float32 ``(class, y, x)``.
    pixels
        Normalised, float32 ``(band, y, x)``.
    held
        Bool ``(y, x)``; other pixels neither give nor get.
    radius
        In pixels; see `steps`.

    Returns
    -------
    numpy.ndarray
        Float32 ``(class, y, x)``; 0 where nothing is held.
    """
    mask = held.astype(np.float32)
    shares = shares * mask
    for step in steps(radius):
        sums, weights = 4 * shares, 4 * mask
        for dy, dx, tap in TAPS:
            here, there = _pair(held.shape, dy * step, dx * step)
            like = _likeness(pixels, here, there)
            like *= tap * mask[here]
            like *= mask[there]
            sums[(slice(None), *here)] += like * shares[(slice(None), *there)]
            sums[(slice(None), *there)] += like * shares[(slice(None), *here)]
            weights[here] += like
            weights[there] += like
        shares = np.divide(sums, np.maximum(weights, 1, out=weights), out=sums)
    return shares


def _pair(shape: tuple[int, int], dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of all pixels that have a neighbour so far away, and those of the neighbours."""
    (height, width), left = shape, max(-dx, 0)
    rows, columns = max(height - dy, 0), max(width - abs(dx), 0)
    here = slice(0, rows), slice(left, left + columns)
    return here, (slice(dy, dy + rows), slice(left + dx, left + dx + columns))


def _likeness(pixels: np.ndarray, here: tuple[slice, slice], there: tuple[slice, slice]) -> np.ndarray:
    """Return 1 for equal pixels, less for others; by products and quotients, which round alike anywhere."""
    square = np.zeros(pixels[0][here].shape, np.float32)
    for band in pixels:
        difference = band[here] - band[there]
        difference *= difference
        square += difference
    square /= np.float32(len(pixels) * ALIKE**2)
    square += 1
    square *= square
    return np.divide(1, square, out=square)
