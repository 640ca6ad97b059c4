"""Local features against global features of the classes of the same image.

Harb, Knöbelreiter: InfoSeg: Unsupervised Semantic Image Segmentation with Mutual Information Maximization,
GCPR 2021. An image has one global feature for each class. Local features compared with them give class
probabilities (the segmentation step); then each local feature and the global features mixed by these
probabilities are to tell of each other more than those of two images do, by the Jensen-Shannon estimator of
mutual information (Nowozin et al. 2016; Hjelm et al. 2019).

Here: both kinds of feature come from the one map that the encoder makes, the local ones by a linear layer,
the global ones by another from the map's mean, where the paper takes the latter from a deeper block; each
view is an image of its own, seen at the places that both views share; the partner of a negative pair is the
next place of the batch. Maps are made by clustering embeddings, as in every row, not by the probabilities.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sass.model import views
from sass.model.objective import Seen

CLASSES = 8


class InfoSeg(nn.Module):
    """A linear layer for local features and one for the global features of all classes."""

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.local = nn.Linear(dim, dim)
        self.globally = nn.Linear(dim, CLASSES * dim)

    def terms(self, seen: Seen, teacher: nn.Module) -> dict[str, Tensor]:
        """Return the one term ``information``: the estimate, negative."""
        maps = seen.student
        valid = F.adaptive_avg_pool2d(seen.pixels[:, -1:], maps.shape[-2:])
        mean = (maps * valid).sum((2, 3)) / valid.sum((2, 3)).clamp(min=1)
        classes = self.globally(mean).reshape(len(maps), CLASSES, -1)
        local = self.local(views.sample(maps, seen.points, seen.crop))
        # the i-th place's neighbour in the batch, in the same order of views
        others = torch.cat([part.roll(1, 0) for part in classes.chunk(2)])
        kept = torch.cat([seen.kept, seen.kept])
        own, other = (_agreement(local, of)[kept] for of in (classes, others))
        return {"information": (F.softplus(-own) + F.softplus(other)).sum() / max(len(own), 1)}


def _agreement(local: Tensor, classes: Tensor) -> Tensor:
    """Return the product of local features ``(n, p, dim)`` with class features mixed by their probabilities.

    ``classes`` is ``(n, classes, dim)``; the result ``(n, p)``.
    """
    scores = local @ classes.mT / local.shape[-1] ** 0.5
    return (scores.softmax(-1) * scores).sum(-1)
