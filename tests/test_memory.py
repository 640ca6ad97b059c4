"""Memory depends on the window, not on the scene."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from builders import UTM
from rasterio.windows import Window

from sass.cog import new_classes, new_confidence
from sass.config import Catalog
from sass.files import write_json
from sass.grid import tiles
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


def measured(*words: str) -> float:
    """Return the largest resident memory, in MB, of a command."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) / MB


def peak(tmp_path: Path, side: int) -> float:
    """Return the largest resident memory, in MB, of the ingest of a scene."""
    run = Run(tmp_path / f"run{side}")
    scan(run, [str(write(tmp_path / f"{side}.tif", side))], settings=Catalog(), labels=[])
    taken = measured("ingest", str(run.root), "--threads", "2")
    record = scenes_of(run, "ingest", "s00000")[str(side)]
    assert record["valid"] == side * side
    return taken


def polygon_peak(root: Path, side: int) -> float:
    """Return the largest resident memory, in MB, of turning a map into polygons: of fields, and one lake."""
    run = Run(root)
    kinds = np.random.default_rng(0).integers(0, 7, (32, 32), "uint8")
    fields = np.kron(kinds, np.ones((32, 32), "uint8"))
    maps = run.segments("a")
    maps.mkdir(parents=True)
    with (
        new_classes(maps / "segments.tif", (side, side), UTM, 8) as class_file,
        new_confidence(maps / "confidence.tif", (side, side), UTM) as trust_file,
    ):
        for window in tiles((side, side), len(fields)):
            lake = abs(window.y + window.x - side) < side // 3  # over many tiles, with islands
            classes = np.where(fields == 0, 7, fields) if lake else fields
            class_file.write(classes[: window.height, : window.width], window)
            trust_file.write(fields[: window.height, : window.width], window)
    write_json(run.catalog, {"shards": {"s00000": {"fit": True, "scenes": 1, "labels": 0, "pixels": 1}}})
    write_json(run.manifest("segment", "s00000"), {"scenes": {"a": {}}, "failed": {}})
    taken = measured("polygons", str(root))
    table = pq.read_table(root / "polygons" / "a.parquet", columns=["pixels"])
    assert sum(table["pixels"].to_pylist()) == side * side
    return taken


LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="resident memory is counted as Linux does"
)


@LINUX
def test_polygons_of_a_map_16_times_as_large_take_no_more_memory(tmp_path):
    large, small = (polygon_peak(tmp_path / str(side), side) for side in (6144, 1536))
    # patches of the whole map at once would take their numbers alone, 4 bytes a pixel: 151 MB
    assert large - small < 100, f"{small:.0f} MB for 1536 pixels a side, {large:.0f} MB for 6144"


@LINUX
def test_a_scene_16_times_as_large_takes_no_more_memory(tmp_path):
    large, small = peak(tmp_path, LARGE), peak(tmp_path, SMALL)
    # The larger fills GDAL's cache of 128 MB, the smaller a fifth of it. One copy of the scene is 412 MB.
    assert large - small < 150, f"{small:.0f} MB for {SMALL} pixels a side, {large:.0f} MB for {LARGE}"
