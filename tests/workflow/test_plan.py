"""What the workflow plans: exact counts of jobs, and refusals in one sentence. Nothing is computed here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from snake import CHECKOUT, command, snakemake, write_catalog

from sass.files import write_json

ARCHIVE = {
    "normalize": 1,
    "train": 1,
    "codebook": 1,
    "hierarchy": 1,
    "metrics": 1,
    "report": 1,
    "complete": 1,
}


def shards(count: int) -> dict[str, int]:
    return dict.fromkeys(("ingest", "features", "segment"), count)


@pytest.mark.parametrize(
    ("catalog", "jobs"),
    [
        pytest.param({"s00000": (True, 9, 0)}, ARCHIVE | shards(1), id="one shard"),
        pytest.param({"s00000": (True, 9, 0), "s00001": (True, 2, 0)}, ARCHIVE | shards(2), id="two shards"),
        pytest.param(
            {"s00000": (True, 9, 0), "s00001": (True, 2, 1), "s00002": (False, 3, 0)},
            ARCHIVE | shards(3) | {"baselines": 1, "evaluate": 1},
            id="one of three shards has a label",
        ),
        pytest.param(
            {"s00000": (True, 9, 9), "s00001": (False, 2, 2)},
            ARCHIVE | shards(2) | {"baselines": 1, "evaluate": 2},
            id="all have labels",
        ),
    ],
)
def test_a_fresh_run_has_three_jobs_a_shard_and_one_more_where_there_are_labels(tmp_path, catalog, jobs):
    write_catalog(tmp_path, catalog)
    plan = snakemake(tmp_path, "-n")
    assert plan.code == 0, plan.text
    assert plan.jobs == jobs


@pytest.mark.parametrize(
    ("target", "jobs"),
    [
        ("run/manifests/normalize/archive.json", {"ingest": 2, "normalize": 1}),
        ("run/manifests/train/archive.json", {"ingest": 2, "normalize": 1, "train": 1}),
        (
            "run/manifests/codebook/archive.json",
            {"ingest": 2, "normalize": 1, "train": 1, "features": 2, "codebook": 1},
        ),
        ("run/manifests/baselines/archive.json", {"ingest": 2, "normalize": 1, "baselines": 1}),
    ],
)
def test_what_is_fitted_waits_for_the_fit_shards_only(tmp_path, target, jobs):
    write_catalog(tmp_path, {"s00000": (True, 9, 1), "s00001": (True, 2, 0), "s00002": (False, 3, 0)})
    plan = snakemake(tmp_path, "-n", "--", target)
    assert plan.code == 0, plan.text
    assert plan.jobs == jobs


def test_the_fit_shards_can_be_named_in_the_configuration(tmp_path):
    write_catalog(tmp_path, {"s00000": (True, 9, 0), "s00001": (True, 2, 0)})
    plan = snakemake(
        tmp_path, "catalog={fit_shards: [s00001]}", "-n", "--", "run/manifests/normalize/archive.json"
    )
    assert plan.jobs == {"ingest": 1, "normalize": 1}


def test_embeddings_that_are_there_already_leave_out_the_training(tmp_path):
    write_catalog(tmp_path, {"s00000": (True, 9, 0), "s00001": (False, 2, 0)})
    plan = snakemake(tmp_path, "features={source: 'embeddings/{scene}.zarr'}", "-n")
    assert plan.code == 0, plan.text
    assert plan.jobs == {rule: n for rule, n in (ARCHIVE | shards(2)).items() if rule != "train"}


def test_a_frozen_encoder_is_written_by_a_short_job(tmp_path):
    write_catalog(tmp_path, {"s00000": (True, 9, 0)})
    plan = snakemake(tmp_path, "model={encoder: 'mine:encoder', options: {size: 3}, frozen: true}", "-n")
    assert plan.code == 0, plan.text
    assert plan.jobs == ARCHIVE | shards(1)
    (training,) = (block for block in plan.text.split("\nrule ") if block.startswith("train:"))
    assert "runtime=30" in training and "mem_mb=4000" in training


def test_planning_writes_nothing(tmp_path):
    run = write_catalog(tmp_path, {"s00000": (True, 9, 0)})
    before = sorted(run.root.rglob("*"))
    assert snakemake(tmp_path, "-n").code == 0
    assert sorted(run.root.rglob("*")) == before


def test_a_run_without_a_catalog_is_told_what_to_do(tmp_path):
    plan = snakemake(tmp_path, "-n")
    assert plan.code != 0
    assert "run has no catalog of scenes yet: run `sass scan" in plan.text
    assert "Traceback" not in plan.text


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("segment={class: 5}", "segment.class: no such key; allowed here: classes"),
        ("segment={classes: many}", "segment.classes"),
        ("train={fine: {prototypes: 1}}", "train.fine.prototypes"),
        ("classes=5", "classes: no such key"),
        ("catalog={fit_shards: [s00007]}", "catalog.fit_shards: there is no shard s00007"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_its_path(tmp_path, setting, said):
    write_catalog(tmp_path, {"s00000": (True, 9, 0)})
    plan = snakemake(tmp_path, setting, "-n")
    assert plan.code != 0
    assert said in plan.text
    assert "Traceback" not in plan.text


def test_one_word_is_enough_for_slurm_and_gpus_go_to_the_encoder_only(tmp_path):
    write_catalog(tmp_path, {"s00000": (True, 9, 1)})
    plan = snakemake(tmp_path, "--profile", "slurm", "-n")
    assert plan.code == 0, plan.text
    assert plan.jobs == ARCHIVE | shards(1) | {"baselines": 1, "evaluate": 1}
    asked = {}
    for block in plan.text.split("\nrule ")[1:]:
        rule, _, rest = block.partition(":")
        asked[rule] = next(line for line in rest.splitlines() if line.strip().startswith("resources:"))
    assert {rule for rule, line in asked.items() if "gpu=1" in line} == {"train", "features"}
    for rule, line in asked.items():
        assert f"slurm_partition={'gpu' if rule in ('train', 'features') else 'cpu'}" in line, rule
        assert "mem_mb=" in line and "runtime=" in line, rule


@pytest.mark.parametrize(
    ("profile", "executor"), [("slurm", "slurm"), ("profiles/cluster-generic", "cluster_generic")]
)
def test_no_job_asks_for_more_than_the_profile_says_a_node_has(tmp_path, profile, executor):
    pytest.importorskip(f"snakemake_executor_plugin_{executor}")
    run = write_catalog(tmp_path, {"s00000": (True, 9, 0)})
    index = json.loads(run.catalog.read_text())
    index["shards"]["s00000"]["pixels"] = 10**12  # a thousand gigapixels: days at an hour a gigapixel
    write_json(run.catalog, index)
    pool = f"train={{pool: {10**6}}}"  # half a terabyte of tiles and more
    plan = snakemake(tmp_path, pool, "--profile", profile, "-n")
    assert plan.code == 0, plan.text
    most = {name: max(map(int, re.findall(rf"\b{name}=(\d+)", plan.text))) for name in ("mem_mb", "runtime")}
    assert most == {"mem_mb": 180_000, "runtime": 1_440}


def test_changes_are_looked_for_on_request_where_scenes_follow_others(tmp_path):
    run = write_catalog(tmp_path, {"s00000": (True, 9, 0), "s00001": (False, 9, 0), "s00002": (False, 9, 0)})
    index = json.loads(run.catalog.read_text())
    index["shards"]["s00002"]["earlier"] = ["s00001", "s00002"]
    write_json(run.catalog, index)
    write_json(run.catalog_earlier("s00002"), {"shard": "s00002", "scenes": {}})
    assert snakemake(tmp_path, "-n").jobs == ARCHIVE | shards(3)
    plan = snakemake(tmp_path, "change={maps: true}", "-n")
    assert plan.code == 0, plan.text
    assert plan.jobs == ARCHIVE | shards(3) | {"change": 1}
    (inputs,) = re.findall(r"^rule change:\n +input: (.*)$", plan.text, re.MULTILINE)
    assert set(inputs.split(", ")) == {
        "run/catalog/earlier/s00002.json",
        "run/manifests/segment/s00002.json",
        "run/manifests/segment/s00001.json",
    }


def test_the_snakefile_imports_nothing_heavy():
    code = (
        "import sys, sass.catalog, sass.fingerprint, sass.run, sass.settings\n"
        "sys.exit(str({'torch', 'zarr', 'xarray', 'dask', 'rasterio', 'numpy'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_every_rule_reads_well():
    assert "good condition" in (lint := command("snakemake", "--lint")).text, lint.text
    formatted = command("snakefmt", "--check", "Snakefile", "workflow")
    assert formatted.code == 0, formatted.text


def test_every_job_says_what_it_needs_and_leaves_a_log_and_a_measurement():
    rules = [part for path in Path(CHECKOUT, "workflow", "rules").glob("*.smk") for part in _rules(path)]
    assert len(rules) == 14
    for rule in rules:
        for keyword in (
            "input",
            "output",
            "log",
            "benchmark",
            "conda",
            "threads",
            "resources",
            "params",
            "shell",
        ):
            assert f"\n    {keyword}:" in rule, (keyword, rule)
        assert "mem_mb=" in rule and "runtime=" in rule, rule


def _rules(path: Path) -> list[str]:
    return path.read_text().split("\nrule ")[1:]
