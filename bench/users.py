"""What people do instead, beside a whole run of SASS: seconds, memory, scores on the same labelled scenes.

    python -m bench.users pixels RUN CLASSES    one of the others, on the scenes and labels of a catalog

The others are the scripts that most people write: all scenes at once, one clustering. So they have no
windows, no files between steps and no maps in the end; they print their scores. One whose package or program
is not there is left out.
"""

import argparse
import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.preprocessing import StandardScaler

from bench.machine import command
from bench.ratio import Row
from bench.stages import Subject
from sass.catalog import load_index, load_labels, load_shard
from sass.files import read_json
from sass.metrics import confusion, merge, summarise
from sass.run import Run

STAGES = ("ingest", "normalize", "train", "features", "codebook", "hierarchy", "segment", "evaluate")
WITH_THREADS = ("ingest", "train", "features", "codebook", "segment")
NO_LABEL = 255
Scenes = Iterator[tuple[np.ndarray, np.ndarray]]
"""Pixels ``(band, y, x)`` and labels ``(y, x)``."""


def labelled(run: Run) -> Scenes:
    """Read every scene of a catalog that has labels, whole; what has no data is like the mean of its band."""
    for shard in load_index(run):
        labels = load_labels(run, shard)
        for name, scene in load_shard(run, shard).items():
            if name in labels:
                with rasterio.open(labels[name].path) as raster:
                    yield np.concatenate([_filled(path) for path in scene.paths]), raster.read(1)


def _filled(path: str) -> np.ndarray:
    with rasterio.open(path) as raster:
        image = raster.read(masked=True)
    mean = np.ma.filled(image.mean(axis=(1, 2), keepdims=True), 0)
    return np.where(image.mask, mean.astype(image.dtype), image.data)


def pixels(run: Run, classes: int) -> list[np.ndarray]:
    """Cluster all pixels by their bands, scaled to unit variance (scikit-learn, k-means)."""
    scenes = [image for image, _ in labelled(run)]
    table = np.concatenate([image.reshape(len(image), -1).T for image in scenes]).astype(np.float32)
    found = KMeans(classes, n_init=1, random_state=0).fit_predict(StandardScaler().fit_transform(table))
    shapes = [image.shape[1:] for image in scenes]
    parts = np.split(found, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


def efficientnet(run: Run, classes: int) -> list[np.ndarray]:
    """Cluster features at stride 4 of EfficientNet-Lite0, ImageNet weights, of the first three bands."""
    import torch

    from bench.peers.efficientnet import encoder

    features, shapes = [], []
    for image, _ in labelled(run):
        network = encoder(len(image), []).eval()
        (height, width), unit = image.shape[1:], network.alignment
        padded = np.pad(image, ((0, 1), (0, -height % unit), (0, -width % unit))).astype(np.float32)
        with torch.inference_mode():
            features.append(network(torch.from_numpy((padded[None] - 127) / 128))[0].numpy())
        shapes.append((height, width))
    table = np.concatenate([part.reshape(len(part), -1).T for part in features])
    model = MiniBatchKMeans(classes, batch_size=8192, n_init=3, random_state=0).fit(table)
    maps = [
        model.predict(np.ascontiguousarray(f.reshape(len(f), -1).T)).reshape(f.shape[1:]) for f in features
    ]
    return [m.repeat(4, 0).repeat(4, 1)[: s[0], : s[1]] for m, s in zip(maps, shapes)]


def dask_ml(run: Run, classes: int) -> list[np.ndarray]:
    """Cluster all pixels by their bands, scaled to unit variance (dask-ml, k-means||, scenes as chunks)."""
    import dask.array as da
    from dask_ml.cluster import KMeans as Parallel
    from dask_ml.preprocessing import StandardScaler as Scaler

    scenes = [image for image, _ in labelled(run)]
    tables = [da.from_array(i.reshape(len(i), -1).T.astype(np.float32), chunks=(-1, -1)) for i in scenes]
    scaled = Scaler().fit_transform(da.concatenate(tables))
    found = Parallel(classes, random_state=0).fit(scaled).labels_
    return [part.reshape(i.shape[1:]) for i, part in zip(scenes, map(np.asarray, found.blocks))]


GRASS = """
r.in.gdal -o -k input={folder}/mosaic.tif output=band --quiet && g.region raster=band.1 &&
i.group group=all subgroup=all input=$(g.list raster pattern='band.*' separator=comma) --quiet &&
i.cluster group=all subgroup=all signaturefile=found classes={classes} --quiet &&
i.maxlik group=all subgroup=all signaturefile=found output=map --quiet &&
r.out.gdal input=map output={folder}/map.tif type=Byte nodata=0 -f --quiet
"""


def grass(run: Run, classes: int) -> list[np.ndarray]:
    """Cluster the pixels of a mosaic by i.cluster and map them by i.maxlik (GRASS GIS)."""
    scenes = [image for image, _ in labelled(run)]
    ends = np.cumsum([image.shape[1] for image in scenes])
    mosaic = np.full((len(scenes[0]), ends[-1], max(image.shape[2] for image in scenes)), -1, np.int32)
    for image, end in zip(scenes, ends):
        mosaic[:, end - image.shape[1] : end, : image.shape[2]] = image
    with tempfile.TemporaryDirectory() as folder:
        form = {"count": len(mosaic), "height": mosaic.shape[1], "width": mosaic.shape[2], "dtype": "int32"}
        place = rasterio.Affine(1, 0, 0, 0, -1, mosaic.shape[1])
        with rasterio.open(
            f"{folder}/mosaic.tif", "w", "GTiff", nodata=-1, transform=place, **form
        ) as raster:
            raster.write(mosaic)
        script = GRASS.format(folder=folder, classes=classes)
        asked = ["grass", "--tmp-location", "XY", "--exec", "sh", "-c", script]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"GRASS has ended by {done.returncode}:\n{done.stderr}")
        with rasterio.open(f"{folder}/map.tif") as raster:
            found = raster.read(1)
    return [
        found[end - image.shape[1] : end, : image.shape[2]].astype(np.int64)
        for image, end in zip(scenes, ends)
    ]


OTHERS: dict[str, tuple[str, str, Callable[[Run, int], list[np.ndarray]]]] = {
    "pixels": ("k-means of pixels in memory", "sklearn", pixels),
    "dask": ("k-means of pixels by dask-ml", "dask_ml", dask_ml),
    "grass": ("i.cluster and i.maxlik of GRASS", "grass", grass),
    "efficientnet": (
        "k-means of EfficientNet features in memory", "efficientnet_lite_pytorch", efficientnet,
    ),
}  # fmt: skip
"""What each is called, the package or program it needs, and how it is done."""


def there(needed: str) -> bool:
    """Say whether a package or program is installed."""
    return bool(importlib.util.find_spec(needed) or shutil.which(needed))


def peers(subject: Subject, scenes: str, labels: str, classes: int, config: Path) -> list[Row]:
    """Measure a whole run of SASS and each of the others on the same labelled scenes."""
    run = Run(subject.folder / "peers")
    shutil.rmtree(run.root, ignore_errors=True)
    command("-m", "sass", "scan", scenes, "--labels", labels, "--into", run.root, "--config", config)
    rows = _sass(run, subject.threads)
    for name, (said, needed, _) in OTHERS.items():
        if not there(needed):
            continue
        taken, text = command("-m", "bench.users", name, run.root, classes)
        rows += _rows(said, taken, json.loads(text.splitlines()[-1]))
    return rows


def _sass(run: Run, threads: int) -> list[Row]:
    total = {"wall_s": 0.0, "cpu_s": 0.0, "peak_mb": 0.0}
    for stage in STAGES:
        words = ["--threads", threads] if stage in WITH_THREADS else []
        taken, _ = command("-m", "sass", stage, run.root, *words)
        total = {
            "wall_s": total["wall_s"] + taken["wall_s"],
            "cpu_s": total["cpu_s"] + taken["cpu_s"],
            "peak_mb": max(total["peak_mb"], taken["peak_mb"]),
        }
    return _rows("SASS, training and evaluation included", total, read_json(run.metrics))


def _rows(name: str, taken: dict[str, float], scores: dict[str, float]) -> list[Row]:
    units = {"wall_s": "s", "cpu_s": "s", "peak_mb": "MiB"}
    rows = [Row("peers", f"{name}: {key}", taken[key], "", unit=unit) for key, unit in units.items()]
    return rows + [Row("peers", f"{name}: {key}", scores[key], "") for key in ("accuracy", "miou")]


def beside(rows: list[Row]) -> str:
    """Lay out the rows of `peers` in Markdown, a line for each."""
    lines = ["| | wall clock | CPU | peak memory | accuracy | mean IoU |", "|---|---:|---:|---:|---:|---:|"]
    by_name: dict[str, dict[str, float]] = {}
    for row in rows:
        name, _, key = row.metric.rpartition(": ")
        by_name.setdefault(name, {})[key] = row.value
    for name, held in by_name.items():
        shares = f"{held['accuracy']:.1%} | {held['miou']:.1%}"
        spent = f"{held['wall_s']:.0f} s | {held['cpu_s']:.0f} s | {held['peak_mb']:.0f} MiB"
        lines.append(f"| {name} | {spent} | {shares} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Cluster the scenes of a catalog and print the scores."""
    parser = argparse.ArgumentParser("python -m bench.users", description=__doc__)
    parser.add_argument("name", choices=OTHERS)
    parser.add_argument("run", type=Path)
    parser.add_argument("classes", type=int)
    args = parser.parse_args()
    run = Run(args.run)
    maps = OTHERS[args.name][2](run, args.classes)
    counts = [confusion(labels, found, ignore=[NO_LABEL]) for (_, labels), found in zip(labelled(run), maps)]
    print(json.dumps(summarise(merge(*counts))))


if __name__ == "__main__":
    main()
