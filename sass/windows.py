"""A scene through an encoder, window by window: read, scaled, embedded, joined by what its pixels look like.

No trace of the windows is left. The encoder of this package takes the rows of a wide column of windows one
strip after the other (`sass.model.rows`), so that it needs a halo to the left and to the right only. One
of the user's own is given each window with a halo around it.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sass.appearance import appearance, reach
from sass.errors import SassError
from sass.grid import Window, ceil_to, tiles
from sass.model.encoder import Encoder
from sass.model.rows import Rows
from sass.parallel import abreast
from sass.statistics import Statistics
from sass.store import SceneStore

COLUMN = 4096
"""Pixels along a strip, at least one window: a halo on both sides is a fourteenth of it by default."""
STRIP = 256
"""Pixels down a strip that is read: whole chunks by default."""
ROWS = 128
"""Pixels down what goes through the layers at once, which is best where caches hold much of it."""

Piece = tuple[Window, np.ndarray, np.ndarray]
"""A window, its vectors ``(length, y, x)`` and their mask ``(y, x)``."""


def embedded(
    scene: SceneStore,
    encoder: nn.Module,
    statistics: Statistics,
    step: int,
    joined: bool,
    threads: int = 1,
) -> Iterator[Piece]:
    """Yield each window of a scene, its embeddings and their mask; what comes next is read meanwhile.

    A window's sides are multiples of the encoder's alignment, at the end of the scene too. If ``joined``, the
    embeddings are followed by `appearance`, which is of the archive's scale whatever the encoder is given.
    On a CPU, columns are embedded side by side by one thread each: threads that share a layer wait for each
    other, and for whatever else has a core of theirs.
    """
    size = tuple(ceil_to(side, encoder.alignment) for side in scene.shape)
    way = _Way(scene, encoder, statistics, size, ceil_to(step, encoder.alignment), joined)
    if not isinstance(encoder, Encoder):
        yield from way.by_windows()
        return
    threads = threads if _device(encoder).type == "cpu" else 1
    for columns in way.swaths(threads):
        each = max(threads // len(columns), 1)  # a narrow scene has fewer columns than there are threads
        for row in abreast([way.down(column, each) for column in columns]):
            yield from way.cut(row)


@dataclass(frozen=True)
class _Way:
    """What is the same for all windows of a scene. ``size`` is its shape rounded up to the alignment."""

    scene: SceneStore
    encoder: nn.Module
    statistics: Statistics
    size: tuple[int, int]
    step: int
    joined: bool

    def by_windows(self) -> Iterator[Piece]:
        """Give the encoder one window with its halo after the other."""
        encoder, stride, clip = self.encoder, self.encoder.stride, self.statistics.clip
        windows = list(tiles(self.size, self.step))
        given = self.statistics.given_to(encoder.normalisation)
        scales = (given,) if given is self.statistics or not self.joined else (given, self.statistics)
        halo = max(encoder.halo, ceil_to(reach(stride), encoder.alignment) if self.joined else 0)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read_scaled, self.scene, scales, windows[0].grown(halo, self.size))
            for i, window in enumerate(windows):
                images, valid = ahead.result()
                outer = window.grown(halo, self.size)
                if i + 1 < len(windows):
                    following = windows[i + 1].grown(halo, self.size)
                    ahead = reader.submit(read_scaled, self.scene, scales, following)
                inner = window.coarsened(stride).inside(outer.coarsened(stride))
                vectors = self._embedded_in(images[0], valid, outer, window, halo)
                if self.joined:
                    looks = appearance(images[-1], valid, stride, clip)
                    vectors = np.concatenate([vectors, looks[(slice(None), *inner)]])
                yield window, vectors, any_valid(valid, stride)[inner]

    def _embedded_in(
        self, pixels: np.ndarray, valid: np.ndarray, held: Window, window: Window, halo: int
    ) -> np.ndarray:
        """Embed a window of which all within the halo is held, by halves where the GPU has no room for it.

        With the halo, halves join without a seam, so the result is the same.
        """
        outer, stride, unit = window.grown(halo, self.size), self.encoder.stride, self.encoder.alignment
        seen = outer.inside(held)
        try:
            vectors = embed(self.encoder, pixels[(slice(None), *seen)], valid[seen])
        except torch.OutOfMemoryError as error:
            if max(window.shape) < 2 * unit or not self.encoder.exact:
                raise _no_room(window.shape, "lower features.window, or take a larger GPU") from error
            torch.cuda.empty_cache()
            halves = [self._embedded_in(pixels, valid, held, half, halo) for half in window.halves(unit)]
            return np.concatenate(halves, 2 if window.width > window.height else 1)
        return vectors[(slice(None), *window.coarsened(stride).inside(outer.coarsened(stride)))]

    def swaths(self, threads: int) -> list[list[Window]]:
        """Divide the scene into swaths of whole windows, and each into columns for the threads, all alike.

        A column is at least as wide as its two halos, and may end inside a window.
        """
        (height, width), unit = self.size, self.encoder.alignment
        windows, each = -(-width // self.step), max(threads * widest(threads) // self.step, 1)
        side = -(-windows // -(-windows // each)) * self.step
        out = []
        for left in range(0, width, side):
            wide = min(side, width - left)
            count = max(min(threads, wide // max(2 * self.encoder.halo, 1)), 1)
            edges = [left + wide * i // count // unit * unit for i in range(count + 1)]
            out.append([Window(0, x, height, end - x) for x, end in pairwise(edges)])
        return out

    def down(self, column: Window, threads: int) -> Generator[Piece, None, None]:
        """Yield a column, as many rows as a window has at a time.

        Where a GPU has no room, it is begun anew from the top, by half as many rows through the layers.
        """
        torch.set_num_threads(threads)  # of the thread that this runs on
        lower, count = ceil_to(ROWS, self.encoder.alignment), 0
        while True:
            try:
                for piece in islice(self._by_rows(column, lower), count, None):
                    yield piece
                    count += 1
                return
            except torch.OutOfMemoryError as error:
                if lower == self.encoder.alignment:
                    raise _no_room((lower, column.width), "take a larger GPU") from error
                torch.cuda.empty_cache()
                lower = ceil_to(lower // 2, self.encoder.alignment)

    def _by_rows(self, column: Window, lower: int) -> Iterator[Piece]:
        """Do the same; ``lower`` rows go through the layers at once."""
        encoder, stride, size = self.encoder, self.encoder.stride, self.size
        rows = Rows(encoder)
        left = column.x - max(column.x - encoder.halo, 0)
        inner = slice(left // stride, (left + column.width) // stride)
        waiting = [_Waiting() for _ in range(3)]  # embeddings, looks and masks: not all are known equally far
        top, lines = 0, self.step // stride
        height = ceil_to(STRIP, encoder.alignment)
        with ThreadPoolExecutor(1) as reader:
            strips = self._strips(column)
            ahead = reader.submit(next, strips)
            for y in range(0, size[0], height):
                stacked, *beside = ahead.result()
                ahead = reader.submit(next, strips, None)
                for start in range(0, stacked.shape[1], lower):
                    some = stacked[:, start : start + lower]
                    last = y + start + some.shape[1] == size[0]
                    waiting[0].add(_unit(partial(rows, last=last), encoder, some)[..., inner])
                for queue, more in zip(waiting[1:], beside):
                    queue.add(more)
                known = min(queue.count for queue in waiting)
                while known >= lines or (known and top + known * stride == size[0]):
                    taken = min(lines, known)
                    row = Window(top, column.x, taken * stride, column.width)
                    # no names: what is taken is held no longer than that takes
                    yield row, np.concatenate([w.take(taken) for w in waiting[:2]]), waiting[2].take(taken)
                    top, known = top + taken * stride, known - taken

    def cut(self, row: Sequence[Piece]) -> Iterator[Piece]:
        """Cut windows out of pieces that lie side by side, from left to right."""
        stride, first, last = self.encoder.stride, row[0][0], row[-1][0]
        for left in range(first.x, last.x + last.width, self.step):
            right, parts = min(left + self.step, last.x + last.width), []
            for window, *arrays in row:
                x, end = max(left, window.x), min(right, window.x + window.width)
                if x < end:
                    part = slice((x - window.x) // stride, (end - window.x) // stride)
                    parts.append([array[..., part] for array in arrays])
            joined = parts[0] if len(parts) == 1 else [np.concatenate(part, axis=-1) for part in zip(*parts)]
            yield Window(first.y, left, first.height, right - left), *joined

    def _strips(self, column: Window) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield strips of a column: what the encoder is given, looks as far as they are known, the mask."""
        encoder, stride, size = self.encoder, self.encoder.stride, self.size
        around = ceil_to(reach(stride), stride) if self.joined else 0
        x0, x1 = (
            min(max(column.x + side, 0), size[1]) for side in (-encoder.halo, column.width + encoder.halo)
        )
        near = column.grown(around, size)  # as far to the sides as looks reach
        wide = slice(near.x - x0, near.x + near.width - x0)
        inner = slice(column.x - x0, column.x - x0 + column.width)
        height = ceil_to(STRIP, encoder.alignment)
        above: tuple[np.ndarray, np.ndarray] | None = None
        for y in range(0, size[0], height):
            strip = Window(y, x0, min(height, size[0] - y), x1 - x0)
            (image,), valid = read_scaled(self.scene, (self.statistics,), strip)
            looks = np.empty((0, strip.height // stride, column.width // stride), np.float32)
            if self.joined:
                held = image[:, :, wide], valid[:, wide]
                if above is not None:
                    held = tuple(np.concatenate(pair, axis=-2) for pair in zip(above, held))
                looks = appearance(*held, stride, self.statistics.clip)
                start = 0 if above is None else around // stride
                end = looks.shape[1] - (0 if y + strip.height == size[0] else around // stride)
                looks = looks[:, start:end, (column.x - near.x) // stride :][..., : column.width // stride]
                above = tuple(array[..., -2 * around :, :] for array in held)
            yield np.concatenate([image, valid[None]]), looks, any_valid(valid[:, inner], stride)


def _no_room(shape: tuple[int, int], remedy: str) -> SassError:
    return SassError(f"the GPU has too little memory for {shape[0]} x {shape[1]} pixels; {remedy}")


class _Waiting:
    """Arrays ``(..., y, x)`` that are put together downwards and taken from the top."""

    def __init__(self):
        self.parts: list[np.ndarray] = []

    @property
    def count(self) -> int:
        return sum(part.shape[-2] for part in self.parts)

    def add(self, part: np.ndarray) -> None:
        self.parts.append(part)

    def take(self, count: int) -> np.ndarray:
        joined = np.concatenate(self.parts, axis=-2)
        self.parts = [joined[..., count:, :].copy()]
        return joined[..., :count, :]


def embed(encoder: nn.Module, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Embed pixels as the encoder is given them.

    Parameters
    ----------
    pixels
        Float32 ``(band, y, x)``, scaled, sides multiples of ``encoder.alignment``, 0 without data.
    valid
        Bool ``(y, x)``.

    Returns
    -------
    numpy.ndarray
        Float32 ``(dim, y / stride, x / stride)``, unit length along ``dim``.
    """
    stacked = np.concatenate([pixels, valid[None].astype(np.float32)])
    return _unit(encoder, encoder, stacked)


def _unit(layers: Callable[[Tensor], Tensor], encoder: nn.Module, stacked: np.ndarray) -> np.ndarray:
    """Put pixels ``(band + 1, y, x)`` through layers on the device of the encoder; return unit embeddings."""
    device = _device(encoder)
    x = torch.from_numpy(stacked[None]).to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        embedding = F.normalize(layers(x).float(), dim=1)
    return embedding[0].cpu().numpy()


def widest(threads: int) -> int:
    """Return how many pixels wide a column may be: half of `COLUMN` where threads embed one each."""
    return COLUMN // min(threads, 2)


def _device(encoder: nn.Module) -> torch.device:
    return next((weights.device for weights in encoder.parameters()), torch.device("cpu"))


def any_valid(valid: np.ndarray, stride: int) -> np.ndarray:
    """Say which embeddings have a pixel with data: bool ``(y / stride, x / stride)``."""
    height, width = valid.shape
    return valid.reshape(height // stride, stride, width // stride, stride).any(axis=(1, 3))


def read_scaled(
    scene: SceneStore, scales: tuple[Statistics, ...], outer: Window
) -> tuple[list[np.ndarray], np.ndarray]:
    """Read a window that may reach beyond the scene, where there is no data, scaled in each of these ways."""
    held = outer.cut(scene.shape)
    rest = ((0, outer.height - held.height), (0, outer.width - held.width))
    if not scales:
        return [], np.pad(scene.read_valid(held), rest)
    pixels, valid = scene.read(held)
    return [np.pad(scale.apply(pixels, valid), ((0, 0), *rest)) for scale in scales], np.pad(valid, rest)
