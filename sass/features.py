"""Features: unit embeddings of every scene, window by window, with a halo that makes windows vanish."""

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
    shape = tuple(-(-length // stride) for length in scene.shape)
    with replacing(run.features(name)) as path:
        shard = settings.window // stride
        chunk = math.gcd(CHUNK, shard)
        group = create_features(
            path, (encoder.dim, *shape), settings.dtype, scene.place, stride, chunk, shard
        )
        seen = 0
        step = group["embedding"].shards[1] * stride  # a window of pixels fills one Zarr shard
        for window, embedding, valid in embedded(scene, encoder, statistics, step):
            target = window.coarsened(stride).cut(shape)
            inside = (slice(0, target.height), slice(0, target.width))
            embedding = np.where(valid, embedding, 0)[(slice(None), *inside)]
            group["embedding"][(slice(None), *target.slices)] = _stored(embedding, settings.dtype)
            group["valid"][target.slices] = valid[inside].astype(np.uint8)
            seen += int(valid[inside].sum())
        return {
            "digest": file_digest(path),
            "shape": [encoder.dim, *shape],
            "dtype": settings.dtype,
            "valid": seen,
        }


def embedded(
    scene: SceneStore, encoder: Encoder, statistics: Statistics, step: int
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """Yield each window of a scene, its embeddings and their mask; the next window is read meanwhile.

    A window's sides are multiples of the encoder's alignment, at the end of the scene too.
    """
    size = tuple(ceil_to(length, encoder.alignment) for length in scene.shape)
    windows = list(tiles(size, ceil_to(step, encoder.alignment)))
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(_read, scene, statistics, windows[0].grown(encoder.halo, size))
        for i, window in enumerate(windows):
            pixels, valid = ahead.result()
            outer = window.grown(encoder.halo, size)
            if i + 1 < len(windows):
                ahead = reader.submit(_read, scene, statistics, windows[i + 1].grown(encoder.halo, size))
            inner = window.coarsened(encoder.stride).inside(outer.coarsened(encoder.stride))
            seen = valid.reshape(valid.shape[0] // encoder.stride, encoder.stride, -1, encoder.stride).any(
                axis=(1, 3)
            )
            yield window, embed(encoder, pixels, valid)[(slice(None), *inner)], seen[inner]


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
