"""What each stage is held against: the least that could make its output, with nothing checked, kept or told.

Each of these is a limit because our stage has to do the same work in any case, by the same libraries, the
same codec and as many threads. bench/README.md says of each why, and what it leaves out.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import torch
import zarr
from rasterio.io import MemoryFile
from rasterio.windows import Window
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from zarr.codecs import BloscCodec

from sass.model.checkpoint import State
from sass.model.train import _gradients, _update

CHUNK, SHARD = 256, 1024
"""Sides of chunks and shards in pixels: the defaults of ``ingest``."""
BLOCK = 4096
"""Vectors multiplied at once: their scores stay in the cache of a core."""


def copy_raster(raster: Path, store: Path, threads: int) -> None:
    """Ingest's limit: read windows of a raster by rasterio, write them as Zarr shards, and nothing else."""
    with rasterio.open(raster) as source:
        shape, dtype = (source.count, source.height, source.width), source.dtypes[0]
    shard = min(SHARD, -(-max(shape[1:]) // CHUNK) * CHUNK)
    array = zarr.create_array(
        store,
        shape=shape,
        dtype=dtype,
        chunks=(shape[0], CHUNK, CHUNK),
        shards=(shape[0], shard, shard),
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        fill_value=0,
    )
    local = threading.local()

    def copy(corner: tuple[int, int]) -> None:
        if not hasattr(local, "source"):
            local.source = rasterio.open(raster)
        y, x = corner
        pixels = local.source.read(window=Window(x, y, min(shard, shape[2] - x), min(shard, shape[1] - y)))
        array[:, y : y + shard, x : x + shard] = pixels

    with rasterio.Env(GDAL_CACHEMAX=128 << 20, GDAL_NUM_THREADS=1), ThreadPoolExecutor(threads) as pool:
        list(pool.map(copy, product(range(0, shape[1], shard), range(0, shape[2], shard))))


def step_on_held_batch(state: State, tiles: Tensor, clip: float, settings: dict, steps: int) -> None:
    """Training's limit: steps on one batch of tiles that the device holds; nothing read, logged or kept."""
    for _ in range(steps):
        _gradients(state, tiles, clip, settings, rank=0, world=1)
        _update(state, settings)


def encode_held_tiles(encoder: nn.Module, tile: Tensor, times: int) -> None:
    """Features' limit: the encoder alone on a tile ``(1, bands + 1, y, x)`` in memory, all of it useful."""
    device = tile.device.type
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        for _ in range(times):
            encoder(tile)


def cluster_in_memory(
    vectors: np.ndarray, codes: int, batch: int, passes: int | None, threads: int, seed: int = 0
) -> MiniBatchKMeans:
    """Codebook's limit: scikit-learn's MiniBatchKMeans on all vectors ``(N, D)`` in memory, and their labels.

    It passes over the vectors so many times; with None it stops when it sees fit, as it does by default.
    """
    ends = {} if passes is None else {"max_iter": passes, "max_no_improvement": None}
    model = MiniBatchKMeans(codes, batch_size=batch, n_init=3, random_state=seed, **ends)
    with threadpool_limits(threads):
        return model.fit(vectors)  # labels of all vectors are part of it


def write_nearest(
    vectors: np.ndarray, codes: np.ndarray, of_code: np.ndarray, side: int, folder: Path, threads: int
) -> None:
    """Segment's limit: for every pixel the argmax of a matrix product, then two rasters of that size as COG.

    Parameters
    ----------
    vectors
        Float32 ``(N, D)`` in memory, whole rows of the map. Every strip has these: vectors of all pixels
        would not fit.
    codes, of_code
        ``(K, D)`` float32, and the class of each.
    side
        Of the map in pixels.
    """
    half, rows = (codes**2).sum(1) / 2, len(vectors) // side
    classes = np.empty((side, side), np.uint8)

    def classify(top: int) -> None:
        strip = classes[top : top + rows].reshape(-1)
        for start in range(0, len(strip), BLOCK):
            end = min(start + BLOCK, len(strip))
            scores = vectors[start:end] @ codes.T
            scores -= half
            strip[start:end] = of_code[scores.argmax(1)]

    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        list(pool.map(classify, range(0, side, rows)))
    write_cog(folder / "segments.tif", classes)
    write_cog(folder / "confidence.tif", 200 - classes)


def write_cog(path: Path, values: np.ndarray) -> None:
    """Write an array ``(y, x)`` as a COG with overviews by GDAL, from memory."""
    form = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype.name}
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)}
        with memory.open(driver="GTiff", nodata=255, **form, **place) as target:
            target.write(values, 1)
        options = {"blocksize": 512, "compress": "deflate", "predictor": "no"}
        rasterio.shutil.copy(memory.name, path, driver="COG", **options)
