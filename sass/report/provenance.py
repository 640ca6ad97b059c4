"""What a run took, and what it was made with."""

import csv
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

import rasterio

from sass import __version__
from sass.run import STAGES

PACKAGES = (
    "numpy", "scipy", "scikit-learn", "torch", "dask", "zarr", "xarray", "rioxarray", "rasterio", "snakemake",
    "matplotlib", "pillow",
)  # fmt: skip
"""Packages whose versions can change a number or a picture."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """Measured time and memory of all jobs of a stage."""

    stage: str
    jobs: int
    seconds: float
    longest: float
    max_rss: float | None
    """Largest resident memory of a job, in MB."""


def stage_costs(folder: Path) -> list[StageCost]:
    """Add up what Snakemake measured, by stage, in the order of the stages."""
    costs = []
    for stage in sorted(p for p in folder.glob("*") if p.is_dir()):
        rows = [row for path in sorted(stage.glob("*.tsv")) for row in _tsv(path)]
        seconds = [float(row["s"]) for row in rows]
        # Snakemake writes "-" or "NA" where a job was too short to be measured
        memory = [float(row["max_rss"]) for row in rows if row.get("max_rss", "-") not in ("-", "NA", "")]
        if seconds:
            costs.append(
                StageCost(stage.name, len(seconds), sum(seconds), max(seconds), max(memory, default=None))
            )
    return sorted(
        costs,
        key=lambda cost: (STAGES.index(cost.stage) if cost.stage in STAGES else len(STAGES), cost.stage),
    )


def _tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def versions() -> dict[str, str]:
    """Return what is installed here, by name."""
    found = {"SASS": __version__, "Python": platform.python_version(), "GDAL": rasterio.__gdal_version__}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}
