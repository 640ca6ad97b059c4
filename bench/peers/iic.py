"""Invariant information clustering of places: posteriors of two views that tell of each other.

Ji, Henriques, Vedaldi: Invariant Information Clustering for Unsupervised Image Classification and
Segmentation, ICCV 2019. The joint distribution of the classes of matching places, averaged over both
orders, has its mutual information maximised, for each of some small displacements between the places; an
over-clustering head does the same with more classes.

Here: displacements are of one embedding, 4 pixels; both heads are trained in every step instead of by
turns; a head is linear and there is one of each kind; the views differ by rotation and scale too, where
theirs are flipped. Maps are made by clustering embeddings, as in every row, not by the classes of the head.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from sass.model import views
from sass.model.objective import Seen

CLASSES, OVER = 8, 64
"""Classes of the main head and of the one that over-clusters."""
SMALLEST = 1e-8
"""Below this a probability counts as this, so that its logarithm is finite."""


class Iic(nn.Module):
    """Two linear heads with a softmax over their classes."""

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.main = nn.Linear(dim, CLASSES)
        self.over = nn.Linear(dim, OVER)

    def terms(self, seen: Seen, teacher: nn.Module) -> dict[str, Tensor]:
        """Return the terms ``main`` and ``over``: mutual information, negative, mean over displacements."""
        stride = seen.crop // seen.student.shape[-1]
        maps_a, maps_b = seen.student.chunk(2)
        points_a, points_b = seen.points.chunk(2)
        a = views.sample(maps_a, points_a, seen.crop)[seen.kept]
        moved = []
        for step in product((-stride, 0, stride), repeat=2):
            where = points_b + torch.tensor(step, dtype=points_b.dtype, device=points_b.device)
            moved.append(views.sample(maps_b, where, seen.crop)[seen.kept])
        terms = {}
        for name, head in (("main", self.main), ("over", self.over)):
            p = head(a).softmax(1)
            terms[name] = -sum(mutual_information(p, head(b).softmax(1)) for b in moved) / len(moved)
        return terms


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Return the mutual information, in nats, of the classes of matching places.

    Parameters
    ----------
    a, b
        Class posteriors ``(N, C)`` of the same places in two views; independent given the place.
    """
    joint = a.T @ b / max(len(a), 1)
    joint = ((joint + joint.T) / 2).clamp(min=SMALLEST)
    joint = joint / joint.sum()
    rows, columns = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    return (joint * (joint.log() - rows.log() - columns.log())).sum()
