"""Faults of the machine: what the user reads, what stands after, and that the same command then goes on."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import add_codes, add_features, add_maps, make_run, ramps
from rasterio.errors import RasterioIOError
from scenes import make_geotiff
from torch import nn

import sass.ingest
import sass.raster
import sass.store
import sass.windows
from sass.cli import main
from sass.config import Catalog, Features
from sass.errors import SassError
from sass.features import features_shard
from sass.grid import Window
from sass.lock import alone
from sass.manifest import scenes_of
from sass.model.interface import load_encoder
from sass.run import Run
from sass.scan import scan
from sass.statistics import Statistics
from sass.store import SceneStore
from sass.windows import embedded

CHECKOUT = Path(__file__).parents[1]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path) -> Run:
    for seed in range(3):
        make_geotiff(tmp_path / "archive" / f"scene{seed}.tif", seed=seed)
    run = Run(tmp_path / "run")
    scan(run, [str(tmp_path / "archive")], settings=Catalog())
    return run


def ingest(run: Run) -> int:
    return main(["ingest", str(run.root), "--threads", "1"])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EIO, "could not be written: Input/output error. The file system of "),
        (errno.EROFS, "could not be written: Read-only file system. The file system of "),
        (errno.EMFILE, "Too many open files: raise the limit (`ulimit -n 4096`) or give fewer --threads"),
        (errno.EACCES, "may not be read or written by this user (Permission denied): give the rights to "),
    ],
    ids=["EIO", "EROFS", "EMFILE", "EACCES"],
)
def test_an_error_of_the_system_is_told_in_a_line_and_the_command_goes_on_after_it(
    run, tmp_path, capsys, monkeypatch, number, said
):
    whole = Run(tmp_path / "whole")
    scan(whole, [str(tmp_path / "archive")], settings=Catalog())
    assert ingest(whole) == 0
    written = []

    def failing(folder: Path, files: dict[str, bytes]) -> None:
        written.append(folder)
        if len(written) > 1:
            raise OSError(number, os.strerror(number), str(folder))
        sass.store.write_files(folder, files)

    with monkeypatch.context() as broken:
        broken.setattr(sass.ingest, "write_files", failing)
        assert ingest(run) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sass ingest: ") and said in last
    assert "the same command again" in last
    assert sorted(p.name for p in run.scene("x").parent.iterdir()) == ["scene0.zarr"]
    assert ingest(run) == 0
    assert tree(run.root) == tree(whole.root)


def test_a_raster_that_cannot_be_opened_for_want_of_handles_is_not_the_fault_of_its_scene(run, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def refused(path):
        raise RasterioIOError("no more files")

    monkeypatch.setattr(sass.raster.rasterio, "open", refused)
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="Too many open files"):
        sass.raster._quietly_opened(str(run.root.parent / "archive" / "scene0.tif"))


# -------------------------------------------------------------------------------------------- two at once


def test_a_second_process_on_a_shard_is_refused_and_spoils_nothing(run, capsys):
    with alone(run.manifest("ingest", "s00000"), "a test"):
        assert ingest(run) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"another process is at work on ingest s00000 of {run.root} (process {os.getpid()} on " in said
        assert "let it end, or end it, then give the same command again" in said
        assert not run.scene("scene0").exists()
    assert ingest(run) == 0
    assert not list(run.root.rglob("*.lock"))


def test_a_second_scan_is_refused(run):
    before = tree(run.root)
    with alone(run.catalog.parent, "a test"), pytest.raises(SassError, match="at work on the catalog of"):
        scan(run, [str(run.root.parent / "archive")], settings=Catalog())
    assert tree(run.root) == before


def test_two_processes_at_once_end_with_the_bytes_of_one(run, tmp_path):
    whole = Run(tmp_path / "whole")
    scan(whole, [str(tmp_path / "archive")], settings=Catalog())
    assert ingest(whole) == 0
    command = [sys.executable, "-W", "ignore", "-m", "sass", "ingest", str(run.root), "--threads", "1"]
    both = [subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(process.communicate()[1], process.returncode) for process in both]
    # one of them, or both if one was late; a refusal says so
    assert 0 in [code for _, code in ended]
    assert all(code == 0 or "another process" in said for said, code in ended)
    assert tree(run.root) == tree(whole.root)


def test_the_lock_of_a_killed_process_holds_nobody_up(run):
    code = (
        "import os, pathlib, signal; from sass.lock import alone\n"
        f"with alone(pathlib.Path({str(run.manifest('ingest', 's00000'))!r}), 'x'): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == -9
    assert list(run.root.rglob("*.lock"))
    assert ingest(run) == 0
    assert not list(run.root.rglob("*.lock"))


def test_a_file_system_without_locks_is_worked_on_without(run, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unknown)
    assert ingest(run) == 0


# -------------------------------------------------------------------------------- clocks, late file systems


def test_a_clock_that_jumps_back_makes_nothing_stale_and_changes_no_byte(run):
    assert ingest(run) == 0
    before = tree(run.root)
    for path in run.root.rglob("*"):
        os.utime(path, (1, 1))  # as if all were older than the rasters
    assert ingest(run) == 0
    assert tree(run.root) == before
    assert {path.stat().st_mtime for path in run.root.rglob("*.json")} == {1.0}


def test_a_store_that_shows_late_is_waited_for(tmp_path, monkeypatch):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70))}})
    away = run.scene("a").with_suffix(".away")
    run.scene("a").rename(away)
    shows = threading.Timer(0.5, lambda: away.rename(run.scene("a")))
    shows.start()
    assert not features_shard(run, "s00000", Features(), 1).failed
    shows.join()


def test_a_store_that_never_shows_is_named(tmp_path, monkeypatch):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70))}})
    run.scene("a").rename(tmp_path / "away")
    monkeypatch.setattr(sass.store, "PATIENCE", 0.0)
    monkeypatch.setattr(sass.store, "sleep", lambda _: time.sleep(0))
    with pytest.raises(SassError, match=r"a\.zarr is written down as finished and is not there.*sass verify"):
        features_shard(run, "s00000", Features(), 1)


# ---------------------------------------------------------------------------------------- memory of a GPU


def test_rows_too_many_for_the_gpu_are_halved_until_they_fit_and_the_result_is_the_same(
    tmp_path, monkeypatch
):
    run = make_run(tmp_path, {"s00000": {"a": ramps((300, 420))}})
    for add in (add_features, add_codes, add_maps):
        add(run, ["s00000"])
    whole = {stage: scenes_of(run, stage, "s00000")["a"] for stage in ("features", "segment")}
    real, asked = sass.windows._unit, []

    def small(layers, encoder, stacked):
        asked.append(stacked.shape[1])
        if stacked.shape[1] > 40 or (len(asked) == 6 and stacked.shape[1] > 16):  # once in the middle, too
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(layers, encoder, stacked)

    monkeypatch.setattr(sass.windows, "_unit", small)
    run.record("features", "s00000", "a").unlink()
    add_features(run, ["s00000"])
    add_maps(run, ["s00000"])
    assert min(asked) < 40 < max(asked)
    halved = {stage: scenes_of(run, stage, "s00000")["a"] for stage in ("features", "segment")}
    assert halved["segment"]["counts"] == whole["segment"]["counts"]
    assert halved["features"]["valid"] == whole["features"]["valid"]


class Foreign(nn.Module):
    """An encoder of somebody else, given windows with a halo."""

    def __init__(self, encoder):
        super().__init__()
        self.inside = encoder
        for name in ("stride", "halo", "alignment", "bands", "normalisation", "exact"):
            setattr(self, name, getattr(encoder, name))

    def forward(self, x):
        return self.inside(x)


def foreign(run: Run) -> tuple[Foreign, Statistics]:
    encoder, about = load_encoder(run.encoder)
    return Foreign(encoder), Statistics.from_json(about["statistics"])


def test_a_window_too_large_for_the_gpu_is_halved_until_it_fits_and_the_result_is_the_same(
    tmp_path, monkeypatch
):
    run = make_run(tmp_path, {"s00000": {"a": ramps((300, 420))}})
    scene, (encoder, statistics) = SceneStore(run.scene("a")), foreign(run)
    whole = list(embedded(scene, encoder, statistics, 256, True))
    real, asked = sass.windows.embed, []

    def small(encoder, pixels, valid):
        asked.append(valid.shape)
        if max(valid.shape) > 250:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(encoder, pixels, valid)

    monkeypatch.setattr(sass.windows, "embed", small)
    halved = list(embedded(scene, encoder, statistics, 256, True))
    assert len(asked) > len(whole)
    for (window, vectors, valid), (expected, as_vectors, as_valid) in zip(halved, whole, strict=True):
        assert window == expected
        np.testing.assert_array_equal(valid, as_valid)
        np.testing.assert_allclose(vectors, as_vectors, atol=1e-5)


def test_a_gpu_too_small_for_any_window_is_told(tmp_path, monkeypatch):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70))}})

    def none(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sass.windows, "_unit", none)
    with pytest.raises(SassError, match=r"too little memory for .*take a larger GPU"):
        features_shard(run, "s00000", Features(), 1)
    encoder, statistics = foreign(run)
    with pytest.raises(SassError, match=r"too little memory for .*lower features\.window"):
        list(embedded(SceneStore(run.scene("a")), encoder, statistics, 256, True))


def test_halves_are_the_window():
    window = Window(8, 4, 48, 80)
    for unit in (1, 16):
        one, two = window.halves(unit)
        assert one.width % unit == 0 and (one.width, one.height) == (40 if unit == 1 else 32, 48)
        assert (one.y, one.x, two.y, two.x) == (8, 4, 8, 4 + one.width)
        assert one.width + two.width == 80 and two.height == 48
    assert [half.shape for half in Window(0, 0, 33, 16).halves(16)] == [(16, 16), (17, 16)]
