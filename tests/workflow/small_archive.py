"""A small made archive, with the configuration that is run in seconds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from snake import sass

from sass.run import Run

SIDE = 128
CONFIG = {
    "catalog": {"shard_size": 3, "hold_out": ["third", "fourth"]},
    "ingest": {"chunk": 64, "shard": 128},
    "model": {"widths": [8], "blocks": 1, "dim": 8},
    "train": {"steps": 4, "batch": 2, "crop": 32, "pool": 4, "refresh": 2, "points": 64, "checkpoint": 2},
    "features": {"window": 256},
    "codebook": {"codes": 12, "sample": 2000, "refine": 1},
    "hierarchy": {"trees": 2},
    "segment": {"classes": 4, "window": 128},
    "evaluate": {"baselines": ["raw"], "sample": 500},
    "report": {"quicklook": 64, "chips": 1},
}


@dataclass(frozen=True)
class Archive:
    """A folder with rasters (``archive/``, ``labels/``) and a run of them.

    Shard s00000 is fitted on and holds ``first`` and ``second``; s00001 holds ``third`` and ``fourth``, which
    has no label, and room for one more.
    """

    folder: Path

    @property
    def run(self) -> Run:
        return Run(self.folder / "run")

    def raster(self, name: str) -> Path:
        """Return where the raster of a scene stands."""
        return self.folder / "archive" / f"{name}.tif"

    def label(self, name: str) -> Path:
        """Return where the label raster of a scene stands."""
        return self.folder / "labels" / f"{name}.tif"

    def make_scene(self, name: str, seed: int, label: bool = True) -> None:
        """Write a scene of fields in four kinds, three bands, and its label raster."""
        rng = np.random.default_rng(seed)
        kinds = np.kron(rng.integers(0, 4, (8, 8)), np.ones((SIDE // 8, SIDE // 8), int))
        image = 40 * (kinds + 1) + rng.integers(-8, 9, (3, SIDE, SIDE))
        image[:, :16, :16] = 0  # no data
        _write(self.raster(name), seed, image, nodata=0)
        if label:
            _write(self.label(name), seed, kinds[None], nodata=255)

    def scan(self, *arguments: str) -> None:
        """Scan all there is."""
        done = sass(
            self.folder, "scan", "archive/*.tif", "--labels", "labels/*.tif", "--into", "run", *arguments
        )
        assert done.code == 0, done.text


def _write(path: Path, seed: int, bands: np.ndarray, nodata: int) -> None:
    path.parent.mkdir(exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000 + 2_000 * seed, 5_400_000, 10, 10)}
    with rasterio.open(
        path, "w", "GTiff", SIDE, SIDE, len(bands), dtype="uint8", nodata=nodata, **place
    ) as raster:
        raster.write(bands.astype(np.uint8))
