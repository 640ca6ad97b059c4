"""Polygons of a class raster, tile by tile: borders of tiles leave no cut in them.

A patch is 4-connected. Its outline is kept as straight runs, directed so that the patch lies to their right,
and an edge of a pixel is part of it only where the class beyond that edge is another: at the border of a tile
inside a patch there is none. A patch that goes on in another tile waits, as runs, until all tiles that it
reaches into have been seen; then its runs are linked to rings. Nothing here reads a file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from sass.grid import Window, tiles

Read = Callable[[Window], np.ndarray]
"""Gives the values ``(y, x)`` of a window."""

STARTS, ENDS = slice(0, 2), slice(2, 4)
"""Columns of a run: y and x where it starts, y and x where it ends."""


@dataclass(frozen=True)
class Patches:
    """Whole patches, in an order that depends on nothing but the map and the size of the tiles.

    ``classes``, ``pixels``, ``sums`` (of the other raster) are ``(n)``. ``corners (c, 2)`` are x and y in
    pixels from the upper left corner of the map, ring by ring; ``lengths (r)``, the corners of each ring;
    ``owners (r)``, the patch that it belongs to, ascending. The first ring of a patch is its outer one. Every
    ring starts in its highest corner, the leftmost of them, and runs with the patch to its right.
    """

    classes: np.ndarray
    pixels: np.ndarray
    sums: np.ndarray
    corners: np.ndarray
    lengths: np.ndarray
    owners: np.ndarray


@dataclass
class _Open:
    """A patch that goes on in tiles that have not been seen."""

    value: int
    pixels: int
    sum: int
    runs: list[np.ndarray]
    members: list[int]
    waits: int
    """Borders beyond which its parts go on."""


@dataclass
class _Waiting:
    """Patches that wait, by the numbers of their parts."""

    parent: dict[int, int] = field(default_factory=dict)
    open: dict[int, _Open] = field(default_factory=dict)
    count: int = 0

    def add(self, part: _Open) -> int:
        self.count += 1
        self.parent[self.count], self.open[self.count] = self.count, part
        part.members.append(self.count)
        return self.count

    def root(self, number: int) -> int:
        while (up := self.parent[number]) != number:
            self.parent[number] = number = self.parent[up]
        return number

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        if a == b:
            return
        kept, gone = self.open[a], self.open.pop(b)
        self.parent[b] = a
        if len(gone.members) > len(kept.members):  # the longer list is kept, or a large patch takes forever
            kept.runs, gone.runs, kept.members, gone.members = (
                gone.runs,
                kept.runs,
                gone.members,
                kept.members,
            )
        kept.runs += gone.runs
        kept.members += gone.members
        kept.pixels, kept.sum, kept.waits = (
            kept.pixels + gone.pixels,
            kept.sum + gone.sum,
            kept.waits + gone.waits,
        )

    def seen(self, number: int) -> int:
        """Note that what lies beyond one border of a part is known; return its patch."""
        root = self.root(number)
        self.open[root].waits -= 1
        return root

    def close(self, root: int) -> _Open:
        patch = self.open.pop(root)
        for member in patch.members:
            del self.parent[member]
        return patch


def polygonise(read: Read, weigh: Read, shape: tuple[int, int], nodata: int, size: int) -> Iterator[Patches]:
    """Yield the patches of a map as soon as they are whole.

    Memory is bounded by a tile, a row of pixels, and the outlines of the patches that are open.

    Parameters
    ----------
    read
        Gives the classes of a window.
    weigh
        Gives what is summed over each patch, whole numbers.
    shape
        Height and width of the map.
    nodata
        The class of pixels that belong to no patch.
    size
        Side of a tile in pixels; it changes the order of the patches and nothing else.
    """
    waiting = _Waiting()
    above, left = np.zeros(shape[1], np.int64), np.zeros(0, np.int64)
    for tile in tiles(shape, size):
        around = tile.grown(1, shape)
        classes = np.full((tile.height + 2, tile.width + 2), nodata, np.int64)
        classes[1 + around.y - tile.y :, 1 + around.x - tile.x :][: around.height, : around.width] = read(
            around
        )
        inner = classes[1:-1, 1:-1]
        labels, count = patches_of(inner, nodata)
        runs, owner = _outlines(classes, labels, tile)
        pixels = np.bincount(labels.ravel(), minlength=count + 1)
        sums = np.bincount(labels.ravel(), weigh(tile).ravel(), count + 1).astype(np.int64)
        values = np.zeros(count + 1, np.int64)
        values[labels] = inner

        goes_on = {
            "above": np.where(classes[0, 1:-1] == inner[0], labels[0], 0),
            "left": np.where(classes[1:-1, 0] == inner[:, 0], labels[:, 0], 0),
            "below": np.where(classes[-1, 1:-1] == inner[-1], labels[-1], 0),
            "right": np.where(classes[1:-1, -1] == inner[:, -1], labels[:, -1], 0),
        }
        touching = {side: np.unique(found[found > 0]) for side, found in goes_on.items()}
        parts = np.unique(np.concatenate(list(touching.values())))
        ahead = np.bincount(np.concatenate([touching["below"], touching["right"]]), minlength=count + 1)
        number = np.zeros(count + 1, np.int64)
        bounds = np.searchsorted(owner, np.arange(count + 2))
        for part in parts.tolist():
            own = runs[bounds[part] : bounds[part + 1]]
            new = _Open(int(values[part]), int(pixels[part]), int(sums[part]), [own], [], int(ahead[part]))
            number[part] = waiting.add(new)

        beyond = above[tile.x : tile.x + tile.width]
        left = left if tile.x else np.zeros(tile.height, np.int64)
        for side, others in (("above", beyond), ("left", left)):
            here = number[goes_on[side]]
            for pair in np.unique(np.stack([others, here])[:, here > 0], axis=1).T.tolist():
                waiting.join(*pair)
        met = [other for others in (beyond, left) for other in np.unique(others[others > 0]).tolist()]
        done = {waiting.seen(other) for other in met}
        whole = [waiting.close(root) for root in sorted(done) if not waiting.open[root].waits]
        beyond[:], left = number[goes_on["below"]], number[goes_on["right"]]

        closed = np.setdiff1d(np.flatnonzero(pixels[1:]) + 1, parts)
        inside = np.isin(owner, closed)
        yield _linked(
            [*values[closed], *(patch.value for patch in whole)],
            [*pixels[closed], *(patch.pixels for patch in whole)],
            [*sums[closed], *(patch.sum for patch in whole)],
            [runs[inside], *(np.concatenate(patch.runs) for patch in whole)],
            np.searchsorted(closed, owner[inside]),
            shape,
        )


def patches_of(classes: np.ndarray, nodata: int) -> tuple[np.ndarray, int]:
    """Number the 4-connected patches of a class raster ``(y, x)`` from 1 on, by their first pixels.

    Between pixels stand the links of those that are alike, so one search serves all classes.
    """
    held = classes != nodata
    linked = np.zeros([2 * side - 1 for side in classes.shape], bool)
    linked[::2, ::2] = held
    linked[::2, 1::2] = held[:, 1:] & (classes[:, 1:] == classes[:, :-1])
    linked[1::2, ::2] = held[1:] & (classes[1:] == classes[:-1])
    numbers, count = ndimage.label(linked)
    return numbers[::2, ::2], count


def _outlines(classes: np.ndarray, labels: np.ndarray, tile: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs around the patches of a tile, int32 ``(n, 4)``, and the patch of each, ascending.

    ``classes`` has one pixel more on each side than the tile.
    """
    inner = classes[1:-1, 1:-1]
    found = []
    for beyond, down, after, turned in (
        (classes[:-2, 1:-1], False, 0, False),  # above: to the right
        (classes[1:-1, 2:], True, 1, False),  # right: down
        (classes[2:, 1:-1], False, 1, True),  # below: to the left
        (classes[1:-1, :-2], True, 0, True),  # left: up
    ):
        edges = np.where(beyond != inner, labels, 0)
        line, first, last, label = _runs(edges.T if down else edges)
        ends = [first, last] if not turned else [last, first]
        line = line + after
        columns = [ends[0], line, ends[1], line] if down else [line, ends[0], line, ends[1]]
        found.append((np.stack(columns, 1), label))
    runs = np.concatenate([each for each, _ in found]) + (tile.y, tile.x) * 2
    owner = np.concatenate([label for _, label in found])
    order = np.argsort(owner, kind="stable")
    return runs[order].astype(np.int32), owner[order]


def _runs(edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return line, start, end and value of each run of equal values that are not 0, along the last axis."""
    padded = np.pad(edges, ((0, 0), (1, 1)))
    changes = padded[:, 1:] != padded[:, :-1]
    line, first = np.nonzero(changes & (padded[:, 1:] != 0))
    _, last = np.nonzero(changes & (padded[:, :-1] != 0))
    return line, first, last, edges[line, first]


def _linked(
    classes: list[int],
    pixels: list[int],
    sums: list[int],
    runs: list[np.ndarray],
    inside: np.ndarray,
    shape: tuple[int, int],
) -> Patches:
    """Link runs to rings: those of the first array are of the patches ``inside``, each other is a patch."""
    first = len(classes) - len(runs) + 1
    owner = np.concatenate(
        [inside, np.repeat(np.arange(first, len(classes)), [len(each) for each in runs[1:]])]
    ).astype(np.int64)
    all_runs = np.concatenate(runs).astype(np.int64)

    def place(which: slice) -> np.ndarray:
        y, x = all_runs[:, which].T
        return (owner * (shape[0] + 1) + y) * (shape[1] + 1) + x

    order = np.argsort(place(STARTS), kind="stable")
    all_runs, owner = all_runs[order], owner[order]
    starts = place(STARTS)
    step = np.sign(all_runs[:, ENDS] - all_runs[:, STARTS])
    follows = np.searchsorted(starts, place(ENDS))
    # Where a patch touches itself by a corner, two runs start. To turn left is to go around what is not of
    # the patch, so that no ring meets itself: as the Simple Features of the OGC want it.
    other = np.minimum(follows + 1, len(starts) - 1)
    turn = step[:, 1] * step[follows, 0] - step[:, 0] * step[follows, 1]
    follows = np.where((other > follows) & (starts[other] == starts[follows]) & (turn > 0), other, follows)
    corner = np.ones(len(starts), bool)
    corner[follows] = (step != step[follows]).any(1)

    path, lengths, firsts = [], [], []
    ahead, is_corner, seen = follows.tolist(), corner.tolist(), bytearray(len(starts))
    for begin in range(len(ahead)):
        if seen[begin]:
            continue
        before, run = len(path), begin
        while not seen[run]:
            seen[run] = 1
            if is_corner[run]:
                path.append(run)
            run = ahead[run]
        lengths.append(len(path) - before)
        firsts.append(begin)
    return Patches(
        np.array(classes, np.int64),
        np.array(pixels, np.int64),
        np.array(sums, np.int64),
        all_runs[np.array(path, np.int64)][:, [1, 0]],
        np.array(lengths, np.int64),
        owner[np.array(firsts, np.int64)],
    )
