"""Segment: the class of every pixel at full resolution, its confidence, and the seam score of the map.

In the codebook's metric, itself affine, the squared distance of an embedding x to a code c is |x|^2 - 2 s
with the score s = x.c - |c|^2 / 2, and s is affine in x. Interpolating scores between embeddings is therefore
the same as interpolating embeddings, and costs a matrix product for every embedding instead of one for every
pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from sass.catalog import Scene, load_shard
from sass.classmap import label_changes, without_specks
from sass.cluster.classes import Classes, load_classes
from sass.cluster.codebook import Codes
from sass.codes import write_codes
from sass.cog import CONFIDENCE_STEPS, class_type, new_classes, new_confidence
from sass.config import Segment
from sass.errors import SceneError
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, ceil_to, tiles
from sass.manifest import (
    Outcome,
    Record,
    digest,
    read_json,
    replacing,
    run_shard,
    scenes_of,
    write_json,
)
from sass.parallel import ordered_map
from sass.progress import progress
from sass.refine import reach, refined
from sass.run import Run
from sass.stac import segment_item
from sass.statistics import Statistics
from sass.store import FeatureStore, SceneStore

STRIP = 1 << 22
"""Scores of classes held at once at full resolution, in numbers: 16 MB."""
SHARES, LEAST = 1 << 24, 64
"""Shares of classes averaged at once, in numbers; but a window of so many pixels is not divided for that."""


@dataclass(frozen=True)
class Classifier:
    """Codes grouped into classes.

    The score of code k is ``weights[k] . x - bias[k]`` for a stored embedding x: in the codebook's metric,
    x.c - |c|^2 / 2. ``weights (K, D)`` and ``bias (K)`` are float64, ordered by class; ``bounds (n + 1)``,
    where each class starts; ``spread``, mean squared distance of an embedding to its code; ``names`` of the
    classes, empty where they have none.
    """

    weights: np.ndarray
    bias: np.ndarray
    bounds: np.ndarray
    spread: float
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, codes: Codes, classes: Classes) -> "Classifier":
        """Group codes by class."""
        order = np.argsort(classes.of_code, kind="stable")
        ordered, matrix = codes.codes[order].astype(np.float64), codes.metric.matrix.astype(np.float64)
        weights = ordered @ matrix.T
        bias = weights @ codes.metric.offset.astype(np.float64) + (ordered**2).sum(1) / 2
        bounds = np.searchsorted(classes.of_code[order], np.arange(classes.count + 1))
        return cls(weights, bias, bounds, max(codes.spread, 1e-9), classes.names)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bounds) - 1


def segment_shard(run: Run, shard: str, settings: Segment, threads: int) -> Outcome:
    """Bring the maps of a shard up to date. Memory depends on ``settings.window``, not on the scenes."""
    torch.set_num_threads(1)  # windows run side by side
    catalog = load_shard(run, shard)
    codes = Codes.load(run.codebook)
    classifier = Classifier.of(codes, load_classes(run, settings.classes))
    grouping = [
        classifier.names,
        classifier.bounds.tolist(),
        digest(classifier.weights.tolist(), classifier.bias.tolist(), codes.codes.tolist()),
        classifier.spread,
    ]
    statistics = Statistics.load(run.statistics) if settings.smooth else None
    looks = digest(read_json(run.statistics)) if settings.smooth else None
    made_by = [stage_fingerprint("segment"), settings.model_dump(mode="json"), grouping, looks]
    masks = scenes_of(run, "ingest", shard)
    return run_shard(
        run,
        "segment",
        shard,
        {
            name: digest(made_by, record["digest"], masks[name]["digest"])
            for name, record in scenes_of(run, "features", shard).items()
        },
        run.segments,
        lambda name: segment_scene(run, catalog[name], codes, classifier, settings, statistics, threads),
        threads,
    )


def segment_scene(
    run: Run,
    scene: Scene,
    codes: Codes,
    classifier: Classifier,
    settings: Segment,
    statistics: Statistics | None,
    threads: int,
) -> Record:
    """Write the rasters of classes, confidence and codes of one scene, and its STAC item; return its record.

    ``statistics`` scale the pixels that ``settings.smooth`` compares.

    Raises
    ------
    SceneError
        Its embeddings have another length than the codes, or its pixels, where they are compared, other bands
        than the archive.
    """
    mask, features = SceneStore(run.scene(scene.id)), FeatureStore(run.features(scene.id))
    length, expected = features.embedding.shape[0], classifier.weights.shape[1]
    if length != expected:
        raise SceneError(
            f"has embeddings of length {length}, and the codebook is of {expected}, so it has no class; make "
            "embeddings alike for all scenes"
        )
    if statistics and len(mask.band_names) != len(statistics.names):
        raise SceneError(
            f"has {len(mask.band_names)} bands, and the archive's statistics are of {len(statistics.names)} "
            f"({', '.join(statistics.names)}), so segment.smooth cannot compare its pixels; choose bands "
            "with ingest.bands, or set segment.smooth: 0"
        )
    shape, place, n = mask.shape, mask.place, classifier.classes
    seams = features.embedding.shards[1] * features.stride, settings.window
    counts, trust = np.zeros(n, np.int64), 0
    changes = {"across": np.zeros(2, np.int64), "inside": np.zeros(2, np.int64)}
    with replacing(run.segments(scene.id)) as folder:
        folder.mkdir()
        with (
            new_classes(
                folder / "segments.tif", shape, place, n, classifier.names, threads=threads
            ) as map_file,
            new_confidence(folder / "confidence.tif", shape, place, threads) as trust_file,
        ):
            nodata = map_file.nodata

            def work(window: Window) -> tuple:
                outer = window.grown(2 * settings.min_area + 1, shape)
                classes, confidence = classify(features, mask, outer, classifier, settings, statistics)
                if settings.min_area:
                    classes = without_specks(classes, settings.min_area, nodata)
                inner = window.inside(outer)
                # one pixel to the left and above decides whether labels change across the window's edge
                ahead = Window(max(window.y - 1, 0), max(window.x - 1, 0), 0, 0)
                edge = (slice(ahead.y - outer.y, inner[0].stop), slice(ahead.x - outer.x, inner[1].stop))
                return (
                    window,
                    classes[inner],
                    confidence[inner],
                    label_changes(classes[edge], ahead, window, seams, shape, nodata, features.stride),
                )

            windows = list(tiles(shape, settings.window))
            done = ordered_map(work, windows, threads)
            for window, classes, confidence, seam in progress(done, len(windows), scene.id):
                map_file.write(classes, window)
                trust_file.write(confidence, window)
                counts += np.bincount(classes[classes != nodata], minlength=n)
                trust += int(confidence[confidence != 255].sum(dtype=np.int64))
                for kind, part in seam.items():
                    changes[kind] += part
        write_codes(folder / "codes.tif", features, codes, threads)
        held = {c: int(pixels) for c, pixels in enumerate(counts) if pixels}
        item = segment_item(
            folder, scene, shape, place, held, n, classifier.names,
            codes=len(codes.codes), stride=features.stride,
        )  # fmt: skip
        write_json(folder / "item.json", item)
        return {
            "classes": n,
            "counts": {str(c): pixels for c, pixels in held.items()},
            "confidence": round(trust / max(int(counts.sum()), 1) / CONFIDENCE_STEPS, 6),
            "seam": {kind: pairs.tolist() for kind, pairs in changes.items()},
        }


def classify(
    features: FeatureStore,
    mask: SceneStore,
    window: Window,
    classifier: Classifier,
    settings: Segment,
    statistics: Statistics | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return classes ``(y, x)`` in the map's dtype and confidence ``(y, x)`` uint8 of a window of pixels.

    The class is that of the nearest code. The confidence is ``tanh((d2 - d1) / (4 w))``, where d1 and d2 are
    the squared distances to the nearest code and to the nearest code of another class, and w is the mean
    squared distance of embeddings to their code. That is ``(p1 - p2) / (p1 + p2)`` of the two largest shares,
    if the share of a class goes by ``exp(-d / (2 w))`` of its nearest code. With ``settings.smooth`` these
    shares are averaged among pixels that look alike (`sass.refine`) before both are read from them.
    """
    outer = window.grown(reach(settings.smooth), mask.shape)
    if (
        settings.smooth
        and classifier.classes * outer.height * outer.width > SHARES
        and max(window.shape) > LEAST
    ):
        parts = [classify(features, mask, half, classifier, settings, statistics) for half in _halves(window)]
        axis = int(window.width > window.height)
        return tuple(np.concatenate(arrays, axis) for arrays in zip(*parts))
    dtype, nodata = class_type(classifier.classes)
    classes, confidence = np.full(outer.shape, nodata, dtype), np.full(outer.shape, 255, np.uint8)
    held = mask.read_valid(outer)
    shares = np.zeros((classifier.classes if settings.smooth else 0, *outer.shape), np.float32)
    for strip, scores, seen in _by_class(features, outer, classifier):
        inside = strip.inside(outer)
        held[inside] &= seen  # imported embeddings may leave out what the scene holds
        if settings.smooth:
            shares[(slice(None), *inside)] = _shares(scores.numpy(), classifier.spread)
        else:
            best, label = scores.topk(2, dim=0)
            trust = torch.tanh((best[0] - best[1]) / (2 * classifier.spread)) * CONFIDENCE_STEPS
            classes[inside] = label[0].numpy()
            confidence[inside] = torch.round(trust).numpy()
    if settings.smooth:
        pixels = statistics.apply(mask.bands[(slice(None), *outer.slices)], held)
        shares = refined(shares, pixels, held, settings.smooth)
        best, label = torch.from_numpy(shares).topk(2, dim=0)
        trust = (best[0] - best[1]) / (best[0] + best[1]).clamp(min=1e-6) * CONFIDENCE_STEPS
        classes, confidence = label[0].numpy().astype(dtype), torch.round(trust).numpy().astype(np.uint8)
    classes[~held], confidence[~held] = nodata, 255
    inner = window.inside(outer)
    return classes[inner], confidence[inner]


def _halves(window: Window) -> tuple[Window, Window]:
    """Cut a window in two across its longer side."""
    if window.width > window.height:
        left = window.width // 2
        return replace(window, width=left), replace(window, x=window.x + left, width=window.width - left)
    top = window.height // 2
    return replace(window, height=top), replace(window, y=window.y + top, height=window.height - top)


def _by_class(
    features: FeatureStore, window: Window, classifier: Classifier
) -> Iterator[tuple[Window, torch.Tensor, np.ndarray]]:
    """Yield strips of a window, the best score of each class in each pixel, and where there are any.

    Scores of all codes are held for the few rows of pixels between two rows of embeddings only: they stay in
    the cache of a core until the best of each class is found.
    """
    stride = features.stride
    y0, x0 = window.y // stride * stride, window.x // stride * stride
    y1, x1 = ceil_to(window.y + window.height, stride), ceil_to(window.x + window.width, stride)
    outer = Window(y0, x0, y1 - y0, x1 - x0).coarsened(stride).grown(2, features.shape)
    values, seen = features.read(outer)
    maps = torch.from_numpy(_scores(values, seen, classifier))
    columns = _cells(window.x, window.width, stride, outer.x, outer.width)
    most = max(STRIP // ((classifier.classes + 1) * window.width), 1)
    for top in range(window.y, window.y + window.height, most):
        strip = Window(top, window.x, min(most, window.y + window.height - top), window.width)
        best = torch.empty(classifier.classes + 1, *strip.shape)  # the last is the weight of the others
        rows = _cells(top, strip.height, stride, outer.y, outer.height)
        for done, scores in _enlarged(maps, columns, rows):
            for held, (a, b) in zip(best, pairwise((*classifier.bounds, len(maps)))):
                torch.amax(scores[a:b], dim=0, out=held[done])
        yield strip, best[:-1] / best[-1:].clamp(min=1e-6), (best[-1] > 0).numpy()


def _scores(values: np.ndarray, seen: np.ndarray, classifier: Classifier) -> np.ndarray:
    """Return the score of every code for embeddings ``(D, y, x)``, and last their mask ``(y, x)`` itself.

    Float32 ``(K + 1, y, x)``, 0 where the mask is False. The last bits of a product depend on its size. In
    float64 they are far below what float32 holds, so windows of any size give the same scores.
    """
    scores = np.empty((len(classifier.bias) + 1, *seen.shape), np.float32)
    for y in range(len(seen)):  # by rows, which stay in the cache
        product = classifier.weights @ values[:, y]
        product -= classifier.bias[:, None]
        product *= seen[y]
        scores[:-1, y] = product
    scores[-1] = seen
    return scores


def _shares(scores: np.ndarray, spread: float) -> np.ndarray:
    """Return the share of each class ``(n, y, x)``: twice a score is what a squared distance lacks."""
    shares = scores - scores.max(0)
    shares /= np.float32(spread)
    np.exp(shares, out=shares)
    shares /= shares.sum(0)
    return shares


def _enlarged(maps: torch.Tensor, columns: "Cells", rows: "Cells") -> Iterator[tuple[slice, torch.Tensor]]:
    """Interpolate maps ``(channel, y, x)`` of cells bilinearly at pixels; yield which rows, and values.

    Every pixel's cells and their shares follow from its own place alone, so windows agree with each other.
    """
    above, below, share = rows
    ends = [*(1 + torch.nonzero((above + below).diff()).ravel()).tolist(), len(below)]
    known: dict[int, torch.Tensor] = {}
    for start, end in pairwise((0, *ends)):
        pair = int(above[start]), int(below[start])
        known = {row: known[row] if row in known else _widened(maps[:, row], columns) for row in pair}
        upper, lower = (known[row][:, None] for row in pair)
        yield slice(start, end), torch.lerp(upper, lower, share[start:end, None])


def _widened(row: torch.Tensor, columns: "Cells") -> torch.Tensor:
    left, right, share = columns
    row = row.contiguous()  # channels of a map lie far apart
    return torch.lerp(row.index_select(1, left), row.index_select(1, right), share)


Cells = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Of the pixels along an axis: the cell before each, the cell after it, and the share of the latter."""


def _cells(start: int, count: int, stride: int, first: int, length: int) -> Cells:
    place = (torch.arange(start, start + count, dtype=torch.float64) + 0.5) / stride - 0.5 - first
    below = place.floor()
    share = (place - below).to(torch.float32)
    return below.long().clamp(0, length - 1), (below.long() + 1).clamp(0, length - 1), share
