"""Training of the encoder: one loop, the same on a CPU, a GPU and several, for any objective."""

import contextlib
import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sass.model import loss, views
from sass.model.checkpoint import State, kept_lines, resume, save, undivided, write
from sass.model.objective import NewObjective, Sass, Seen
from sass.model.pool import TilePool


class TrainingError(Exception):
    """Training cannot go on."""


def train(
    read_tile: Callable[[int], np.ndarray],
    encoder: nn.Module,
    clip: float,
    settings: dict[str, Any],
    *,
    checkpoint: Path,
    log: Path,
    key: str,
    threads: int,
    objective: NewObjective = Sass,
    show: Callable[[dict[str, Any]], None] = lambda row: None,
    place: Callable[[int], str] = str,
) -> nn.Module:
    """Train an encoder and return the teacher's, on the CPU, ready for inference.

    Whoever asks it to end (`SystemExit` or `KeyboardInterrupt`, as handlers of signals raise them) gets a
    checkpoint of the last whole step first.

    Parameters
    ----------
    read_tile
        Gives the tile of a draw: float16 ``(bands + 1, 2 crop, 2 crop)``, normalised, mask last.
    encoder
        The encoder as it starts (`sass.model.interface`).
    clip
        Bound of normalised values.
    settings
        The section ``train`` of the configuration.
    checkpoint, log
        Where the state and the log are kept; a checkpoint made under the same ``key`` is resumed.
    threads
        Threads that read tiles, and that compute on a CPU.
    objective
        Makes what is asked of the embeddings.
    show
        Is given each row of the log, by the first process only.
    place
        Says where the tile of a draw lies, for messages.

    Raises
    ------
    TrainingError
        The loss is not finite any more, the GPU has too little memory, or the places of a step cannot be
        shared among the processes.
    """
    rank, world, device = _process_group()
    if device.type == "cpu":
        torch.set_num_threads(threads)
    batch = settings["batch"]
    if batch % world:
        raise TrainingError(
            f"{batch} places a step cannot be shared evenly among {world} processes; set train.batch to a "
            f"multiple of {world}"
        )
    state = _new_state(encoder, settings, device, objective)
    resume(state, checkpoint, key)
    pool = TilePool(
        lambda draw: read_tile(draw * world + rank),
        math.ceil(settings["pool"] / batch) * batch // world,
        settings["refresh"],
        state.step,
        device,
        threads,
    )
    lines = kept_lines(log, state.step)
    every = max(settings["steps"] // 200, 1)
    kept = state.step
    lost = torch.tensor(-1, device=device)  # first step whose loss is not finite

    def batch_of(step: int) -> list[str]:
        held, draws = pool.draws(step), views.Draws.of_step(settings["seed"], step, device, rank, world)
        chosen = draws.batch(len(held), batch // world).tolist()
        return sorted({place(held[i] * world + rank) for i in chosen})

    def keep() -> None:
        nonlocal kept
        if rank == 0 and kept < state.step:
            write(log, "".join(line + "\n" for line in lines))
            save(state, checkpoint, key)
        kept = state.step

    # asked to end, the other processes go on until the first has saved: it may wait for their part of a sum
    with contextlib.nullcontext() if rank == 0 else undivided():
        try:
            while state.step < settings["steps"]:
                terms = _gradients(state, pool.advance(state.step), clip, settings, rank, world)
                lost = torch.where((lost < 0) & ~terms["loss"].isfinite(), state.step, lost)
                with undivided():  # a step is done together with its line in the log, or not at all
                    _update(state, settings)
                    last = state.step == settings["steps"]
                    logged = last or state.step % every == 0
                    due = last or state.step % settings["checkpoint"] == 0
                    if logged or due:
                        row = {"step": state.step}
                        row |= {name: round(float(value), 5) for name, value in terms.items()}
                        if not (math.isfinite(row["loss"]) and _finite(state.student)):
                            first = int(lost) if lost >= 0 else state.step - 1
                            raise _not_finite(row, first, batch_of(first))
                    if logged:
                        lines.append(json.dumps(row, sort_keys=True))
                        if rank == 0:
                            show(row)
                    if due:
                        keep()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the GPU has too little memory for {batch} places of {settings['crop']} pixels, at step "
                f"{state.step + 1}; what step {kept} has left is kept. Take a larger GPU or several, or "
                "lower train.pool, train.batch or train.crop, which is another training."
            ) from error
        except (SystemExit, KeyboardInterrupt):
            with undivided():
                state.undo()
                if _finite(state.student):
                    keep()
            raise
        finally:
            pool.close()
            if dist.is_initialized():
                dist.destroy_process_group()
    return state.teacher["encoder"].cpu().eval()


def _not_finite(row: dict[str, Any], first: int, batch: list[str]) -> TrainingError:
    """Return what is to be said before weights that are lost reach a checkpoint."""
    more = f" and {len(batch) - 8} more" if len(batch) > 8 else ""
    return TrainingError(
        f"the loss is {row['loss']} at step {row['step']}, or the weights are not finite after it; the "
        "checkpoint of an earlier step is kept. Lower train.lr, or look for scenes with wild values in the "
        f"statistics: the batch of step {first + 1}, the first lost one, was {'; '.join(batch[:8])}{more}."
    )


def _finite(student: nn.ModuleDict) -> bool:
    return all(p.isfinite().all() for p in student.parameters())


def _gradients(
    state: State, tiles: Tensor, clip: float, settings: dict[str, Any], rank: int, world: int
) -> dict[str, Any]:
    """Find the gradients of a step and return its terms, each over the places of all processes."""
    student, teacher = state.student, state.teacher
    draws = views.Draws.of_step(settings["seed"], state.step, tiles.device, rank, world)
    seen = _look(student["encoder"], teacher["encoder"], tiles, clip, settings, draws)
    terms = student["objective"].terms(seen, teacher["objective"])
    total = sum(terms.values())

    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    if world > 1:
        for parameter in student.parameters():
            if parameter.grad is not None:
                loss.summed(parameter.grad)
    shown = {"loss": total, **terms}
    terms = {name: loss.summed(value.detach().clone()) for name, value in shown.items()}
    return terms | {"lr": _schedule(state.step, settings)}


def _update(state: State, settings: dict[str, Any]) -> None:
    """Change the weights of student and teacher by the gradients of a step, and so end it."""
    for group in state.optimizer.param_groups:
        group["lr"] = _schedule(state.step, settings)
    nn.utils.clip_grad_norm_(state.student.parameters(), 5.0)
    state.optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.teacher.parameters()), list(state.student.parameters()), 1 - settings["ema"]
        )
    state.step += 1
    state.remember()


def _look(
    student: nn.Module,
    teacher: nn.Module,
    tiles: Tensor,
    clip: float,
    settings: dict[str, Any],
    draws: views.Draws,
) -> Seen:
    """Cut two views of each place of a batch and embed them by both encoders."""
    crop, places = settings["crop"], settings["batch"] // draws.world
    taken = tiles[draws.batch(len(tiles), places)]
    taken = taken.float()  # in half precision, weights that sum to 0.999 would pass for missing data
    warps = views.random_warps(places, tiles.shape[-1], crop, settings["views"], draws)
    seen = [views.cut(taken, warp) for warp in warps]
    pair = torch.cat([views.jitter(view, settings["views"], clip, draws) for view in seen])
    points_a, points_b, kept = views.shared_places(
        *warps,
        seen[0][:, -1:],
        seen[1][:, -1:],
        min(max(settings["points"] // settings["batch"], 1), (crop // student.stride) ** 2),
        student.stride,
        draws,
    )
    pair = pair.contiguous(memory_format=torch.channels_last)
    with torch.autocast(pair.device.type, torch.bfloat16, enabled=pair.device.type == "cuda"):
        by_student = student(pair)
        with torch.no_grad():
            by_teacher = teacher(pair)
    return Seen(by_student.float(), by_teacher.float(), pair, torch.cat([points_a, points_b]), kept, crop)


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


def _new_state(
    encoder: nn.Module, settings: dict[str, Any], device: torch.device, objective: NewObjective
) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"] + 1)
        student = nn.ModuleDict({"encoder": encoder, "objective": objective(encoder.dim, settings)})
    student = student.to(device, memory_format=torch.channels_last)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        fused=device.type == "cuda",
    )
    for parameter in student.parameters():
        # Python minds a signal between its own steps only, and a backward pass on a CPU can take long
        parameter.register_hook(lambda gradient: None)
    return State(student, teacher, optimizer)
