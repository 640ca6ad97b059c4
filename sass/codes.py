"""The fine codes of a scene, as a raster on the grid of its embeddings: any number of classes in small."""

from functools import partial
from pathlib import Path

import numpy as np

from sass.cluster.codebook import BATCH, Codes, nearest
from sass.cog import class_type, new_codes
from sass.grid import Window, tiles
from sass.parallel import ordered_map
from sass.store import FeatureStore

WINDOW = 256
"""Side of the window whose codes are found at a time, in embeddings. Sets the memory, with their length."""


def write_codes(path: Path, features: FeatureStore, codes: Codes, threads: int) -> None:
    """Write the code nearest to each embedding of a scene; no data where there is no embedding."""
    count, place = len(codes.codes), features.place
    with new_codes(path, features.shape, place, count, features.stride) as raster:
        windows = tiles(features.shape, WINDOW)
        for window, found in ordered_map(partial(_window, features, codes), windows, threads):
            raster.write(found, window)


def _window(features: FeatureStore, codes: Codes, window: Window) -> tuple[Window, np.ndarray]:
    dtype, nodata = class_type(len(codes.codes))
    values, valid = features.read(window)
    vectors, out = values[:, valid].T, np.full(window.shape, nodata, dtype)
    found = np.empty(len(vectors), dtype)
    for start in range(0, len(vectors), BATCH):
        block = slice(start, start + BATCH)
        found[block] = nearest(codes.metric.apply(vectors[block]), codes.codes)[0]
    out[valid] = found
    return window, out
