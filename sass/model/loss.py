"""The terms of the objective: semantic assignment against prototypes, and instances among other meanings.

The published paper gives no formulas; this is our reading of it (docs/method.md). Cost is N x K for the
semantic terms, N points against K prototypes, instead of N x N.

Where several processes train, a term is this process's share of a sum over the points of all of them: the
shares add up to the term of one process with all points, and so do their gradients.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.07
SINKHORN_EPSILON = 0.05


def summed(value: Tensor) -> Tensor:
    """Add a tensor over all processes, in place; alone it is returned as it is."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def share(total: Tensor, points: int) -> Tensor:
    """Divide a sum over this process's points by the number of points of all processes."""
    count = summed(torch.tensor(float(points), device=total.device))
    return total / count.clamp(min=1)  # 0 where the views share no place


@torch.no_grad()
def total_mean(values: Tensor) -> Tensor:
    """Average ``(N, K)`` over the points of all processes: ``(K)``."""
    return summed(share(values.sum(0), len(values)))


@torch.no_grad()
def gathered(values: Tensor) -> tuple[Tensor, int]:
    """Join ``(N, ...)`` of all processes by rank; also return where the own ones start."""
    if not dist.is_initialized():
        return values, 0
    sizes = [torch.zeros((), dtype=torch.int64, device=values.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(values), device=values.device))
    lengths = [int(size) for size in sizes]
    padded = values.new_zeros((max(lengths), *values.shape[1:]))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, lengths)]), sum(lengths[: dist.get_rank()])


@torch.no_grad()
def sinkhorn(scores: Tensor, iterations: int, epsilon: float = SINKHORN_EPSILON) -> Tensor:
    """Turn scores ``(N, K)`` into soft assignments whose clusters have equal sizes.

    Sinkhorn-Knopp iterations on ``exp(scores / epsilon)`` (Cuturi 2013; for prototypes Caron et al. 2020).
    Over several processes the sizes are those of all points together.

    Returns
    -------
    Tensor
        Float32 ``(N, K)``; rows sum to 1.
    """
    q = torch.exp((scores.float() - 1) / epsilon)  # scores are cosines: at most 1
    for _ in range(iterations):
        q = q / summed(q.sum(0)).clamp(min=1e-12)
        q = q / q.sum(1, keepdim=True).clamp(min=1e-12)
    return q


@torch.no_grad()
def centred(scores: Tensor, centre: Tensor) -> Tensor:
    """Turn scores ``(N, K)`` into soft assignments whose clusters may differ in size.

    A sharp softmax around the running mean score (Caron et al. 2021).
    """
    return F.softmax((scores.float() - centre) / TEACHER_TEMPERATURE, dim=1)


def semantic(scores: Tensor, assignment: Tensor) -> Tensor:
    """Cross-entropy of the student's softmax over prototypes with the assignment of the same place.

    The assignment is the teacher's, in the other view.
    """
    agreement = (assignment * F.log_softmax(scores.float() / STUDENT_TEMPERATURE, dim=1)).sum()
    return share(-agreement, len(scores))


def instance(
    anchors: Tensor, targets: Tensor, meaning: Tensor, temperature: float = STUDENT_TEMPERATURE
) -> Tensor:
    """InfoNCE between matching places, in which places of the same meaning are no negatives.

    Parameters
    ----------
    anchors, targets
        Unit embeddings ``(N, D)`` of the same places in two views.
    meaning
        Hard assignment ``(N,)`` of each place.
    """
    everywhere, start = gathered(targets)
    meanings, _ = gathered(meaning)
    itself = start + torch.arange(len(anchors), device=anchors.device)
    scores = (anchors @ everywhere.T).float() / temperature
    same = meaning[:, None] == meanings[None, :]
    same[itself - start, itself] = False
    total = F.cross_entropy(scores.masked_fill(same, float("-inf")), itself, reduction="sum")
    return share(total, len(scores))
