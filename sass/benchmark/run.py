"""The benchmark: crops into a run, the run's own stages over them, and the score beside published ones."""

import os
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from sass.benchmark.potsdam import (
    BANDS,
    BUILDING,
    HOLD_OUT,
    IMPERVIOUS,
    NAMES,
    SIZES,
    WHOLE,
    Sizes,
    read_crops,
    write_crops,
)
from sass.benchmark.published import PUBLISHED
from sass.cli import main
from sass.config import Config
from sass.errors import SassError
from sass.evaluate import BASELINE_NAMES
from sass.files import read_json, replacing, write_json
from sass.run import Run
from sass.settings import check_whole, load

PRESET: dict[str, Any] = {
    "catalog": {"shard_size": 450},
    "train": {"crop": 96},
    "evaluate": {"baselines": ["raw"]},
}
"""Where crops want something else than scenes: many in a shard, and views that lie inside of them."""

SHARED = ("catalog", "scenes", "manifests/ingest", "manifests/normalize", "statistics.json")
"""What no seed changes: made once, and linked into the runs of all seeds."""
SEED_STAGES = ("train", "features", "codebook", "hierarchy", "segment", "evaluate")

SCORES = ("accuracy", "miou", "building_as_impervious", "impervious_as_building")


def run_benchmark(
    benchmark: str,
    protocol: str,
    root: Path,
    run: Run,
    *layers: Path | dict[str, Any] | None,
    seeds: int,
    threads: int,
    sizes: Sizes = SIZES,
) -> dict[str, Any]:
    """Do everything from the data set to ``RUN/report/benchmark.json``; what stands of it is kept.

    Parameters
    ----------
    benchmark
        ``"potsdam3"`` or ``"potsdam6"``.
    protocol
        ``"iic"`` (fit on all crops, score the labelled ones, four bands) or ``"stego"`` (fit on the crops of
        one list, score those of another, RGB).
    root
        The data set, in one of the layouts of `sass.benchmark.potsdam.read_crops`.
    layers
        Configuration: a file, then single keys. What the protocol fixes cannot be changed by them.
    seeds
        Training, codebook and hierarchy are done with seeds 0 to ``seeds - 1``, each in ``RUN/seed-<i>``,
        itself a run.

    Returns
    -------
    dict
        What was written: scores as fractions, published ones in percent.

    Raises
    ------
    SassError
        The data set is not as it should be, or a stage failed on some of it.
    """
    settings = check_whole(load(PRESET, *layers, _fixed(benchmark, protocol)))
    crops, scored = _prepare(benchmark, protocol, root, run, sizes)
    configure(run, settings)
    folder = run.root / "crops"
    call_stage("scan", str(folder / "images"), "--labels", str(folder / "labels"), "--into", str(run.root))
    for stage in ("ingest", "normalize"):
        call_stage(stage, str(run.root), "--threads", str(threads))
    metrics = []
    for seed in range(seeds):
        drawn = {section: {"seed": seed} for section in ("train", "codebook", "hierarchy")}
        own = linked_run(run, f"seed-{seed}", load(settings.model_dump(mode="json"), drawn))
        for stage in SEED_STAGES:
            call_stage(stage, str(own.root), "--threads", str(threads))
        metrics.append(read_json(own.metrics))
    result = {
        "benchmark": benchmark,
        "protocol": protocol,
        "crops": crops,
        "scored": scored,
        "whole": (crops, scored) == WHOLE[protocol],
        **_summary(metrics, NAMES[benchmark]),
        "baselines": {
            kind: {key: row[key] for key in ("accuracy", "miou")}
            for kind, row in metrics[0]["baselines"].items()
        },
        "model": settings.model.model_dump(mode="json"),
        "train": settings.train.model_dump(mode="json", exclude={"seed"}),
        "segment": settings.segment.model_dump(mode="json", include={"smooth", "min_area"}),
        "published": [vars(row) for row in PUBLISHED] if benchmark == "potsdam3" else [],
    }
    write_json(run.report / "benchmark.json", result)
    return result


def _prepare(benchmark: str, protocol: str, root: Path, run: Run, sizes: Sizes) -> tuple[int, int]:
    """Make the crops of a run, unless they stand; return how many there are and how many are scored."""
    record = run.root / "crops.json"
    asked = {"benchmark": benchmark, "protocol": protocol, "root": str(root.resolve())}
    if record.exists():
        made = read_json(record)
        if any(made[key] != value for key, value in asked.items()):
            raise SassError(
                f"{run.root} holds the crops of {made['benchmark']}, {made['protocol']}, from "
                f"{made['root']}, and mixing them would spoil both scores; name another folder for "
                f"{benchmark}, {protocol}, from {root} with --into"
            )
        return made["crops"], made["scored"]
    crops, scored = write_crops(run.root / "crops", read_crops(root, protocol, sizes), benchmark)
    if not scored:
        raise SassError(f"none of the {crops} crops of {root} has labels, so there is nothing to score")
    write_json(record, {**asked, "crops": crops, "scored": scored})
    return crops, scored


def _fixed(benchmark: str, protocol: str) -> dict[str, Any]:
    """Return what the protocol leaves no choice in: who is fitted on, the bands, the classes, all pixels."""
    return {
        "catalog": {"hold_out": HOLD_OUT[protocol], "fit_fraction": 1, "fit_shards": None},
        "ingest": {"bands": list(range(1, BANDS[protocol] + 1)), "nodata": None, "erode": 0},
        "segment": {"classes": len(NAMES[benchmark])},
        "evaluate": {"ignore": [], "class_names": NAMES[benchmark]},
    }


def configure(run: Run, settings: Config) -> None:
    """Leave the whole configuration in a run, where its stages look for it."""
    tree = settings.model_dump(mode="json") | {"run": str(run.root)}
    with replacing(run.config) as path:
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def linked_run(run: Run, name: str, settings: Config) -> Run:
    """Set up a run in a folder of another: its own configuration, and links to what it shares with others."""
    own = Run(run.root / name)
    for part in SHARED:
        link = own.root / part
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(run.root / part, link.parent))
    configure(own, settings)
    return own


def call_stage(*arguments: str) -> None:
    """Run a command of the package as a user would; a scene that is set aside is as bad as an error."""
    print(f"$ sass {shlex.join(arguments)}", file=sys.stderr)
    if main(list(arguments)):
        raise SassError(
            f"`sass {shlex.join(arguments)}` failed or set scenes aside, and all of them count here; mend "
            "what it says above and give the same command again: what stands is kept"
        )


def confused(metrics: dict[str, Any], label: str, other: str) -> float | None:
    """Return the share of a label's pixels in the class matched to another label; None without pixels."""
    table = metrics["confusion"]
    row = table["labels"].index(label)
    counts = dict(zip(table["classes"], table["counts"][row]))
    total = sum(counts.values()) + table["unanswered"][row]
    wrong = sum(n for cluster, n in counts.items() if metrics["matching"].get(str(cluster)) == other)
    return wrong / total if total else None


def _summary(metrics: list[dict[str, Any]], names: dict[int, str]) -> dict[str, Any]:
    """Return the scores of each seed, their mean and their standard deviation (n - 1; null for one seed)."""
    building, impervious = names[BUILDING], names[IMPERVIOUS]
    seeds = [
        {
            "accuracy": each["accuracy"],
            "miou": each["miou"],
            "building_as_impervious": confused(each, building, impervious),
            "impervious_as_building": confused(each, impervious, building),
        }
        for each in metrics
    ]
    columns = {key: [row[key] for row in seeds if row[key] is not None] for key in SCORES}
    return {
        "seeds": {str(seed): row for seed, row in enumerate(seeds)},
        "mean": {key: statistics.mean(held) if held else None for key, held in columns.items()},
        "deviation": {
            key: statistics.stdev(held) if len(held) > 1 else None for key, held in columns.items()
        },
    }


def format_result(result: dict[str, Any]) -> str:
    """Lay out our row, those of others and the hardest confusion as text."""
    crops, scored = WHOLE[result["protocol"]]
    lines = [
        f"{result['benchmark']}, protocol {result['protocol']}: {result['crops']} crops, "
        f"{result['scored']} of them scored, seeds {', '.join(result['seeds'])}"
    ]
    if not result["whole"]:
        lines.append(
            f"NOT the whole data set, which has {crops} crops, {scored} of them scored: no Potsdam score"
        )
    rows = [("method", "accuracy", "mIoU", "backbone", "post-processing"), _our_row(result)]
    rows += [
        (
            f"{BASELINE_NAMES[kind]}, this run",
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['miou']:.1f}",
            "-",
            "none",
        )
        for kind, row in result["baselines"].items()
    ]
    rows += [published_row(row) for row in result["published"]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += ["", *table, ""]
    if result["published"]:
        lines.append("* backbone pretrained on other images")
        lines.append("Rows without 'this run' are published numbers of others, not measured here.")
    names = NAMES[result["benchmark"]]
    building, impervious = names[BUILDING], names[IMPERVIOUS]
    lines.append(f"({building}) called ({impervious}): {_percent(result, 'building_as_impervious')} %")
    lines.append(f"({impervious}) called ({building}): {_percent(result, 'impervious_as_building')} %")
    return "\n".join(lines)


def _our_row(result: dict[str, Any]) -> tuple[str, ...]:
    model, train, segment = result["model"], result["train"], result["segment"]
    widths = "-".join(map(str, model["widths"]))
    backbone = f"from scratch, {widths} x {model['blocks']}, {model['dim']}-d, {train['steps']} steps"
    post = ", ".join(f"{key} {value}" for key, value in segment.items() if value) or "none"
    return ("SASS, this run", _percent(result, "accuracy"), _percent(result, "miou"), backbone, post)


def _percent(result: dict[str, Any], key: str) -> str:
    mean, deviation = result["mean"][key], result["deviation"][key]
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + (f" +- {100 * deviation:.1f}" if deviation is not None else "")


def published_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a published score: method, accuracy, mIoU, backbone and post-processing."""
    miou = "-" if row["miou"] is None else f"{row['miou']}"
    mark = " *" if row["pretrained"] else ""
    return (row["method"], f"{row['accuracy']}", miou, row["backbone"] + mark, row["post"])
