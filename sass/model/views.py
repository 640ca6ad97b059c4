"""Two random views of one place, cut from tiles on the device, and the places both of them see.

Coordinates are continuous pixels ``(y, x)``: a tile spans ``[0, T]``, a view ``[0, crop]``, and pixel ``i``
has its centre at ``i + 0.5``.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers of a joint batch, of which each process takes the places that are its own.

    All processes draw the same numbers, so that how many there are changes none of them.

    Parameters
    ----------
    generator
        Seeded alike in every process.
    rank, world
        This process, and how many there are.
    """

    generator: torch.Generator
    rank: int = 0
    world: int = 1

    @classmethod
    def of_step(cls, seed: int, step: int, device: torch.device, rank: int, world: int) -> "Draws":
        """Return the draws of a step, by a generator made anew from it: resuming needs no state of it."""
        return cls(torch.Generator(device).manual_seed(seed * 1_000_003 + step), rank, world)

    @property
    def device(self) -> torch.device:
        """Where the numbers are drawn."""
        return self.generator.device

    def batch(self, tiles: int, places: int) -> Tensor:
        """Draw the tiles of a batch out of a pool, none of them twice: the first draw of a step.

        The i-th place of the joint batch takes one of the tiles i, i + batch, i + 2 batch, ..., and every
        process finds its own among the tiles that it holds.
        """
        rounds = tiles // places
        chosen = (self.uniform(places) * rounds).long().clamp(max=rounds - 1) * places
        return chosen + torch.arange(places, device=self.device)

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Draw from [0, 1) for ``n`` own places: ``(n, *shape)``."""
        joint = torch.rand(n * self.world, *shape, generator=self.generator, device=self.device)
        return joint[self.rank :: self.world]

    def normal(self, n: int, *shape: int) -> Tensor:
        """Draw from the standard normal distribution for ``n`` own places: ``(n, *shape)``."""
        joint = torch.randn(n * self.world, *shape, generator=self.generator, device=self.device)
        return joint[self.rank :: self.world]


@dataclass(frozen=True)
class Warp:
    """From view to tile: ``tile = centre + (view - crop / 2) @ matrix``.

    ``centre (n, 2)`` and ``matrix (n, 2, 2)`` are float32.
    """

    centre: Tensor
    matrix: Tensor
    crop: int

    def to_tile(self, points: Tensor) -> Tensor:
        """Map points ``(n, p, 2)`` of the view into the tile."""
        return self.centre[:, None] + (points - self.crop / 2) @ self.matrix

    def from_tile(self, points: Tensor) -> Tensor:
        """Map points ``(n, p, 2)`` of the tile into the view."""
        return (points - self.centre[:, None]) @ torch.linalg.inv(self.matrix) + self.crop / 2


def random_warps(n: int, tile: int, crop: int, views: dict[str, Any], draws: Draws) -> tuple[Warp, Warp]:
    """Draw two warps for each of ``n`` places whose views overlap."""
    uniform = draws.uniform
    low, high = (math.log(s) for s in views["scale"])
    centre = None
    warps = []
    for _ in range(2):
        scale = torch.exp(low + (high - low) * uniform(n))
        # a view stays inside the tile where it can
        room = ((tile - scale * crop) / 2).clamp(min=0)[:, None]
        if centre is None:
            centre = tile / 2 + (2 * uniform(n, 2) - 1) * room
            own = centre
        else:
            own = centre + (2 * uniform(n, 2) - 1) * views["shift"] * crop
            own = torch.minimum(torch.maximum(own, tile / 2 - room), tile / 2 + room)
        angle = 2 * math.pi * uniform(n) * views["rotate"]
        flip = 1 - 2 * (uniform(n) < 0.5 * views["rotate"]).float()
        sin, cos = torch.sin(angle), torch.cos(angle)
        rotation = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin * flip, cos * flip], -1)], -2)
        warps.append(Warp(own, rotation * scale[:, None, None], crop))
    return warps[0], warps[1]


def cut(tiles: Tensor, warp: Warp) -> Tensor:
    """Sample views ``(n, bands + 1, crop, crop)`` from tiles ``(n, bands + 1, T, T)``.

    The last channel is the mask: a pixel of a view has data where all it was interpolated from has.
    """
    n, _, tile, _ = tiles.shape
    steps = torch.arange(warp.crop, device=tiles.device, dtype=torch.float32) + 0.5
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(1, -1, 2).expand(n, -1, -1)
    where = (2 * warp.to_tile(grid) / tile - 1).flip(-1).reshape(n, warp.crop, warp.crop, 2)
    view = F.grid_sample(
        tiles, where.to(tiles.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    valid = (view[:, -1:] > 0.999).to(view.dtype)
    return torch.cat([view[:, :-1] * valid, valid], 1)


def jitter(view: Tensor, views: dict[str, Any], clip: float, draws: Draws) -> Tensor:
    """Change the radiometry of normalised views mildly: gain, offset, gamma of each band, blur and noise."""
    pixels, valid = view[:, :-1], view[:, -1:]
    n, bands = pixels.shape[:2]

    def spread(width: float) -> Tensor:
        return (2 * draws.uniform(n, bands, 1, 1) - 1) * width

    exponent = torch.exp(spread(views["gamma"]))
    pixels = pixels.sign() * (pixels.abs() + 1e-6) ** exponent
    pixels = pixels * torch.exp(spread(views["gain"])) + spread(views["offset"])
    if views["blur"]:
        chosen = draws.uniform(n, 1, 1, 1) < views["blur"]
        pixels = torch.where(chosen, _blurred(pixels), pixels)
    sigma = draws.uniform(n, 1, 1, 1) * views["noise"]
    pixels = pixels + sigma * draws.normal(*pixels.shape)
    return torch.cat([pixels.clamp(-clip, clip) * valid, valid], 1)


def _blurred(pixels: Tensor) -> Tensor:
    """Smooth by the binomial 3 x 3 kernel."""
    kernel = torch.tensor([0.25, 0.5, 0.25], device=pixels.device, dtype=pixels.dtype)
    bands = pixels.shape[1]
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, 3, 1).expand(bands, 1, 3, 1), groups=bands)
    return F.conv2d(rows, kernel.reshape(1, 1, 1, 3).expand(bands, 1, 1, 3), groups=bands)


def shared_places(
    a: Warp, b: Warp, seen_a: Tensor, seen_b: Tensor, per_view: int, stride: int, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw embeddings of view ``a`` and find the same places in view ``b``.

    Parameters
    ----------
    seen_a, seen_b
        Masks of the views, ``(n, 1, crop, crop)``.
    per_view
        Places drawn in each view.

    Returns
    -------
    points_a, points_b
        Float32 ``(n, per_view, 2)``, places in pixels of either view.
    kept
        Bool ``(n, per_view)``: the place lies in both views and has data in both.
    """
    n, side = len(seen_a), a.crop // stride
    cells = draws.uniform(n, side * side).topk(per_view, dim=1).indices
    points_a = torch.stack([cells // side, cells % side], -1) * stride + stride / 2.0
    points_b = b.from_tile(a.to_tile(points_a))
    inside = ((points_b > 0) & (points_b < b.crop)).all(-1)
    seen = (sample(seen_a, points_a, a.crop) * sample(seen_b, points_b, b.crop))[..., 0] > 0.999
    return points_a, points_b, inside & seen


def sample(maps: Tensor, points: Tensor, crop: int) -> Tensor:
    """Interpolate maps ``(n, channels, h, w)`` of a view at points ``(n, p, 2)``: ``(n, p, channels)``."""
    where = (2 * points / crop - 1).flip(-1)[:, None].to(maps.dtype)
    taken = F.grid_sample(maps, where, mode="bilinear", padding_mode="border", align_corners=False)
    return taken[:, :, 0].transpose(1, 2)
