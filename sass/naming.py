"""Names for the classes from a handful of labelled places, and the places that would tell most next.

What is kept in ``names/`` is the places, as cells of scenes. From them follow the names of the codes, for
this codebook or for another one that is fitted later.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from sass.catalog import load_index
from sass.cluster.belief import beliefs, closeness, decided, left_out, most_telling, tally
from sass.cluster.classes import Classes
from sass.cluster.codebook import Codes
from sass.cluster.kmeans import nearest
from sass.errors import SassError
from sass.evidence import Grid, read_places
from sass.files import file_digest, read_json, remove, replacing, write_json
from sass.georeference import Georeference
from sass.grid import Window, tiles
from sass.manifest import needed, record_archive, scenes_of
from sass.run import Run
from sass.store import FeatureStore

LOOKED_AT = 64
"""Scenes in which places to label next are looked for, evenly over the archive."""
PATCHES, PATCH = 4, 64
"""Patches of a scene that are looked at, and their side in cells."""


def name_classes(
    run: Run,
    fit: list[str],
    files: list[Path],
    named_by: str | None,
    crs: str | None,
    names: dict[int, str],
    wanted: int,
) -> dict[str, Any]:
    """Read labelled places, if files of them are given, and name the codes by all that are kept.

    Writes ``names/places.json``, ``names/names.json``, ``names/next.csv`` and ``names/next.geojson``, which
    has no points where scenes have no CRS.

    Parameters
    ----------
    fit
        Shards in which places to label next are looked for.
    files, named_by, crs, names
        As `sass.evidence.read_places` takes them. New files take the place of what was kept.
    wanted
        Places to propose.

    Returns
    -------
    dict
        What ``names/names.json`` holds.

    Raises
    ------
    SassError
        No place is known, or too little is said of all codes to name two classes.
    """
    if files:
        there = [
            s for s in load_index(run) if all(run.manifest(x, s).exists() for x in ("ingest", "features"))
        ]
        grids = _grids(run, there)
        read = [read_places(path, grids, named_by, crs, names) for path in files]
        places = [place for each in read for place in each.found]
        beyond = sum(each.beyond for each in read)
        scenes = {cell[0] for place in places for cell in place["cells"]}
        shards = {shard for shard in there if scenes & scenes_of(run, "features", shard).keys()}
        write_json(run.places, {"places": places, "beyond": beyond, "shards": sorted(shards)})
    kept = read_json(needed(run.places, f"sass name {run.root} --points FILE"))
    codes, tree = Codes.load(run.codebook), read_json(run.hierarchy)
    sizes, merges = codes.sizes, tree["merges"]
    called = sorted({place["name"] for place in kept["places"]})
    number, code, name, weight = _labelled_codes(run, kept["places"], codes, called)
    counts = tally(code, name, weight, len(sizes), len(called))
    belief = beliefs(counts, merges)
    chosen = decided(belief)
    classes = Classes.of_names(chosen, called, sizes)
    if classes.count < 2:
        raise SassError(
            f"{len(kept['places'])} places name no two classes among {len(sizes)} codes; label more places, "
            "of at least two names"
        )
    said = left_out(number, code, name, weight, merges, len(called))
    telling = most_telling(belief, sizes, closeness(merges), wanted)
    held = {
        "codebook": file_digest(run.codebook),
        "names": list(classes.names),
        "of_code": classes.of_code.tolist(),
        "belief": np.round(belief.max(1), 4).tolist(),
        "places": len(kept["places"]),
        "beyond": kept["beyond"],
        "evidence": [
            _evidence(i, each, (number, name, weight), chosen, said, sizes) for i, each in enumerate(called)
        ],
        "unnamed": round(float(sizes[chosen < 0].sum() / sizes.sum()), 6),
    }
    _write_next(run, _grids(run, fit), codes, telling, belief, called)
    write_json(run.names, held)
    record_archive(run, "name")
    return held


def forget(run: Run) -> None:
    """Forget all places and names; maps made from now on have numbers."""
    for path in (run.names.parent, run.archive_record("name").parent):
        remove(path)


def format_names(held: dict[str, Any]) -> str:
    """Lay out what each name has to show for itself as text."""
    width = max(len(row["name"]) for row in held["evidence"] + [{"name": "unnamed"}])
    lines = [f"{'':<{width}} {'places':>7} {'codes':>6} {'area':>8} {'purity':>8} {'coverage':>9}"]
    for row in sorted(held["evidence"], key=lambda row: -row["area"]):
        purity, coverage = ("-" if row[key] is None else f"{row[key]:.0%}" for key in ("purity", "coverage"))
        numbers = f"{row['places']:>7} {row['codes']:>6} {row['area']:>8.1%} {purity:>8} {coverage:>9}"
        lines.append(f"{row['name']:<{width}} {numbers}")
    lines.append(f"{'unnamed':<{width}} {'':>7} {'':>6} {held['unnamed']:>8.1%}")
    if held["beyond"]:
        lines.append(f"{held['beyond']} places lie in no scene with features and were passed over")
    return "\n".join(lines)


def _grids(run: Run, shards: list[str]) -> list[Grid]:
    """Return the grid of every scene of the shards that has features."""
    grids = []
    for shard in shards:
        scenes, embedded = scenes_of(run, "ingest", shard), scenes_of(run, "features", shard)
        for scene in sorted(embedded.keys() & scenes.keys()):
            record = scenes[scene]
            place = Georeference.from_json({"crs": record["crs"], "transform": record["transform"]})
            grids.append(Grid(scene, tuple(record["shape"][-2:]), place, run.features(scene)))
    return grids


def _labelled_codes(
    run: Run, places: list[dict[str, Any]], codes: Codes, called: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return place, code, index of the name and weight of each labelled cell with an embedding, ``(N)``.

    The cells of a place are alike, so a place of m cells weighs as much as sqrt(m) single ones.
    """
    by_patch: dict[tuple[str, int, int], list[tuple[int, int, int]]] = {}
    for number, place in enumerate(places):
        for scene, row, col in place["cells"]:
            by_patch.setdefault((scene, row // PATCH, col // PATCH), []).append((number, row, col))
    rows = []
    for (scene, down, across), cells in sorted(by_patch.items()):
        if not run.features(scene).exists():
            continue
        store = FeatureStore(run.features(scene))
        patch = Window(down * PATCH, across * PATCH, PATCH, PATCH).cut(store.shape)
        values, valid = store.read(patch)  # once, for a single cell costs as much
        for number, row, col in cells:
            at = row - patch.y, col - patch.x
            if valid[at]:
                code = nearest(codes.metric.apply(values[:, *at][None]), codes.codes)[0][0]
                rows.append((number, int(code), called.index(places[number]["name"])))
    if not rows:
        raise SassError(
            "no labelled place has an embedding, so nothing can be named; label places that have data"
        )
    number, code, name = np.array(rows, np.int64).T
    weight = 1 / np.sqrt(np.bincount(number))[number]
    return number, code, name, weight


def _evidence(
    i: int, name: str, cells: tuple, chosen: np.ndarray, said: np.ndarray, sizes: np.ndarray
) -> dict[str, Any]:
    """Say what a name rests on.

    ``purity``, of the places that the others would call so, the share that are so; ``coverage``, of the
    places that are so, the share that the others would call so; ``area``, its share of the archive.
    """
    number, names, weight = cells
    so, called_so = names == i, said == i
    right = weight[so & called_so].sum()
    return {
        "name": name,
        "places": len(np.unique(number[so])),
        "codes": int((chosen == i).sum()),
        "area": round(float(sizes[chosen == i].sum() / sizes.sum()), 6),
        "purity": round(float(right / weight[called_so].sum()), 4) if called_so.any() else None,
        "coverage": round(float(right / weight[so].sum()), 4) if so.any() else None,
    }


def _write_next(
    run: Run, grids: list[Grid], codes: Codes, telling: list[int], belief: np.ndarray, called: list[str]
) -> None:
    """Write a typical place of each code to be labelled next, with an empty field for the name."""
    rows = []
    for code, (grid, row, col) in _typical(run, grids, codes, telling):
        y, x = (min(int((i + 0.5) * grid.stride), side - 1) for i, side in zip((row, col), grid.shape))
        lon, lat = _degrees(grid, y, x)
        guess = called[belief[code].argmax()] if belief[code].any() else ""
        row = {"label": "", "scene": grid.scene, "row": y, "col": x, "lon": lon, "lat": lat, "code": code}
        row |= {"guess": guess, "belief": round(float(belief[code].max()), 2)}
        rows.append(row | {"area": round(float(codes.sizes[code] / codes.sizes.sum()), 4)})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys() if rows else ["label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(run.names.with_name("next.csv")) as path:
        path.write_text(text.getvalue(), encoding="utf-8")
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row.pop("lon"), row.pop("lat")]},
            "properties": row,
        }
        for row in rows
        if row["lon"] is not None
    ]
    write_json(run.names.with_name("next.geojson"), {"type": "FeatureCollection", "features": features})


def _typical(
    run: Run, grids: list[Grid], codes: Codes, telling: list[int]
) -> Iterator[tuple[int, tuple[Grid, int, int]]]:
    """Yield each code that was met in the patches looked at with the cell nearest to its centre."""
    best: dict[int, tuple[float, Grid, int, int]] = {}
    for i in np.unique(np.linspace(0, len(grids) - 1, LOOKED_AT).round().astype(int)):
        grid = grids[i]
        store = FeatureStore(run.features(grid.scene))
        patches = list(tiles(store.shape, PATCH))
        for j in np.unique(np.linspace(0, len(patches) - 1, PATCHES + 2)[1:-1].round().astype(int)):
            values, valid = store.read(patches[j])
            at = np.argwhere(valid)
            if not len(at):
                continue
            code, distance = nearest(
                codes.metric.apply(np.ascontiguousarray(values[:, valid].T)), codes.codes
            )
            for c in np.unique(code).tolist():
                mine = np.flatnonzero(code == c)
                first = mine[distance[mine].argmin()]
                if c not in best or distance[first] < best[c][0]:
                    row, col = at[first].tolist()
                    best[c] = (float(distance[first]), grid, row + patches[j].y, col + patches[j].x)
    for code in telling:
        if code in best:
            yield code, best[code][1:]


def _degrees(grid: Grid, row: int, col: int) -> tuple[float | None, float | None]:
    """Return longitude and latitude of a pixel's centre; None without a CRS."""
    if grid.place.crs is None:
        return None, None
    x, y = grid.place.transform @ (col + 0.5, row + 0.5)
    (lon,), (lat,) = transform(grid.place.crs, CRS.from_epsg(4326), [x], [y])
    return round(lon, 7), round(lat, 7)
