"""The command line as people meet it: the tour, the examples, and what is said of their mistakes."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest
from scenes import make_geotiff

from sass import cli
from sass.cli import main


def commands() -> dict[str, argparse.ArgumentParser]:
    (held,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return held.choices


def told(capsys, *words: str) -> tuple[int, str]:
    """Give a command; return its exit code and what it says on stderr."""
    try:
        code = main(list(words))
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize("name", commands())
def test_every_command_has_an_example_that_it_would_take(name):
    text = commands()[name].description
    lines = [line.strip() for line in text.split("Example:\n")[1].split("\n\n")[0].splitlines()]
    found = [words for line in lines if (words := re.search(rf"\bsass ({name}\b[^#>)|]*)", line))]
    assert len(found) == len(lines) > 0
    for words in found:
        assert cli._parser().parse_args(shlex.split(words.group(1))).command == name


def test_the_tour_names_every_command_in_one_screen(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name in commands():
        assert re.search(rf"^    {name} ", text, re.MULTILINE), name
    assert max(map(len, cli.TOUR.splitlines())) <= 110 and len(cli.TOUR.splitlines()) < 40


def test_help_is_there_at_once():
    """It waits for no library that computes: a plain import of torch takes seconds."""
    code = "import sys; from sass.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'rasterio', 'xarray', 'scipy', 'pandas'} & sys.modules.keys(), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "set()\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with a run that was just scanned, and with files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    make_geotiff(tmp_path / "a.tif", (1, 64, 64))
    assert main(["scan", "a.tif", "--into", "run"]) == 0
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "bad.json").write_text("{")
    return tmp_path


@pytest.mark.parametrize(
    "line, code, remedy",
    [
        ("ingest run --shard s00007", 1, "there is no shard s00007; the catalog has 1, s00000 to s00000"),
        ("scan nothing.tif --into other", 1, "check the spelling"),
        ("scan bad.json --into other", 1, "not JSON"),
        (
            "scan a.tif --into a.tif",
            1,
            "a.tif is a file, and a run is a folder: give --into another name",
        ),
        ("ingest run --config nowhere.yaml", 1, "nowhere.yaml: cannot be read"),
        ("ingest run --config bad.yaml", 1, "bad.yaml: not YAML"),
        ("ingest run --config list.yaml", 1, "expected sections, as in config/config.yaml"),
        ("ingest run --set segment.clases=3", 1, "no such key; allowed here: classes"),
        ("ingest run --set segment.classes=many", 1, "segment.classes: "),
        ("ingest run --set segment.classes", 1, "expected section.key=value"),
        ("ingest run --threads some", 2, "'some' is not a whole number"),
        ("polygons run --shard s7", 1, "no shard s7"),
        ("segment run --classes 0", 2, "0 is less than 1"),
        ("ingset run", 2, "invalid choice: 'ingset'"),
        ("train run", 1, "run `sass normalize run` first"),
        ("segment run", 1, "run `sass hierarchy run` first"),
        ("report elsewhere", 1, "run `sass scan PATTERN... --into elsewhere` first"),
        ("explain run --rates bad.yaml", 1, "bad.yaml"),
        ("benchmark potsdam3 --root nowhere --protocol iic", 1, "see docs/potsdam.md"),
    ],
)
def test_a_mistake_gets_one_screen_with_a_remedy(folder, capsys, line, code, remedy):
    capsys.readouterr()
    came, said = told(capsys, *shlex.split(line))
    assert came == code
    assert remedy in said
    assert "Traceback" not in said and len(said.splitlines()) < 12
    if code == 1:
        assert said.startswith(f"sass {line.split()[0]}: ")


def test_a_damaged_file_shows_where_and_how_to_find_it(folder, capsys):
    assert main(["ingest", "run"]) == 0
    (folder / "run" / "manifests" / "ingest" / "s00000.json").write_text("{")
    code, said = told(capsys, "normalize", "run")
    assert code == 1 and "Traceback" in said
    assert "a file of run is damaged: `sass verify run` would find that" in said.splitlines()[-1]
