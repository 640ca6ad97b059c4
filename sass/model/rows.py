"""The encoder over rows that come in strips: what a layer needs of those above is kept, not computed again.

A window by itself needs a halo on all four sides, and at the default size four tenths of what is computed
would be halo. An image that runs through from its top to its bottom needs none above and below. Batch
normalisation is multiplied into the convolutions, which changes no more than the last bits of an embedding.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sass.model.encoder import Encoder


class Rows:
    """The embeddings of one image, given from its top to its bottom. Use a new one for each image.

    Parameters
    ----------
    encoder
        In evaluation mode.
    """

    def __init__(self, encoder: Encoder):
        first, norm, _, second, last, _ = encoder.stem
        self._stem = _Convolved(first, norm), _Convolved(second, last, rectified=True)
        self._stages = [[_Block(block) for block in stage] for stage in encoder.stages]
        norm, _, smooth = encoder.smooth
        self._laterals = _scaled(encoder.laterals, norm)
        self._levels = [_Waiting() for _ in encoder.laterals[1:]]
        self._doubled = [_Doubled() for _ in encoder.laterals[1:]]
        self._smooth = _Convolved(smooth, rectified=True)

    @torch.inference_mode()
    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next rows ``(1, bands + 1, y, x)`` and return the embeddings that they complete.

        Both sides are multiples of the encoder's alignment.

        Returns
        -------
        Tensor
            ``(1, dim, rows, x / stride)``, not normalised. All of them, in their order, are what the encoder
            makes of the whole image; those near the end of what is known so far come with later rows.
        """
        for layer in self._stem:
            x = layer(x, last)
        x = F.relu(x, inplace=True)
        tops = []
        for blocks, lateral in zip(self._stages, self._laterals):
            for block in blocks:
                x = block(x, last)
            tops.append(lateral(x, last))
        top = tops.pop()
        for level, doubled in zip(reversed(self._levels), self._doubled):
            level.put(tops.pop())
            top = level.added_to(doubled(top, last))
        return self._smooth(top, last)


def _scaled(laterals: nn.ModuleList, norm: nn.BatchNorm2d) -> "list[_Convolved]":
    """Return the convolutions of the levels with the normalisation of their sum in them.

    Interpolation between levels is linear, so each level may be scaled before it; the offset is the first's.
    """
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    out = []
    for level, lateral in enumerate(laterals):
        own = copy.deepcopy(lateral)
        offset = norm.bias - norm.running_mean * scale if level == 0 else 0
        own.weight = nn.Parameter(lateral.weight * scale[:, None, None, None])
        own.bias = nn.Parameter(lateral.bias * scale + offset)
        out.append(_Convolved(own))
    return out


class _Waiting:
    """Rows that wait for those they are added to, which come later."""

    def __init__(self):
        self.parts: list[Tensor] = []

    def put(self, x: Tensor) -> None:
        self.parts.append(x)

    def added_to(self, x: Tensor) -> Tensor:
        """Add the first of the rows to as many others, in place."""
        start = 0
        while start < x.shape[2]:
            part = self.parts[0]
            end = min(start + part.shape[2], x.shape[2])
            x[:, :, start:end] += part[:, :, : end - start]
            self.parts[:1] = [rest] if (rest := part[:, :, end - start :]).shape[2] else []
            start = end
        return x


class _Convolved:
    """A convolution, and the normalisation after it, of rows that are rectified first if ``rectified``."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.Module | None = None, rectified: bool = False):
        self.convolution = (
            copy.deepcopy(convolution) if norm is None else fuse_conv_bn_eval(convolution, norm)
        )
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        self.edge, self.rectified = self.kernel // 2, rectified
        self.convolution.padding = (0, self.edge)  # above and below are other rows
        self.above: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = self._joined(x, last)
        count = max(min((x.shape[2] - self.kernel) // self.stride + 1, x.shape[2] // self.stride), 0)
        self.above = x[:, :, count * self.stride :]
        if not count:
            return x.new_empty(1, self.convolution.out_channels, 0, -(-x.shape[3] // self.stride))
        return self.convolution(x[:, :, : (count - 1) * self.stride + self.kernel])

    def _joined(self, x: Tensor, last: bool) -> Tensor:
        """Return the rows kept and the new ones; beyond the image all is 0."""
        above = self.edge if self.above is None else self.above.shape[2]
        below = self.edge if last else 0
        if not (above or below or self.rectified):
            return x
        (n, channels, rows, columns), form = x.shape, torch.channels_last
        out = torch.empty(
            (n, channels, above + rows + below, columns), dtype=x.dtype, device=x.device, memory_format=form
        )
        out[:, :, :above] = 0 if self.above is None else self.above
        new = out[:, :, above : above + rows]
        torch.clamp(x, min=0, out=new) if self.rectified else new.copy_(x)
        out[:, :, above + rows :] = 0
        return out


class _Block:
    """A residual block: rows that skip its body wait for those that have gone through it."""

    def __init__(self, block: nn.Module):
        first, norm, _, second, last = block.body
        self.body = _Convolved(first, norm), _Convolved(second, last, rectified=True)
        self.skip = None if isinstance(block.skip, nn.Identity) else _Convolved(*block.skip)
        self.waiting = _Waiting()

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        first, second = self.body
        self.waiting.put(x if self.skip is None else self.skip(x, last))
        return F.relu(self.waiting.added_to(second(first(x, last), last)), inplace=True)


class _Doubled:
    """Bilinear interpolation to twice the rows and columns: a row needs the one above and the one below."""

    def __init__(self):
        self.above: Tensor | None = None
        self.inside = False
        """Whether the first row kept is there for the next only."""

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = x if self.above is None else torch.cat([self.above, x], 2)
        rows = x.shape[2]
        start, end = 2 * self.inside, 2 * (rows if last else rows - 1)
        if end <= start:
            self.above = x
            return x.new_empty(1, x.shape[1], 0, 2 * x.shape[3])
        self.above, self.inside = x[:, :, max(rows - 2, 0) :], rows > 1
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[:, :, start:end]
