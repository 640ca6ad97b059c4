"""A finished run, damaged in many ways: each fault is named, and a repair takes that and no more."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import MODEL
from scenes import make_geotiff

from sass.cli import main
from sass.files import contents, read_json, sealed, write_json
from sass.manifest import record_archive
from sass.run import ARCHIVE_STAGES, SHARD_STAGES, Run
from sass.verify.finding import Finding, Look, repair
from sass.verify.run import verify

SCENES = {"first": "s00000", "second": "s00000", "third": "s00001"}
CONFIG = {
    "catalog": {"shard_size": 2, "hold_out": ["third"]},
    "ingest": {"chunk": 64, "shard": 64},
    "model": MODEL,
    "train": {"steps": 2, "batch": 2, "crop": 32, "pool": 4, "points": 64},
    "features": {"window": 64},
    "codebook": {"codes": 6, "sample": 1000, "refine": 1},
    "hierarchy": {"trees": 2},
    "segment": {"classes": 3, "window": 64},
    "evaluate": {"baselines": ["raw"], "sample": 500},
    "report": {"quicklook": 64, "chips": 1, "pages": 1},
}
STAGES = (
    "ingest",
    "normalize",
    "train",
    "features",
    "codebook",
    "hierarchy",
    "segment",
    "change",
    "evaluate",
    "report",
)


def made(stage: str) -> list[str]:
    """Return the scenes that a stage has made something of: the first follows none."""
    return [scene for scene in SCENES if (stage, scene) != ("change", "first")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Make a folder with scenes, labels and a finished run of them."""
    folder = tmp_path_factory.mktemp("archive")
    for seed, name in enumerate(SCENES):
        # three dates of one place
        taken = {"TIFFTAG_DATETIME": f"20{18 + seed}:06:01 10:00:00"}
        make_geotiff(folder / "scenes" / f"{name}.tif", (2, 80, 96), seed, tags=taken)
        kinds = np.random.default_rng(seed).integers(0, 3, (1, 10, 12)).repeat(8, 1).repeat(8, 2)
        make_geotiff(folder / "labels" / f"{name}.tif", data=kinds, nodata=255)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    asked = ["scan", f"{folder}/scenes/*.tif", "--labels", f"{folder}/labels/*.tif"]
    do(*asked, "--config", f"{folder}/config.yaml", "--into", f"{folder}/run")
    for stage in STAGES:
        do(stage, f"{folder}/run", "--threads", "1")
    do("complete", f"{folder}/run")
    return folder


@pytest.fixture
def run(archive, tmp_path) -> Run:
    """Give a copy of the finished run, to damage."""
    shutil.copytree(archive / "run", tmp_path / "run")
    return Run(tmp_path / "run")


def do(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0, words


def findings(run: Run, shard: str | None = None, quick: bool = False) -> list[Finding]:
    with ThreadPoolExecutor(2) as pool:
        return list(verify(Look(run, quick, pool.map), shard))


def faults(run: Run, **options) -> list[Finding]:
    return [finding for finding in findings(run, **options) if finding.fault]


def everything(run: Run) -> dict[str, bytes]:
    return {str(p.relative_to(run.root)): p.read_bytes() for p in run.root.rglob("*") if p.is_file()}


# -------------------------------------------------------------------------------------- ways to damage a file


def flip(path: Path, rng: np.random.Generator) -> str:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    return "has other bytes"


def truncate(path: Path, rng: np.random.Generator) -> str:
    os.truncate(path, rng.integers(path.stat().st_size))
    return "ends after"


def extend(path: Path, rng: np.random.Generator) -> str:
    with path.open("ab") as stream:
        stream.write(rng.bytes(3))
    return ", not "


def delete(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    return "is missing"


BYTES = (flip, truncate, extend, delete)


def test_an_undamaged_run_is_sound(archive, capsys):
    run = Run(archive / "run")
    before = everything(run)
    do("verify", run.root, "--repair")
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("sound, 0 notes: 3 scenes")
    do("verify", run.root, "--quick", "--threads", "1")
    assert " 0.0 MB read" in capsys.readouterr().err
    do("verify", run.root, "--shard", "s00001")
    assert everything(run) == before


def test_the_records_name_every_file_and_the_manifests_none(archive):
    run = Run(archive / "run")
    for stage in SHARD_STAGES:
        for scene in made(stage):
            shard = SCENES[scene]
            record = read_json(run.record(stage, shard, scene))
            assert record["files"] == contents(run.payload(stage, scene))
            assert "files" not in read_json(run.manifest(stage, shard))["scenes"][scene]
            assert str(archive) not in run.manifest(stage, shard).read_text()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damage", BYTES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("stage", SHARD_STAGES)
def test_every_damaged_file_of_a_scene_is_named(run, stage, damage, seed):
    rng = np.random.default_rng([seed, BYTES.index(damage), SHARD_STAGES.index(stage)])
    scene = made(stage)[seed % len(made(stage))]
    payload = run.payload(stage, scene)
    files = sorted(p for p in [payload, *payload.rglob("*")] if p.is_file() and p.suffix != ".xml")
    path = files[rng.integers(len(files))]
    wrong = damage(path, rng)
    (found,) = faults(run)
    assert found.about == f"{stage}, scene {scene}"
    assert found.file == path.relative_to(run.root).as_posix()
    assert wrong in found.wrong and found.remedy == "the next run makes it again"
    assert set(found.removes) == {
        payload,
        run.record(stage, SCENES[scene], scene),
        run.manifest(stage, SCENES[scene]),
    }
    assert faults(run, quick=True) == ([] if damage is flip else [found])
    assert faults(run, shard=SCENES[scene]) == [found]
    assert faults(run, shard="s00001" if SCENES[scene] == "s00000" else "s00000") == []


@pytest.mark.parametrize("seed", range(len(SHARD_STAGES)))
@pytest.mark.parametrize("damage", BYTES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", ["manifest", "record"])
def test_every_damaged_manifest_and_record_is_named(run, kind, damage, seed):
    rng = np.random.default_rng([seed, BYTES.index(damage), 7])
    stage = SHARD_STAGES[seed]
    scene = made(stage)[seed % len(made(stage))]
    path = run.manifest(stage, SCENES[scene])
    path = path if kind == "manifest" else run.record(stage, SCENES[scene], scene)
    damage(path, rng)
    before = everything(run)
    (found,) = faults(run)
    assert found.file == path.relative_to(run.root).as_posix() and found.about.startswith(stage)
    damaged = ("is no JSON", "is not in the form in which it was written", "is not as it was written")
    assert found.wrong in (("is missing",) if damage is delete else damaged)
    repair(run, [found])
    if kind == "manifest":
        taken = {found.file} & before.keys()
    elif stage == "segment":  # its item.json is proven by its record alone
        taken = {name for name in before if name.startswith(f"segments/{scene}/")}
        taken |= {f"manifests/{stage}/{SCENES[scene]}.json", found.file} & before.keys()
    else:
        assert everything(run).pop(found.file), "the manifest and the files have all that it said"
        assert faults(run) == []
        return
    assert before.keys() - everything(run).keys() == taken | {"manifests/complete.json"}


OUTPUTS = [
    "statistics.json",
    "model/encoder.safetensors",
    "model/checkpoint.safetensors",
    "model/training.jsonl",
    "codebook/codebook.safetensors",
    "codebook/hierarchy.json",
    "baselines/baselines.safetensors",
    "report/metrics.json",
    "report/index.html",
    "report/tables/scenes.csv",
    "stac/collection.json",
    "stac/items.parquet",
    "manifests/complete.json",
]


@pytest.mark.parametrize("damage", BYTES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", OUTPUTS)
def test_every_damaged_file_of_the_archive_is_named(run, name, damage):
    wrong = damage(run.root / name, np.random.default_rng(len(name)))
    found = faults(run)
    if damage is delete and name in ("model/checkpoint.safetensors", "manifests/complete.json"):
        assert found == []  # the one is needed until a training has ended, the other made when all stands
        return
    (fault,) = found
    assert fault.file == name and (wrong in fault.wrong or name == "manifests/complete.json")
    repair(run, found)
    assert (run.root / name).exists() is (name == "model/training.jsonl" and damage is not delete)


@pytest.mark.parametrize("damage", BYTES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("stage", [stage for stage in ARCHIVE_STAGES if stage != "name"])
def test_a_lost_record_of_the_archive_is_written_anew(run, stage, damage):
    before = everything(run)
    path = run.archive_record(stage)
    damage(path, np.random.default_rng(len(stage)))
    (fault,) = faults(run)
    name = path.relative_to(run.root).as_posix()
    assert fault.file == name
    repair(run, [fault])
    assert faults(run) == []
    after = everything(run)
    # the files are known, but not what made them: asked for once more, the stage works
    assert {key: value for key, value in after.items() if key != name} == {
        key: value for key, value in before.items() if key != name
    }
    said, known = json.loads(before[name]), json.loads(after[name])
    assert known["files"] == said["files"] and known["fingerprint"] is None


@pytest.mark.parametrize(
    "name", ["index.json", "broken.json", "shards/s00000.json", "shards/s00001.json", "labels/s00000.json"]
)
@pytest.mark.parametrize("damage", BYTES[:3], ids=lambda damage: damage.__name__)
def test_a_damaged_catalog_is_named_and_nothing_is_taken_for_foreign(run, name, damage):
    damage(run.root / "catalog" / name, np.random.default_rng(len(name)))
    before = everything(run)
    (fault,) = faults(run)
    assert fault.file == f"catalog/{name}"
    assert repair(run, [fault]) == [] and everything(run) == before


HALF_WRITTEN = [
    "scenes/.first.zarr.partial.zarr/c",
    "features/.other.zarr.partial.zarr/c",
    "segments/.first.partial/segments.tif",
    "segments/first/.segments.tif.plain.tif",
    "evaluation/.first.json.partial.json",
    "manifests/ingest/.s00000.json.partial.json",
    "manifests/ingest/s00000/.first.json.partial.json",
    "model/.encoder.safetensors.partial.safetensors",
    "model/.checkpoint.safetensors.partial",
    "report/figures/.areas.png.partial.png",
    ".statistics.json.partial.json",
    "catalog/.index.json.partial.json",
]
NO_STAGE = [
    "scenes/first.zarr/bands/notes",
    "segments/third/map.png",
    "report/chips/mine.png",
    "stac/mine.json",
]
GONE_SCENE = {
    "scenes/first.zarr": "scenes/gone.zarr",
    "features/third.zarr": "features/gone.zarr",
    "segments/first": "segments/gone",
    "evaluation/first.json": "evaluation/gone.json",
}
GONE_SHARD = {
    "manifests/segment/s00001": "manifests/segment/s00009",
    "manifests/ingest/s00001.json": "manifests/ingest/s00009.json",
    "catalog/shards/s00001.json": "catalog/shards/s00009.json",
}


@pytest.mark.parametrize(
    ("source", "file", "wrong"),
    [
        *((None, file, "was left half-written") for file in HALF_WRITTEN),
        *((None, file, "belongs to no stage") for file in NO_STAGE),
        *((source, file, "is of a scene that is not in the catalog") for source, file in GONE_SCENE.items()),
        *((source, file, "is of a shard that is not in the catalog") for source, file in GONE_SHARD.items()),
    ],
)
def test_what_is_foreign_goes_and_nothing_else(run, source, file, wrong):
    before = everything(run)
    path = run.root / file
    if source is None:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    elif (run.root / source).is_dir():
        shutil.copytree(run.root / source, path)
    else:
        shutil.copyfile(run.root / source, path)
    (fault,) = faults(run)
    assert file.startswith(fault.file) and fault.wrong == wrong
    assert repair(run, [fault]) == ["manifests/complete.json", fault.file]
    assert everything(run) | {"manifests/complete.json": before["manifests/complete.json"]} == before


@pytest.mark.parametrize("file", ["scenes/notes.txt", "model/mine.safetensors", "manifests/ingest/mine.json"])
def test_what_others_have_put_there_is_named_and_left(run, file):
    (run.root / file).write_text("mine")
    (fault,) = faults(run)
    assert fault.file == file and "move it elsewhere" in fault.remedy
    assert repair(run, [fault]) == []


# ------------------------------------------------------------------------ manifests, records, stores, catalog


def drop_all(run: Run, stage: str, scene: str, *, record: bool = True, entry: bool = True) -> None:
    """Take a scene out of a stage, its manifest too, as if it had never been computed."""
    shard = SCENES[scene]
    path = run.payload(stage, scene)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if record:
        run.record(stage, shard, scene).unlink()
    if entry:
        manifest = read_json(run.manifest(stage, shard))
        del manifest["scenes"][scene]
        write_json(run.manifest(stage, shard), sealed(manifest))


@pytest.mark.parametrize("stage", SHARD_STAGES)
def test_a_store_that_is_gone_is_named_with_what_vouched_for_it(run, stage):
    drop_all(run, stage, "second", record=False, entry=False)
    (fault,) = faults(run, quick=True)
    assert (fault.file, fault.wrong) == (
        run.payload(stage, "second").relative_to(run.root).as_posix(),
        "is missing",
    )
    drop = run.record(stage, "s00000", "second")
    drop.unlink()
    assert {f.file for f in faults(run)} == {fault.file, drop.relative_to(run.root).as_posix()}


@pytest.mark.parametrize("stage", SHARD_STAGES)
def test_a_scene_of_which_nothing_is_left_is_missed(run, stage):
    drop_all(run, stage, "second")
    found = faults(run)
    assert f"manifests/{stage}/s00000.json leaves out scene second" in f"{found[0].file} {found[0].wrong}"
    shutil.rmtree(run.manifest(stage, "s00001").with_suffix(""))
    run.manifest(stage, "s00001").unlink()
    drop_all(run, stage, "third", record=False, entry=False)
    # changes are looked for on request: a shard without any may never have been asked for them
    lost = (f"{stage}, shard s00001", "is missing") in {(f.about, f.wrong) for f in faults(run)}
    assert lost == (stage != "change")


def test_a_damaged_list_of_what_follows_what_is_named_and_scanned_anew(archive, run):
    path = run.catalog_earlier("s00001")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"second", b"first"))
    (fault,) = faults(run)
    assert (fault.file, fault.wrong) == ("catalog/earlier/s00001.json", "is not as it was written")
    path.unlink()
    assert [f.wrong for f in faults(run)] == ["is missing"]
    do("scan", f"{archive}/scenes/*.tif", "--into", run.root)
    assert path.read_bytes() == whole


def test_what_a_gis_keeps_beside_a_map_is_no_fault(run):
    for name in ("segments.tif", "confidence.tif"):
        (run.segments("first") / f"{name}.aux.xml").write_text("<PAMDataset>statistics</PAMDataset>")
    assert faults(run) == []


def test_records_and_manifests_that_disagree_are_named(run):
    manifest = read_json(run.manifest("features", "s00000"))
    manifest["scenes"]["first"]["valid"] += 1
    del manifest["scenes"]["second"]
    write_json(run.manifest("features", "s00000"), sealed(manifest))
    found = faults(run)
    assert [f.about for f in found] == ["features, scene first", "features, scene second"]
    assert {f.removes for f in found} == {(run.manifest("features", "s00000"),)}


def test_scenes_that_left_the_catalog_are_named(run, archive, tmp_path):
    scenes = [archive / "scenes" / f"{name}.tif" for name in ("first", "third")]
    do("scan", *scenes, "--into", run.root, "--prune", "--config", archive / "config.yaml")
    found = {(f.file, f.wrong) for f in faults(run)}
    gone = "is of a scene that is not in the catalog"
    for stage in SHARD_STAGES[:3]:
        assert (f"manifests/{stage}/s00000/second.json", gone) in found
        assert (run.payload(stage, "second").relative_to(run.root).as_posix(), gone) in found
    repair(run, faults(run))
    for stage in SHARD_STAGES:
        assert not run.payload(stage, "second").exists() and run.payload(stage, "third").exists()
        assert not run.manifest(stage, "s00000").exists() and run.manifest("ingest", "s00001").exists()


def test_what_was_set_aside_has_no_store(run):
    manifest = read_json(run.manifest("ingest", "s00001"))
    del manifest["scenes"]["third"]
    manifest["failed"]["third"] = "ends early"
    write_json(run.manifest("ingest", "s00001"), sealed(manifest))
    found = {f.file: f.wrong for f in faults(run) if f.about == "ingest, scene third"}
    wrong = "is there though the scene was set aside"
    assert found == {"scenes/third.zarr": wrong, "manifests/ingest/s00001/third.json": wrong}


def test_scenes_that_wait_for_the_next_run_are_no_fault(run, archive, tmp_path):
    for seed, name in enumerate(("fourth", "fifth", "sixth")):
        make_geotiff(tmp_path / "new" / f"{name}.tif", (2, 80, 96), seed)
    do("scan", tmp_path / "new" / "*.tif", "--into", run.root, "--config", archive / "config.yaml")
    assert len(read_json(run.catalog)["shards"]) > 2
    (note,) = findings(run)
    assert not note.fault and note.file == "manifests/complete.json"


def test_sources_that_change_are_noted_and_no_fault(run, archive, tmp_path, capsys):
    scenes, labels = tmp_path / "scenes", tmp_path / "labels"
    shutil.copytree(archive / "scenes", scenes)
    shutil.copytree(archive / "labels", labels)
    for shard in ("s00000", "s00001"):
        for path in (run.catalog_shard(shard), run.catalog_labels(shard)):
            write_json(path, yaml.safe_load(path.read_text().replace(str(archive), str(tmp_path))))
    index = {"shards": read_json(run.catalog)["shards"]}
    for entry in index["shards"].values():
        del entry["digests"]
    write_json(run.catalog, index)
    assert findings(run) == []
    (scenes / "first.tif").unlink()
    make_geotiff(scenes / "second.tif", (2, 80, 96), 9)
    os.utime(labels / "third.tif", ns=(1, 1))
    do("verify", run.root)
    said = capsys.readouterr()
    notes = said.out.splitlines()
    assert [note.split(", so ")[0] for note in notes] == [
        f"note: scene first: {scenes}/first.tif is gone",
        f"note: scene second: {scenes}/second.tif has changed since the scan",
        f"note: label of scene third: {labels}/third.tif has changed since the scan",
    ]
    assert said.err.startswith("sound, 3 notes")


def test_what_was_fitted_with_other_files_is_named(run):
    statistics = read_json(run.statistics)
    statistics["clip"] += 1
    write_json(run.statistics, statistics)
    record_archive(run, "normalize")
    assert [f.file for f in faults(run)] == ["model/encoder.safetensors", "baselines/baselines.safetensors"]


def test_a_run_without_a_catalog_and_a_shard_that_is_not_there_are_errors(run, capsys):
    assert main(["verify", str(run.root), "--shard", "s00007"]) == 1
    assert "there is no shard s00007; the catalog has s00000, s00001" in capsys.readouterr().err
    run.catalog.unlink()
    assert main(["verify", str(run.root)]) == 1
    assert "has no catalog of scenes yet" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- repair


def test_a_repair_leads_back_to_the_same_bytes_by_the_damaged_scenes_alone(run, capsys):
    before = everything(run)
    rng = np.random.default_rng(0)
    flip(run.scene("first") / "zarr.json", rng)
    truncate(run.scene("third") / "valid" / "c" / "0" / "0", rng)
    flip(run.features("third") / "embedding" / "c" / "0" / "0" / "0", rng)
    delete(run.segments("second") / "confidence.tif", rng)
    extend(run.evaluation("second"), rng)
    delete(run.record("features", "s00000", "second"), rng)
    flip(run.manifest("segment", "s00001"), rng)
    flip(run.hierarchy, rng)
    delete(run.metrics, rng)
    assert main(["verify", str(run.root), "--repair"]) == 4
    said = capsys.readouterr()
    assert said.err.startswith("9 faults, 0 notes")
    removed = [line.removeprefix("removed ") for line in said.out.splitlines() if line.startswith("removed ")]
    stores = {name for name in removed if not name.startswith("manifests/")}
    assert stores == {
        "scenes/first.zarr", "scenes/third.zarr", "features/third.zarr", "segments/second",
        "evaluation/second.json", "codebook/hierarchy.json",
    }  # fmt: skip
    computed = []
    for stage in ("ingest", "features", "hierarchy", "segment", "evaluate"):
        words = [stage, str(run.root), "--threads", "1"]
        assert main(words) == 0
        computed += [line for line in capsys.readouterr().err.splitlines() if " computed, " in line]
    assert computed == [
        "ingest s00000: 1 computed, 1 up to date, 0 set aside",
        "ingest s00001: 1 computed, 0 up to date, 0 set aside",
        "features s00000: 0 computed, 2 up to date, 0 set aside",
        "features s00001: 1 computed, 0 up to date, 0 set aside",
        "hierarchy archive: 1 computed, 0 up to date, 0 set aside",
        "segment s00000: 1 computed, 1 up to date, 0 set aside",
        "segment s00001: 0 computed, 1 up to date, 0 set aside",
        "baselines archive: 0 computed, 1 up to date, 0 set aside",
        "evaluate s00000: 1 computed, 1 up to date, 0 set aside",
        "evaluate s00001: 0 computed, 1 up to date, 0 set aside",
    ]
    do("complete", run.root)
    assert everything(run) == before
    assert faults(run) == []


def test_a_damaged_encoder_is_made_again_from_the_last_checkpoint(run):
    before = everything(run)
    flip(run.encoder, np.random.default_rng(0))
    repair(run, faults(run))
    assert run.checkpoint.exists() and not run.encoder.exists()
    do("train", run.root, "--threads", "1")
    do("complete", run.root)
    assert everything(run) == before
