"""Training of the encoder: one loop, the same on a CPU, a GPU and several."""

import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sass.model import loss, views
from sass.model.encoder import Encoder, build_encoder
from sass.model.pool import TilePool


class TrainingError(Exception):
    """Training cannot go on."""


class Head(nn.Module):
    """A linear map to unit embeddings and prototypes they are scored against."""

    def __init__(self, dim: int, prototypes: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``(N, dim)`` to unit embeddings and cosines with the prototypes ``(N, K)``."""
        z = F.normalize(self.linear(features).float(), dim=1)
        return z, z @ F.normalize(self.prototypes, dim=1).T


class Network(nn.Module):
    """One trunk, two heads: fine for information, coarse for groups."""

    def __init__(self, encoder: Encoder, fine: int, coarse: int):
        super().__init__()
        self.encoder = encoder
        self.fine = Head(encoder.dim, fine)
        self.coarse = Head(encoder.dim, coarse)


@dataclass
class State:
    """All that a checkpoint holds."""

    student: Network
    teacher: Network
    centre: Tensor
    optimizer: torch.optim.AdamW
    step: int = 0


def train(
    read_tile: Callable[[int], np.ndarray],
    bands: int,
    clip: float,
    model: dict[str, Any],
    settings: dict[str, Any],
    *,
    checkpoint: Path,
    log: Path,
    key: str,
    threads: int,
) -> Encoder:
    """Train an encoder and return the teacher's, on the CPU, ready for inference.

    Parameters
    ----------
    read_tile
        Gives the tile of a draw: float16 ``(bands + 1, 2 crop, 2 crop)``, normalised, mask last.
    clip
        Bound of normalised values.
    model, settings
        The sections ``model`` and ``train`` of the configuration.
    checkpoint, log
        Where the state and the log are kept; a checkpoint made under the same ``key`` is resumed.
    threads
        Threads that read tiles, and that compute on a CPU.
    """
    rank, world, device = _process_group()
    if device.type == "cpu":
        torch.set_num_threads(threads)
    state = _new_state(bands, model, settings, device)
    _resume(state, checkpoint, key)
    pool = TilePool(
        lambda draw: read_tile(draw * world + rank),
        settings["pool"] // world,
        settings["refresh"],
        state.step,
        device,
        threads,
    )
    lines = _kept_lines(log, state.step)
    progress = _Progress(settings["steps"], settings["batch"], rank)
    every = max(settings["steps"] // 200, 1)
    try:
        while state.step < settings["steps"]:
            terms = _step(state, pool.advance(state.step), clip, settings, rank, world)
            state.step += 1
            last = state.step == settings["steps"]
            logged = last or state.step % every == 0
            kept = last or state.step % settings["checkpoint"] == 0
            if logged or kept:
                row = {"step": state.step} | {name: round(float(value), 5) for name, value in terms.items()}
                _must_be_finite(row, state.student)
            if logged:
                lines.append(json.dumps(row, sort_keys=True))
                progress.show(row)
            if kept:
                _average_buffers(state, world)
            if kept and rank == 0:
                _write(log, "\n".join(lines) + "\n")
                _save(state, checkpoint, key)
    finally:
        pool.close()
        if dist.is_initialized():
            dist.destroy_process_group()
    return state.teacher.encoder.cpu().eval()


def _must_be_finite(row: dict[str, Any], student: Network) -> None:
    """Stop before weights that are lost reach a checkpoint."""
    if math.isfinite(row["loss"]) and all(p.isfinite().all() for p in student.parameters()):
        return
    raise TrainingError(
        f"the loss is {row['loss']} at step {row['step']}, or the weights are not finite after it; the "
        "checkpoint of an earlier step is kept. Lower train.lr, or look for scenes with wild values in the "
        "statistics."
    )


def _average_buffers(state: State, world: int) -> None:
    """Average the running statistics of batch normalisation: each process has seen other tiles."""
    if world > 1:
        for buffer in (*state.student.buffers(), *state.teacher.buffers()):
            if buffer.is_floating_point():
                loss.summed(buffer).div_(world)


def _step(
    state: State, tiles: Tensor, clip: float, settings: dict[str, Any], rank: int, world: int
) -> dict[str, Any]:
    """Do one optimiser step and return its terms."""
    device = tiles.device
    student, teacher = state.student, state.teacher
    # a generator made anew from seed and step: resuming needs no state of it
    generator = torch.Generator(device).manual_seed((settings["seed"] * 1_000_003 + state.step) * 64 + rank)
    places = settings["batch"] // world
    chosen = torch.randint(len(tiles), (places,), generator=generator, device=device)
    taken = tiles[chosen].float()  # in half precision, weights that sum to 0.999 would pass for missing data
    warps = views.random_warps(places, tiles.shape[-1], settings["crop"], settings["views"], generator)
    seen = [views.cut(taken, warp).float() for warp in warps]
    pair = torch.cat([views.jitter(view, settings["views"], clip, generator) for view in seen])
    points_a, points_b, kept = views.shared_places(
        *warps,
        seen[0][:, -1:],
        seen[1][:, -1:],
        min(max(settings["points"] // settings["batch"], 1), (settings["crop"] // Encoder.stride) ** 2),
        Encoder.stride,
        generator,
    )
    points = torch.cat([points_a, points_b])
    pair = pair.contiguous(memory_format=torch.channels_last)

    def at_places(maps: Tensor) -> tuple[Tensor, Tensor]:
        a, b = views.sample(maps, points, settings["crop"]).chunk(2)
        return a[kept], b[kept]

    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        student_map = student.encoder(pair)
        with torch.no_grad():
            teacher_map = teacher.encoder(pair)
    student_map, teacher_map = student_map.float(), teacher_map.float()
    with torch.no_grad():
        fine_targets = [teacher.fine(f) for f in at_places(teacher_map)]
        smooth = F.avg_pool2d(teacher_map, 9, 1, 4, count_include_pad=False)
        coarse_scores = [teacher.coarse(f)[1] for f in at_places(smooth)]
        fine_q = [loss.sinkhorn(scores, settings["sinkhorn"]) for _, scores in fine_targets]
        coarse_q = [loss.centred(scores, state.centre) for scores in coarse_scores]
        scores = torch.cat(coarse_scores)
        places_seen = loss.summed(scores.new_tensor(len(scores)))
        state.centre.lerp_(loss.summed(scores.sum(0)) / places_seen.clamp(min=1), 0.1)
    features = at_places(student_map)
    fine = [student.fine(f) for f in features]
    coarse = [student.coarse(f)[1] for f in features]
    terms = {
        "fine": sum(loss.semantic(scores, q) for (_, scores), q in zip(fine, reversed(fine_q))) / 2,
        "coarse": sum(loss.semantic(scores, q) for scores, q in zip(coarse, reversed(coarse_q))) / 2,
        "instance": loss.instance(fine[0][0], fine_targets[1][0], fine_q[1].argmax(1)),
    }
    weights = {
        "fine": settings["fine"]["weight"],
        "coarse": settings["coarse"]["weight"],
        "instance": settings["instance"],
    }
    total = sum(weights[name] * term for name, term in terms.items())

    rate = _schedule(state.step, settings)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    if world > 1:
        for parameter in student.parameters():
            loss.summed(parameter.grad).div_(world)
    nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    state.optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - settings["ema"])
    return {"loss": total.detach(), **{k: v.detach() for k, v in terms.items()}, "lr": rate}


def _schedule(step: int, settings: dict[str, Any]) -> float:
    warm = max(settings["steps"] // 20, 1)
    if step < warm:
        return settings["lr"] * (step + 1) / warm
    done = (step - warm) / max(settings["steps"] - warm, 1)
    return settings["lr"] * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def _process_group() -> tuple[int, int, torch.device]:
    """Join the processes that torchrun started, if it did; return rank, their number and the device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if world == 1:
        return 0, 1, torch.device("cuda" if cuda else "cpu")
    dist.init_process_group("nccl" if cuda else "gloo")
    local = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
    return dist.get_rank(), world, torch.device("cuda", local) if cuda else torch.device("cpu")


def _new_state(bands: int, model: dict[str, Any], settings: dict[str, Any], device: torch.device) -> State:
    encoder = build_encoder(bands, model, settings["seed"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"] + 1)
        student = Network(encoder, settings["fine"]["prototypes"], settings["coarse"]["prototypes"])
    student = student.to(device, memory_format=torch.channels_last)
    teacher = copy.deepcopy(student).requires_grad_(False)
    centre = torch.zeros(settings["coarse"]["prototypes"], device=device)
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        fused=device.type == "cuda",
    )
    return State(student, teacher, centre, optimizer)


def _save(state: State, path: Path, key: str) -> None:
    tensors = {f"student.{k}": v for k, v in state.student.state_dict().items()}
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    tensors["centre"] = state.centre
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    temporary = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    # one entry: several would be written in any order
    save_file(tensors, temporary, metadata={"sass": json.dumps({"step": state.step, "key": key})})
    os.replace(temporary, path)


def _resume(state: State, path: Path, key: str) -> None:
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
    state.centre.copy_(tensors["centre"])
    saved = state.optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".")
            saved["state"].setdefault(int(index), {})[moment] = value
    state.optimizer.load_state_dict(saved)
    state.step = about["step"]


def _kept_lines(log: Path, step: int) -> list[str]:
    """Return the lines of an earlier log up to the step that training goes on from."""
    if step == 0 or not log.exists():
        return []
    return [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text)
    os.replace(temporary, path)


class _Progress:
    """A bar on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int, batch: int, rank: int):
        self.steps, self.batch, self.silent = steps, batch, rank != 0
        self.started, self.first = time.monotonic(), None
        self.terminal = sys.stderr.isatty()
        self.shown = 0  # twentieths of the way, in a log

    def show(self, row: dict[str, Any]) -> None:
        if self.silent:
            return
        now = time.monotonic()
        if self.first is None:
            self.first = (now, row["step"])
        speed = 2 * self.batch * (row["step"] - self.first[1]) / max(now - self.first[0], 1e-9)
        text = f"train {row['step']}/{self.steps}  loss {row['loss']:.3f}"
        text += f"  {speed:.0f} views/s  {now - self.started:.0f} s"
        if self.terminal:
            filled = 30 * row["step"] // self.steps
            end = "\n" if row["step"] == self.steps else ""
            print(f"\r[{'█' * filled}{' ' * (30 - filled)}] {text}", end=end, file=sys.stderr, flush=True)
        elif row["step"] * 20 // self.steps > self.shown:
            self.shown = row["step"] * 20 // self.steps
            print(text, file=sys.stderr, flush=True)
