"""Memory depends on the window, not on the scene."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from sass.config import Catalog
from sass.manifest import scenes_of
from sass.run import Run
from sass.scan import scan

LARGE, SMALL = 12_000, 3_000
BANDS = 3
MB = 2**20

MEASURE = """
import resource, sys
from sass.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # Linux counts in KiB
sys.exit(code)
"""


def write(path: Path, side: int) -> Path:
    """Write a scene of ``side`` x ``side`` pixels, window by window; most are constant, so it is small."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": BANDS, "height": side, "width": side}
    profile |= {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000), "nodata": 0}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    noise = np.random.default_rng(0).integers(1, 255, (BANDS, 512, 512), "uint8")
    with rasterio.open(path, "w", **profile) as raster:
        for y in range(0, side, 512):
            for x in range(0, side, 512):
                height, width = min(512, side - y), min(512, side - x)
                number = (y + x) // 512
                block = noise if number % 16 == 0 else np.full_like(noise, 1 + number % 200)
                raster.write(block[:, :height, :width], window=Window(x, y, width, height))
    return path


def peak(tmp_path: Path, side: int) -> float:
    """Return the largest resident memory, in MB, of the ingest of a scene."""
    run = Run(tmp_path / f"run{side}")
    scan(run, [str(write(tmp_path / f"{side}.tif", side))], settings=Catalog(), labels=[])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "ingest", str(run.root), "--threads", "2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = scenes_of(run, "ingest", "s00000")[str(side)]
    assert record["valid"] == side * side
    return int(done.stdout) / MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is counted as Linux does")
def test_a_scene_16_times_as_large_takes_no_more_memory(tmp_path):
    large, small = peak(tmp_path, LARGE), peak(tmp_path, SMALL)
    # The larger fills GDAL's cache of 128 MB, the smaller a fifth of it. One copy of the scene is 412 MB.
    assert large - small < 150, f"{small:.0f} MB for {SMALL} pixels a side, {large:.0f} MB for {LARGE}"
