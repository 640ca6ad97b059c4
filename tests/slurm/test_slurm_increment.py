"""Two clean runs on a real Slurm: of eight scenes, then of ten. Only the two that arrived are computed."""

import re
from pathlib import Path

import pytest
import yaml
from snake import CHECKOUT, Checkout, Done

NAIP = CHECKOUT.parent / "shared" / "data" / "naip"
SMALLER = {
    "train": {"steps": 60, "batch": 4, "crop": 64, "pool": 16},
    "codebook": {"codes": 32, "sample": 20_000},
}
"""What makes the example quick; everything else of it stays as users have it."""
FIRST = {
    **{"ingest": 2, "normalize": 1, "train": 1, "features": 2, "codebook": 1, "hierarchy": 1, "segment": 2},
    **{"change": 2, "metrics": 1, "report": 1, "complete": 1},
}
SECOND = {"ingest": 1, "features": 1, "segment": 1, "change": 1, "metrics": 1, "report": 1, "complete": 1}

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not NAIP.exists(), reason=f"the ten aerial images are not at {NAIP}"),
]


def test_of_ten_scenes_only_the_two_that_arrived_are_computed(slurm, tmp_path):
    checkout = Checkout.copy_into(tmp_path, slurm.environment)
    config = yaml.safe_load((CHECKOUT / "config" / "examples" / "naip.yaml").read_text())
    for section, values in SMALLER.items():
        config.setdefault(section, {}).update(values)
    (tmp_path / "naip.yaml").write_text(yaml.safe_dump(config))
    first, second = _arrive(checkout, "200", "201[0-8]"), _arrive(checkout, "2019", "2020")
    assert (first.jobs, second.jobs) == (FIRST, SECOND)
    logs = checkout.folder / "results" / "run" / "logs"
    for stage in ("ingest", "features", "segment", "change"):
        said = {path.stem: _computed(path) for path in (logs / stage).glob("*.log")}
        first_of_all = stage == "change"  # it follows none
        assert said == {"s00000": 4 - first_of_all, "s00001": 4, "s00002": 2}, stage


def _arrive(checkout: Checkout, *years: str) -> Done:
    """Link the scenes of some years into the archive, scan it, and run everything on Slurm."""
    archive = checkout.folder.parent / "scenes"
    archive.mkdir(exist_ok=True)
    for scene in sorted({path for year in years for path in NAIP.glob(f"*_{year}*.tif")}):
        (archive / scene.name).symlink_to(scene.resolve())
    scanned = checkout.give(
        *("sass", "scan", archive / "*.tif", "--into", "results/run"),
        *("--config", checkout.folder.parent / "naip.yaml"),
    )
    assert scanned.code == 0, scanned.text
    done = checkout.give(
        *("snakemake", "--profile", "slurm", "--config", "run=results/run"),
        *("--slurm-init-seconds-before-status-checks", "1"),
    )
    assert done.code == 0, done.text
    return done


def _computed(log: Path) -> int:
    (count,) = re.findall(r": (\d+) computed", log.read_text())
    return int(count)
