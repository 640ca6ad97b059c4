"""Records of what was made: atomic files, digests, and the scenes that a rerun skips."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sass.errors import SceneError
from sass.files import digest, file_digest, read_json, remove, replacing, write_json
from sass.manifest import failures, run_archive, run_shard, scenes_of
from sass.run import ARCHIVE, Run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------ files


def test_json_has_one_form(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": "Wälder"})
    write_json(tmp_path / "b.json", {"a": "Wälder", "b": [1, 2.5]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": "Wälder", "b": [1, 2.5]}


def test_equal_json_is_not_written_again(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": 1})
    os.utime(path, ns=(1, 1))
    write_json(path, {"a": 1})
    assert path.stat().st_mtime_ns == 1
    write_json(path, {"a": 2})
    assert path.stat().st_mtime_ns != 1


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert everything(tmp_path) == {"a.json": b'{\n "a": 1\n}\n'}


@pytest.mark.parametrize("folder", [False, True])
def test_a_failed_writer_leaves_the_old_and_nothing_else(tmp_path, folder):
    def write(text: str, fail: bool) -> None:
        with replacing(tmp_path / "thing.zarr") as temporary:
            if folder:
                temporary.mkdir()
                (temporary / "0").write_text(text)
            else:
                temporary.write_text(text)
            assert temporary.suffix == ".zarr", "GDAL and zarr look at the suffix"
            if fail:
                raise KeyboardInterrupt

    write("old", fail=False)
    before = everything(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write("half", fail=True)
    assert everything(tmp_path) == before
    write("new", fail=False)
    assert list(everything(tmp_path).values()) == [b"new"]


def test_what_a_killed_writer_left_is_cleaned(tmp_path):
    target = tmp_path / "a.zarr"
    with replacing(target) as temporary:
        (temporary / "c").mkdir(parents=True)
        name = temporary
    name.mkdir()
    (name / "half").write_text("x")
    with replacing(target) as temporary:
        assert not temporary.exists()
        temporary.mkdir()
        (temporary / "whole").write_text("y")
    assert everything(tmp_path) == {"a.zarr/whole": b"y"}


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    for names in (["a", "b"], ["c"]):
        with replacing(tmp_path / "s.zarr") as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).touch()
    assert list(everything(tmp_path)) == ["s.zarr/c"]


def test_remove_takes_files_folders_links_and_nothing(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("link", "folder", "file", "never"):
        remove(tmp_path / name)
    assert list(everything(tmp_path)) == ["kept/file"]
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


# ---------------------------------------------------------------------------------------------------- digests

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_the_order_of_keys_changes_no_digest(tree):
    assert digest(tree) == digest(dict(reversed(tree.items())))


@given(plain, plain)
def test_digests_differ_where_the_data_do(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) is same
    assert digest(one, other) != digest([one, other])


def test_the_digest_of_a_folder_sees_names_bytes_and_borders(tmp_path):
    def made(**files: str) -> str:
        folder = tmp_path / "x"
        remove(folder)
        for name, text in sorted(files.items(), reverse=len(files) % 2 == 0):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return file_digest(folder)

    assert made(a="1", b="2") == made(b="2", a="1")
    several = [made(a="1", b="2"), made(a="2", b="1"), made(a="12", b=""), made(a="1"), made(c="1", b="2")]
    assert len(set(several)) == len(several)
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("1")
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")


# ----------------------------------------------------------------------------------------------------- shards


class Stage:
    """A stage that writes a scene's id and notes what it was asked."""

    def __init__(self, run: Run, broken: tuple[str, ...] = ()):
        self.run, self.broken, self.asked = run, broken, []

    def __call__(self, fingerprints: dict[str, str], shard: str = "s00000"):
        self.asked = []
        return run_shard(self.run, "ingest", shard, fingerprints, self.run.scene, self.work)

    def work(self, scene: str):
        self.asked.append(scene)
        if scene in self.broken:
            raise SceneError("is cut short; fetch it again")
        with replacing(self.run.scene(scene)) as path:
            path.mkdir()
            (path / "data").write_text(scene)
        return {"length": len(scene)}


def test_a_shard_is_done_scene_by_scene_and_a_rerun_does_nothing(run):
    stage = Stage(run)
    first = stage({"b": "1", "a": "1"})
    assert (stage.asked, first.computed, first.kept) == (["a", "b"], ["a", "b"], [])
    before = everything(run.root)
    stamp = run.manifest("ingest", "s00000").stat().st_mtime_ns
    second = stage({"a": "1", "b": "1"})
    assert (stage.asked, second.kept) == ([], ["a", "b"])
    assert everything(run.root) == before
    assert run.manifest("ingest", "s00000").stat().st_mtime_ns == stamp
    held = scenes_of(run, "ingest", "s00000")
    assert held == {
        "a": {"fingerprint": "1", "digest": held["a"]["digest"], "length": 1},
        "b": {"fingerprint": "1", "digest": held["b"]["digest"], "length": 1},
    }
    assert held["a"]["digest"] != held["b"]["digest"]
    assert str(second) == "ingest s00000: 0 computed, 2 up to date, 0 set aside"


@pytest.mark.parametrize(
    "disturb, again",
    [
        (lambda run: remove(run.scene("b")), ["b"]),
        (lambda run: remove(run.record("ingest", "s00000", "b")), ["b"]),
        (lambda run: run.record("ingest", "s00000", "b").write_text('{"finger'), ["b"]),
        (lambda run: remove(run.manifest("ingest", "s00000")), []),
        (lambda run: run.manifest("ingest", "s00000").write_text("{"), []),
    ],
    ids=["store gone", "record gone", "record half", "manifest gone", "manifest half"],
)
def test_what_is_missing_is_made_again_and_no_more(run, disturb, again):
    stage = Stage(run)
    stage({"a": "1", "b": "1"})
    before = everything(run.root)
    disturb(run)
    stage({"a": "1", "b": "1"})
    assert stage.asked == again
    assert everything(run.root) == before


def test_a_new_fingerprint_is_new_work_for_its_scene_only(run):
    stage = Stage(run)
    stage({"a": "1", "b": "1"})
    outcome = stage({"a": "1", "b": "2", "c": "1"})
    assert (outcome.kept, outcome.computed) == (["a"], ["b", "c"])
    assert scenes_of(run, "ingest", "s00000")["b"]["fingerprint"] == "2"


def test_a_killed_job_goes_on_where_it_was(run, tmp_path_factory):
    class Killed(Stage):
        def work(self, scene: str):
            if scene == "b":
                # `replacing` would clean up after an error; a kill leaves no time for that
                half = self.run.scene("b").with_name(".b.zarr.partial.zarr")
                half.mkdir()
                (half / "data").write_text("?")
                raise KeyboardInterrupt
            return super().work(scene)

    with pytest.raises(KeyboardInterrupt):
        Killed(run)({"a": "1", "b": "1", "c": "1"})
    assert not run.manifest("ingest", "s00000").exists()
    stage = Stage(run)
    stage({"a": "1", "b": "1", "c": "1"})
    assert stage.asked == ["b", "c"]
    undisturbed = Run(tmp_path_factory.mktemp("undisturbed"))
    Stage(undisturbed)({"a": "1", "b": "1", "c": "1"})
    assert everything(run.root) == everything(undisturbed.root)
    assert sorted(p.name for p in run.scene("x").parent.iterdir()) == ["a.zarr", "b.zarr", "c.zarr"]


def test_a_broken_scene_is_set_aside_and_the_others_are_as_without_it(run, tmp_path_factory, capsys):
    outcome = Stage(run, broken=("b",))({"a": "1", "b": "1", "c": "1"})
    assert outcome.failed == {"b": "is cut short; fetch it again"}
    assert "ingest: scene b is set aside: is cut short; fetch it again" in capsys.readouterr().err
    assert read_json(run.manifest("ingest", "s00000"))["failed"] == outcome.failed
    assert failures(run, ["s00000", "s00001"], ("ingest", "features")) == {
        "b": "ingest: is cut short; fetch it again"
    }
    other = Run(tmp_path_factory.mktemp("other"))
    Stage(other)({"a": "1", "c": "1"})
    name = "manifests/ingest/s00000.json"
    mine, theirs = everything(run.root), everything(other.root)
    assert {k: v for k, v in mine.items() if k != name} == {k: v for k, v in theirs.items() if k != name}
    assert scenes_of(run, "ingest", "s00000") == scenes_of(other, "ingest", "s00000")


def test_a_scene_that_breaks_loses_its_old_store_and_one_that_is_mended_gets_it_back(run):
    Stage(run)({"a": "1", "b": "1"})
    outcome = Stage(run, broken=("b",))({"a": "1", "b": "2"})
    assert (outcome.kept, list(outcome.failed)) == (["a"], ["b"])
    assert not run.scene("b").exists()
    assert not run.record("ingest", "s00000", "b").exists()
    mended = Stage(run)({"a": "1", "b": "3"})
    assert (mended.kept, mended.computed, mended.failed) == (["a"], ["b"], {})
    assert run.scene("b").exists()


def test_a_scene_set_aside_is_tried_again(run):
    Stage(run, broken=("b",))({"a": "1", "b": "1"})
    stage = Stage(run)
    assert stage({"a": "1", "b": "1"}).computed == ["b"]


def test_a_scene_that_left_the_shard_leaves_no_store(run):
    stage = Stage(run)
    stage({"a": "1", "b": "1"})
    stage({"c": "1"}, "s00001")
    outcome = stage({"a": "1"})
    assert outcome.kept == ["a"]
    assert sorted(p.name for p in run.scene("x").parent.iterdir()) == ["a.zarr", "c.zarr"]
    assert list(scenes_of(run, "ingest", "s00000")) == ["a"]
    assert not run.record("ingest", "s00000", "b").exists()


def test_errors_that_are_no_scenes_fault_stop_the_job(run):
    def work(scene: str):
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        run_shard(run, "ingest", "s00000", {"a": "1"}, run.scene, work)
    assert not run.manifest("ingest", "s00000").exists()


# ------------------------------------------------------------------------------------- what the archive gives


@pytest.fixture
def fit(run):
    """Bring the statistics up to date; return whether that took work."""

    def fitted(fingerprint: str, text: str = "fitted", **options) -> bool:
        def work() -> None:
            run.statistics.write_text(text)

        return bool(run_archive(run, "normalize", fingerprint, work, **options).computed)

    return fitted


def test_what_is_fitted_is_kept_while_its_fingerprint_stands(run, fit, capsys):
    assert fit("1") and not fit("1") and fit("2")
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "1 computed, 0 up to date, 0 set aside",
        "0 computed, 1 up to date, 0 set aside",
        "1 computed, 0 up to date, 0 set aside",
    ]
    run.statistics.unlink()
    assert fit("2"), "what is lost is made again"


def test_the_manifest_of_a_fit_changes_with_its_content_only(run, fit):
    manifest = run.manifest("normalize", ARCHIVE)
    fit("1")
    before = manifest.read_bytes()
    manifest.unlink()  # as Snakemake does before each job
    assert not fit("1") and manifest.read_bytes() == before
    assert fit("2") and manifest.read_bytes() == before
    assert fit("3", text="otherwise") and manifest.read_bytes() != before


def test_a_fit_that_fails_is_not_taken_for_the_one_before(run, fit):
    def work() -> None:
        run.statistics.write_text("half")
        raise OSError("disk full")

    fit("1")
    with pytest.raises(OSError, match="disk full"):
        run_archive(run, "normalize", "2", work)
    assert fit("1"), "the file is no longer that of the record"


def test_of_several_processes_one_writes(run, fit):
    assert fit("1", writes=False)
    assert not (run.root / "manifests").exists()
    fit("1")
    before = everything(run.root)
    assert not fit("1", writes=False)
    assert everything(run.root) == before
