"""A finished run of the small archive, made once and put back as it was for each test that changes it."""

import shutil
from pathlib import Path

import pytest
import yaml
from small_archive import CONFIG, Archive
from snake import Done, snakemake


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> tuple[Archive, Done, Path]:
    """Run the workflow once; give the archive, what Snakemake said, and a copy of it all."""
    archive = Archive(tmp_path_factory.mktemp("home"))
    for seed, name in enumerate(("first", "second", "third", "fourth")):
        archive.make_scene(name, seed, label=name != "fourth")
    (archive.folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    archive.scan("--config", "config.yaml")
    done = snakemake(archive.folder)
    kept = tmp_path_factory.mktemp("kept") / "copy"
    shutil.copytree(archive.folder, kept)
    return archive, done, kept


@pytest.fixture
def archive(fresh) -> Archive:
    """Give the archive with its finished run, and Snakemake's memory of it, to change.

    It stands in the same place for each test, for a catalog names files by their whole paths.
    """
    archive, done, kept = fresh
    assert done.code == 0, done.text
    shutil.rmtree(archive.folder)
    shutil.copytree(kept, archive.folder)
    return archive
