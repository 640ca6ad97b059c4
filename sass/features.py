"""Features: embeddings of every scene, window by window, with a halo that makes windows vanish.

What is clustered later is the encoder's unit embedding, joined by the mean colour of its pixels. The encoder
is taught to see through changes of colour, and so knows less of it than a map needs; joined, codes merge into
steadier classes.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F

from sass.config import Features
from sass.errors import SceneError
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, ceil_to, tiles
from sass.manifest import Outcome, Record, digest, file_digest, replacing, run_shard, scenes_of
from sass.model.encoder import Encoder, load_encoder
from sass.run import Run
from sass.statistics import Statistics
from sass.store import INT8_SCALE, SceneStore, create_features

CHUNK = 64
"""Side of a chunk of embeddings: 256 pixels of the scene, or less where the window is no multiple of it."""


def features_shard(run: Run, shard: str, settings: Features, threads: int) -> Outcome:
    """Bring the feature stores of a shard up to date.

    Memory depends on ``settings.window``, not on the scenes.
    """
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder, about = load_encoder(run.encoder)
    encoder = encoder.to(device, memory_format=torch.channels_last)
    statistics = Statistics.from_json(about["statistics"])
    made_by = [stage_fingerprint("features"), settings.model_dump(mode="json"), file_digest(run.encoder)]
    return run_shard(
        run,
        "features",
        shard,
        {name: digest(made_by, record["digest"]) for name, record in scenes_of(run, "ingest", shard).items()},
        run.features,
        lambda name: features_scene(run, name, encoder, statistics, settings),
    )


def features_scene(
    run: Run, name: str, encoder: Encoder, statistics: Statistics, settings: Features
) -> Record:
    """Write the feature store of one scene; return its record.

    Raises
    ------
    SceneError
        The scene has another number of bands than the encoder.
    """
    scene = SceneStore(run.scene(name))
    if len(scene.band_names) != encoder.bands:
        raise SceneError(
            f"has {len(scene.band_names)} bands, and the encoder was fitted on {encoder.bands} "
            f"({', '.join(statistics.names)}); choose bands with ingest.bands, or scan such scenes "
            "into a run of their own"
        )
    stride = encoder.stride
    shape = tuple(-(-side // stride) for side in scene.shape)
    length = encoder.dim + (encoder.bands if settings.colour else 0)
    with replacing(run.features(name)) as path:
        shard = settings.window // stride
        chunk = math.gcd(CHUNK, shard)
        group = create_features(path, (length, *shape), settings.dtype, scene.place, stride, chunk, shard)
        seen = 0
        step = group["embedding"].shards[1] * stride  # a window of pixels fills one Zarr shard
        for window, embedding, valid in embedded(scene, encoder, statistics, step, settings.colour):
            target = window.coarsened(stride).cut(shape)
            inside = (slice(0, target.height), slice(0, target.width))
            embedding = np.where(valid, embedding, 0)[(slice(None), *inside)]
            group["embedding"][(slice(None), *target.slices)] = _stored(embedding, settings.dtype)
            group["valid"][target.slices] = valid[inside].astype(np.uint8)
            seen += int(valid[inside].sum())
        return {
            "digest": file_digest(path),
            "shape": [length, *shape],
            "dtype": settings.dtype,
            "valid": seen,
        }


def embedded(
    scene: SceneStore, encoder: Encoder, statistics: Statistics, step: int, colour: float
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """Yield each window of a scene, its embeddings and their mask; the next window is read meanwhile.

    A window's sides are multiples of the encoder's alignment, at the end of the scene too. With a weight
    ``colour`` above 0 the embeddings are joined by `local_colour`.
    """
    size = tuple(ceil_to(side, encoder.alignment) for side in scene.shape)
    windows = list(tiles(size, ceil_to(step, encoder.alignment)))
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(_read, scene, statistics, windows[0].grown(encoder.halo, size))
        for i, window in enumerate(windows):
            pixels, valid = ahead.result()
            outer = window.grown(encoder.halo, size)
            if i + 1 < len(windows):
                ahead = reader.submit(_read, scene, statistics, windows[i + 1].grown(encoder.halo, size))
            inner = window.coarsened(encoder.stride).inside(outer.coarsened(encoder.stride))
            vectors = embed(encoder, pixels, valid)
            if colour:
                vectors = np.concatenate([vectors, local_colour(pixels, valid, encoder.stride, colour)])
            seen = _blocks(valid, encoder.stride).any(axis=(-3, -1))
            yield window, vectors[(slice(None), *inner)], seen[inner]


def embed(encoder: Encoder, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Embed normalised pixels.

    Parameters
    ----------
    pixels
        Float32 ``(band, y, x)``, sides multiples of ``encoder.alignment``, 0 without data.
    valid
        Bool ``(y, x)``.

    Returns
    -------
    numpy.ndarray
        Float32 ``(dim, y / 4, x / 4)``, unit length along ``dim``.
    """
    device = next(encoder.parameters()).device
    stacked = np.concatenate([pixels, valid[None].astype(np.float32)])[None]
    x = torch.from_numpy(stacked).to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        embedding = F.normalize(encoder(x).float(), dim=1)
    return embedding[0].cpu().numpy()


def local_colour(pixels: np.ndarray, valid: np.ndarray, stride: int, weight: float) -> np.ndarray:
    """Return the mean normalised value of each band in each ``stride`` x ``stride`` block, to be joined.

    Times ``weight / sqrt(bands)``, so that the weight says how long the colour of an ordinary pixel is beside
    the embedding, which has length 1; cut off at -1 and 1. Pixels are as in `embed`: 0 without data.
    """
    held = np.maximum(_blocks(valid, stride).sum(axis=(-3, -1)), 1)
    mean = _blocks(pixels, stride).sum(axis=(-3, -1)) / held
    return np.clip(mean * (weight / np.sqrt(len(pixels))), -1, 1).astype(np.float32)


def _blocks(image: np.ndarray, side: int) -> np.ndarray:
    """View ``(..., y, x)`` as ``(..., y / side, side, x / side, side)``."""
    *others, height, width = image.shape
    return image.reshape(*others, height // side, side, width // side, side)


def _read(scene: SceneStore, statistics: Statistics, outer: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window that may reach beyond the scene; what lies there has no data."""
    held = outer.cut(scene.shape)
    pixels, valid = scene.read(held)
    rest = ((0, outer.height - held.height), (0, outer.width - held.width))
    return np.pad(statistics.apply(pixels, valid), ((0, 0), *rest)), np.pad(valid, rest)


def _stored(embedding: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "int8":
        return np.rint(embedding / INT8_SCALE).astype(np.int8)
    return embedding.astype(np.float16)
