"""The rates that `sass explain` reckons with, measured on this machine.

    python -m bench.rates

Two made scenes of four bands of 16 bits go through the stages with the default configuration and an
encoder with random weights, on one thread, in one process, so that starts of programs do not count. Prints
the sections ``seconds`` and ``bytes`` of ``sass/rates.yaml``. Nothing is measured on a GPU; those rates are
kept as they stand, and so are the seconds of a job's start.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import yaml
from threadpoolctl import threadpool_limits

from sass.baselines import fit_baselines
from sass.catalog import load_index, load_labels, load_shard
from sass.change import change_shard
from sass.cluster.codebook import fit_codebook
from sass.cluster.hierarchy import build_hierarchy
from sass.config import Config
from sass.cost import Arithmetic, Look, Use, load_rates
from sass.evaluate import evaluate_shard, score_archive
from sass.features import features_shard
from sass.ingest import ingest_shard
from sass.model.interface import load_encoder
from sass.report.build import build_report
from sass.run import Run
from sass.scan import scan
from sass.segment import segment_shard
from sass.settings import assignment, load
from sass.statistics import normalize
from sass.train import train_encoder
from sass.windows import embed

SIDE, BANDS = 1024, 4
"""Of the scenes, in pixels."""
SETTINGS = ("model.frozen=true", "codebook.sample=50000", "evaluate.baselines=[raw]")
ALONE = {
    "ingest": "ingest", "normalize": "normalize", "hierarchy": "hierarchy",
    "baselines": "baselines", "evaluate": "evaluate", "change": "change",
}  # fmt: skip
"""Stages that one rate says all of."""


def write_scenes(folder: Path) -> None:
    """Write two scenes with labels: fields of four kinds, waves over them, noise of 30 counts."""
    (folder / "scenes").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, name in enumerate("ab"):
        random = np.random.default_rng(number)
        kinds = np.kron(random.integers(0, 4, (SIDE // 32, SIDE // 32)), np.ones((32, 32), int))
        y, x = np.mgrid[:SIDE, :SIDE]
        waves = 200 * np.sin(y / 97) * np.cos(x / 61)
        bands = [
            400 * (kinds * (band + 1) % 5 + 1) + waves + random.normal(0, 30, kinds.shape)
            for band in range(BANDS)
        ]
        place = {
            "crs": "EPSG:32633",
            "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000 - number),
        }
        form = {
            "driver": "GTiff",
            "height": SIDE,
            "width": SIDE,
            "compress": "deflate",
            "tiled": True,
            **place,
        }
        with rasterio.open(
            folder / "scenes" / f"{name}.tif", "w", count=BANDS, dtype="uint16", nodata=0, **form
        ) as raster:
            raster.write(np.clip(bands, 1, 65_535).astype(np.uint16))
            raster.update_tags(TIFFTAG_DATETIME=f"{2020 + number}:06:01 10:00:00")  # two dates of one place
        with rasterio.open(
            folder / "labels" / f"{name}.tif", "w", count=1, dtype="uint8", nodata=255, **form
        ) as raster:
            raster.write(kinds.astype(np.uint8), 1)


def run_stages(folder: Path) -> tuple[Run, Config, dict[str, float]]:
    """Take the scenes through all stages; return the CPU seconds of each."""
    shutil.rmtree(folder, ignore_errors=True)
    write_scenes(folder)
    run, config, took = Run(folder / "run"), load(*map(assignment, SETTINGS)), {}
    torch.set_num_threads(1)
    scan(run, [str(folder / "scenes")], labels=[str(folder / "labels")], settings=config.catalog)
    fit = list(load_index(run))
    stages: dict[str, Callable[[], Any]] = {
        "ingest": lambda: ingest_shard(run, "s00000", config.ingest, 1),
        "normalize": lambda: normalize(run, fit, config.normalize),
        "train": lambda: train_encoder(run, fit, config.model, config.train, 1),
        "features": lambda: features_shard(run, "s00000", config.features, 1),
        "codebook": lambda: fit_codebook(run, fit, config.codebook, 1),
        "hierarchy": lambda: build_hierarchy(run, config.hierarchy),
        "segment": lambda: segment_shard(run, "s00000", config.segment, 1),
        "change": lambda: change_shard(run, "s00000", config.change),
        "baselines": lambda: fit_baselines(run, fit, config.evaluate, config.segment.classes, config.model),
        "evaluate": lambda: evaluate_shard(run, "s00000", config.evaluate),
        "metrics": lambda: score_archive(run, fit, config.evaluate),
        "report": lambda: build_report(run, config, archive=fit, fit=fit),
    }
    for stage, work in stages.items():
        started = time.process_time()
        work()
        took[stage] = time.process_time() - started
        print(f"{stage}: {took[stage]:.1f} CPU s", file=sys.stderr, flush=True)
    return run, config, took


def rates_of(run: Run, config: Config, took: dict[str, float]) -> dict[str, dict[str, float]]:
    """Solve for the rates, stage by stage."""
    known = load_rates(None)
    unit = known | {"seconds": dict.fromkeys(known["seconds"], 0.0)}
    look = Look.of(BANDS, config)

    def work(stage: str, rate: str) -> float:
        """Return how often a rate counts in a stage."""
        counted = Arithmetic(config, look, unit | {"seconds": unit["seconds"] | {rate: 1.0}})
        scenes, labels = load_shard(run, "s00000"), load_labels(run, "s00000")
        uses = [counted.scene(scene, labels[name].size) for name, scene in scenes.items()]
        if stage in uses[0]:
            those = uses[1:] if stage == "change" else uses  # the first scene follows none
            return sum(use[stage].cpu + use[stage].encoder for use in those)
        fitted = sum((use["features"] for use in uses), Use())
        cells = 2 * SIDE**2 / look.stride**2
        use = counted.once(fitted, 2, cells, counted.length(BANDS), 2)[stage]
        return use.cpu + use.encoder

    seconds = {name: took[stage] / work(stage, name) for stage, name in ALONE.items()}
    # features, codebook and segment have two parts, of which one is measured by itself
    seconds["encoder"] = encoder_seconds(run, look)
    seconds["features"] = max(took["features"] - seconds["encoder"] * work("features", "encoder"), 0) / work(
        "features", "features"
    )
    codes = nearest_seconds()
    seconds["scores"] = codes
    for stage in ("codebook", "segment"):
        seconds[stage] = max(took[stage] - codes * work(stage, "scores"), 0) / work(stage, stage)
    seconds["page"] = took["report"] / 2
    raw = 2 * SIDE**2

    def share(folder: Path, part: str, whole: float) -> float:
        return sum(f.stat().st_size for f in folder.glob(f"*/{part}") if f.is_file()) / whole

    cells = raw / look.stride**2 * Arithmetic(config, look, known).length(BANDS)
    scenes, features = run.scene("a").parent, run.features("a").parent
    return {
        "seconds": {name: float(f"{value:.3g}") for name, value in seconds.items()},
        "bytes": {
            "pixels": round(share(scenes, "bands/**/*", raw * BANDS * 2), 3),
            "mask": round(share(scenes, "valid/**/*", raw), 4),
            "histogram": round(share(scenes, "histogram/**/*", 2 * BANDS * 65536 * 8), 4),
            "float16": round(share(features, "embedding/**/*", cells * 2), 3),
            "maps": round(share(run.segments("a").parent, "*.tif", raw), 3),
        },
    }


def encoder_seconds(run: Run, look: Look) -> float:
    """Return the seconds of 10^12 products of the encoder, forwards."""
    encoder, side = load_encoder(run.encoder)[0], 512
    pixels, valid = np.ones((BANDS, side, side), np.float32), np.ones((side, side), bool)
    embed(encoder, pixels, valid)
    started = time.process_time()
    for _ in range(3):
        embed(encoder, pixels, valid)
    return (time.process_time() - started) / (3 * side**2 * look.products) * 1e12


def nearest_seconds() -> float:
    """Return the seconds of 10^12 products of an embedding's component with a code's, in float64."""
    classifier = np.random.default_rng(0).random((128, 69))
    values = np.random.default_rng(1).random((69, 65_536), np.float32)
    started = time.process_time()
    for _ in range(4):
        classifier @ values
    return (time.process_time() - started) / (4 * 128 * 69 * 65_536) * 1e12


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m bench.rates", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("results/rates"), help="folder that is filled")
    args = parser.parse_args(arguments)
    with threadpool_limits(1):
        print(yaml.safe_dump(rates_of(*run_stages(args.into)), sort_keys=False))


if __name__ == "__main__":
    main()
