"""The state of a training on disk: written whole or not at all, taken up only under its own key."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as as_bytes
from torch import nn

ENDS = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a process to end: Slurm's warning, and Ctrl-C."""


@dataclass
class State:
    """All that a training has come to.

    Student and teacher each hold an ``encoder`` and an ``objective``. ``before`` holds their buffers as they
    were after the last whole step: looking at images changes those (running means), before any weight.
    """

    student: nn.ModuleDict
    teacher: nn.ModuleDict
    optimizer: torch.optim.AdamW
    step: int = 0
    before: list[torch.Tensor] = field(default_factory=list)

    def remember(self) -> None:
        """Take note that a step is whole."""
        self.before = [buffer.clone() for buffer in self._buffers()]

    def undo(self) -> None:
        """Go back to the last whole step from a step whose weights have not been changed yet."""
        for buffer, before in zip(self._buffers(), self.before):
            buffer.copy_(before)

    def _buffers(self) -> list[torch.Tensor]:
        return [*self.student.buffers(), *self.teacher.buffers()]


def save(state: State, path: Path, key: str) -> None:
    """Write the state as safetensors, with the key of all that determines the training."""
    tensors = {f"student.{k}": v for k, v in state.student.state_dict().items()}
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # one entry: several would be written in any order
    about = {"sass": json.dumps({"step": state.step, "key": key})}
    with _replacing(path) as temporary:
        # not save_file: its own temporary file would stay where it is killed
        temporary.write_bytes(as_bytes(tensors, about))


def resume(state: State, path: Path, key: str) -> None:
    """Take up a checkpoint, if there is one and it was made under the same key."""
    if not path.exists():
        return
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["sass"])
        if about["key"] != key:
            return
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    for name, network in (("student.", state.student), ("teacher.", state.teacher)):
        network.load_state_dict({k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)})
    saved = state.optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".")
            saved["state"].setdefault(int(index), {})[moment] = value
    state.optimizer.load_state_dict(saved)
    state.step = about["step"]


def kept_lines(log: Path, step: int) -> list[str]:
    """Return the lines of an earlier log up to the step that training goes on from."""
    if step == 0 or not log.exists():
        return []
    return [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]


def write(path: Path, text: str) -> None:
    """Write a text under a temporary name, then rename."""
    with _replacing(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait until what is done here is done as a whole; then they take their effect."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers of signals in the main thread only
        return
    held: list[int] = []
    before = {s: signal.signal(s, lambda number, _: held.append(number)) for s in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
