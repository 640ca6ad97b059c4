"""The benchmark of planning: its catalogs are such as a scan writes, and its counts those of the workflow."""

import contextlib
import io

import bench.dag
from bench.dag import inodes, write_archive, write_manifests
from sass.catalog import load_index, load_shard
from sass.cli import main
from sass.config import Catalog
from sass.files import read_json
from sass.run import Run
from sass.shards import assign_shards


def test_a_catalog_of_scenes_that_are_not_there_reads_like_one_of_a_scan(tmp_path):
    run = Run(tmp_path / "run")
    members = write_archive(run, 250, Catalog(shard_size=100, fit_fraction=0.1))
    index = load_index(run)
    assert {shard: entry.scenes for shard, entry in index.items()} == {
        "s00000": 25, "s00001": 100, "s00002": 100, "s00003": 25,
    }  # fmt: skip
    assert [shard for shard, entry in index.items() if entry.fit] == ["s00000"]
    assert list(load_shard(run, "s00001")) == members["s00001"]
    write_manifests(run, members)
    assert len(read_json(run.manifest("segment", "s00001"))["scenes"]) == 100


def test_what_is_planned_is_all_jobs_of_the_workflow_and_then_none(tmp_path):
    archive = bench.dag.measure_archive(tmp_path, scenes=3, size=2, times=1)
    assert archive["shards"] == 2
    # three jobs a shard; normalize, train, codebook, hierarchy, metrics, report, complete and all
    assert archive["jobs"] == 3 * 2 + 8
    for plan in ("fresh", "up_to_date", "job_start", "merge"):
        assert archive[plan]["cpu_s"] > 0
        assert archive[plan]["peak_mb"] > 10


def test_one_scene_of_sentinel_leaves_hundreds_of_files_and_wider_shards_a_fifth_of_them():
    narrow, wide = inodes(10_980, 1_024), inodes(10_980, 4_096)
    assert (narrow["ingest"], narrow["features"], narrow["segment"]) == (295, 284, 8)
    assert (wide["ingest"], wide["features"]) == (55, 44)
    assert inodes(512, 1_024)["ingest"] == 35


def test_a_year_of_days_fills_one_shard_after_the_other(tmp_path, monkeypatch):
    """All days but the last go by in memory; that one is a scan of files, which starts no shard."""

    def scan(*words) -> tuple[dict[str, float], str]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main([str(word) for word in words[2:]]) == 0
        return {}, said.getvalue()

    monkeypatch.setattr(bench.dag, "command", scan)
    year = bench.dag.measure_year(tmp_path, 370 + 365, 1)
    assert year["shards"] == 4 + 4  # 370 scenes of the first scan, 365 of the days
    assert year["open_shards"] == 2  # the last of the first scan, closed for good, and the one being filled
    assert year["shards_touched_daily"] == 1


def test_shards_go_on_being_filled_after_the_hundred_thousandth():
    known = {"s99999": ["a", "b"], "s100000": ["c"]}
    stay = {scene: shard for shard, inside in known.items() for scene in inside}
    members, _ = assign_shards([*"abcd"], stay, set(stay.values()), set(), Catalog(shard_size=2))
    assert members == {"s99999": ["a", "b"], "s100000": ["c", "d"]}
