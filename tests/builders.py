"""Runs made up to a stage, with tiny settings: stores are written directly and the encoder is not trained."""

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from sass.catalog import Scene, ShardInfo
from sass.cluster.codebook import fit_codebook
from sass.cluster.hierarchy import build_hierarchy
from sass.config import Codebook, Features, Hierarchy, Model, Normalize, Segment
from sass.features import features_shard
from sass.files import file_digest, write_json
from sass.georeference import Georeference
from sass.grid import Window
from sass.model.encoder import Encoder, build_encoder
from sass.model.interface import save_encoder
from sass.run import Run
from sass.segment import segment_shard
from sass.statistics import BINS, Statistics, bin_of, normalize
from sass.store import FeatureStore, create_scene

MODEL: dict[str, Any] = {"widths": [8, 16], "blocks": 1, "dim": 8}
TINY: dict[str, Any] = {
    "model": MODEL,
    "train": {"steps": 2, "batch": 2, "crop": 32, "pool": 4, "points": 64},
    "codebook": {"codes": 12, "sample": 3000, "refine": 1},
    "hierarchy": {"trees": 2},
    "evaluate": {"sample": 2000},
}
"""A configuration that takes every stage, training too, through small scenes in seconds."""
UTM = Georeference(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 5_400_000))
NOWHERE = Georeference(None, Affine.identity())

Pixels = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Bands ``(band, y, x)``, alone or with a mask ``(y, x)``."""


def ramps(shape: tuple[int, int], seed: int = 0, bands: int = 2) -> np.ndarray:
    """Make waves of several lengths with noise, uint8 ``(band, y, x)``, 1 to 255: no two places are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    out = np.empty((bands, *shape), np.uint8)
    for band in out:
        total = rng.normal(0, 6, shape).astype(np.float32) + 128
        for length in (23, 67, 181):
            angle, phase = rng.uniform(0, 6.28, 2)
            total += 30 * np.sin((y * np.sin(angle) + x * np.cos(angle)) * 6.28 / length + phase)
        band[:] = np.clip(total, 1, 255)
    return out


def store_scene(run: Run, name: str, pixels: Pixels, place: Georeference = UTM) -> dict[str, Any]:
    """Write the store of a scene as ingest would; return its record."""
    bands, valid = pixels if isinstance(pixels, tuple) else (pixels, np.ones(pixels.shape[1:], bool))
    names = [f"band {i}" for i in range(1, len(bands) + 1)]
    path = run.scene(name)
    chunk = 64 if max(valid.shape) < 1000 else 256
    group = create_scene(
        path, bands.shape, bands.dtype.name, names, place, chunk=chunk, shard=4 * chunk, bins=BINS
    )
    group["bands"][:] = bands
    group["valid"][:] = valid
    group["histogram"][:] = np.stack([np.bincount(bin_of(band[valid]), minlength=BINS) for band in bands])
    return {
        "fingerprint": "0" * 32, "digest": file_digest(path), "shape": list(valid.shape), "bands": len(bands),
        "band_names": names, "dtype": bands.dtype.name, "valid": int(valid.sum()), **place.as_json(),
    }  # fmt: skip


def catalog_row(name: str, shape: tuple[int, int], time: str | None = "2019-05-04", bands: int = 2) -> Scene:
    """Return the catalog's row of a scene whose file is not there."""
    return Scene(
        id=name, paths=(f"/archive/{name}.tif",), driver="GTiff", bands=bands, band_names=("a", "b")[:bands],
        dtype="uint8", nodata=(None,) * bands, crs=None, transform=(1, 0, 0, 0, 1, 0), shape=shape,
        resolution=None, time=time, sensor=None, size=1, modified=1,
    )  # fmt: skip


def make_run(
    root: Path,
    shards: dict[str, dict[str, Pixels]],
    *,
    fit: list[str] | None = None,
    place: Georeference = UTM,
    model: dict[str, Any] = MODEL,
) -> Run:
    """Make a run from pixels by shard and scene, with statistics of the fit shards and a random encoder."""
    run, index = Run(root), {}
    for shard, scenes in shards.items():
        records = {name: store_scene(run, name, pixels, place) for name, pixels in scenes.items()}
        rows = [catalog_row(name, tuple(record["shape"])).as_json() for name, record in records.items()]
        write_json(run.catalog_shard(shard), {"shard": shard, "scenes": rows})
        manifest = {"stage": "ingest", "shard": shard, "scenes": records, "failed": {}}
        write_json(run.manifest("ingest", shard), manifest)
        pixels = sum(prod(record["shape"]) for record in records.values())
        is_fit = fit is None or shard in fit
        index[shard] = asdict(ShardInfo(fit=is_fit, scenes=len(records), labels=0, pixels=pixels))
    write_json(run.catalog, {"shards": index})
    statistics = normalize(run, fit or list(shards), Normalize())
    encoder = lively_encoder(len(statistics["bands"]), model)
    run.encoder.parent.mkdir(parents=True)
    save_encoder(run.encoder, encoder, Model(**model).model_dump(mode="json"), statistics)
    return run


def lively_encoder(bands: int, model: dict[str, Any] = MODEL, seed: int = 0) -> Encoder:
    """Return a random encoder whose batch normalisation fits its activations, so that embeddings differ."""
    encoder = build_encoder(bands, model, seed)
    pixels = torch.randn(8, bands, 8, 8, generator=torch.Generator().manual_seed(seed))
    blobs = torch.nn.functional.interpolate(pixels, scale_factor=16, mode="bilinear")
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the plain mean over all passes
        encoder.train()(torch.cat([blobs, torch.ones(8, 1, 128, 128)], 1))
    return encoder.eval()


def statistics_of(run: Run) -> Statistics:
    """Return the statistics of a run."""
    return Statistics.load(run.statistics)


def add_features(run: Run, shards: list[str], threads: int = 1, **settings: Any) -> None:
    """Bring the features of some shards up to date."""
    for shard in shards:
        assert not features_shard(run, shard, Features(**settings), threads).failed


def add_codes(run: Run, fit: list[str], codes: int = 12, **settings: Any) -> None:
    """Fit codebook and hierarchy."""
    fit_codebook(run, fit, Codebook(codes=codes, sample=5000, **settings), threads=1)
    build_hierarchy(run, Hierarchy(trees=2))


def add_maps(run: Run, shards: list[str], classes: int = 5, threads: int = 1, **settings: Any) -> None:
    """Bring the maps of some shards up to date."""
    for shard in shards:
        assert not segment_shard(run, shard, Segment(classes=classes, **settings), threads).failed


def class_map(run: Run, scene: str) -> np.ndarray:
    """Read the classes of a scene."""
    return read_raster(run.segments(scene) / "segments.tif")


def confidence_map(run: Run, scene: str) -> np.ndarray:
    """Read the stored confidence of a scene."""
    return read_raster(run.segments(scene) / "confidence.tif")


def read_raster(path: Path) -> np.ndarray:
    """Read the first band of a raster."""
    with rasterio.open(path) as raster:
        return raster.read(1)


def read_features(run: Run, scene: str = "a") -> np.ndarray:
    """Read the embeddings of a scene, float32 ``(embedding, y, x)``."""
    store = FeatureStore(run.features(scene))
    return store.read(Window(0, 0, *store.shape))[0]
