"""Ingest: a raster becomes a Zarr store with its mask, its CRS and the histograms of its bands."""

from functools import lru_cache, partial

import numpy as np

from sass.catalog import Scene, load_shard
from sass.config import Dask, Ingest
from sass.errors import SceneError
from sass.files import digest, replacing
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.manifest import Outcome, Record, run_shard
from sass.progress import progress
from sass.raster import SceneReader
from sass.run import Run
from sass.statistics import BINS, bin_of
from sass.store import METADATA, create_scene, encode, write_files
from sass.workers import LOCAL, Workers


def ingest_shard(run: Run, shard: str, settings: Ingest, threads: int, dask: Dask = LOCAL) -> Outcome:
    """Bring the scene stores of a shard up to date.

    Memory depends on ``settings.shard``, the bands and the threads or workers, not on the scenes.
    """
    scenes = load_shard(run, shard)
    made_by = [stage_fingerprint("ingest"), settings.model_dump(mode="json")]
    with Workers(run, threads, dask) as workers:
        return run_shard(
            run,
            "ingest",
            shard,
            {name: digest(made_by, scene.source_identity, scene.sensor) for name, scene in scenes.items()},
            run.scene,
            lambda name: ingest_scene(run, scenes[name], settings, workers),
            threads,
        )


def ingest_scene(run: Run, scene: Scene, settings: Ingest, workers: Workers) -> Record:
    """Write the store of one scene; return its record.

    Raises
    ------
    SceneError
        The raster cannot be read, or no pixel of it has data.
    """
    with SceneReader(scene, settings) as reader, replacing(run.scene(scene.id)) as path:
        shape = (len(reader.names), *reader.shape)
        group = create_scene(
            path, shape, reader.dtype.name, reader.names, reader.place, settings.chunk, settings.shard, BINS
        )
        arrays = {name: (path / name / METADATA).read_bytes() for name in ("bands", "valid")}
        # one window is one Zarr shard
        side = group["bands"].shards[1]
        windows = list(tiles(reader.shape, side))
        counts = np.zeros((shape[0], BINS), np.uint64)
        work = partial(_encoded, reader, arrays, side)
        done = workers.map(work, windows, np.prod(reader.shape) / 1e6)
        for files, histograms in progress(done, len(windows), scene.id):
            write_files(path, files)
            for band, (bins, pixels) in zip(counts, histograms):
                band[bins] += pixels
        valid_pixels = int(counts[0].sum())
        if not valid_pixels:
            raise SceneError(
                f"none of its {shape[1]} x {shape[2]} pixels has data; if that is wrong, set ingest.nodata "
                "to the value that means it"
            )
        reader.check_unchanged()  # while it was read, too
        group["histogram"][:] = counts
        return {
            "shape": list(reader.shape),
            "bands": shape[0],
            "band_names": list(reader.names),
            "dtype": reader.dtype.name,
            "valid": valid_pixels,
            **reader.place.as_json(),
        }


Histogram = tuple[np.ndarray, np.ndarray]
"""The bins of a band that hold pixels, and how many each holds."""


def _encoded(
    reader: SceneReader, arrays: dict[str, bytes], side: int, window: Window
) -> tuple[dict[str, bytes], list[Histogram]]:
    """Read a window; return its files by their path in the store, and the histogram of each band."""
    pixels, valid = reader.read(window)
    parts = {"bands": encode(arrays["bands"], window, pixels)}
    if valid.all():
        parts["valid"] = {f"c/{window.y // side}/{window.x // side}": _full(arrays["valid"], window.shape)}
    else:
        parts["valid"] = encode(arrays["valid"], window, valid.astype(np.uint8))
    files = {
        f"{name}/{part}": held for name, held_parts in parts.items() for part, held in held_parts.items()
    }
    return files, [_histogram(band, np.count_nonzero(~valid)) for band in pixels]


@lru_cache(maxsize=4)
def _full(metadata: bytes, shape: tuple[int, int]) -> bytes:
    """Return the file of a mask without gaps: nearly all windows have one, and it is the same anywhere."""
    (content,) = encode(metadata, Window(0, 0, *shape), np.ones(shape, np.uint8)).values()
    return content


def _histogram(pixels: np.ndarray, without: int) -> Histogram:
    """Count the pixels ``(y, x)`` of a band by their bins, but for those without data, which are 0."""
    counts = np.bincount(bin_of(pixels.ravel()), minlength=BINS).astype(np.uint64)
    counts[bin_of(np.zeros(1, pixels.dtype))] -= np.uint64(without)
    bins = np.flatnonzero(counts)
    return bins, counts[bins]
