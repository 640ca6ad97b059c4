"""Training tiles, drawn over all fit scenes by valid area and read from their Zarr stores."""

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from sass.errors import SassError
from sass.grid import Window
from sass.manifest import scenes_of
from sass.run import Run
from sass.statistics import Statistics
from sass.store import SceneStore

TRIES = 8
"""Places tried for a tile before one with little data is taken."""
ENOUGH = 0.5
"""Share of a tile that should have data."""


class TileSampler:
    """Tiles of the fit scenes by number: equal numbers give equal tiles, in any order and any process.

    Parameters
    ----------
    fit
        Fit shards.
    scenes
        Those of their scenes that the statistics are of.
    size
        Side of a tile in pixels. A scene that is smaller is framed by pixels without data.
    seed
        Seed of all draws.
    """

    def __init__(
        self, run: Run, fit: list[str], scenes: Collection[str], statistics: Statistics, size: int, seed: int
    ):
        self._run, self._statistics, self._size, self._seed = run, statistics, size, seed
        records = {name: r for shard in fit for name, r in sorted(scenes_of(run, "ingest", shard).items())}
        if not records:
            raise SassError(
                f"no scene stands in the fit shards {', '.join(fit)}: there is nothing to train on"
            )
        self._names = sorted(records)
        area = np.array([records[name]["valid"] for name in self._names], np.float64)
        self._until = np.cumsum(area / area.sum())
        self._open = lru_cache(maxsize=256)(lambda name: SceneStore(self._run.scene(name)))

    def __call__(self, draw: int) -> np.ndarray:
        """Return tile number ``draw``: float16 ``(bands + 1, size, size)``, normalised, the mask last."""
        _, store, window = self._drawn(draw)
        pixels, valid = store.read(window)
        tile = np.zeros((len(pixels) + 1, self._size, self._size), np.float16)
        tile[:-1, : window.height, : window.width] = self._statistics.apply(pixels, valid)
        tile[-1, : window.height, : window.width] = valid
        return tile

    def place(self, draw: int) -> str:
        """Say where tile number ``draw`` lies."""
        name, _, window = self._drawn(draw)
        return f"{name} at y {window.y}, x {window.x}"

    def _drawn(self, draw: int) -> tuple[str, SceneStore, Window]:
        random = np.random.default_rng([self._seed, draw])
        chosen = min(int(np.searchsorted(self._until, random.random(), side="right")), len(self._names) - 1)
        store = self._open(self._names[chosen])
        for _ in range(TRIES):
            window = self._window(store.shape, random)
            if store.read_valid(window).mean() >= ENOUGH:
                break
        return self._names[chosen], store, window

    def _window(self, shape: tuple[int, int], random: np.random.Generator) -> Window:
        y, x = (int(random.integers(0, max(length - self._size, 0) + 1)) for length in shape)
        return Window(y, x, self._size, self._size).cut(shape)
