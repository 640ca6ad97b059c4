"""Invariance and equivariance by clustering across views.

Cho, Mall, Bala, Hariharan: PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in
Clustering, CVPR 2021. Each view has centroids of its own; a place's nearest centroid in a view is its
pseudo-label there. The embedding of a place is drawn to its label by the centroids of its own view, and to
the label of the other view by the centroids of the other.

Here: centroids are running means, moved at every step, instead of k-means over the data set once an epoch,
and one that nearly no place is nearest to is put on the place that its own centroid explains worst; there
is no second, over-clustering head; every view has both kinds of change, geometric and photometric, where
the paper keeps a view for each; classes are not weighted by size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sass.model.loss import STUDENT_TEMPERATURE
from sass.model.objective import Seen

CENTROIDS = 27
"""As many as the paper's classes."""
MOMENTUM = 0.98
"""What a centroid and its running share of places keep at a step."""
STARVED = 0.1
"""A centroid is moved below this share of what it would have if all had equal ones."""


class Picie(nn.Module):
    """Two sets of centroids, one a view; the trunk's unit embeddings are compared with them directly."""

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.register_buffer("centroids", torch.zeros(2, CENTROIDS, dim))
        self.register_buffer("shares", torch.zeros(2, CENTROIDS))

    def terms(self, seen: Seen, teacher: "Picie") -> dict[str, Tensor]:
        """Return the terms ``within`` and ``across`` views; the centroids moved are the teacher's."""
        z = [F.normalize(f, dim=1) for f in seen.at_places(seen.student)]
        labels = [teacher.moved(view, f.detach()) for view, f in enumerate(z)]

        def drawn(f: Tensor, view: int) -> Tensor:
            scores = f @ teacher.centroids[view].T / STUDENT_TEMPERATURE
            # a sum over no place is 0, their mean is not
            return F.cross_entropy(scores, labels[view], reduction="sum") / max(len(f), 1)

        return {
            "within": (drawn(z[0], 0) + drawn(z[1], 1)) / 2,
            "across": (drawn(z[0], 1) + drawn(z[1], 0)) / 2,
        }

    @torch.no_grad()
    def moved(self, view: int, z: Tensor) -> Tensor:
        """Label unit embeddings ``(N, dim)`` of a view by their nearest centroid, then move the centroids."""
        centroids, shares = self.centroids[view], self.shares[view]
        if not shares.any() and len(z) >= CENTROIDS:
            # the first step: places spread evenly over the batch
            centroids.copy_(z[torch.linspace(0, len(z) - 1, CENTROIDS, device=z.device).long()])
            shares.fill_(1 / CENTROIDS)
        nearness, labels = (z @ centroids.T).max(1)
        chosen = F.one_hot(labels, CENTROIDS).to(z.dtype)
        sizes = chosen.sum(0)
        means = F.normalize(chosen.T @ z, dim=1)
        held = (sizes > 0)[:, None]
        centroids.copy_(F.normalize(torch.where(held, centroids.lerp(means, 1 - MOMENTUM), centroids), dim=1))
        shares.lerp_(sizes / max(len(z), 1), 1 - MOMENTUM)
        starved = (shares < STARVED / CENTROIDS).nonzero()[: len(z), 0]
        if len(starved):
            centroids[starved] = z[nearness.topk(len(starved), largest=False).indices]
            shares[starved] = 1 / CENTROIDS
        return labels
