"""What others take of the project: the wheel, and the files by which catalogues know it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from scenes import make_geotiff

from sass import __version__

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel as ``pip install .`` does, from a copy: building leaves folders in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT / "sass", folder / "copy" / "sass", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder / "copy")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        folder / "copy",
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_every_file_of_the_package(wheel):
    assert wheel.name == f"sass-{__version__}-py3-none-any.whl"
    inside = {
        path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "sass").rglob("*") if path.is_file()
    }
    held = zipfile.ZipFile(wheel).namelist()
    assert {name for name in inside if "__pycache__" not in name} == {
        n for n in held if n.startswith("sass/")
    }


def test_an_installed_package_works_outside_of_the_checkout(wheel, tmp_path):
    home = tmp_path / "home"
    venv.create(home, with_pip=False)
    # its dependencies are those of this interpreter; a .pth in a folder that a .pth adds is not read, so the
    # checkout, which is installed there for editing, is not found
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*pip, wheel], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    make_geotiff(tmp_path / "archive" / "a.tif", (3, 64, 64))

    def give(*words: str) -> str:
        command = [home / "bin" / "sass", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert give("--version") == f"sass {__version__}\n"
    where = subprocess.run(
        [home / "bin" / "python", "-c", "import sass; print(sass.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(home)
    assert "added     1: a" in give("scan", "archive/*.tif", "--into", "run")
    give("ingest", "run", "--threads", "1")
    assert "features" in give("explain", "run")  # by rates that lie in the package


def test_the_version_is_the_same_wherever_it_stands():
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?", __version__)  # semantic versioning
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    titles = re.findall(r"^## (.*)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased" or titles[0].startswith(f"{__version__} ")


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/fault.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/wish.yml"),
    ],
)
def test_a_file_for_others_is_valid_by_their_own_schema(schema, file):
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*checker, CHECKOUT / file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
