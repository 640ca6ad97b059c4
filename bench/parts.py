"""Where the CPU seconds of a stage go: its parts by themselves, on one thread, on a window of a made scene.

    python -m bench.parts

Each is done several times and the least counts: what else the machine does only adds. In ms a megapixel.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import zarr
from threadpoolctl import threadpool_limits

from bench.stages import SHARD, Subject
from sass.appearance import appearance
from sass.catalog import load_shard
from sass.cluster.classes import load_classes
from sass.cluster.codebook import Codes, _vectors, fit_codebook
from sass.cluster.hierarchy import build_hierarchy
from sass.cluster.kmeans import BLOCK, nearest
from sass.cog import new_classes
from sass.features import _stored, features_shard
from sass.files import contents
from sass.grid import Window
from sass.ingest import _histogram, ingest_shard
from sass.model.interface import load_encoder
from sass.model.rows import Rows
from sass.raster import SceneReader
from sass.scores import Classifier, class_scores, code_scores
from sass.segment import classify
from sass.statistics import Statistics, normalize
from sass.store import FeatureStore, SceneStore, encode, write
from sass.train import train_encoder
from sass.windows import ROWS

SIDE = 1024
"""Of the window that is looked at, in pixels."""


def least(work: Callable[[], Any], times: int) -> float:
    """Return the least CPU milliseconds of some repetitions, for a megapixel of the window."""
    work()
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken) * 1e3 / (SIDE**2 / 1e6)


def parts_of(subject: Subject) -> dict[str, dict[str, Callable[[], Any]]]:
    """Take a scene through all stages; return the parts of each, ready to be done again on one window."""
    run, config = subject.run, subject.config
    window, cells = Window(0, 0, SIDE, SIDE), Window(0, 0, SIDE // 4, SIDE // 4)
    ingest_shard(run, SHARD, config.ingest, 1)
    statistics = Statistics.from_json(normalize(run, [SHARD], config.normalize))
    train_encoder(run, [SHARD], config.model.model_copy(update={"frozen": True}), config.train, 1)
    features_shard(run, SHARD, config.features, 1)
    fit_codebook(run, [SHARD], config.codebook, 1)
    build_hierarchy(run, config.hierarchy)

    scene = load_shard(run, SHARD)[subject.scene]
    store, features = SceneStore(run.scene(scene.id)), FeatureStore(run.features(scene.id))
    metadata = {name: (store.path / name / "zarr.json").read_bytes() for name in ("bands", "valid")}
    reader = SceneReader(scene, config.ingest).__enter__()
    pixels, valid = reader.read(window)
    some = subject.folder / "some"
    some.mkdir(exist_ok=True)
    (some / "shard").write_bytes(next(iter(encode(metadata["bands"], window, pixels).values())))

    def decoded() -> None:  # opened anew: GDAL would find the window in its cache
        with rasterio.open(subject.raster) as source:
            source.read(window=((0, SIDE), (0, SIDE)))

    encoder, _ = load_encoder(run.encoder)
    scaled = statistics.apply(pixels, valid)
    stacked = torch.from_numpy(np.concatenate([scaled, valid[None]])[None])

    def layers() -> None:
        rows = Rows(encoder)
        for part in stacked.split(ROWS, 2):
            rows(part, last=False)

    vectors, seen = features.read(cells)
    stored = _stored(vectors, len(vectors), "float16")["embedding"]
    target = zarr.open_group(shutil.copytree(features.path, some / "features.zarr", dirs_exist_ok=True))
    codes = Codes.load(run.codebook)
    classifier = Classifier.of(codes, load_classes(run, config.segment.classes))
    nothing = (store, window, classifier, config.segment, None)
    flat = _vectors(run, (scene.id, cells, 0))
    blocks = np.array_split(flat, max(len(flat) // BLOCK, 1))
    map_of = classify(features, *nothing)[0]

    def written() -> None:
        with new_classes(some / "map.tif", map_of.shape, store.place, classifier.classes) as raster:
            raster.write(map_of)

    return {
        "ingest": {
            "* decoding by GDAL": decoded,
            "* encoding pixels by Zarr": lambda: encode(metadata["bands"], window, pixels),
            "encoding a mask with gaps": lambda: encode(metadata["valid"], window, valid.astype(np.uint8)),
            "the mask, of pixels decoded already": lambda: reader.read(window),
            "histograms": lambda: [_histogram(band, 0) for band in pixels],
            "digests": lambda: contents(some / "shard"),
        },
        "features": {
            "* layers": layers,
            "reading": lambda: store.read(window),
            "scaling": lambda: statistics.apply(pixels, valid),
            "appearance": lambda: appearance(scaled, valid, 4, statistics.clip),
            "to float16": lambda: _stored(vectors, len(vectors), "float16"),
            "writing": lambda: write(target["embedding"], cells, stored),
        },
        "codebook, one pass": {
            "* distances": lambda: [nearest(block, codes.codes) for block in blocks],
            "reading": lambda: _vectors(run, (scene.id, cells, 0)),
            "into the metric": lambda: [codes.metric.apply(block) for block in blocks],
        },
        "segment": {
            "reading": lambda: features.read(cells.grown(1, features.shape)),
            "* scores of embeddings": lambda: code_scores(vectors, seen, classifier),
            "reading, scores, interpolation, best of each class": lambda: list(
                class_scores(
                    features, window, classifier, lambda scores: (), np.empty(cells.shape, np.uint8), two=True
                )
            ),
            "all of these, class and confidence": lambda: classify(features, *nothing),
            "* a raster": written,
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m bench.parts", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("results/parts"), help="folder, removed at the end")
    parser.add_argument("--times", type=int, default=7, help="repetitions, of which the least counts (7)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    subject = Subject(args.into.absolute(), 4.2, args.times, 1)
    with threadpool_limits(1), zarr.config.set({"threading.max_workers": 1}):
        for stage, parts in parts_of(subject).items():
            print(f"\n| {stage} | ms a megapixel |\n|---|---:|")
            for name, work in parts.items():
                print(f"| {name} | {least(work, args.times):.1f} |", flush=True)
    print("\n*: what the limit does, too")
    shutil.rmtree(subject.folder)


if __name__ == "__main__":
    main()
