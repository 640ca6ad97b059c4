"""Self-distillation with centring, one head: what is left of SASS without Sinkhorn and instance term.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin: Emerging Properties in Self-Supervised Vision
Transformers, ICCV 2021. Here: places take the part of images, the head is linear with 64 prototypes instead
of a perceptron with 65,536, the teacher's temperature is constant, its momentum that of ``train.ema``, and
there are two views and no smaller crops.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sass.model import loss
from sass.model.objective import Prototypes, Seen

PROTOTYPES = 64
CENTRE_MOMENTUM = 0.9
"""What the running mean of the teacher's scores keeps at a step."""


class Dino(nn.Module):
    """One head whose student follows the teacher's centred and sharpened scores in the other view."""

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(dim, dim), Prototypes(dim, PROTOTYPES))
        self.register_buffer("centre", torch.zeros(PROTOTYPES))

    def terms(self, seen: Seen, teacher: "Dino") -> dict[str, Tensor]:
        """Return the one term ``semantic``, both ways."""
        with torch.no_grad():
            scores = [teacher.head(f) for f in seen.at_places(seen.teacher)]
            targets = [loss.centred(s, teacher.centre) for s in scores]
            teacher.centre.lerp_(loss.total_mean(torch.cat(scores)), 1 - CENTRE_MOMENTUM)
        students = [self.head(f) for f in seen.at_places(seen.student)]
        terms = [loss.semantic(s, q) for s, q in zip(students, reversed(targets))]
        return {"semantic": (terms[0] + terms[1]) / 2}
