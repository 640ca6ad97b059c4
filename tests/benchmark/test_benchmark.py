"""The benchmark from data set to table, with a tiny encoder; both layouts, both protocols."""

import json
from pathlib import Path

import pytest
from builders import TINY
from small_potsdam import make_archive, make_tiles

from sass.benchmark.potsdam import Sizes
from sass.benchmark.published import PUBLISHED
from sass.benchmark.run import confused, format_result, published_row, run_benchmark
from sass.catalog import load_index, load_labels, load_shard
from sass.cli import main
from sass.files import read_json
from sass.run import Run

DOCS = Path(__file__).parents[2] / "docs" / "potsdam.md"


def tiny_arguments() -> list[str]:
    return [word for name, values in TINY.items() for word in ("--set", f"{name}={json.dumps(values)}")]


def standing(run: Run) -> tuple[set[str], set[str], set[str]]:
    """Return the scenes of a run, those that are fitted on, and those that are scored."""
    index = load_index(run)
    scenes = {shard: set(load_shard(run, shard)) for shard in index}
    fit = {scene for shard in index if index[shard].fit for scene in scenes[shard]}
    return set().union(*scenes.values()), fit, {s for shard in index for s in load_labels(run, shard)}


def test_stego_from_the_archive_by_the_command_line(tmp_path, capfd):
    make_archive(tmp_path / "iic", ["1", "2", "3"], ["4", "5"], ["6"])
    run = Run(tmp_path / "run")
    command = ["benchmark", "potsdam3", "--root", str(tmp_path / "iic"), "--protocol", "stego"]
    command += ["--into", str(run.root), "--seeds", "2", "--threads", "1", *tiny_arguments()]
    assert main(command) == 0

    scenes, fit, scored = standing(run)
    assert fit == {"train-1", "train-2", "train-3"}
    assert scored == {"test-4", "test-5"} == scenes - fit
    result = read_json(run.report / "benchmark.json")
    assert (result["crops"], result["scored"], result["whole"]) == (5, 2, False)
    metrics = [read_json(Run(run.root / f"seed-{seed}").metrics) for seed in (0, 1)]
    assert all(each["pixels"] == 2 * 320 * 320 for each in metrics)
    assert [result["seeds"][seed]["miou"] for seed in "01"] == [each["miou"] for each in metrics]
    assert result["mean"]["accuracy"] == pytest.approx(sum(each["accuracy"] for each in metrics) / 2)
    assert result["deviation"]["accuracy"] is not None
    assert read_json(run.statistics)["from"]["scenes"].keys() == fit
    encoders = [Run(run.root / f"seed-{seed}").encoder.read_bytes() for seed in (0, 1)]
    assert encoders[0] != encoders[1]
    said = capfd.readouterr().out
    assert "NOT the whole data set, which has 5400 crops, 855 of them scored" in said
    for words in ("SASS, this run", "71.89", "DINOv2 ViT-B/14 *", "called (impervious, car)", " +- "):
        assert words in said

    made = [*run.root.glob("crops/*/*.tif"), *run.root.glob("seed-*/segments/*/segments.tif")]
    before = {path: path.stat().st_mtime_ns for path in made}
    assert main(command) == 0
    assert read_json(run.report / "benchmark.json") == result
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert main(["benchmark", "potsdam6", *command[2:]]) == 1
    assert "holds the crops of potsdam3, stego" in capfd.readouterr().err


def test_iic_from_tiles_fits_on_all_crops_and_four_bands(tmp_path):
    make_tiles(tmp_path / "isprs", ("2_10", "2_13"), 384)
    run = Run(tmp_path / "run")
    protocol = ("potsdam6", "iic", tmp_path / "isprs", run)
    result = run_benchmark(*protocol, TINY, seeds=1, threads=1, sizes=Sizes(crop=96, across=2))

    scenes, fit, scored = standing(run)
    assert len(scenes) == 8
    assert fit == scenes
    assert scored == {scene for scene in scenes if scene.startswith("2_10")}
    assert len(read_json(run.statistics)["bands"]) == 4
    assert result["deviation"]["miou"] is None
    assert result["published"] == []
    assert set(read_json(Run(run.root / "seed-0").metrics)["iou"]) <= {
        "impervious", "building", "low vegetation", "tree", "car", "clutter"
    }  # fmt: skip
    assert "published" not in format_result(result)
    assert "NOT" not in format_result(result | {"whole": True})


def test_the_hardest_confusion_is_counted_by_label():
    metrics = {
        "matching": {"4": "road", "2": "house"},
        "confusion": {
            "labels": ["road", "house"], "classes": [2, 4, 7],
            "counts": [[10, 70, 10], [40, 50, 0]], "unanswered": [10, 10],
        },
    }  # fmt: skip
    assert confused(metrics, "house", "road") == 0.5
    assert confused(metrics, "road", "house") == 0.1


def test_the_page_shows_every_published_number():
    lines = DOCS.read_text(encoding="utf-8").replace("\\*", "*").splitlines()
    page = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row in PUBLISHED:
        assert [*published_row(vars(row)), row.source] in page
