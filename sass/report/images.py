"""Pictures of scenes and maps, decimated while they are read: memory follows the picture, not the scene."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image
from rasterio.enums import Resampling

from sass.colours import Colour
from sass.errors import ConfigError
from sass.grid import tiles
from sass.report.collect import Scene, open_map
from sass.run import Run
from sass.store import SceneStore

READ = 1024
"""Side of the windows in which a scene is read, in pixels."""
SAMPLES = 4
"""Pixels averaged into one of a quicklook, along an axis: enough against aliasing, and few to read."""
PIXELATED_BELOW = 512
"""Pictures smaller than this are kept without loss and enlarged with sharp pixels."""
CONFIDENCE_MAP = "cividis"
"""Colours of confidence: even for readers who see few colours."""

Rgba = np.ndarray


@dataclass(frozen=True)
class Stretch:
    """How band values become screen colours: the same for every scene, from the archive's percentiles."""

    bands: tuple[int, ...]
    """Bands shown, counted from 0: one (grey) or three."""
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, statistics: dict[str, Any], rgb: list[int] | None) -> "Stretch":
        """Choose the bands of the configuration, or the first three, or the first as grey.

        Raises
        ------
        ConfigError
            ``report.rgb`` names a band that the scenes do not have, or neither one nor three bands.
        """
        bands = statistics["bands"]
        chosen = rgb or ([1, 2, 3] if len(bands) >= 3 else [1])
        if len(chosen) not in (1, 3) or max(chosen) > len(bands):
            raise ConfigError(
                f"report.rgb is {chosen}: expected one or three of {len(bands)} bands, counted from 1"
            )
        picked = [bands[b - 1] for b in chosen]
        low, high = (
            np.array([band[key] for band in picked], np.float32)[:, None, None] for key in ("low", "high")
        )
        return cls(tuple(b - 1 for b in chosen), low, high)

    def apply(self, values: np.ndarray, valid: np.ndarray) -> Rgba:
        """Turn values ``(band, y, x)`` of the shown bands into uint8 ``(y, x, 4)``, no data transparent."""
        span = np.where(self.high > self.low, self.high - self.low, 1)
        scaled = np.clip((np.nan_to_num(values) - self.low) / span, 0, 1)
        colour = np.broadcast_to(np.rint(scaled * 255).astype(np.uint8), (3, *valid.shape))
        return np.dstack(
            [np.where(valid, colour, 0).transpose(1, 2, 0), np.where(valid, 255, 0).astype(np.uint8)]
        )


def steps(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the step of reading and the samples averaged along an axis so that a picture fits ``side``."""
    stride = math.ceil(max(shape) / side)
    samples = min(stride, SAMPLES)
    return math.ceil(stride / samples), samples


def thumbnail(store: SceneStore, bands: tuple[int, ...], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a scene to at most ``side`` pixels: mean of samples, window by window.

    Returns
    -------
    values : ndarray
        float32 ``(band, y, x)`` of the bands asked for.
    valid : ndarray
        bool ``(y, x)``, true where any sample has data.
    """
    step, samples = steps(store.shape, side)
    stride = step * samples
    height, width = (math.ceil(n / stride) for n in store.shape)
    values = np.zeros((len(bands), height, width), np.float32)
    valid = np.zeros((height, width), bool)
    for window in tiles(store.shape, math.ceil(READ / stride) * stride):
        ys = slice(window.y, window.y + window.height, step)
        xs = slice(window.x, window.x + window.width, step)
        mask = _blocks(store.valid[ys, xs].astype(np.float32)[None], samples)
        pixels = np.nan_to_num(store.bands[:, ys, xs][list(bands)].astype(np.float32))
        sums = _blocks(pixels * (store.valid[ys, xs] > 0), samples).sum(axis=(2, 4))
        counts = mask.sum(axis=(2, 4))[0]
        out = (slice(window.y // stride, window.y // stride + counts.shape[0]),
               slice(window.x // stride, window.x // stride + counts.shape[1]))  # fmt: skip
        values[(slice(None), *out)] = sums / np.maximum(counts, 1)
        valid[out] = counts > 0
    return values, valid


def _blocks(pixels: np.ndarray, side: int) -> np.ndarray:
    """View ``(band, y, x)`` as ``(band, Y, side, X, side)``, filled up with zeros."""
    bands, height, width = pixels.shape
    padded = np.pad(pixels, ((0, 0), (0, -height % side), (0, -width % side)))
    return padded.reshape(bands, padded.shape[1] // side, side, padded.shape[2] // side, side)


def read_map(run: Run, scene: Scene, name: str, side: int) -> np.ndarray:
    """Read ``segments`` or ``confidence`` of a scene at the size of its quicklook, from the overviews.

    Returns
    -------
    ndarray
        int32 ``(y, x)``: classes or 0..254; -1 where there is no data.
    """
    step, samples = steps(scene.shape, side)
    shape = tuple(math.ceil(n / (step * samples)) for n in scene.shape)
    how = Resampling.mode if name == "segments" else Resampling.average
    with open_map(run.segments(scene.id) / f"{name}.tif") as source:
        pixels = source.read(1, out_shape=shape, resampling=how).astype(np.int32)
        return np.where(pixels == source.nodata, -1, pixels)


def paint_classes(classes: np.ndarray, colours: dict[int, Colour]) -> Rgba:
    """Colour classes ``(y, x)``; -1 becomes transparent."""
    table = np.zeros((max(colours) + 2, 4), np.uint8)
    for k, colour in colours.items():
        table[k + 1] = (*colour, 255)
    return table[classes + 1]


def paint_confidence(confidence: np.ndarray) -> Rgba:
    """Colour confidence 0..254 ``(y, x)``; -1 becomes transparent."""
    table = np.zeros((256, 4), np.uint8)
    table[1:] = np.rint(colormaps[CONFIDENCE_MAP](np.linspace(0, 1, 255)) * 255)
    return table[confidence + 1]


def encode(picture: Rgba, flat: bool) -> tuple[str, bytes]:
    """Encode a picture and return its suffix and bytes.

    Maps (``flat``) and small pictures become PNG with transparent no data; photographs become JPEG, on grey.
    """
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    if flat or max(picture.shape[:2]) < PIXELATED_BELOW:
        image.save(stream, "PNG", optimize=True)
        return "png", stream.getvalue()
    ground = Image.new("RGB", image.size, (128, 128, 128))
    ground.paste(image, mask=image.getchannel("A"))
    ground.save(stream, "JPEG", quality=88, optimize=True)
    return "jpg", stream.getvalue()
