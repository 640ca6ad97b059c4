"""Plain InfoNCE between places: the instance term alone, and every other place is a negative.

van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018, for the loss;
in the form of Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning, ICML 2020,
both ways between two views. Here: a place takes the part of their image, the projection is linear, and
negatives are the places of the other view only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sass.model import loss
from sass.model.objective import Seen


class InfoNce(nn.Module):
    """A linear projection whose matching places are to be told from all others."""

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.projection = nn.Linear(dim, dim)

    def terms(self, seen: Seen, teacher: nn.Module) -> dict[str, Tensor]:
        """Return the one term ``instance``."""
        a, b = (F.normalize(self.projection(f), dim=1) for f in seen.at_places(seen.student))
        alone = torch.arange(
            len(a), device=a.device
        )  # a meaning of its own for each place: nothing is masked
        return {"instance": (loss.instance(a, b, alone) + loss.instance(b, a, alone)) / 2}
