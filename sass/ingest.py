"""Ingest: a raster becomes a Zarr store with its mask, its CRS and the histograms of its bands."""

from threading import Lock

import numpy as np

from sass.catalog import Scene, load_shard
from sass.config import Ingest
from sass.errors import SceneError
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.manifest import Outcome, Record, digest, replacing, run_shard
from sass.parallel import each
from sass.raster import SceneReader
from sass.run import Run
from sass.statistics import BINS, bin_of
from sass.store import create_scene


def ingest_shard(run: Run, shard: str, settings: Ingest, threads: int) -> Outcome:
    """Bring the scene stores of a shard up to date.

    Memory depends on ``settings.shard``, the bands and the threads, not on the scenes.
    """
    scenes = load_shard(run, shard)
    made_by = [stage_fingerprint("ingest"), settings.model_dump(mode="json")]
    return run_shard(
        run,
        "ingest",
        shard,
        {name: digest(made_by, scene.source_identity, scene.sensor) for name, scene in scenes.items()},
        run.scene,
        lambda name: ingest_scene(run, scenes[name], settings, threads),
    )


def ingest_scene(run: Run, scene: Scene, settings: Ingest, threads: int) -> Record:
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
        bands, mask = group["bands"], group["valid"]
        counts = np.zeros((shape[0], BINS), np.uint64)
        lock = Lock()

        def write(window: Window) -> None:
            pixels, valid = reader.read(window)
            bands[(slice(None), *window.slices)] = pixels
            mask[window.slices] = valid.astype(np.uint8)
            held = [np.bincount(bin_of(band[valid]), minlength=BINS) for band in pixels]
            with lock:  # sums of integers: the order of threads changes nothing
                for band, part in zip(counts, held):
                    band += part.astype(np.uint64)

        # one window is one Zarr shard is one writer
        each(write, tiles(reader.shape, bands.shards[1]), threads)
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
