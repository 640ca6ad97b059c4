"""What `sass polygons` takes as maps grow: ``python -m bench.polygons --sides 2000 4000 8000``."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from bench.machine import ROOT, about, command
from sass.cog import new_classes, new_confidence
from sass.files import write_json
from sass.georeference import Georeference
from sass.grid import tiles
from sass.run import Run

SIDE = 1000
"""Of the pieces that maps are made up of: patches go on from one to the next, across tiles."""
CLASSES = 8
HEAD = "| megapixels | polygons | GeoParquet: CPU | peak | file | GeoPackage: CPU | peak | file |"
RULE = "|---:|---:|---:|---:|---:|---:|---:|---:|"


def main(arguments: list[str] | None = None) -> None:
    """Measure, write ``results/polygons.json`` and print the table."""
    parser = argparse.ArgumentParser("bench.polygons", description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 4000, 8000], help="of maps, in pixels")
    sides = parser.parse_args(arguments).sides
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(make_map(Path(folder) / str(side), side), side) for side in sides]
    write_json(ROOT / "bench" / "results" / "polygons.json", {"rows": rows, **about(threads=1)})
    print(table(rows))


def make_map(root: Path, side: int) -> Run:
    """Make a run of one scene whose map is ragged patches of `CLASSES` classes, and its confidence."""
    rng, run = np.random.default_rng(0), Run(root)
    fields = [ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4, mode="wrap") for _ in range(CLASSES)]
    classes, trust = np.argmax(fields, 0).astype(np.uint8), rng.integers(0, 255, (SIDE, SIDE), np.uint8)
    place = Georeference(CRS.from_epsg(32633), Affine(1, 0, 500_000, 0, -1, 5_400_000))
    maps = run.segments("made")
    maps.mkdir(parents=True)
    with (
        new_classes(maps / "segments.tif", (side, side), place, CLASSES) as class_file,
        new_confidence(maps / "confidence.tif", (side, side), place) as trust_file,
    ):
        for window in tiles((side, side), SIDE):
            cut = slice(window.height), slice(window.width)
            class_file.write(classes[cut], window)
            trust_file.write(trust[cut], window)
    shard = {"fit": True, "scenes": 1, "labels": 0, "pixels": side * side}
    write_json(run.catalog, {"shards": {"s00000": shard}})
    write_json(run.manifest("segment", "s00000"), {"scenes": {"made": {}}, "failed": {}})
    return run


def measure(run: Run, side: int) -> dict[str, Any]:
    """Write the polygons of a map by the command, in each format."""
    row: dict[str, Any] = {"pixels": side * side}
    for form, ending in (("geoparquet", "parquet"), ("gpkg", "gpkg")):
        took, _ = command("-m", "sass", "polygons", run.root, "--format", form)
        path = run.root / "polygons" / f"made.{ending}"
        row[form] = took | {"bytes": path.stat().st_size}
        if form == "geoparquet":
            row["polygons"] = pq.read_metadata(path).num_rows
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Lay out CPU seconds, peak memory and size of the file."""
    lines = [HEAD, RULE]
    for row in rows:
        cells = [f"{row['pixels'] / 1e6:g}", f"{row['polygons']:,}"]
        for form in ("geoparquet", "gpkg"):
            took = row[form]
            cells += [f"{took['cpu_s']:.0f} s", f"{took['peak_mb']:.0f} MB", f"{took['bytes'] / 1e6:.0f} MB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
