"""The encoder of SASS: pixels of any number of bands to unit embeddings at stride 4.

A residual network with a feature pyramid. Batch normalisation is used, and nothing that looks across the
image at inference: an embedding then depends only on the pixels within `Encoder.halo` of it, which is
what makes a scene processed in tiles equal to the scene processed whole.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """Residual stages at strides 4, 8, 16, ... joined by a feature pyramid at stride 4.

    The input has one channel more than the scene has bands: the validity mask. Pixels without data are 0 in
    every channel, and so is what lies beyond the scene.

    Parameters
    ----------
    bands
        Bands of the scenes.
    widths
        Channels of the stages.
    blocks
        Residual blocks in each stage.
    dim
        Length of an embedding.

    Attributes
    ----------
    bands, dim, stride, alignment, halo, exact, normalisation
        As `sass.model.interface.DenseEncoder` explains them. The halo is the receptive radius, rounded up to
        ``alignment``.
    """

    stride = 4
    exact = True
    normalisation = None

    def __init__(self, bands: int, widths: list[int], blocks: int, dim: int):
        super().__init__()
        self.bands, self.dim = bands, dim
        self.alignment = self.stride * 2 ** (len(widths) - 1)
        self.halo = -(-receptive_radius(len(widths), blocks) // self.alignment) * self.alignment
        half = max(widths[0] // 2, 8)
        self.stem = nn.Sequential(*_conv(bands + 1, half, stride=2), *_conv(half, widths[0], stride=2))
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            first = _Block(widths[max(i - 1, 0)], width, stride=1 if i == 0 else 2)
            self.stages.append(nn.Sequential(first, *(_Block(width, width) for _ in range(blocks - 1))))
        self.laterals = nn.ModuleList(_Convolution(width, 2 * dim, 1) for width in widths)
        self.smooth = nn.Sequential(
            _Norm(2 * dim), nn.ReLU(inplace=True), _Convolution(2 * dim, dim, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, bands + 1, y, x)`` to embeddings ``(n, dim, y/4, x/4)``, not normalised."""
        x = self.stem(x)
        levels = []
        for stage, lateral in zip(self.stages, self.laterals):
            x = stage(x)
            levels.append(lateral(x))
        top = levels.pop()
        while levels:
            top = levels.pop() + F.interpolate(top, scale_factor=2, mode="bilinear", align_corners=False)
        return self.smooth(top)


def receptive_radius(stages: int, blocks: int) -> int:
    """Return how many pixels away from its block a pixel can change an embedding.

    A 3 x 3 convolution on a grid of stride s reaches s pixels further, and so does the first one of a
    stage on the grid it comes from. Doubling a grid of stride 2s by bilinear interpolation reaches 2s.
    """
    radius = 1 + 2 + 4 * 2 * blocks  # stem on strides 1 and 2, first stage on stride 4
    reach = [radius]
    for stage in range(1, stages):
        stride = 4 * 2**stage
        radius += stride // 2 + stride * (2 * blocks - 1)
        reach.append(radius)
    top = reach.pop()
    while reach:
        top = max(reach.pop(), top + 4 * 2 ** (len(reach) + 1))
    return top + 4  # the last 3 x 3 convolution, on stride 4


class _Convolution(nn.Conv2d):
    """A convolution of float32 that a CPU always computes by oneDNN.

    PyTorch would choose between two libraries by the size of the image and the number of threads. They add in
    different orders, so windows and threads would show in the last bits of the embeddings.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32
        if plain and torch.backends.mkldnn.is_available():
            return torch.mkldnn_convolution(
                x, weight, bias, self.padding, self.stride, self.dilation, self.groups
            )
        return super()._conv_forward(x, weight, bias)


class _Norm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes (`torch.nn.SyncBatchNorm` needs a GPU)."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        values = x.float()
        own = torch.stack([values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))])
        count = dist.get_world_size() * values.numel() / values.shape[1]
        mean, square = _Summed.apply(own) / count
        variance = (square - mean**2).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class _Summed(torch.autograd.Function):
    """The sum over all processes, and that of the gradients on the way back."""

    @staticmethod
    def forward(context, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Block(nn.Module):
    """A basic residual block (He et al. 2016)."""

    def __init__(self, into: int, out: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            *_conv(into, out, stride), _Convolution(out, out, 3, padding=1, bias=False), _Norm(out)
        )
        same = stride == 1 and into == out
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(_Convolution(into, out, 1, stride, bias=False), _Norm(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def _conv(into: int, out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = _Convolution(into, out, 3, stride, padding=1, bias=False)
    return convolution, _Norm(out), nn.ReLU(inplace=True)


def build_encoder(bands: int, model: dict[str, Any], seed: int) -> Encoder:
    """Build an encoder with random weights drawn from ``seed``, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(bands, model["widths"], model["blocks"], model["dim"])
