"""Features: embeddings of every scene, window by window, as if it were embedded whole.

What is clustered later is the encoder's unit embedding, joined by what its pixels look like
(`sass.appearance`). Embeddings that others have made (``features.source``) come in here too.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import nn

from sass.appearance import appearance, reach
from sass.config import Features
from sass.embeddings import Embeddings, identity
from sass.errors import SassError, SceneError
from sass.files import digest, file_digest, replacing
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, ceil_to, tiles
from sass.manifest import Outcome, Record, run_shard, scenes_of
from sass.model.device import computing_device
from sass.model.interface import EncoderError, load_encoder
from sass.progress import progress
from sass.run import Run
from sass.statistics import Statistics
from sass.store import INT8_SCALE, REMAINDER_SCALE, SceneStore, create_features, write
from sass.windows import any_valid, embedded, read_scaled

CHUNK = 64
"""Side of a chunk of embeddings, or less where the window is smaller."""


@dataclass(frozen=True)
class Plan:
    """How the embeddings of one scene come about.

    ``parts``, the lengths of what is stored one after the other, by name; ``stride`` and ``alignment`` in
    pixels; ``pieces``, a function of the side of a window that yields each window, its vectors
    ``(length, y, x)`` and their mask ``(y, x)``.
    """

    parts: dict[str, int]
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
        made_by.append(file_digest(run.statistics) if settings.appearance else None)
        paths = {name: Path(settings.source.replace("{scene}", name)) for name in scenes}
        sources = {name: identity(path) for name, path in paths.items()}

        def work(name: str) -> Record:
            with _opened(paths[name]) as source:
                scene = SceneStore(run.scene(name))
                return write_features(
                    run, name, scene, imported(scene, source, statistics, settings.appearance), settings
                )
    else:
        encoder, statistics = _encoder(run)
        made_by.append(file_digest(run.encoder))
        sources = dict.fromkeys(scenes)

        def work(name: str) -> Record:
            scene = SceneStore(run.scene(name))
            return write_features(
                run, name, scene, encoded(scene, encoder, statistics, settings.appearance, threads), settings
            )

    return run_shard(
        run,
        "features",
        shard,
        {name: digest(made_by, record["digest"], sources[name]) for name, record in scenes.items()},
        run.features,
        work,
        threads,
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
    encoder = encoder.to(computing_device("features"), memory_format=torch.channels_last)
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
    stride, length = plan.stride, sum(plan.parts.values())
    shape = tuple(-(-side // stride) for side in scene.shape)
    chunk, shard = _sides(settings.window, stride, plan.alignment)
    with replacing(run.features(name)) as path, ThreadPoolExecutor(1, "writer") as writer:
        group = create_features(path, plan.parts, shape, settings.dtype, scene.place, stride, chunk, shard)
        seen, written = 0, None
        step = group["embedding"].shards[1] * stride  # a window of pixels fills one Zarr shard
        windows = -(-scene.shape[0] // step) * -(-scene.shape[1] // step)
        for window, embedding, valid in progress(plan.pieces(step), windows, name):
            target = window.coarsened(stride).cut(shape)
            inside = (slice(0, target.height), slice(0, target.width))
            embedding, valid = embedding[(slice(None), *inside)], valid[inside]
            if not valid.all():
                embedding = np.where(valid, embedding, 0)
            arrays = _stored(embedding, plan.parts["embedding"], settings.dtype)
            arrays["valid"] = valid.astype(np.uint8)
            if written:
                written.result()
            written = writer.submit(_write, group, target, arrays)  # while the next window is embedded
            seen += int(valid.sum())
        if written:
            written.result()
        return {"shape": [length, *shape], "dtype": settings.dtype, "valid": seen}


def _write(group: zarr.Group, window: Window, arrays: dict[str, np.ndarray]) -> None:
    for name, values in arrays.items():
        write(group[name], window, values)


def _sides(window: int, stride: int, alignment: int) -> tuple[int, int]:
    """Return the sides of a chunk and of a shard in embeddings, both whole multiples of the alignment.

    A shard is at most ``window`` pixels wide, but never less than one alignment.
    """
    unit = alignment // stride
    chunk = max(min(CHUNK, window // stride) // unit, 1) * unit
    return chunk, max(window // stride // chunk, 1) * chunk


def encoded(
    scene: SceneStore, encoder: nn.Module, statistics: Statistics, joined: bool, threads: int
) -> Plan:
    """Plan the embeddings of a scene by an encoder.

    Raises
    ------
    SceneError
        The scene has another number of bands than the encoder.
    """
    _check_bands(scene, statistics)
    pieces = partial(embedded, scene, encoder, statistics, joined=joined, threads=threads)
    return Plan(_parts(encoder.dim, statistics, joined), encoder.stride, encoder.alignment, pieces)


def _parts(dim: int, statistics: Statistics, joined: bool) -> dict[str, int]:
    looks = {"colour": len(statistics.names), "texture": 1} if joined else {}
    return {"embedding": dim, **looks}


def imported(scene: SceneStore, source: Embeddings, statistics: Statistics, joined: bool) -> Plan:
    """Plan the import of embeddings that are there already.

    They are brought to unit length, as those of an encoder are. Components without data count as 0; where
    there is no other, or the scene has no data, the embedding has none.

    Raises
    ------
    SceneError
        Their grid is not the scene's, or appearance is to be joined and the scene has other bands than the
        archive.
    """
    if joined:
        _check_bands(scene, statistics)
    stride = source.stride_over(scene)
    size = tuple(ceil_to(side, stride) for side in scene.shape)

    def pieces(step: int) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
        for window in tiles(size, step):
            outer = window.grown(reach(stride), size)
            inner = window.coarsened(stride).inside(outer.coarsened(stride))
            images, valid = read_scaled(scene, (statistics,) if joined else (), outer)
            vectors = np.nan_to_num(source.read(window.coarsened(stride)), copy=False, posinf=0, neginf=0)
            length = np.sqrt(np.einsum("dyx,dyx->yx", vectors, vectors, dtype=np.float64))
            vectors /= np.where(length > 0, length, 1).astype(np.float32)
            if joined:
                looks = appearance(images[0], valid, stride, statistics.clip)
                vectors = np.concatenate([vectors, looks[(slice(None), *inner)]])
            yield window, vectors, any_valid(valid, stride)[inner] & (length > 0)

    return Plan(_parts(source.shape[0], statistics, joined), stride, stride, pieces)


def _check_bands(scene: SceneStore, statistics: Statistics) -> None:
    if len(scene.band_names) != len(statistics.names):
        raise SceneError(
            f"has {len(scene.band_names)} bands, and the encoder was fitted on {len(statistics.names)} "
            f"({', '.join(statistics.names)}); choose bands with ingest.bands, or scan such scenes "
            "into a run of their own"
        )


def _stored(embedding: np.ndarray, dim: int, dtype: str) -> dict[str, np.ndarray]:
    """Return the arrays of a store that hold an embedding, of which the first ``dim`` are the encoder's."""
    if dtype == "float16":
        # numpy gives the same, but takes several times as long
        return {"embedding": torch.from_numpy(embedding).half().numpy()}
    whole = np.rint(embedding / INT8_SCALE)
    rest = np.rint((embedding - whole * INT8_SCALE)[dim:] / REMAINDER_SCALE)
    held = {"embedding": whole, "remainder": rest} if len(rest) else {"embedding": whole}
    return {name: values.astype(np.int8) for name, values in held.items()}
