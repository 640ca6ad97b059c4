"""Features: embeddings of every scene, window by window, with a halo that makes windows vanish.

What is clustered later is the encoder's unit embedding, joined by the mean colour of its pixels. The encoder
is taught to see through changes of colour, and so knows less of it than a map needs; joined, codes merge into
steadier classes. Embeddings that others have made (``features.source``) come in here too.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sass.config import Features
from sass.embeddings import Embeddings, identity
from sass.errors import SassError, SceneError
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, ceil_to, tiles
from sass.manifest import Outcome, Record, digest, file_digest, replacing, run_shard, scenes_of
from sass.model.interface import EncoderError, load_encoder
from sass.run import Run
from sass.statistics import Statistics
from sass.store import INT8_SCALE, SceneStore, create_features

CHUNK = 64
"""Side of a chunk of embeddings, or less where the window is smaller."""


@dataclass(frozen=True)
class Plan:
    """How the embeddings of one scene come about.

    ``length`` of what is stored; ``stride`` and ``alignment`` in pixels; ``pieces``, a function of the side
    of a window that yields each window, its vectors ``(length, y, x)`` and their mask ``(y, x)``.
    """

    length: int
    stride: int
    alignment: int
    pieces: Callable[[int], Iterator[tuple[Window, np.ndarray, np.ndarray]]]


def features_shard(run: Run, shard: str, settings: Features, threads: int) -> Outcome:
    """Bring the feature stores of a shard up to date.

    Memory depends on ``settings.window``, not on the scenes.

    Raises
    ------
    SassError
        The encoder's factory cannot be imported, or no longer makes the encoder that was trained.
    """
    torch.set_num_threads(threads)
    scenes = scenes_of(run, "ingest", shard)
    made_by = [stage_fingerprint("features"), settings.model_dump(mode="json")]
    if settings.source:
        statistics = Statistics.load(run.statistics)
        made_by.append(file_digest(run.statistics) if settings.colour else None)
        paths = {name: Path(settings.source.replace("{scene}", name)) for name in scenes}
        sources = {name: identity(path) for name, path in paths.items()}

        def work(name: str) -> Record:
            with _opened(paths[name]) as source:
                scene = SceneStore(run.scene(name))
                return write_features(
                    run, name, scene, imported(scene, source, statistics, settings.colour), settings
                )
    else:
        encoder, statistics = _encoder(run)
        made_by.append(file_digest(run.encoder))
        sources = dict.fromkeys(scenes)

        def work(name: str) -> Record:
            scene = SceneStore(run.scene(name))
            return write_features(
                run, name, scene, encoded(scene, encoder, statistics, settings.colour), settings
            )

    return run_shard(
        run,
        "features",
        shard,
        {name: digest(made_by, record["digest"], sources[name]) for name, record in scenes.items()},
        run.features,
        work,
    )


def _encoder(run: Run) -> tuple[nn.Module, Statistics]:
    """Return the run's encoder on its device, and the statistics it was fitted with."""
    try:
        encoder, about = load_encoder(run.encoder)
    except EncoderError as error:
        raise SassError(str(error)) from error
    if not encoder.exact:
        print(
            f"features: model.encoder {about['model']['encoder']!r} looks at a whole window at once, so "
            "embeddings and maps depend on features.window",
            file=sys.stderr,
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.to(device, memory_format=torch.channels_last)
    return encoder, Statistics.from_json(about["statistics"])


def _opened(path: Path) -> Embeddings:
    if not path.exists():
        raise SceneError(
            f"has no embeddings at {path}; write them there, or correct features.source, and run "
            "`sass features` again"
        )
    return Embeddings(path)


def write_features(run: Run, name: str, scene: SceneStore, plan: Plan, settings: Features) -> Record:
    """Write the feature store of one scene, window by window; return its record."""
    stride = plan.stride
    shape = tuple(-(-side // stride) for side in scene.shape)
    chunk, shard = _sides(settings.window, stride, plan.alignment)
    with replacing(run.features(name)) as path:
        group = create_features(
            path, (plan.length, *shape), settings.dtype, scene.place, stride, chunk, shard
        )
        seen = 0
        step = group["embedding"].shards[1] * stride  # a window of pixels fills one Zarr shard
        for window, embedding, valid in plan.pieces(step):
            target = window.coarsened(stride).cut(shape)
            inside = (slice(0, target.height), slice(0, target.width))
            embedding = np.where(valid, embedding, 0)[(slice(None), *inside)]
            group["embedding"][(slice(None), *target.slices)] = _stored(embedding, settings.dtype)
            group["valid"][target.slices] = valid[inside].astype(np.uint8)
            seen += int(valid[inside].sum())
        return {
            "digest": file_digest(path),
            "shape": [plan.length, *shape],
            "dtype": settings.dtype,
            "valid": seen,
        }


def _sides(window: int, stride: int, alignment: int) -> tuple[int, int]:
    """Return the sides of a chunk and of a shard in embeddings, both whole multiples of the alignment.

    A shard is at most ``window`` pixels wide, but never less than one alignment.
    """
    unit = alignment // stride
    chunk = max(min(CHUNK, window // stride) // unit, 1) * unit
    return chunk, max(window // stride // chunk, 1) * chunk


def encoded(scene: SceneStore, encoder: nn.Module, statistics: Statistics, colour: float) -> Plan:
    """Plan the embeddings of a scene by an encoder.

    Raises
    ------
    SceneError
        The scene has another number of bands than the encoder.
    """
    _check_bands(scene, statistics)
    length = encoder.dim + (encoder.bands if colour else 0)
    pieces = partial(embedded, scene, encoder, statistics, colour=colour)
    return Plan(length, encoder.stride, encoder.alignment, pieces)


def imported(scene: SceneStore, source: Embeddings, statistics: Statistics, colour: float) -> Plan:
    """Plan the import of embeddings that are there already.

    They are brought to unit length, as those of an encoder are. Components without data count as 0; where
    there is no other, or the scene has no data, the embedding has none.

    Raises
    ------
    SceneError
        Their grid is not the scene's, or colour is to be joined and the scene has other bands than the
        archive.
    """
    if colour:
        _check_bands(scene, statistics)
    stride = source.stride_over(scene)

    def pieces(step: int) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
        for window in tiles(tuple(ceil_to(side, stride) for side in scene.shape), step):
            images, valid = _read(scene, (statistics,) if colour else (), window)
            vectors = np.nan_to_num(source.read(window.coarsened(stride)), copy=False, posinf=0, neginf=0)
            length = np.sqrt(np.einsum("dyx,dyx->yx", vectors, vectors, dtype=np.float64))
            vectors /= np.where(length > 0, length, 1).astype(np.float32)
            if colour:
                vectors = np.concatenate([vectors, local_colour(images[0], valid, stride, colour)])
            yield window, vectors, _blocks(valid, stride).any(axis=(-3, -1)) & (length > 0)

    bands = len(statistics.names) if colour else 0
    return Plan(source.shape[0] + bands, stride, stride, pieces)


def _check_bands(scene: SceneStore, statistics: Statistics) -> None:
    if len(scene.band_names) != len(statistics.names):
        raise SceneError(
            f"has {len(scene.band_names)} bands, and the encoder was fitted on {len(statistics.names)} "
            f"({', '.join(statistics.names)}); choose bands with ingest.bands, or scan such scenes "
            "into a run of their own"
        )


def embedded(
    scene: SceneStore, encoder: nn.Module, statistics: Statistics, step: int, colour: float
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """Yield each window of a scene, its embeddings and their mask; the next window is read meanwhile.

    A window's sides are multiples of the encoder's alignment, at the end of the scene too. With a weight
    ``colour`` above 0 the embeddings are joined by `local_colour`, which is of the archive's scale whatever
    the encoder is given.
    """
    size = tuple(ceil_to(side, encoder.alignment) for side in scene.shape)
    windows = list(tiles(size, ceil_to(step, encoder.alignment)))
    given = statistics.given_to(encoder.normalisation)
    scales = (given,) if given is statistics or not colour else (given, statistics)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(_read, scene, scales, windows[0].grown(encoder.halo, size))
        for i, window in enumerate(windows):
            images, valid = ahead.result()
            outer = window.grown(encoder.halo, size)
            if i + 1 < len(windows):
                ahead = reader.submit(_read, scene, scales, windows[i + 1].grown(encoder.halo, size))
            inner = window.coarsened(encoder.stride).inside(outer.coarsened(encoder.stride))
            vectors = embed(encoder, images[0], valid)
            if colour:
                vectors = np.concatenate([vectors, local_colour(images[-1], valid, encoder.stride, colour)])
            seen = _blocks(valid, encoder.stride).any(axis=(-3, -1))
            yield window, vectors[(slice(None), *inner)], seen[inner]


def embed(encoder: nn.Module, pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Embed pixels as the encoder is given them.

    Parameters
    ----------
    pixels
        Float32 ``(band, y, x)``, scaled, sides multiples of ``encoder.alignment``, 0 without data.
    valid
        Bool ``(y, x)``.

    Returns
    -------
    numpy.ndarray
        Float32 ``(dim, y / stride, x / stride)``, unit length along ``dim``.
    """
    device = next((weights.device for weights in encoder.parameters()), torch.device("cpu"))
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


def _read(
    scene: SceneStore, scales: tuple[Statistics, ...], outer: Window
) -> tuple[list[np.ndarray], np.ndarray]:
    """Read a window that may reach beyond the scene, where there is no data, scaled in each of these ways."""
    held = outer.cut(scene.shape)
    rest = ((0, outer.height - held.height), (0, outer.width - held.width))
    if not scales:
        return [], np.pad(scene.read_valid(held), rest)
    pixels, valid = scene.read(held)
    return [np.pad(scale.apply(pixels, valid), ((0, 0), *rest)) for scale in scales], np.pad(valid, rest)


def _stored(embedding: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "int8":
        return np.rint(embedding / INT8_SCALE).astype(np.int8)
    return embedding.astype(np.float16)
