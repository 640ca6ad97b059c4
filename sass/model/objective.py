"""The SASS objective: what one step asks of the embeddings of two views.

An objective is a module beside the encoder. The loop of `sass.model.train` keeps two of them, the student's,
whose parameters are trained, and the teacher's, their moving average; the student's is called with what both
encoders have seen and returns weighted terms, whose sum is the loss. Several processes each return their
share of a sum over all places, so that any number of them has the loss of one process with the joint batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sass.model import loss, views

SMOOTHED = 9
"""Side in embeddings of the square over which the coarse prototypes' teacher averages."""
CENTRE_MOMENTUM = 0.9
"""What the running mean of the coarse scores keeps at a step."""


@dataclass(frozen=True)
class Seen:
    """What the two encoders have made of a batch of pairs of views.

    Maps are ``(2 n, dim, y, x)``: the first views of all places, then the second ones.
    """

    student: Tensor
    """Embeddings by the encoder that is trained, float32, not normalised."""
    teacher: Tensor
    """Embeddings by its moving average; no gradient flows through them."""
    pixels: Tensor
    """The views themselves, ``(2 n, bands + 1, crop, crop)``, the mask last."""
    points: Tensor
    """Places drawn in either view, ``(2 n, p, 2)``, in pixels of the view."""
    kept: Tensor
    """Whether a place lies in both views and has data in both, ``(n, p)``."""
    crop: int
    """Side of a view in pixels."""

    def at_places(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Interpolate maps at the places that both views have seen: twice ``(N, channels)``, in one order."""
        a, b = views.sample(maps, self.points, self.crop).chunk(2)
        return a[self.kept], b[self.kept]


class Objective(Protocol):
    """What the loop needs of an objective, beyond being a module."""

    def terms(self, seen: Seen, teacher: "Objective") -> dict[str, Tensor]:
        """Return the weighted terms of the loss. Buffers that move by themselves are the teacher's."""
        ...


NewObjective = Callable[[int, dict[str, Any]], nn.Module]
"""Makes an objective of the length of an embedding and the section ``train`` of the configuration."""


class Prototypes(nn.Module):
    """Unit prototypes that embeddings are scored against."""

    def __init__(self, dim: int, number: int):
        super().__init__()
        self.prototypes = nn.Parameter(F.normalize(torch.randn(number, dim), dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the cosines of embeddings ``(N, dim)`` with the prototypes: ``(N, K)``."""
        return F.normalize(embeddings, dim=1) @ F.normalize(self.prototypes, dim=1).T


class Sass(nn.Module):
    """Fine prototypes behind a linear map, for information; coarse ones on the trunk itself, for groups.

    Parameters
    ----------
    dim
        Length of an embedding of the trunk.
    settings
        The section ``train`` of the configuration.
    """

    def __init__(self, dim: int, settings: dict[str, Any]):
        super().__init__()
        self.settings = settings
        self.linear = nn.Linear(dim, dim)
        self.fine = Prototypes(dim, settings["fine"]["prototypes"])
        self.coarse = Prototypes(dim, settings["coarse"]["prototypes"])
        self.register_buffer("centre", torch.zeros(settings["coarse"]["prototypes"]))

    def terms(self, seen: Seen, teacher: "Sass") -> dict[str, Tensor]:
        """Return the terms ``fine``, ``coarse`` and ``instance``; see `sass.model.loss` for each."""
        with torch.no_grad():
            targets = [teacher.linear(f) for f in seen.at_places(seen.teacher)]
            fine_q = [loss.sinkhorn(teacher.fine(z), self.settings["sinkhorn"]) for z in targets]
            around = F.avg_pool2d(seen.teacher, SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False)
            coarse_scores = [teacher.coarse(f) for f in seen.at_places(around)]
            coarse_q = [loss.centred(scores, teacher.centre) for scores in coarse_scores]
            mean = loss.total_mean(torch.cat(coarse_scores))
            teacher.centre.lerp_(mean, 1 - CENTRE_MOMENTUM)
        trunk = seen.at_places(seen.student)
        mapped = [self.linear(f) for f in trunk]
        meaning = fine_q[1].argmax(1)
        terms = {
            "fine": sum(loss.semantic(self.fine(z), q) for z, q in zip(mapped, reversed(fine_q))) / 2,
            "coarse": sum(loss.semantic(self.coarse(f), q) for f, q in zip(trunk, reversed(coarse_q))) / 2,
            "instance": loss.instance(F.normalize(mapped[0]), F.normalize(targets[1]), meaning),
        }
        weights = {
            "fine": self.settings["fine"]["weight"],
            "coarse": self.settings["coarse"]["weight"],
            "instance": self.settings["instance"],
        }
        return {name: weights[name] * term for name, term in terms.items()}
