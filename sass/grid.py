"""Windows, tiles and halos: the arithmetic that keeps seams out of maps. Nothing here reads a file.

All axes are ``(y, x)`` in pixels. A *tile* is a piece of a scene that is written once; its *window* is
what must be read to compute it, wider by a *halo* except where the scene ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels: origin and size."""

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self):
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a window cannot be {self.height} x {self.width} pixels")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices that cut the window out of an array ``(y, x)``."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def grown(self, halo: int, shape: tuple[int, int]) -> "Window":
        """Return the window wider by ``halo`` on each side, cut off at a scene of ``shape``."""
        y0, x0 = max(self.y - halo, 0), max(self.x - halo, 0)
        y1 = min(self.y + self.height + halo, shape[0])
        x1 = min(self.x + self.width + halo, shape[1])
        return Window(y0, x0, y1 - y0, x1 - x0)

    def inside(self, outer: "Window") -> tuple[slice, slice]:
        """Return the slices that cut this window out of an array that holds ``outer``."""
        y, x = self.y - outer.y, self.x - outer.x
        if y < 0 or x < 0 or y + self.height > outer.height or x + self.width > outer.width:
            raise ValueError(f"{self} does not lie inside {outer}")
        return slice(y, y + self.height), slice(x, x + self.width)

    def cut(self, shape: tuple[int, int]) -> "Window":
        """Return the part of the window that lies inside a scene of ``shape``."""
        return self.grown(0, shape)

    def halves(self, unit: int = 1) -> tuple["Window", "Window"]:
        """Return the window cut in two across its longer side, after a multiple of ``unit`` pixels."""
        if self.width > self.height:
            at = self.width // 2 // unit * unit
            return (
                Window(self.y, self.x, self.height, at),
                Window(self.y, self.x + at, self.height, self.width - at),
            )
        at = self.height // 2 // unit * unit
        return (
            Window(self.y, self.x, at, self.width),
            Window(self.y + at, self.x, self.height - at, self.width),
        )

    def cells(self, stride: int) -> "Window":
        """Return those of the cells of ``stride`` pixels whose first pixel lies in the window."""
        y, x, y1, x1 = (
            -(-at // stride) for at in (self.y, self.x, self.y + self.height, self.x + self.width)
        )
        return Window(y, x, y1 - y, x1 - x)

    def coarsened(self, stride: int) -> "Window":
        """Return the window in units of ``stride`` pixels; origin and size must be multiples of it."""
        if any(v % stride for v in (self.y, self.x, self.height, self.width)):
            raise ValueError(f"{self} is not aligned to {stride} pixels")
        return Window(self.y // stride, self.x // stride, self.height // stride, self.width // stride)


def tiles(shape: tuple[int, int], size: int, origin: tuple[int, int] = (0, 0)) -> Iterator[Window]:
    """Cover a scene by tiles of ``size`` pixels that do not overlap, row by row.

    Parameters
    ----------
    shape
        Height and width of the scene.
    size
        Side of a tile; tiles at the end of the scene are smaller.
    origin
        Where the grid starts, modulo ``size``; a shifted grid must give the same maps.
    """
    if size < 1:
        raise ValueError(f"a tile cannot be {size} pixels wide")
    for y0, y1 in _cuts(shape[0], size, origin[0]):
        for x0, x1 in _cuts(shape[1], size, origin[1]):
            yield Window(y0, x0, y1 - y0, x1 - x0)


def _cuts(length: int, size: int, origin: int) -> Iterator[tuple[int, int]]:
    start = origin % size - size if origin % size else 0
    while start < length:
        yield max(start, 0), min(start + size, length)
        start += size


def ceil_to(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple
