"""Arithmetic on class maps: specks that give way, and label changes that would tell of seams."""

import numpy as np
from scipy import ndimage

from sass.grid import Window, ceil_to

BESIDE = 8
"""Pixels from a border of tiles to the lines it is compared with, rounded up to a multiple of the stride."""


def without_specks(classes: np.ndarray, area: int, nodata: int) -> np.ndarray:
    """Give patches of fewer than ``area`` pixels the class most common along their border.

    A patch is 4-connected. Patches that are small themselves have no vote, so one that has only such
    neighbours stays. A small patch and the first ``area`` pixels of its neighbours lie within ``2 * area`` of
    each of its pixels, so windows with that halo agree with each other.
    """
    patches = np.zeros(classes.shape, np.int32)
    count = 0
    for value in np.unique(classes):
        if value != nodata:
            labelled, found = ndimage.label(classes == value)
            patches += np.where(labelled, labelled + count, 0)
            count += found
    small = np.bincount(patches.ravel(), minlength=count + 1) < area
    small[0] = False
    if not small.any():
        return classes
    votes: dict[tuple[int, int], int] = {}
    speck = small[patches]
    for axis in (0, 1):
        for forward in (True, False):
            here, there = (slice(None, -1), slice(1, None)) if forward else (slice(1, None), slice(None, -1))
            here, there = (
                ((here, slice(None)), (there, slice(None)))
                if axis == 0
                else ((slice(None), here), (slice(None), there))
            )
            borders = speck[here] & ~speck[there] & (classes[there] != nodata)
            keys, times = np.unique(
                np.stack([patches[here][borders], classes[there][borders]]), axis=1, return_counts=True
            )
            for (patch, value), n in zip(keys.T.tolist(), times.tolist()):
                votes[patch, value] = votes.get((patch, value), 0) + n
    becomes: dict[int, tuple[int, int]] = {}
    for (patch, value), n in sorted(votes.items()):
        if n > becomes.get(patch, (0, 0))[0]:
            becomes[patch] = (n, value)
    out = classes.copy()
    lookup = np.full(count + 1, -1, np.int64)
    for patch, (_, value) in becomes.items():
        lookup[patch] = value
    new = lookup[patches]
    out[new >= 0] = new[new >= 0].astype(classes.dtype)
    return out


def label_changes(
    classes: np.ndarray,
    origin: Window,
    window: Window,
    grids: tuple[int, ...],
    shape: tuple[int, int],
    nodata: int,
    stride: int,
) -> dict[str, np.ndarray]:
    """Count neighbouring pixels and those that differ, across the lines of the tile grids and beside them.

    The lines compared with lie about `BESIDE` pixels before and after each line of a grid: in the same fields
    and streets, and at the same place between embeddings, which are ``stride`` pixels apart.

    Parameters
    ----------
    classes
        Classes of ``window`` and, where the scene goes on, one pixel above and to the left of it.
    origin
        Where ``classes`` starts in the scene.
    grids
        Sides of the tiles in which features and maps were made.
    shape
        Height and width of the scene.

    Returns
    -------
    dict
        ``across`` and ``inside``: int64 ``(changes, pairs)``.
    """
    out = {"across": np.zeros(2, np.int64), "inside": np.zeros(2, np.int64)}
    for axis, start in enumerate((origin.y, origin.x)):
        other = (window.x - origin.x) if axis == 0 else (window.y - origin.y)
        moved = classes if axis == 0 else classes.T
        moved = moved[:, other:]  # each pair of neighbours is counted by the window that holds the later one
        before, after = moved[:-1], moved[1:]
        both = (before != nodata) & (after != nodata)
        differ = ((before != after) & both).sum(1)
        lines = np.arange(start + 1, start + len(moved))
        on_grid = np.any([lines % grid == 0 for grid in grids], axis=0)
        away = ceil_to(BESIDE, stride)
        beside = np.any([_beside(lines, grid, shape[axis], away) for grid in grids], axis=0) & ~on_grid
        for kind, rows in (("across", on_grid), ("inside", beside)):
            out[kind] += np.array([differ[rows].sum(), both.sum(1)[rows].sum()], np.int64)
    return out


def _beside(lines: np.ndarray, grid: int, length: int, away: int) -> np.ndarray:
    """Say which lines have a line of the grid, inside the scene, ``away`` pixels before or after them."""
    step = min(away, grid // 2)
    after, before = lines - step, lines + step
    return ((after % grid == 0) & (after > 0)) | ((before % grid == 0) & (before < length))
