"""What each kind of change makes anew: exact jobs, and exact scenes inside them.

Jobs are those that Snakemake plans, from a checkout of its own where code changes. The planned commands are
then carried out in this process, one after the other, for an interpreter for each would take minutes.
``python tests/workflow/test_increments.py`` prints the table of ``docs/increments.md``.
"""

import contextlib
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small_archive import Archive
from snake import CHECKOUT, Done, snakemake

import sass.fingerprint
from sass.catalog import load_index, load_labels, load_shard
from sass.cli import main
from sass.files import read_json, remove
from sass.run import ARCHIVE

DOCS = CHECKOUT / "docs" / "increments.md"

END = "metrics, report, complete"
SCORES = f"evaluate 2, {END}"
MAPS = f"segment 2, {SCORES}"
CODES = f"codebook, hierarchy, {MAPS}"
EMBEDDINGS = f"features 2, {CODES}"
FITS = f"normalize, train, {EMBEDDINGS}, baselines"
ONE_SHARD = f"ingest 1, features 1, segment 1, evaluate 1, {END}"

ALL_MAPS = "segment 4, evaluate 3"
ALL_CODES = f"codebook, hierarchy, {ALL_MAPS}"
ALL_FITS = f"normalize, train, features 4, {ALL_CODES}, baselines"


@dataclass
class World:
    """What an event can change: the archive with its finished run, and the checkout it is run from."""

    archive: Archive
    folder: Path
    checkout: Path = CHECKOUT
    arguments: list[str] = field(default_factory=list)

    def edit(self, module: str, text: str) -> None:
        """Add a line to a module of a checkout of its own."""
        self.checkout = self.folder / "checkout"
        for name in ("sass", "workflow", "profiles", "config"):
            ignored = shutil.ignore_patterns("__pycache__", ".snakemake")
            shutil.copytree(CHECKOUT / name, self.checkout / name, ignore=ignored)
        shutil.copy(CHECKOUT / "Snakefile", self.checkout)
        with (self.checkout / "sass" / module).open("a") as stream:
            stream.write(f"\n\n{text}\n")


Change = Callable[[World], object]


def code(module: str) -> Change:
    """Edit a module so that its outputs stay the same bytes: what follows need not be computed."""
    return lambda world: world.edit(module, "SWITCH = 1")


def setting(text: str) -> Change:
    """Change the configuration."""
    return lambda world: world.arguments.append(text)


def touch_everything(world: World) -> None:
    for path in world.archive.run.root.rglob("*"):
        path.touch()


def add(world: World) -> None:
    world.archive.make_scene("fifth", seed=5, label=False)
    world.archive.scan()


def change(scene: str) -> Change:
    def changed(world: World) -> None:
        world.archive.make_scene(scene, seed=7)
        world.archive.scan()

    return changed


def touch_raster(world: World) -> None:
    world.archive.raster("third").touch()
    world.archive.scan()


def lose_rasters(*scenes: str) -> Change:
    def lost(world: World) -> None:
        for scene in scenes:
            world.archive.raster(scene).unlink()
        world.archive.scan()

    return lost


def away_for_one_scan(world: World) -> None:
    paths = [world.archive.raster(scene) for scene in ("second", "third", "fourth")]
    for path in paths:
        path.rename(path.with_suffix(".away"))
    world.archive.scan()
    for path in paths:
        path.with_suffix(".away").rename(path)
    world.archive.scan()


def add_label(world: World) -> None:
    raster = world.archive.raster("fourth")
    before = raster.stat()
    world.archive.make_scene("fourth", seed=3)  # the same raster once more, and its label
    os.utime(raster, ns=(before.st_atime_ns, before.st_mtime_ns))
    world.archive.scan()


def name_classes(world: World) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["name", str(world.archive.run.root), "--points", str(world.archive.label("first"))]) == 0


def lose_label(world: World) -> None:
    world.archive.label("third").unlink()
    world.archive.scan()


def lose_manifest(world: World) -> None:
    world.archive.run.manifest("features", "s00001").unlink()


def lose_store(world: World) -> None:
    remove(world.archive.run.features("third"))
    lose_manifest(world)


def lose_record(world: World) -> None:
    world.archive.run.record("features", "s00001", "third").unlink()
    lose_manifest(world)


def lose_encoder(world: World) -> None:
    world.archive.run.encoder.unlink()
    world.archive.run.manifest("train", ARCHIVE).unlink()


EVENTS: list[tuple[str, Change, str, str]] = [
    ("nothing", lambda world: None, "", ""),
    ("every file of the run is touched", touch_everything, "", ""),
    ("a comment in a module of all stages", lambda world: world.edit("manifest.py", "# so"), "", ""),
    ("code of ingest, of the same effect", code("ingest.py"), f"ingest 2, {FITS}", "ingest 4"),
    (
        "code of normalize (in it the bins of ingest)",
        code("statistics.py"),
        f"ingest 2, {FITS}",
        "ingest 4, normalize, train, features 4, segment 4, baselines, evaluate 3",
    ),
    ("code of train", code("train.py"), f"train, {EMBEDDINGS}", "train"),
    ("code of features", code("features.py"), EMBEDDINGS, "features 4"),
    (
        "code of windows (of features, and of the encoder of a baseline)",
        code("windows.py"),
        f"{EMBEDDINGS}, baselines",
        "features 4, baselines, evaluate 3",
    ),
    (
        "code of codebook (in it what hierarchy and segment read it by)",
        code("cluster/codebook.py"),
        CODES,
        "codebook, hierarchy, segment 4",
    ),
    (
        "code of hierarchy (in it how segment cuts the tree)",
        code("cluster/hierarchy.py"),
        f"hierarchy, {MAPS}",
        "hierarchy, segment 4",
    ),
    ("code of segment", code("segment.py"), MAPS, "segment 4"),
    ("code of the baselines", code("baselines.py"), f"baselines, {SCORES}", "baselines, evaluate 3"),
    ("code of evaluate", code("evaluate.py"), SCORES, "evaluate 3"),
    ("code of report", code("report/build.py"), "report, complete", ""),
    (
        "`catalog.fit_shards`",
        setting("catalog={fit_shards: [s00001]}"),
        FITS,
        ALL_FITS,
    ),
    ("`catalog.seed`: the next first scan reads it", setting("catalog={seed: 1}"), "report, complete", ""),
    ("`ingest`", setting("ingest={erode: 1}"), f"ingest 2, {FITS}", f"ingest 4, {ALL_FITS}"),
    ("`normalize`", setting("normalize={clip: 3}"), FITS, ALL_FITS),
    (
        "`model`",
        setting("model={dim: 12}"),
        f"train, {EMBEDDINGS}, baselines",
        f"train, features 4, {ALL_CODES}, baselines",
    ),
    ("`train`", setting("train={seed: 1}"), f"train, {EMBEDDINGS}", f"train, features 4, {ALL_CODES}"),
    ("`features`", setting("features={dtype: int8}"), EMBEDDINGS, f"features 4, {ALL_CODES}"),
    ("`codebook`", setting("codebook={seed: 1}"), CODES, ALL_CODES),
    (
        "`hierarchy`, the codes of each class being the same in the end",
        setting("hierarchy={smallest: 0.0201}"),
        f"hierarchy, {MAPS}",
        "hierarchy",
    ),
    ("`segment.classes`", setting("segment={classes: 3}"), f"{MAPS}, baselines", f"{ALL_MAPS}, baselines"),
    ("`segment`, another key", setting("segment={smooth: 1}"), MAPS, ALL_MAPS),
    ("`change`, in an archive of one date", setting("change={maps: true}"), "report, complete", ""),
    ("`dask`", setting("dask={cluster: slurm, threshold: 0}"), "", ""),
    ("`evaluate.seed`", setting("evaluate={seed: 1}"), f"baselines, {SCORES}", "baselines, evaluate 3"),
    ("`evaluate`, another key", setting("evaluate={ignore: [3]}"), SCORES, "evaluate 3"),
    ("`report`", setting("report={title: Fields}"), "report, complete", ""),
    ("a scene is added", add, ONE_SHARD, "ingest 1, features 1, segment 1"),
    ("a scene is changed", change("third"), ONE_SHARD, "ingest 1, features 1, segment 1, evaluate 1"),
    ("a scene's raster is touched", touch_raster, ONE_SHARD, "ingest 1"),
    ("a scene of a fit shard is changed", change("first"), f"ingest 1, {FITS}", f"ingest 1, {ALL_FITS}"),
    ("a scene is removed", lose_rasters("fourth"), ONE_SHARD, ""),
    (
        "all scenes of a shard are removed",
        lose_rasters("third", "fourth"),
        f"ingest 1, features 1, segment 1, {END}",
        "",
    ),
    ("a disk is away for one scan", away_for_one_scan, "", ""),
    ("a label is added", add_label, f"evaluate 1, {END}", "evaluate 1"),
    ("a shard's last label is removed", lose_label, END, ""),
    ("classes are named by places", name_classes, MAPS, "segment 4, evaluate 3"),
    ("a manifest is lost", lose_manifest, f"features 1, segment 1, evaluate 1, {END}", ""),
    (
        "a store is lost, and its shard's manifest is removed",
        lose_store,
        f"features 1, segment 1, evaluate 1, {END}",
        "features 1",
    ),
    (
        "a scene's record and its shard's manifest are removed",
        lose_record,
        f"features 1, segment 1, evaluate 1, {END}",
        "features 1",
    ),
    ("the encoder is lost, and its manifest is removed", lose_encoder, f"train, {EMBEDDINGS}", "train"),
]
"""What happens, how, the jobs it makes, and the scenes (1 where the unit is the archive) computed in them."""


def counted(text: str) -> dict[str, int]:
    """Read ``stage 2, stage``; without a number it is one."""
    parts = (part.split() for part in text.split(", ") if part)
    return {stage: int(*count) if count else 1 for stage, *count in parts}


def carry_out(plan: Done, folder: Path) -> dict[str, int]:
    """Do the planned jobs; return the stages that computed something and how much."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        for output, words in plan.steps:
            output.unlink(missing_ok=True)  # as Snakemake does
            assert main(words) == 0, said.getvalue()
            assert output.exists()
    computed: Counter[str] = Counter()
    for stage, count in re.findall(r"^(\w+) \w+: (\d+) computed", said.getvalue(), re.MULTILINE):
        computed[stage] += int(count)
    return {stage: count for stage, count in computed.items() if count}


@pytest.mark.parametrize(("change", "jobs", "computed"), [e[1:] for e in EVENTS], ids=[e[0] for e in EVENTS])
def test_a_change_makes_anew_what_depends_on_it_and_nothing_else(
    archive, tmp_path, monkeypatch, change, jobs, computed
):
    world = World(archive, tmp_path)
    change(world)
    plan = snakemake(archive.folder, *world.arguments, "-n", "-p", checkout=world.checkout)
    assert plan.code == 0, plan.text
    assert plan.jobs == counted(jobs)
    assert len(plan.steps) == sum(plan.jobs.values())

    monkeypatch.setattr(sass.fingerprint, "PACKAGE", world.checkout / "sass")
    sass.fingerprint._module.cache_clear()
    assert carry_out(plan, archive.folder) == counted(computed)
    sass.fingerprint._module.cache_clear()

    run, index = archive.run, load_index(archive.run)
    scenes = {scene for shard in index for scene in load_shard(run, shard)}
    assert {path.stem for path in (run.root / "scenes").iterdir()} == scenes
    assert {path.stem for path in (run.root / "features").iterdir()} == scenes
    assert {path.name for path in (run.root / "segments").iterdir()} == scenes
    labelled = {scene for shard in index for scene in load_labels(run, shard)}
    assert {path.stem for path in (run.root / "evaluation").iterdir()} == labelled
    assert set(read_json(run.metrics)["scenes"]) == labelled


def test_large_inputs_are_compared_by_content_too(archive):
    """Where shards hold many hundred scenes, their manifests are larger than Snakemake's own limit."""
    broken = archive.run.broken
    broken.write_text(broken.read_text() + " " * 2_000_000)
    assert snakemake(archive.folder).jobs == {"report": 1, "complete": 1}
    os.utime(broken)
    assert snakemake(archive.folder, "-n").jobs == {}
    assert snakemake(archive.folder, "-n", "--max-checksum-file-size", "1000000").jobs != {}


def test_no_job_reads_a_file_that_grows_with_the_model(archive):
    plan = snakemake(archive.folder, "-n", "-F")
    inputs = re.findall(r"^    input: (.*)$", plan.text, re.MULTILINE)
    assert {Path(path).suffix for line in inputs for path in line.split(", ")} == {".json", ".html"}


def table() -> str:
    """Return the table of the docs."""
    lines = ["| what happens | jobs | scenes computed in them |", "|---|---|---|"]
    lines += [f"| {event} | {jobs or 'none'} | {computed or 'none'} |" for event, _, jobs, computed in EVENTS]
    return "\n".join(lines)


def test_the_table_in_the_docs_is_this_one():
    assert table() in DOCS.read_text(), "run `python tests/workflow/test_increments.py` and put it into docs"


if __name__ == "__main__":
    print(table())
