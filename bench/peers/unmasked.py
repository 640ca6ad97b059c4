"""SASS without its semantic awareness: places of the same meaning are negatives of the instance term too."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sass.model import loss
from sass.model.objective import Sass, Seen


class Unmasked(Sass):
    """The objective of SASS, but for the mask of its instance term."""

    def terms(self, seen: Seen, teacher: Sass) -> dict[str, Tensor]:
        """Return the terms of SASS, the one called ``instance`` with every other place as a negative."""
        terms = super().terms(seen, teacher)
        anchors = F.normalize(self.linear(seen.at_places(seen.student)[0]))
        with torch.no_grad():
            targets = F.normalize(teacher.linear(seen.at_places(seen.teacher)[1]))
        alone = torch.arange(len(anchors), device=anchors.device)  # a meaning of its own for each place
        return terms | {"instance": self.settings["instance"] * loss.instance(anchors, targets, alone)}
