"""The format reference: it names every file of a run, and what it says of opening them is done here."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sass.cli import main
from sass.verify.soundness import half_written

DOCS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
RUN = "results/mine"
FREE = {"scene": r"[^/]+", "shard": r"s\d+", "stage": r"[a-z]+", "file": r"[^/]+"}
"""What may stand in the places of the names in the reference."""


def named() -> dict[str, re.Pattern]:
    """Return the files that the tables of the reference name, each with the pattern that it stands for."""
    tables = DOCS.split("## In QGIS")[0]
    cells = [line.split(" | ")[0] for line in tables.splitlines() if line.startswith("| `")]
    return {name: _pattern(name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _pattern(name: str) -> re.Pattern:
    parts = re.split(r"<(\w+)>", name)
    text = "".join(FREE[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile(text + (".+" if name.endswith("/") else ""))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def run(archive) -> Path:
    """Give the run under the name that it has in the reference, with polygons; commands start in its home."""
    (archive.folder / RUN).parent.mkdir()
    (archive.folder / RUN).symlink_to(archive.run.root)
    assert main(["polygons", str(archive.run.root)]) == 0
    assert main(["polygons", str(archive.run.root), "--scene", "first", "--format", "gpkg"]) == 0
    return archive.run.root


def test_every_file_of_a_run_is_named_and_what_is_named_is_there(run):
    there = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    patterns = named()
    unnamed = [
        name
        for name in there
        if not half_written(Path(name).name) and not any(p.fullmatch(name) for p in patterns.values())
    ]
    assert unnamed == []
    idle = {name for name, pattern in patterns.items() if not any(map(pattern.fullmatch, there))}
    # of one date, without names, and no scene has left
    assert {name for name in idle if not name.startswith(("changes/", "names/", "stac/changes"))} == {
        "catalog/left.json",
        "catalog/earlier/<shard>.json",
    }


@pytest.mark.filterwarnings("ignore::UserWarning:zarr")
def test_what_the_reference_says_of_python_can_be_done(run):
    written = blocks("python")
    assert len(written) == 5
    with contextlib.chdir(run.parent):
        for block in written:
            exec(compile(block, "docs/formats.md", "exec"), {})


@pytest.mark.skipif(not shutil.which("gdalwarp"), reason="GDAL's own tools are not installed")
def test_what_the_reference_says_of_gdal_can_be_done(run):
    written = [block for block in blocks("sh") if block.startswith("gdal")]
    assert len(written) == 2
    for block in written:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=run.parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    said = subprocess.run(["gdalinfo", "mine.vrt"], cwd=run.parent, capture_output=True, text=True).stdout
    assert "Color Table" in said
    assert 'label="class 0"' in (run.parent / "mine.qml").read_text()
