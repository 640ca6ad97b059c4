"""Work to spread over workers: an archive with a scene of many windows, and a run with features."""

import os
from pathlib import Path

from builders import add_features, make_run, ramps
from scenes import make_geotiff, pixels

from sass.config import Catalog, Codebook, Dask, Ingest
from sass.ingest import ingest_shard
from sass.manifest import Outcome
from sass.run import Run
from sass.scan import scan

SHARD = "s00000"
SLURM = Dask(cluster="slurm", threshold=0, workers=2, cores=1)
CODES = Codebook(codes=7, sample=900, refine=2)


def make_archive(folder: Path) -> Path:
    """Write a scene with a hole, of many windows, the last ones smaller, and one whose end is missing."""
    image = pixels((2, 230, 190), dtype="uint16")
    image[:, 40:140, 30:170] = 0
    make_geotiff(folder / "a.tif", data=image, dtype="uint16")
    short = make_geotiff(folder / "short.tif", data=image, dtype="uint16")
    os.truncate(short, short.stat().st_size // 2)
    return folder


def make_features(folder: Path) -> Run:
    """Make a run whose features lie in many pieces."""
    run = make_run(folder, {SHARD: {"a": ramps((200, 330)), "b": ramps((130, 90), 1)}})
    add_features(run, [SHARD], window=64)
    return run


def ingested(folder: Path, archive: Path, settings: Dask) -> tuple[Run, Outcome]:
    """Scan an archive and ingest it, on another grid and with two pixels stripped."""
    run = Run(folder)
    scan(run, [str(archive)], settings=Catalog(), labels=[])
    grid = Ingest(chunk=16, shard=32, erode=2, resolution=8)
    return run, ingest_shard(run, SHARD, grid, threads=2, dask=settings)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
