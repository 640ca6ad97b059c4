"""Segment: the class of every pixel, its confidence, and the seam score of the map.

Beside them stands the fine code of every embedding, on their grid: any number of classes in small.
"""

import numpy as np
import torch

from sass.catalog import Scene, load_shard
from sass.classmap import label_changes, without_specks
from sass.cluster.classes import load_classes
from sass.cluster.codebook import Codes
from sass.cog import CONFIDENCE_STEPS, class_type, new_classes, new_codes, new_confidence
from sass.config import Segment
from sass.errors import SceneError
from sass.files import digest, read_json, replacing, write_json
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.manifest import Outcome, Record, run_shard, scenes_of
from sass.parallel import ordered_map
from sass.progress import progress
from sass.refine import reach, refined
from sass.run import Run
from sass.scores import Classifier, best_two, class_scores
from sass.stac import segment_item
from sass.statistics import Statistics
from sass.store import FeatureStore, SceneStore

SHARES, LEAST = 1 << 24, 64
"""Shares of classes averaged at once, in numbers; but a window of so many pixels is not divided for that."""


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
            new_codes(
                folder / "codes.tif", features.shape, features.place, len(codes.codes), features.stride
            ) as code_file,
        ):
            nodata, stride = map_file.nodata, features.stride

            def work(window: Window) -> tuple:
                outer = window.grown(2 * settings.min_area + 1, shape)
                classes, confidence, nearest = classify(
                    features, mask, outer, classifier, settings, statistics
                )
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
                    nearest[window.cells(stride).inside(outer.cells(stride))],
                    label_changes(classes[edge], ahead, window, seams, shape, nodata, stride),
                )

            windows = list(tiles(shape, settings.window))
            done = ordered_map(work, windows, threads)
            for window, classes, confidence, nearest, seam in progress(done, len(windows), scene.id):
                map_file.write(classes, window)
                trust_file.write(confidence, window)
                code_file.write(nearest, window.cells(stride))
                counts += np.bincount(classes[classes != nodata], minlength=n)
                trust += int(confidence[confidence != 255].sum(dtype=np.int64))
                for kind, part in seam.items():
                    changes[kind] += part
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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return classes and confidence of a window of pixels, and codes of its cells (`Window.cells`).

    Classes and codes ``(y, x)`` are in the dtypes of their rasters, confidence ``(y, x)`` is uint8.

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
        halves = [
            classify(features, mask, half, classifier, settings, statistics) for half in window.halves()
        ]
        axis = int(window.width > window.height)
        return tuple(np.concatenate(arrays, axis) for arrays in zip(*halves))
    dtype, nodata = class_type(classifier.classes)
    classes, confidence = np.full(outer.shape, nodata, dtype), np.full(outer.shape, 255, np.uint8)
    held = mask.read_valid(outer)
    shares = np.zeros((classifier.classes if settings.smooth else 0, *outer.shape), np.float32)

    def nearest_two(scores: np.ndarray) -> tuple[np.ndarray, ...]:
        best, second, label = best_two(scores)
        best -= second
        trust = torch.tanh(torch.from_numpy(best) / (2 * classifier.spread)) * CONFIDENCE_STEPS
        return label, torch.round(trust).numpy()

    def shared(scores: np.ndarray) -> tuple[np.ndarray]:
        return (_shares(scores, classifier.spread),)

    own = outer.cells(features.stride)
    code_dtype, no_code = class_type(len(classifier.numbers))
    codes = np.full(own.shape, no_code, code_dtype)
    wanted = shared if settings.smooth else nearest_two
    for strip, found, seen in class_scores(
        features, outer, classifier, wanted, codes, two=not settings.smooth
    ):
        inside = strip.inside(outer)
        held[inside] &= seen  # imported embeddings may leave out what the scene holds
        if settings.smooth:
            shares[(slice(None), *inside)] = found[0]
        else:
            classes[inside], confidence[inside] = found
    if settings.smooth:
        pixels = statistics.apply(mask.bands[(slice(None), *outer.slices)], held)
        shares = refined(shares, pixels, held, settings.smooth)
        best, second, label = best_two(shares)
        trust = (best - second) / np.maximum(best + second, np.float32(1e-6)) * CONFIDENCE_STEPS
        classes, confidence = label.astype(dtype), np.rint(trust).astype(np.uint8)
    classes[~held], confidence[~held] = nodata, 255
    inner = window.inside(outer)
    return classes[inner], confidence[inner], codes[window.cells(features.stride).inside(own)]


def _shares(scores: np.ndarray, spread: float) -> np.ndarray:
    """Return the share of each class ``(n, y, x)``: twice a score is what a squared distance lacks."""
    shares = scores - scores.max(0)
    shares /= np.float32(spread)
    np.exp(shares, out=shares)
    shares /= shares.sum(0)
    return shares
