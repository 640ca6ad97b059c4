"""Bars on a terminal, plain lines in a log, nothing on stdout."""

import io
import os
import pty
import subprocess
import sys
from contextlib import closing

import pytest
from scenes import make_geotiff

from sass import progress as module
from sass.progress import Progress, progress, say


class Terminal(io.StringIO):
    """A stderr that is looked at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def every(monkeypatch):
    """Let each step be said, however soon it comes."""
    monkeypatch.setattr(module, "REDRAW", -1)
    monkeypatch.setattr(module, "PAUSE", -1)


def work(scenes: dict[str, int]) -> None:
    for name, windows in progress(scenes.items(), len(scenes), "ingest s00000"):
        for window in progress(range(windows), windows, name):
            if window == 1:
                say(f"{name} has a second window")


def test_a_log_gets_plain_lines_of_scenes_and_windows(every, capsys):
    work({"first": 2, "second": 1})
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "ingest s00000 0/2",
        "ingest s00000 0/2 > first 0/2",
        "ingest s00000 0/2 > first 1/2 0:00, 0:00 left",
        "first has a second window",
        "ingest s00000 1/2 0:00, 0:00 left",
        "ingest s00000 1/2 > second 0/1",
    ]


def test_a_terminal_has_one_line_with_a_bar_that_is_gone_in_the_end(every, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    work({"first": 2})
    drawn = sys.stderr.getvalue().split("\r\x1b[K")
    assert "ingest s00000 0/1 > first [██████████··········] 1/2 0:00, 0:00 left" in drawn
    assert "first has a second window\n" in drawn  # on a line of its own
    assert drawn[-1] == ""
    assert all("\n" not in line for line in drawn if "has" not in line)


def test_what_ends_soon_says_nothing(capsys):
    work({"first": 1})
    assert capsys.readouterr() == ("", "")


def test_the_time_left_is_that_of_what_was_done_here(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress("train", 10_000) as bar:
        bar.reach(4000)  # from a checkpoint
        now[0] += 3600
        bar.reach(5000, "loss 4.200")
    assert capsys.readouterr().err == "train 5000/10000 loss 4.200 1 h 00 min, 5 h 00 min left\n"


def test_a_bar_is_gone_when_the_work_fails(every, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError):
        for number in progress([1, 0], 2, "divide"):
            1 / number
    assert sys.stderr.getvalue().endswith("\r\x1b[K")
    assert not module._levels


def test_a_real_terminal_sees_the_bar_and_stdout_stays_as_scripts_read_it(tmp_path):
    make_geotiff(tmp_path / "a.tif", (1, 64, 64))
    code = "import sass.progress, sys; sass.progress.REDRAW = -1; from sass.cli import main; sys.exit(main())"

    def call(*words: str) -> tuple[str, str]:
        ours, theirs = pty.openpty()
        with closing(os.fdopen(ours, "rb", 0)) as seen:
            done = subprocess.run(
                [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs
            )
            os.close(theirs)
            text = b""
            while True:
                try:
                    part = seen.read(65536)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                text += part
        assert done.returncode == 0, text.decode()
        return done.stdout.decode(), text.decode()

    call("scan", "a.tif", "--into", "run")
    out, err = call("ingest", "run", "--threads", "1")
    assert out == ""
    assert "ingest s00000 0/1 > a [····················] 0/1" in err
    assert err.endswith("\r\x1b[Kingest s00000: 1 computed, 0 up to date, 0 set aside\r\n")
