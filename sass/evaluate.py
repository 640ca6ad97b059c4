"""Scores against label rasters: counts window by window for each scene, then one match over the archive.

The maps and every baseline are counted in the same loop over the same pixels, on the grid of the map.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from sass.baselines import Baseline, load_baselines
from sass.catalog import load_index, load_labels
from sass.config import Evaluate
from sass.errors import SassError, SceneError
from sass.files import digest, file_digest, write_json
from sass.fingerprint import stage_fingerprint
from sass.grid import Window, tiles
from sass.labels import label_reader, opened, read_window
from sass.manifest import Outcome, Record, record_archive, run_shard, scenes_of
from sass.metrics import (
    NO_ANSWER,
    NO_LABEL,
    Counts,
    confusion,
    from_rows,
    label_ids,
    match,
    merge,
    scores,
    summarise,
    table,
    to_rows,
)
from sass.run import Run
from sass.statistics import Statistics
from sass.store import SceneStore

WINDOW = 1024
"""Side in pixels of the window that is scored at a time. Sets the memory of this stage."""

CACHE = 256 << 20
"""Bytes of GDAL's block cache, which otherwise grows with the machine."""

Predictor = Callable[[Window], np.ndarray]
"""Gives the class of each pixel of a window, ``(y, x)``, negative where it has no answer."""

BASELINE_NAMES = {
    "raw": "k-means, raw pixels",
    "blurred": "k-means, blurred pixels",
    "deviation": "k-means, pixels and local deviation",
    "random": "k-means, encoder with random weights",
}


def evaluate_shard(run: Run, shard: str, settings: Evaluate) -> Outcome:
    """Count the labelled scenes of a shard and write its manifest.

    For people, ``RUN/evaluation/<scene>.json`` holds the same counts laid out as tables.

    Parameters
    ----------
    shard
        A shard that has been segmented.
    settings
        The section ``evaluate``.

    Returns
    -------
    Outcome
        Scenes whose label raster is missing, unreadable or does not fit are set aside in it.

    Raises
    ------
    SassError
        The baselines have not been fitted.
    """
    segments = scenes_of(run, "segment", shard)
    pixels = scenes_of(run, "ingest", shard)
    labels = {scene: label for scene, label in load_labels(run, shard).items() if scene in segments}
    compared = settings.baselines and labels
    common = [
        stage_fingerprint("evaluate"),
        settings.model_dump(mode="json"),
        _baselines_digest(run) if compared else None,
    ]
    fingerprints = {
        scene: digest(common, segments[scene]["digest"], pixels[scene]["digest"], label.size, label.modified)
        for scene, label in labels.items()
    }

    @cache
    def fitted() -> tuple[dict[str, Baseline], Statistics]:
        return load_baselines(run.baselines), Statistics.load(run.statistics)

    def work(scene: str) -> Record:
        predictors: dict[str, Predictor] = {}
        if compared:
            baselines, statistics = fitted()
            store = SceneStore(run.scene(scene))
            predictors = {kind: partial(each.predict, store, statistics) for kind, each in baselines.items()}
        maps, label_path = run.segments(scene), Path(labels[scene].path)
        with code_reader(maps / "codes.tif") as codes:
            predictors["codes"] = codes
            counts = count_scene(maps / "segments.tif", label_path, predictors, settings.ignore)
        names = settings.class_names
        codes = to_rows(counts.pop("codes"))
        tables = {kind: table(part, label_ids(part, names), names) for kind, part in counts.items()}
        write_json(run.evaluation(scene), tables)
        rows = {kind: to_rows(part) for kind, part in counts.items()}
        return {"confusion": rows.pop("segments"), "codes": codes, "baselines": rows}

    return run_shard(run, "evaluate", shard, fingerprints, run.evaluation, work)


def _baselines_digest(run: Run) -> str:
    if not run.baselines.exists():
        raise SassError(
            f"{run.baselines} is missing, so there is nothing to compare the maps with; fit the baselines "
            "first, or leave them out (evaluate.baselines: [])"
        )
    return file_digest(run.baselines)


@contextmanager
def code_reader(path: Path) -> Iterator[Predictor]:
    """Open a raster of codes. What is given reads, of each pixel, that of the embedding over it, or -1."""
    with opened(path, "raster of codes") as source:
        stride = int(source.tags(1)["stride"])

        def read(window: Window) -> np.ndarray:
            rows, columns = (
                np.arange(at, at + n) // stride for at, n in zip((window.y, window.x), window.shape)
            )
            y, x = rows[0], columns[0]
            cells = read_window(source, path, Window(y, x, rows[-1] + 1 - y, columns[-1] + 1 - x))[0]
            codes = np.where(cells == source.nodata, NO_ANSWER, cells.astype(np.int64))
            return codes[np.ix_(rows - y, columns - x)]

        yield read


def count_scene(
    segments: Path,
    labels: Path,
    predictors: dict[str, Predictor],
    ignore: list[int],
) -> dict[str, Counts]:
    """Count the pixels of each pair of label and class over a scene.

    Parameters
    ----------
    segments
        A map of classes; its nodata value means no answer.
    labels
        A raster of label ids in one band, on any grid. Its own nodata value is not scored.
    predictors
        Further maps by name.
    ignore
        Label ids that are not scored.

    Returns
    -------
    dict
        Counts of ``"segments"`` and of every predictor.

    Raises
    ------
    SceneError
        The label raster cannot be read, does not fit the scene or holds no label ids.
    """
    counts: dict[str, Counts] = {"segments": {}, **{name: {} for name in predictors}}
    with (
        rasterio.Env(GDAL_CACHEMAX=CACHE),
        opened(segments, "map") as grid,
        label_reader(labels, grid) as read_labels,
    ):
        covered = False
        for window in tiles(grid.shape, WINDOW):
            truth = read_labels(window)
            if (truth == NO_LABEL).all():
                continue
            covered = True
            maps = {"segments": read_window(grid, segments, window)[0]}
            maps |= {name: predict(window) for name, predict in predictors.items()}
            for name, classes in maps.items():
                nodata = grid.nodata if name == "segments" else None
                part = confusion(truth, classes, ignore=ignore, nodata=nodata)
                counts[name] = merge(counts[name], part)
    if not covered:
        raise SceneError(
            f"the label raster {labels} covers no pixel of the scene, so there is nothing to score; check "
            "that it belongs to this scene and that its CRS and nodata value are right, then scan once more"
        )
    return counts


def score_archive(run: Run, shards: list[str], settings: Evaluate) -> dict[str, Any]:
    """Merge the counts of all shards, match once and write ``RUN/report/metrics.json``.

    The scores of single scenes use the match of the archive. Shards without labels need not have been
    evaluated; if there are no labels at all, the scores are null.
    """
    index = load_index(run)
    labelled = [shard for shard in shards if index[shard].labels]
    records = {scene: r for shard in labelled for scene, r in scenes_of(run, "evaluate", shard).items()}
    counts = {scene: from_rows(record["confusion"]) for scene, record in sorted(records.items())}
    total = merge(*counts.values())
    labels = label_ids(total, settings.class_names)
    matching = match(total, labels)
    metrics = summarise(total, settings.class_names)
    metrics |= {"scenes": {}, "baselines": {}, "seam": _seam(run, shards)}
    for scene, part in counts.items():
        result = scores(part, matching, labels)
        metrics["scenes"][scene] = {key: result[key] for key in ("accuracy", "miou", "pixels")}
    for kind in sorted({kind for record in records.values() for kind in record["baselines"]}):
        parts = (from_rows(record["baselines"][kind]) for record in records.values())
        result = summarise(merge(*parts), settings.class_names)
        metrics["baselines"][kind] = {key: result[key] for key in ("accuracy", "miou", "many_to_one")}
    write_json(run.metrics, metrics)
    record_archive(run, "metrics")
    return metrics


def _seam(run: Run, shards: list[str]) -> dict[str, float | None]:
    """Share of neighbours of different class across tile borders and inside tiles, and their ratio."""
    records = [r["seam"] for shard in shards for r in scenes_of(run, "segment", shard).values()]
    rates: dict[str, float | None] = {}
    for where in ("across", "inside"):
        changes, pairs = (sum(record[where][i] for record in records) for i in (0, 1))
        rates[where] = changes / pairs if pairs else None
    comparable = rates["across"] is not None and rates["inside"]
    return {**rates, "ratio": rates["across"] / rates["inside"] if comparable else None}


def format_table(metrics: dict[str, Any]) -> str:
    """Lay out the scores of the maps and of every baseline as text, those that use labels apart."""
    if metrics["accuracy"] is None:
        return "No labelled pixels, so no scores."
    compared = metrics["baselines"]
    rows = {"SASS": metrics}
    rows |= {name: compared[kind] for kind, name in BASELINE_NAMES.items() if kind in compared}
    width = max(map(len, rows))
    line = "-" * (width + 21)

    def block(part: dict[str, dict[str, float]]) -> list[str]:
        return [f"{name:<{width}} {row['accuracy']:>10.2%} {row['miou']:>9.2%}" for name, row in part.items()]

    return "\n".join(
        [
            f"{'':<{width}} {'accuracy':>10} {'mIoU':>9}",
            line,
            "Classes matched to labels once, over the archive",
            *block(rows),
            line,
            "Each class named by its commonest label (uses labels)",
            *block({name: row["many_to_one"] for name, row in rows.items()}),
            line,
            f"{metrics['pixels']} pixels of {metrics['classes']} labels in {len(metrics['scenes'])} scenes",
        ]
    )
