"""Training: it learns, it can be killed anywhere, and several processes end with one encoder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_run, ramps
from safetensors import safe_open

from sass.config import Model, Train
from sass.errors import SassError
from sass.files import read_json
from sass.model import train as training
from sass.model.checkpoint import undivided
from sass.model.encoder import build_encoder
from sass.model.interface import load_encoder, save_encoder
from sass.model.train import TrainingError, train
from sass.run import Run
from sass.train import train_encoder

TESTS = Path(__file__).parents[1]
MODEL = Model(widths=[8, 8], blocks=1, dim=8).model_dump(mode="json")
STATISTICS = {"bands": [{"name": "a"}, {"name": "b"}], "clip": 4.0}


SHARED = {"steps": 8, "pool": 32, "refresh": 3}
"""What two processes train by: a pool whose renewed part they can share evenly."""


def settings(**changed) -> dict:
    tiny = {
        "steps": 14, "batch": 4, "crop": 32, "pool": 8, "refresh": 3, "points": 64, "checkpoint": 4,
        "fine": {"prototypes": 6}, "coarse": {"prototypes": 3},
    }  # fmt: skip
    return Train(**(tiny | changed)).model_dump(mode="json")


def tile(draw: int) -> np.ndarray:
    """Make a tile of two textures divided by a line, with a corner without data."""
    rng = np.random.default_rng(draw)
    y, x = np.mgrid[:64, :64]
    angle = rng.uniform(0, 6.28)
    side = np.sin(angle) * (y - 32) + np.cos(angle) * (x - 32) > rng.uniform(-15, 15)
    bands = np.stack([np.where(side, 1.5, -1.5), np.where(side, -0.5, 0.5)]) + rng.normal(0, 0.3, (2, 64, 64))
    out = np.concatenate([bands, np.ones((1, 64, 64))]).astype(np.float16)
    out[:, :8, :8] = 0
    return out


def run_training(folder: Path, key: str = "k", read=tile, place=str, **changed) -> bytes:
    """Train in a folder and return the bytes of the encoder."""
    folder.mkdir(exist_ok=True)
    encoder = train(
        read, build_encoder(2, MODEL, seed=0), 4.0, settings(**changed), checkpoint=folder / "checkpoint",
        log=folder / "log",
        key=key, threads=1, place=place,
    )  # fmt: skip
    save_encoder(folder / "encoder", encoder, MODEL, STATISTICS)
    return (folder / "encoder").read_bytes()


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_training(folder)
    return everything(folder)


class Killed(BaseException):
    """What a signal looks like from inside."""


def kill_at(monkeypatch, fatal: int) -> None:
    """Let the training die in the middle of a step."""
    real = training._gradients

    def step(state, *rest):
        terms = real(state, *rest)
        if state.step == fatal:
            raise Killed
        return terms

    monkeypatch.setattr(training, "_gradients", step)


@pytest.mark.parametrize("deaths", [[1], [4], [11], [5, 7, 13]], ids=str)
def test_killed_and_run_again_gives_the_bytes_of_an_undisturbed_training(
    tmp_path, monkeypatch, undisturbed, deaths
):
    for fatal in deaths:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_at(patched, fatal)
            run_training(tmp_path)
    run_training(tmp_path)
    assert everything(tmp_path) == undisturbed


def test_killed_between_log_and_checkpoint_doubles_no_line(tmp_path, monkeypatch, undisturbed):
    real = training.save

    def save(state, *rest):
        if state.step == 8:
            raise Killed
        real(state, *rest)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "save", save)
        run_training(tmp_path)
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["step"] == 8
    run_training(tmp_path)
    assert everything(tmp_path) == undisturbed


def test_every_step_of_a_short_training_is_logged_once(undisturbed):
    rows = [json.loads(line) for line in undisturbed["log"].decode().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 15))
    assert set(rows[0]) == {"step", "loss", "fine", "coarse", "instance", "lr"}


@pytest.mark.parametrize(("number", "saved"), [(signal.SIGKILL, 4), (signal.SIGTERM, 6)], ids=str)
def test_a_process_ended_by_the_system_goes_on_and_one_that_is_asked_to_saves_its_last_step_first(
    tmp_path, undisturbed, number, saved
):
    script = (
        "import sys, time; sys.path[:0] = [{tests!r}, {model!r}]\n"
        "from pathlib import Path\nimport test_train as t, sass.model.train as training\n"
        "from sass.stopping import stoppable\n"
        "real = training._gradients\n"
        "def gradients(state, *rest):\n"
        "    terms = real(state, *rest)\n"
        "    if state.step == 6: Path({folder!r}, 'now').touch(); time.sleep(600)\n"  # within a step
        "    return terms\n"
        "training._gradients = gradients\n"
        "with stoppable(): t.run_training(Path({folder!r}))\n"
    ).format(tests=str(TESTS), model=str(TESTS / "model"), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not (tmp_path / "now").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == (143 if number == signal.SIGTERM else -number)
    finally:
        process.kill()
        process.wait()
    (tmp_path / "now").unlink()
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        assert json.loads(file.metadata()["sass"])["step"] == saved
    assert sorted(everything(tmp_path)) == ["checkpoint", "log"]
    run_training(tmp_path)
    assert everything(tmp_path) == undisturbed


def test_asked_to_end_before_a_line_is_due_for_the_log_it_saves_and_goes_on(tmp_path, monkeypatch):
    sparse = {"steps": 400, "pool": 4, "batch": 2}  # every second step has a line

    def ended_at(fatal: int, by: BaseException) -> None:
        real = training._gradients

        def gradients(state, *rest):
            if state.step == fatal:
                raise by
            return real(state, *rest)

        with monkeypatch.context() as patched, pytest.raises(type(by)):
            patched.setattr(training, "_gradients", gradients)
            run_training(tmp_path, checkpoint=1000, **sparse)

    ended_at(1, KeyboardInterrupt())
    assert (tmp_path / "log").read_text() == ""
    ended_at(3, SystemExit(143))
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2]


def test_a_signal_waits_for_the_end_of_what_is_undivided():
    done = []

    def stop(number, frame):
        done.append("stopped")
        raise SystemExit

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit), undivided():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["whole", "stopped"]


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 9)
        run_training(tmp_path, key="other", lr=0.01)
    run_training(tmp_path)
    assert everything(tmp_path) == undisturbed


def test_a_finished_training_asked_for_again_gives_the_same_encoder(tmp_path, undisturbed):
    first = run_training(tmp_path)
    assert run_training(tmp_path) == first
    assert everything(tmp_path) == undisturbed


def test_training_draws_nothing_from_torch_itself(tmp_path, undisturbed):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert run_training(tmp_path) == undisturbed["encoder"]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_matters(tmp_path, undisturbed):
    assert run_training(tmp_path, seed=1) != undisturbed["encoder"]


def test_the_loss_falls_and_the_two_textures_come_apart(tmp_path):
    run_training(tmp_path, steps=80, batch=8, points=256, refresh=20)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log").read_text().splitlines()]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.5
    encoder, _ = load_encoder(tmp_path / "encoder")
    image = torch.ones(1, 3, 256, 256)
    image[0, 0, :, :128], image[0, 0, :, 128:] = -1.5, 1.5
    image[0, 1, :, :128], image[0, 1, :, 128:] = 0.5, -0.5
    image[0, :2] += 0.3 * torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedding = torch.nn.functional.normalize(encoder(image)[0], dim=0)
    left, right = (embedding[:, 16:48, a : a + 8].reshape(8, -1).T for a in (14, 42))
    towards = right.mean(0) - left.mean(0)  # a line on which the textures lie apart
    threshold = towards @ (left.mean(0) + right.mean(0)) / 2
    # eighty steps of a toy: most, not all; a half would be chance
    assert (left @ towards < threshold).float().mean() > 0.8
    assert (right @ towards > threshold).float().mean() > 0.8


def wild(draw: int) -> np.ndarray:
    """Give a good first pool and then tiles that are not numbers."""
    bands = np.full((2, 64, 64), np.nan, np.float16)
    return tile(draw) if draw < 4 else np.concatenate([bands, np.ones_like(bands[:1])])


def test_weights_that_are_lost_reach_no_checkpoint_when_it_is_asked_to_end(tmp_path, monkeypatch):
    real = training._gradients

    def gradients(state, *rest):
        if state.step == 4:  # the loss of this step has no line in the log
            raise SystemExit(143)
        return real(state, *rest)

    monkeypatch.setattr(training, "_gradients", gradients)
    with pytest.raises(SystemExit):
        run_training(tmp_path, read=wild, pool=4, refresh=3, checkpoint=1000, steps=1000)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("steps", [14, 400], ids=["every step logged", "every second step logged"])
def test_a_loss_that_is_not_finite_stops_with_a_clear_error_and_keeps_the_last_good_checkpoint(
    tmp_path, steps
):
    # the pool begins with tiles 0 to 3 and takes up tile 4 before the fourth step
    said = r"loss is nan at step 4.*checkpoint.*kept.*train\.lr.*step 4, the first lost one, was .*tile 4"
    with pytest.raises(TrainingError, match=said):
        changed = {"pool": 4, "refresh": 3, "checkpoint": 1, "steps": steps}
        run_training(tmp_path, read=wild, place="tile {}".format, **changed)
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        assert json.loads(file.metadata()["sass"])["step"] == 3
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118


def test_views_that_share_no_place_break_nothing(tmp_path):
    def nothing(draw: int) -> np.ndarray:
        return np.zeros((3, 64, 64), np.float16)

    run_training(tmp_path, read=nothing)
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert all(row["loss"] == 0 for row in rows)


@pytest.mark.parametrize(("batch", "points"), [(1, 4096), (8, 4)])
def test_any_number_of_points_for_any_batch(tmp_path, batch, points):
    run_training(tmp_path, batch=batch, points=points, steps=2)
    assert np.isfinite(json.loads((tmp_path / "log").read_text().splitlines()[-1])["loss"])


# ---- the stage


def small_run(root: Path):
    scenes = {"a": ramps((90, 70)), "b": ramps((40, 120), seed=1)}  # both are smaller than a tile somewhere
    return make_run(root, {"s00000": scenes})


def test_the_stage_writes_an_encoder_that_knows_its_statistics(tmp_path, capsys):
    run = small_run(tmp_path)
    run.encoder.unlink()
    for _ in range(2):
        train_encoder(run, ["s00000"], Model(**MODEL), Train(**settings(steps=3)), threads=1)
    encoder, about = load_encoder(run.encoder)
    assert about["statistics"] == read_json(run.statistics)
    assert about["halo"] == encoder.halo
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second


def test_the_stage_reports_a_lost_loss_as_an_error_for_people(tmp_path, monkeypatch):
    run = small_run(tmp_path)
    monkeypatch.setattr("sass.train.TileSampler.__call__", lambda self, draw: wild(4))
    with pytest.raises(SassError, match="loss is nan at step 1"):
        train_encoder(run, ["s00000"], Model(**MODEL), Train(**settings()), threads=1)
    assert not run.checkpoint.exists()


def test_two_processes_end_with_one_encoder_by_the_losses_of_one_process_with_the_joint_batch(tmp_path):
    joint = small_run(tmp_path / "joint")
    run = small_run(tmp_path / "run")
    train_encoder(joint, ["s00000"], Model(**MODEL), Train(**settings(**SHARED)), threads=1)
    script = (
        "import sys; sys.path[:0] = [{tests!r}, {model!r}]\n"
        "import os; from pathlib import Path\n"
        "import test_train as t, sass.train as stage\n"
        "real = stage.train\n"
        "def train(*a, **k):\n"
        "    encoder = real(*a, **k)\n"
        "    t.save_encoder(Path({own!r}, os.environ['RANK']), encoder, t.MODEL, t.STATISTICS)\n"
        "    return encoder\n"
        "stage.train = train\n"
        "run, model, settings = t.Run(Path({run!r})), t.Model(**t.MODEL), t.Train(**t.settings(**t.SHARED))\n"
        "stage.train_encoder(run, ['s00000'], model, settings, threads=1)\n"
    ).format(tests=str(TESTS), model=str(TESTS / "model"), own=str(tmp_path), run=str(run.root))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank, "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in "01"
    ]
    try:
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    written, _ = load_encoder(run.encoder)
    own, _ = load_encoder(tmp_path / "0")
    assert all(torch.equal(a, b) for a, b in zip(written.state_dict().values(), own.state_dict().values()))
    alone, together = (read_log(each) for each in (joint, run))
    assert [row["step"] for row in together] == [1, 2, 3, 4, 5, 6, 7, 8]
    for row, same in zip(together, alone):
        # equal but for the order of sums, which eight optimiser steps have made larger
        assert row == pytest.approx(same, rel=2e-3)


def read_log(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.training_log.read_text().splitlines()]


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_process_group", lambda: (0, 3, torch.device("cpu")))
    with pytest.raises(TrainingError, match=r"4 places.*3 processes.*train\.batch"):
        run_training(tmp_path)
