"""What ``sass status`` says of runs that are done, half done, at work, and failed."""

import json
import os
import time

import pytest
from snake import sass, snakemake

from sass.files import remove
from sass.status import SILENCE


def status(archive, *arguments):
    """Give the command in the archive's folder; return what it came to and all that it knows."""
    done = sass(archive.folder, "status", "run", *arguments)
    known = json.loads(sass(archive.folder, "status", "run", "--json", *arguments).text)
    return done, known


def row(text: str, stage: str) -> list[int]:
    """Return the numbers of a stage: of each state, then scenes and those set aside."""
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [stage]]
    return [0 if word == "." else int(word) for word in line.split()[1:]]


def test_a_complete_run_stands_and_its_report_is_next(archive):
    done, known = status(archive)
    assert done.code == 0, done.text
    assert done.text.startswith("run: 4 scenes in 2 shards, 1 of them to fit on\n")
    for stage, units, scenes in [
        ("ingest", 2, 4), ("normalize", 1, 0), ("train", 1, 0), ("features", 2, 4), ("codebook", 1, 0),
        ("hierarchy", 1, 0), ("segment", 2, 4), ("baselines", 1, 0), ("evaluate", 2, 3), ("metrics", 1, 0),
        ("report", 1, 0),
    ]:  # fmt: skip
        assert row(done.text, stage) == [units, 0, 0, 0, 0, scenes, 0], stage
    assert done.text.endswith("All stands. Look at it:\n  xdg-open run/report/index.html\n")
    assert (known["state"], known["aside"]) == ("complete", {})


def test_a_half_done_run_says_what_waits_and_the_command_that_does_it(archive):
    run = archive.run
    for stage in ("segment", "evaluate"):
        remove(run.manifest(stage, "s00001"))
        remove(run.log(stage, "s00001"))
    archive.make_scene("fifth", seed=5)
    archive.scan()  # which joins the second shard
    done, known = status(archive)
    assert done.code == 5, done.text
    assert row(done.text, "ingest") == [1, 0, 1, 0, 0, 4, 0]
    assert row(done.text, "features") == [2, 0, 0, 0, 0, 4, 0]
    assert row(done.text, "segment") == [1, 0, 1, 0, 0, 4, 0]  # the maps of its scenes are there
    assert "snakemake --config run=run\n" in done.text and "snakemake --profile slurm" in done.text
    assert known["state"] == "waits"


def test_a_job_that_failed_is_named_with_its_reason_and_its_log(archive):
    failed = snakemake(archive.folder, 'codebook={"sample": 5}')
    assert failed.code != 0
    done, known = status(archive)
    assert done.code == 1, done.text
    assert row(done.text, "codebook") == [0, 0, 0, 0, 1, 0, 0]
    assert (
        "failed:\n  codebook: sass codebook: a sample of 5 embeddings cannot start 12 codes; raise "
        "codebook.sample or lower codebook.codes\n    run/logs/codebook/archive.log\n"
    ) in done.text
    assert known["state"] == "failed"


def test_a_scene_that_is_set_aside_is_named_and_all_else_stands(archive):
    archive.raster("third").write_bytes(archive.raster("third").read_bytes()[:3000])
    archive.scan()
    assert sass(archive.folder, "ingest", "run", "--shard", "s00001").code == 3
    done, _ = status(archive)
    assert done.code == 3, done.text
    assert row(done.text, "ingest") == [2, 0, 0, 0, 0, 3, 1]
    assert "set aside:\n  third: ingest: " in done.text


@pytest.mark.parametrize(
    "said, silent, state, heard",
    [
        ("features s00001 1/2 > fourth 3/8 0:31, 0:40 left", 0, "runs", "fourth 3/8 0:31, 0:40 left, "),
        ("features s00001 1/2 > fourth 3/8 0:31, 0:40 left", SILENCE + 60, "stopped", "11 min ago"),
        ("", 4 * 3600, "stopped", "4 h ago"),
        ("sass features: stopped by SIGTERM; what is finished stands", 0, "stopped", "SIGTERM"),
        ("Traceback (most recent call last):\n  ...\nKeyError: 'x'", 0, "failed", "KeyError: 'x'"),
    ],
)
def test_a_job_without_a_manifest_runs_as_long_as_something_is_heard_of_it(
    archive, said, silent, state, heard
):
    run = archive.run
    manifest, log = run.manifest("features", "s00001"), run.log("features", "s00001")
    remove(manifest)
    remove(run.record("features", "s00001", "fourth"))
    log.write_text(said)
    then = time.time() - silent
    for path in (log, manifest.with_suffix("")):
        os.utime(path, (then, then))
    done, known = status(archive)
    assert done.code == {"runs": 5, "stopped": 5, "failed": 1}[state]
    (unit,) = [u for u in known["units"] if (u["stage"], u["unit"]) == ("features", "s00001")]
    assert (unit["state"], unit["done"], unit["scenes"]) == (state, 1, 2)
    assert "features s00001: 1 of 2 scenes; " in done.text and heard in done.text


def test_what_cannot_be_read_is_said_with_a_remedy(archive):
    archive.run.manifest("segment", "s00000").write_text("{")
    done = sass(archive.folder, "status", "run")
    assert done.code == 1
    assert "sass verify run --repair" in done.text and "Traceback" not in done.text

    done = sass(archive.folder, "status", "elsewhere")
    assert done.code == 1
    assert "elsewhere has no catalog of scenes yet: run `sass scan PATTERN... --into elsewhere`" in done.text
