"""A finished run in a folder, made up: all that the report reads, in the forms of the other stages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from builders import catalog_row
from rasterio.crs import CRS
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from sass.cluster.hierarchy import cut
from sass.cog import class_type, new_classes, new_codes, new_confidence
from sass.files import write_json
from sass.georeference import Georeference
from sass.metrics import merge, summarise, to_rows
from sass.run import Run
from sass.stac import segment_item
from sass.statistics import BINS, bin_of
from sass.store import create_scene

BANDS = [f"lsat7_2000_{n}" for n in (10, 20, 30, 40, 50, 70)]
LABELS = ["developed", "agriculture", "herbaceous", "shrubland", "forest", "water", "sediment"]
CODES = 24
STRIDE = 4
SPECTRA = np.random.default_rng(5).uniform(30, 180, (len(LABELS), len(BANDS)))
PLACE = Georeference(CRS.from_epsg(32119), Affine(28.5, 0, 630_000, 0, -28.5, 228_500))
NO_PLACE = Georeference(None, Affine.identity())


def make_run(
    root: Path,
    scenes: dict[str, tuple[int, int]],
    *,
    held_out: tuple[str, ...] = (),
    labelled: bool = True,
    failed: dict[str, str] | None = None,
    broken: dict[str, str] | None = None,
    place: Georeference = PLACE,
    band_names: list[str] = BANDS,
    class_names: list[str] = LABELS,
    classes: int = len(LABELS),
) -> tuple[Run, list[str], list[str]]:
    """Make a run with scenes of the given shapes; return it with all shards and the fit shards.

    ``held_out`` scenes stand in the shard ``s00001``, all others in ``s00000``. ``failed`` gives ids and
    reasons of scenes that ingest sets aside, ``broken`` paths and reasons of files that a scan cannot read.
    """
    run = Run(root)
    shards = {"s00000": [s for s in scenes if s not in held_out], "s00001": list(held_out)}
    counts: dict[str, dict] = {}
    weaker: dict[str, dict] = {}
    tree = _tree(classes)
    for shard, ids in shards.items():
        ingested, segmented, evaluated = {}, {}, {}
        for i, scene in enumerate(sorted(ids)):
            seed = sum(map(ord, scene)) + i
            truth, bands, valid = _pixels(scenes[scene], seed, len(band_names), classes)
            _store(run, scene, bands, valid, place, band_names)
            maps = _maps(run, scene, truth, valid, place, classes, seed)
            ingested[scene] = {
                "fingerprint": "0" * 32, "digest": "1" * 32, "shape": list(truth.shape),
                "bands": len(band_names), "band_names": band_names, "dtype": "uint8",
                "valid": int(valid.sum()), **place.as_json(),
            }  # fmt: skip
            values, pixels = np.unique(maps[valid], return_counts=True)
            segmented[scene] = {
                "fingerprint": "2" * 32, "digest": f"{seed:032x}", "classes": classes, "confidence": 0.61,
                "counts": {str(k): int(n) for k, n in zip(values, pixels)},
                "seam": {"across": [30, 1000], "inside": [3000, 100_000]},
            }  # fmt: skip
            counts[scene] = _confusion(truth[valid] % len(class_names), maps[valid])
            weaker[scene] = _confusion(truth[valid] % len(class_names), np.where(bands[0] > 90, 0, 1)[valid])
            codes = _codes(run, scene, maps, valid, place, classes, tree)
            folder, row = run.segments(scene), catalog_row(scene, truth.shape)
            item = segment_item(
                folder, row, row.shape, place, {}, classes, codes=len(tree["sizes"]), stride=STRIDE
            )
            write_json(folder / "item.json", item)
            by_code = to_rows(_confusion(truth[valid] % len(class_names), codes[valid]))
            evaluated[scene] = {"fingerprint": "3" * 32, "confusion": [], "codes": by_code, "baselines": {}}
        aside = (failed or {}) if shard == "s00000" else {}
        for stage, records in {
            "ingest": ingested,
            "segment": segmented,
            "evaluate": evaluated if labelled else {},
        }.items():
            write_json(
                run.manifest(stage, shard),
                {
                    "stage": stage,
                    "shard": shard,
                    "scenes": records,
                    "failed": aside if stage == "ingest" else {},
                },
            )
    write_json(run.broken, broken or {})
    _fitted(run, band_names, tree, shards["s00000"])
    names = dict(enumerate(class_names))
    metrics: dict[str, Any] = summarise(
        merge(*counts.values()) if labelled else {}, names if labelled else {}
    )
    baseline = summarise(merge(*weaker.values()), names)
    metrics["scenes"] = {s: {"accuracy": 0.7, "miou": 0.5, "pixels": 9} for s in counts} if labelled else {}
    shown = {key: baseline[key] for key in ("accuracy", "miou", "many_to_one")}
    metrics["baselines"] = {"raw": shown, "blurred": shown} if labelled else {}
    metrics["seam"] = {
        "ratio": 1.0 if labelled else None,
        "across": 0.03,
        "inside": 0.03 if labelled else None,
    }
    write_json(run.metrics, metrics)
    return run, list(shards), ["s00000"]


def _pixels(
    shape: tuple[int, int], seed: int, bands: int, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=shape), 9) for _ in range(classes)])
    fields *= np.linspace(1.3, 0.9, classes)[:, None, None]
    truth = fields.argmax(0)
    light = 1 + 4 * gaussian_filter(rng.normal(size=shape), 3)
    spectra = np.resize(SPECTRA, (classes, bands))
    pixels = spectra[truth].transpose(2, 0, 1) * light + rng.normal(0, 6, (bands, *shape))
    valid = np.ones(shape, bool)
    valid[: shape[0] // 9, : shape[1] // 7] = False
    return truth, np.where(valid, np.clip(pixels, 1, 255), 0).astype(np.uint8), valid


def _store(
    run: Run, scene: str, bands: np.ndarray, valid: np.ndarray, place: Georeference, names: list[str]
) -> None:
    group = create_scene(run.scene(scene), bands.shape, "uint8", names, place, chunk=64, shard=128, bins=BINS)
    group["bands"][:] = bands
    group["valid"][:] = valid
    group["histogram"][:] = np.stack([np.bincount(bin_of(band[valid]), minlength=BINS) for band in bands])


def _maps(
    run: Run, scene: str, truth: np.ndarray, valid: np.ndarray, place: Georeference, classes: int, seed: int
):
    rng = np.random.default_rng(seed)
    wrong = gaussian_filter(rng.normal(size=truth.shape), 3) > 0.07
    maps = np.where(wrong, (truth + 2) % classes, truth)
    trust = np.clip(150 + 700 * gaussian_filter(rng.normal(size=truth.shape), 6), 0, 254)
    folder = run.segments(scene)
    folder.mkdir(parents=True)
    with new_classes(folder / "segments.tif", truth.shape, place, classes) as target:
        target.write(np.where(valid, maps, target.nodata).astype(class_type(classes)[0]))
    with new_confidence(folder / "confidence.tif", truth.shape, place) as target:
        target.write(np.where(valid, trust, 255).astype(np.uint8))
    return maps


def _codes(
    run: Run, scene: str, maps: np.ndarray, valid: np.ndarray, place: Georeference, classes: int, tree: dict
) -> np.ndarray:
    """Write a code of the class in the middle of each embedding; return the code of each pixel."""
    of_code = cut(tree["merges"], tree["sizes"], classes, tree["smallest"])
    first = np.array([np.flatnonzero(of_code == k)[0] for k in range(classes)])
    middle = slice(STRIDE // 2, None, STRIDE)
    padded = np.pad(np.where(valid, maps, -1), ((0, STRIDE), (0, STRIDE)), "edge")
    shape = tuple(-(-n // STRIDE) for n in maps.shape)
    cells = padded[middle, middle][: shape[0], : shape[1]]
    with new_codes(
        run.segments(scene) / "codes.tif", shape, place.coarsened(STRIDE), len(of_code), STRIDE
    ) as target:
        codes = np.where(cells < 0, target.nodata, first[cells])
        target.write(codes.astype(class_type(len(of_code))[0]))
    full = np.where(cells < 0, -1, first[cells]).repeat(STRIDE, 0).repeat(STRIDE, 1)
    return full[: maps.shape[0], : maps.shape[1]]


def _confusion(labels: np.ndarray, classes: np.ndarray) -> dict[tuple[int, int], int]:
    pairs, pixels = np.unique(np.stack([labels, classes]), axis=1, return_counts=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, pixels)}


def _tree(classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    codes = max(CODES, classes)
    nodes, merges, height = list(range(codes)), [], 0.0
    for made in range(codes, 2 * codes - 1):
        a, b = sorted(rng.choice(nodes, 2, replace=False).tolist())
        height += float(rng.uniform(0.005, 0.06))
        merges.append([a, b, round(height, 4)])
        nodes = [n for n in nodes if n not in (a, b)] + [made]
    sizes = rng.integers(500, 9000, codes)
    diagnostics = [
        {
            "n": n,
            "silhouette": 0.4 / n + 0.1,
            "davies_bouldin": 1 + n / 20,
            "stability": None if n == 2 else 0.9 - n / 60,
        }
        for n in range(2, codes + 1)
    ]
    return {
        "codes": codes,
        "sizes": sizes.tolist(),
        "smallest": 0.02,
        "merges": merges,
        "diagnostics": diagnostics,
    }


def _fitted(run: Run, names: list[str], tree: dict[str, Any], scenes: list[str]) -> None:
    rng = np.random.default_rng(1)
    band = {"median": 100.0, "dark": 20.0, "soft": 10.0, "scale": 0.4, "spread": 25.0}
    bands = [{"name": n, **band, "low": 25.0, "high": 190.0, "pixels": 9} for n in names]
    write_json(
        run.statistics,
        {
            "bands": bands,
            "clip": 4,
            "from": {"scenes": dict.fromkeys(scenes, "1" * 32), "shards": ["s00000"]},
        },
    )
    write_json(run.hierarchy, tree)
    codes = tree["codes"]
    save_file(
        {"codes": rng.normal(size=(codes, 8)).astype(np.float32), "sizes": np.array(tree["sizes"])},
        run.codebook,
    )
    run.training_log.parent.mkdir(parents=True)
    lines = [
        {
            "step": s,
            "loss": 5 * 0.99**s + 2,
            "fine": 3 * 0.99**s + 1,
            "coarse": 0.99**s,
            "instance": 0.98**s,
            "lr": 1e-3,
        }
        for s in range(0, 300, 5)
    ]
    run.training_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for stage, rows in {
        "ingest/s00000": ["12.4\t210.5", "3.1\t180.0"],
        "train/archive": ["181.0\t903.2"],
        "report/archive": ["0.2\t-"],
    }.items():
        path = run.benchmarks / f"{stage}.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("s\tmax_rss\n" + "".join(f"{row}\n" for row in rows))
