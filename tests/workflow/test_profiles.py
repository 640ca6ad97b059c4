"""The other profiles: one GPU that two jobs never share, and a scheduler that is spoken to by commands."""

import os
import re

import pytest
import yaml
from small_archive import CONFIG, Archive
from snake import Checkout

QSUB = """\
#!/usr/bin/env bash
# Stands in for PBS: runs the script beside everything else, and kills the first job for its memory.
set -eu
jobs=$(dirname "$0")/jobs
mkdir -p "$jobs"
job=$(ls "$jobs" | wc -l)
echo "${@:1:$#-1}" >"$jobs/$job"
if [ "$job" = 0 ]; then
  echo 137 >"$jobs/../code-0"
else
  (code=0; bash "${@: -1}" || code=$?; echo "$code" >"$jobs/../code-$job") >/dev/null 2>&1 </dev/null &
fi
echo "$job"
"""
QSTAT = """\
#!/usr/bin/env bash
# qstat -x -f JOB
echo "Job Id: $3"
if [ -e "$(dirname "$0")/code-$3" ]; then
  printf '    job_state = F\\n    Exit_status = %s\\n' "$(cat "$(dirname "$0")/code-$3")"
else
  echo "    job_state = R"
fi
"""


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    """Give a checkout with a run of two shards, nothing computed, and the commands of a scheduler."""
    for seed, name in enumerate(("first", "second", "third")):
        Archive(tmp_path).make_scene(name, seed)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(text)
        command.chmod(0o755)
    paths = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    checkout = Checkout.copy_into(tmp_path, os.environ | {"PATH": paths})
    scanned = checkout.give(
        *("sass", "scan", tmp_path / "archive" / "*.tif", "--into", "results/run"),
        *("--config", tmp_path / "small.yaml"),
    )
    assert scanned.code == 0, scanned.text
    return checkout


def test_any_scheduler_gets_what_the_rules_ask_for_and_a_killed_job_again(checkout):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    done = checkout.give(
        *("snakemake", "--profile", "profiles/cluster-generic", "--config", "run=results/run"),
        *("--cores", "8", "--seconds-between-status-checks", "1"),
        *("--", "results/run/manifests/train/archive.json"),
    )
    assert done.code == 0, done.text
    jobs = checkout.folder.parent / "bin" / "jobs"
    asked = [path.read_text().strip() for path in sorted(jobs.iterdir())]
    plainly = (
        "-V -N sass-{} -j oe -o results/pbs-logs -q {} -l select=1:ncpus={}:mem={}mb:ngpus={} -l walltime={}"
    )
    assert asked == [
        plainly.format("ingest", "cpu", 1, 2000, 0, 900),
        plainly.format("ingest", "cpu", 1, 4000, 0, 1800),
        plainly.format("normalize", "cpu", 1, 1000, 0, 900),
        plainly.format("train", "gpu", 8, 4000, 1, 1800),
    ]


def test_a_workstation_never_runs_two_jobs_on_its_gpu(checkout):
    done = checkout.give(
        *("snakemake", "--profile", "profiles/workstation", "--cores", "4"),
        *("--config", "run=results/run"),
        *("--", "results/run/manifests/features/s00000.json", "results/run/manifests/features/s00001.json"),
    )
    assert done.code == 0, done.text
    events = re.findall(
        r"^(?:local)?rule (\w+):|^Finished jobid: \d+ \(Rule: (\w+)\)", done.text, re.MULTILINE
    )
    on_gpu = [bool(start) for start, end in events if (start or end) in ("train", "features")]
    assert on_gpu == [True, False] * 3
    on_cpu = [bool(start) for start, end in events if (start or end) == "ingest"]
    assert on_cpu == [True, True, False, False]  # others do run side by side
