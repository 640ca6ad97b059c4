"""Bad and odd inputs: each is accepted and right, or set aside with its reason; good ones never notice."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from corpus import ALLOWED, CASES, Truth, table, vrt
from rasterio.crs import CRS
from scenes import make_geotiff

from sass.catalog import Scene, load_index, load_shard
from sass.config import Catalog, Ingest
from sass.grid import Window
from sass.ingest import ingest_shard
from sass.run import Run
from sass.scan import scan
from sass.sources import shown
from sass.store import SceneStore

DOCS = Path(__file__).parents[1] / "docs" / "inputs.md"


@dataclass
class Tried:
    """A run of the whole corpus, and one of the good scenes alone."""

    run: Run
    alone: Run
    archive: Path
    truth: dict[str, dict[str, Truth] | None]
    broken: dict[str, str]
    failed: dict[str, str]
    rows: dict[str, Scene]
    said: str
    """All that came out on standard output and error, GDAL's part too."""

    def inside(self, name: str) -> dict[str, Scene]:
        """Return the rows of a case."""
        folder = str(self.archive / name) + os.sep
        return {scene: row for scene, row in self.rows.items() if row.paths[0].startswith(folder)}


def made(run: Run, archive: Path, between=lambda: None) -> tuple[dict, dict, dict]:
    settings = Catalog(shard_size=1000, vrt_folders=[str(archive / ALLOWED)])
    broken = scan(run, [str(archive), str(archive / "**" / "*.vrt")], settings=settings).broken
    between()
    failed, rows = {}, {}
    for shard in load_index(run):
        rows |= load_shard(run, shard)
        failed |= ingest_shard(run, shard, Ingest(chunk=128, shard=1024), threads=1).failed
    return broken, failed, rows


@contextlib.contextmanager
def written_down(said: Path):
    """Write what comes out of this process into a file; C libraries do not know of Python's streams."""
    with said.open("wb") as stream:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), kept):
                os.dup2(copy, number)
                os.close(copy)


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> Tried:
    home = tmp_path_factory.mktemp("corpus")
    archive, good = home / "archive", home / "archive" / "good"
    for seed in range(3):
        make_geotiff(good / f"good{seed}.tif", seed=seed)
    alone, run = Run(home / "alone"), Run(home / "run")
    made(alone, good)
    truth = {}
    for name, case in CASES.items():
        (archive / name).mkdir()
        truth[name] = case.make(archive / name)

    def between() -> None:
        for name, case in CASES.items():
            if case.after_scan:
                case.after_scan(archive / name)

    with written_down(home / "said.txt"):
        found = made(run, archive, between)
    return Tried(run, alone, archive, truth, *found, (home / "said.txt").read_text(errors="replace"))


@pytest.mark.parametrize("name", CASES)
def test_an_input_is_accepted_and_right_or_set_aside_with_its_reason(tried, name):
    case, rows = CASES[name], tried.inside(name)
    folder = shown(str(tried.archive / name)) + os.sep
    reasons = {path: reason for path, reason in tried.broken.items() if path.startswith(folder)}
    if case.refused and case.stage == "scan":
        assert reasons and not rows
        assert all(case.refused in reason for reason in reasons.values())
        return
    assert not reasons
    failed = {scene: tried.failed[scene] for scene in rows if scene in tried.failed}
    if case.refused:
        assert failed and failed.keys() == rows.keys()
        assert all(case.refused in reason for reason in failed.values())
        assert not any(tried.run.scene(scene).exists() for scene in rows)
        return
    assert not failed
    assert len(rows) == len(tried.truth[name])
    for scene, row in rows.items():
        holds(tried.run, scene, expected(tried.truth[name], scene, row))


def expected(truth: dict[str, Truth], scene: str, row: Scene) -> Truth:
    """Find what a scene must hold: by its folder, or its id, to which a mark is added where ids meet."""
    folder = Path(row.paths[0]).parent.name
    return next(held for name, held in truth.items() if name == folder or scene.startswith(name[:90]))


def holds(run: Run, scene: str, truth: Truth) -> None:
    store = SceneStore(run.scene(scene))
    found, valid = store.read(Window(0, 0, *store.shape))
    wanted = np.ones(truth.image.shape[1:], bool) if truth.valid is None else truth.valid
    assert np.array_equal(valid, wanted)
    assert found.dtype == truth.image.dtype
    assert np.array_equal(found, np.where(wanted, truth.image, 0))
    assert (store.place.crs is None) == (truth.crs is None)
    assert truth.crs is None or store.place.crs == CRS.from_user_input(truth.crs)
    assert tuple(store.place.transform)[:6] == pytest.approx(truth.transform, rel=1e-12)


def test_good_scenes_are_byte_for_byte_those_of_a_run_without_the_others(tried):
    for seed in range(3):
        one, other = (content(run.scene(f"good{seed}")) for run in (tried.run, tried.alone))
        assert one == other


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_later_scan_refuses_is_not_opened_though_the_scene_keeps_its_place(tmp_path, capsys):
    archive, run = tmp_path / "archive", Run(tmp_path / "run")
    for name in "ab":
        make_geotiff(archive / f"{name}.tif")
    made(run, archive)
    vrt(archive / "a.tif", str(tmp_path / "elsewhere.tif"))
    make_geotiff(tmp_path / "elsewhere.tif", (1, 24, 40))
    broken, failed, rows = made(run, archive)
    assert "outside the VRT's folder" in broken[str(archive / "a.tif")]
    assert sorted(rows) == ["a", "b"]
    assert failed.keys() == {"a"} and "was refused by the last scan" in failed["a"]
    assert not run.scene("a").exists() and run.scene("b").exists()


def test_nothing_is_left_of_what_was_refused(tried):
    left = [str(p) for p in tried.run.root.rglob("*") if ".partial" in p.name]
    assert left == []
    stores = {p.name.removesuffix(".zarr") for p in tried.run.scene("x").parent.iterdir()}
    assert stores == tried.rows.keys() - tried.failed.keys()


def test_gdal_itself_says_nothing(tried):
    lines = [line for line in tried.said.splitlines() if not line.startswith("ingest")]
    assert lines == []


def test_what_a_scan_prints_cannot_steer_a_terminal(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a\nb\x1b[31m.tif").write_bytes(b"")
    make_geotiff(tmp_path / "archive" / "good.tif")
    printed = str(scan(Run(tmp_path / "run"), [str(tmp_path / "archive")], settings=Catalog()))
    assert r"a\nb\x1b[31m.tif: cannot be read" in printed
    assert "\x1b" not in printed


def test_a_file_and_a_folder_that_may_not_be_read_are_named():
    if os.geteuid():
        pytest.skip("to take rights away and give them back takes root")
    with tempfile.TemporaryDirectory() as home:
        archive = Path(home) / "archive"
        for name in ("good.tif", "closed.tif", "shut/inside.tif"):
            make_geotiff(archive / name)
        os.chmod(home, 0o755)
        (archive / "closed.tif").chmod(0)
        (archive / "shut").chmod(0)
        (Path(home) / "run").mkdir(mode=0o777)
        (Path(home) / "run").chmod(0o777)
        os.seteuid(65534)
        try:
            result = scan(Run(Path(home) / "run"), [str(archive)], settings=Catalog())
        finally:
            os.seteuid(0)
        assert result.added == ["good"]
        assert "Permission denied" in result.broken[str(archive / "closed.tif")]
        assert "a folder that may not be read" in result.broken[str(archive / "shut") + os.sep]


def test_the_documentation_has_this_table():
    text = DOCS.read_text(encoding="utf-8")
    assert table() in text, "write it anew: python tests/corpus.py prints it"
    assert f"{len(CASES)} inputs" in text
