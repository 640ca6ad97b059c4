"""Ingest: a raster becomes a Zarr store with its mask, its CRS and the histograms of its bands."""

from functools import partial

import numpy as np

from sass.catalog import Scene, load_shard
from sass.config import Dask, Ingest
from sass.errors import SceneError
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.manifest import Outcome, Record, digest, replacing, run_shard
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
        windows = tiles(reader.shape, group["bands"].shards[1])
        counts = np.zeros((shape[0], BINS), np.uint64)
        work = partial(_encoded, reader, arrays)
        for files, histograms in workers.map(work, windows, np.prod(reader.shape) / 1e6):
            write_files(path, files)
            for band, (bins, pixels) in zip(counts, histograms):
                band[bins] += pixels
        valid_pixels = int(counts[0].sum())
        if not valid_pixels:
            raise SceneError(
                f"none of its {shape[1]} x {shape[2]} pixels has data; if that is wrong, set ingest.nodata "
                "to the value that means it"
            )
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
    reader: SceneReader, arrays: dict[str, bytes], window: Window
) -> tuple[dict[str, bytes], list[Histogram]]:
    """Read a window; return its files by their path in the store, and the histogram of each band."""
    pixels, valid = reader.read(window)
    values = {"bands": pixels, "valid": valid.astype(np.uint8)}
    files = {
        f"{name}/{part}": content
        for name, metadata in arrays.items()
        for part, content in encode(metadata, window, values[name]).items()
    }
    return files, [_histogram(band[valid]) for band in pixels]


def _histogram(pixels: np.ndarray) -> Histogram:
    counts = np.bincount(bin_of(pixels), minlength=BINS).astype(np.uint64)
    bins = np.flatnonzero(counts)
    return bins, counts[bins]
