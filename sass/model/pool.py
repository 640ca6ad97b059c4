"""A pool of tiles held on the device, renewed in the background while training goes on.

Which tiles the pool holds is a function of the step alone, so a resumed training sees the same ones.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

SHARE = 16
"""One in so many tiles is replaced at a renewal."""


class TilePool:
    """Tiles ``(size, bands + 1, T, T)`` in float16 on a device.

    Parameters
    ----------
    read
        Gives the tile of a draw, ``(bands + 1, T, T)``, normalised, mask last. Called from threads.
    size
        Tiles held.
    refresh
        Steps between renewals.
    step
        The step at which training starts or goes on.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        size: int,
        refresh: int,
        step: int,
        device: torch.device,
        threads: int,
    ):
        self._read, self._size, self._refresh = read, size, refresh
        self._part = max(size // SHARE, 1)
        self._renewals = step // refresh
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="tiles")
        draws = self.draws(step)
        first = self._tile(draws[0])
        self.tiles = torch.empty((size, *first.shape), dtype=torch.float16, device=device)
        for slot, tile in enumerate(self._workers.map(self._tile, draws)):
            self.tiles[slot] = tile.to(device, non_blocking=True)
        self._next = self._ahead()

    def draws(self, step: int) -> list[int]:
        """Return the draw of each tile that the pool holds at a step."""
        out = list(range(self._size))
        for renewal in range(step // self._refresh):
            for slot, draw in self._renewal(renewal):
                out[slot] = draw
        return out

    def advance(self, step: int) -> Tensor:
        """Return the pool as it stands at a step, which must not fall."""
        while self._renewals < step // self._refresh:
            for slot, tile in self._next:
                self.tiles[slot] = tile.result().to(self.tiles.device, non_blocking=True)
            self._renewals += 1
            self._next = self._ahead()
        return self.tiles

    def close(self) -> None:
        """Stop reading."""
        self._workers.shutdown(cancel_futures=True)

    def _ahead(self) -> list[tuple[int, Future]]:
        return [
            (slot, self._workers.submit(self._tile, draw)) for slot, draw in self._renewal(self._renewals)
        ]

    def _renewal(self, renewal: int) -> list[tuple[int, int]]:
        start = renewal * self._part
        return [((start + i) % self._size, self._size + start + i) for i in range(self._part)]

    def _tile(self, draw: int) -> Tensor:
        return torch.from_numpy(np.asarray(self._read(draw), np.float16))
