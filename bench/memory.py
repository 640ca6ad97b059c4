"""What a process takes: peak memory and open files by stage and size of scene, and how the codebook grows."""

import json
import shutil
import statistics

from bench.machine import command
from bench.ratio import Row
from bench.scenes import write_scene
from bench.stages import SHARD, SMALL_TRAINING, Subject
from sass.files import write_json
from sass.manifest import scenes_of
from sass.run import Run

BOUND = 2048
"""MiB that no stage may take at the default settings."""
GROWN = 1.1
"""What a large scene may take for each byte of a small one."""
FILES = 64
"""Files that a stage may hold open; a process may open 1,024, as a rule."""
STEPS = 3
"""Of the training whose memory is measured: its pool is full before the first."""
MORE = 10
"""Times the data, where growth is measured."""


def memory(subject: Subject, small: float, large: float) -> list[Row]:
    """Run each stage by its command on a small and a large scene and compare their peaks."""
    taken = {size: _stages(subject, size) for size in (small, large)}
    rows = []
    for stage, big in taken[large].items():
        least = taken[small][stage]
        name = f"{stage}, {large:g} Mpx"
        rows += [
            Row("memory", name, big["peak_mb"], "2 GiB", BOUND, "<=", unit="MiB"),
            _compared(f"{name} to {small:g}", big, least, "peak_mb", "MiB", GROWN),
            Row(
                "memory",
                f"{name}: open files",
                big["files"],
                "",
                FILES,
                "<=",
                bare=least["files"],
                unit="files",
            ),
        ]
    return rows


def _compared(name: str, more: dict, less: dict, key: str, unit: str, reach: float) -> Row:
    ratio, limit = more[key] / less[key], "the same of the small scene"
    return Row("memory", name, ratio, limit, reach, "<=", ours=more[key], bare=less[key], unit=unit)


def _stages(subject: Subject, megapixels: float) -> dict[str, dict[str, float]]:
    scene = write_scene(subject.folder / "scenes" / f"made-{megapixels:g}.tif", megapixels)
    run = Run(subject.folder / f"memory-{megapixels:g}")
    shutil.rmtree(run.root, ignore_errors=True)
    threads = ["--threads", subject.threads]
    settings = [word for layer in subject.layers for word in _words(layer)]
    small = _words(SMALL_TRAINING) + settings + ["--set", f"train.steps={STEPS}"]
    command("-m", "sass", "scan", scene, "--into", run.root, *settings)
    taken = {}
    for stage, words in {
        "ingest": [*threads, *settings],
        "normalize": settings,
        "train": [*threads, *small],
        "features": [*threads, *settings],
        "codebook": [*threads, *settings],
        "hierarchy": settings,
        "segment": [*threads, *settings],
    }.items():
        taken[stage], _ = command("-m", "sass", stage, run.root, *words)
        if stage == "train":  # what follows is measured with the default encoder
            command("-m", "sass", stage, run.root, *threads, *settings, "--set", "model.frozen=true")
    shutil.rmtree(run.root)
    return taken


def _words(layer: dict) -> list[str]:
    return [word for name, keys in layer.items() for word in ("--set", f"{name}={json.dumps(keys)}")]


def growth_of_codebook(subject: Subject) -> list[Row]:
    """Fit codes by the command on the features of one scene and on those of ten like it."""
    pairs = []
    one, many = (_linked(subject, count) for count in (1, MORE))
    vectors = scenes_of(one, "features", SHARD)[subject.scene + "-0"]["valid"]
    sample = min(subject.config.codebook.sample, vectors // 2)
    words = ["--threads", subject.threads, *[w for layer in subject.layers for w in _words(layer)]]
    words += ["--set", f"codebook.sample={sample}"]
    for _ in range(subject.times):
        pairs.append([command("-m", "sass", "codebook", run.root, *words)[0] for run in (one, many)])
        for run in (one, many):
            shutil.rmtree(run.codebook.parent)
    rows = []
    for key, metric, reach, unit in (
        ("wall_s", "time", 1.05 * MORE, "s"),
        ("peak_mb", "memory", GROWN, "MiB"),
    ):
        ratios = [more[key] / less[key] for less, more in pairs]
        less, more = (statistics.median(pair[i][key] for pair in pairs) for i in (0, 1))
        rows.append(
            Row(
                "codebook",
                f"{metric} for {MORE} times the data",
                statistics.median(ratios),
                "the same of the data once",
                reach,
                "<=",
                ours=more,
                bare=less,
                unit=unit,
                spread=(min(ratios), max(ratios), len(ratios)),
                note=f"{vectors} vectors, a sample of {sample}",
            )
        )
    return rows


def _linked(subject: Subject, count: int) -> Run:
    """Return a run whose features are so many links to those of the subject's scene."""
    run, known = Run(subject.folder / f"linked-{count}"), subject.run
    shutil.rmtree(run.root, ignore_errors=True)
    shutil.copytree(known.catalog.parent, run.catalog.parent)
    record = scenes_of(known, "features", SHARD)[subject.scene]
    names = [f"{subject.scene}-{i}" for i in range(count)]
    for name in names:
        run.features(name).parent.mkdir(parents=True, exist_ok=True)
        run.features(name).symlink_to(known.features(subject.scene), target_is_directory=True)
    manifest = {"stage": "features", "shard": SHARD, "scenes": dict.fromkeys(names, record), "failed": {}}
    write_json(run.manifest("features", SHARD), manifest)
    return run
