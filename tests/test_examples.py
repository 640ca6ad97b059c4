"""The example configurations on the archives they were written for, by the commands that stand in them."""

import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
import yaml

from sass.files import read_json
from sass.run import Run

CHECKOUT = Path(__file__).parent.parent
ARCHIVE = CHECKOUT.parent / "shared" / "data"
TINY = {
    "model": {"widths": [8, 16], "dim": 8},
    "train": {"steps": 3, "batch": 2, "crop": 32, "pool": 4, "points": 128},
    "codebook": {"codes": 12, "sample": 5000, "refine": 1},
    "hierarchy": {"trees": 2},
    "evaluate": {"sample": 2000, "baselines": ["raw"]},
}
"""What makes an example quick; everything else of it stays as users have it."""

pytestmark = pytest.mark.skipif(
    not ARCHIVE.exists(), reason=f"the archives of the examples are not at {ARCHIVE}"
)


def work(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # Dubai has no georeference
@pytest.mark.parametrize(
    "name, patterns, labels, scenes",
    [
        ("naip", ["naip/*_2009*.tif", "naip/*_2020*.tif"], None, 2),
        ("dubai", ["dubai/images/tile2_part00[12].jpg"], "dubai/labels/*.png", 2),
        ("landsat", ["landsat/[12]*5.tif", "landsat/2020.tif"], None, 5),
    ],
)
def test_an_example_runs_from_scan_to_report(tmp_path, name, patterns, labels, scenes):
    example = CHECKOUT / "config" / "examples" / f"{name}.yaml"
    config = yaml.safe_load(example.read_text()) | {"run": str(tmp_path / "run")}
    for section, values in TINY.items():
        config[section] = config.get(section, {}) | values
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    run = Run(tmp_path / "run")
    wanted = [str(ARCHIVE / pattern) for pattern in patterns]
    scored = ["--labels", str(ARCHIVE / labels)] if labels else []
    work("sass", "scan", *wanted, *scored, "--into", str(run.root), "--config", str(mine))
    work("snakemake", "--configfile", str(mine), "--cores", "2", "--quiet", "all")

    assert (run.report / "index.html").exists()
    assert (run.root / "manifests" / "complete.json").exists()
    metrics = read_json(run.metrics)
    assert (metrics["miou"] is not None) == bool(labels)
    maps = sorted(run.root.glob("segments/*/segments.tif"))
    assert len(maps) == scenes
    for path in maps:
        source = next(ARCHIVE.glob(f"{name}/**/{path.parent.name}.*[fg]"))
        with rasterio.open(source) as raster, rasterio.open(path) as segments:
            assert segments.shape == raster.shape
            assert segments.crs == raster.crs
            assert segments.transform.almost_equals(raster.transform)
            held = segments.read(1)
        assert set(held.ravel().tolist()) <= {*range(config["segment"]["classes"]), 255}
    following = sorted(path.parent.name for path in run.root.glob("changes/*/change.tif"))
    assert following == {"naip": ["m_4709963_se_14_1_20200831"], "dubai": [], "landsat": []}[name]
