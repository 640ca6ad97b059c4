"""Any other number of classes, seen before it is chosen: the merge tree, small maps of codes, and scores.

The pages get the order in which classes part and a small picture of codes for each scene; a script turns both
into maps. Colours are stable: of a class that parts, the larger part keeps the colour, and at the number of
classes of the maps all have the colours of the maps.
"""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from sass.cluster.hierarchy import cut, links
from sass.colours import class_colour
from sass.files import read_json
from sass.metrics import Counts, from_rows, label_ids, match, merge, scores
from sass.report.collect import Archive, hexadecimal, open_map
from sass.report.tree_figures import leaf_order
from sass.run import Run

PREVIEW = 256
"""Longest side of a small map, in codes: a few dozen of them stay below two megabytes."""
NOTHING = 65_535
"""No data in a small map."""


def script(name: str, key: str, value: Any) -> str:
    """Return a script that puts a value into a table of the page: pages from a disk may not fetch files."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # all in ASCII, so no line ends in it
    return f"(globalThis.{name} ??= {{}})[{json.dumps(key)}] = {text};\n"


def small_map(run: Run, scene: str) -> dict[str, Any]:
    """Return the codes of a scene, decimated: ``width``, ``height``, ``codes``: uint16, deflated, base64."""
    with open_map(run.segments(scene) / "codes.tif") as source:
        scale = min(PREVIEW / max(source.shape), 1)
        height, width = (math.ceil(n * scale) for n in source.shape)
        cells = source.read(1, out_shape=(height, width), resampling=Resampling.nearest)
        codes = np.where(cells == source.nodata, np.uint16(NOTHING), cells.astype("<u2"))
    packed = base64.b64encode(zlib.compress(codes.tobytes(), 9)).decode()
    return {"width": width, "height": height, "codes": packed}


def partings(tree: dict[str, Any], chosen: int) -> tuple[int, list[tuple[int, list[int]]]]:
    """Say how classes part, from one to as many as there are codes.

    Parameters
    ----------
    tree
        ``hierarchy.json``.
    chosen
        Number of classes at which each has the number that it has in the maps.

    Returns
    -------
    first
        Number of the one class of all codes.
    steps
        For each further class its number and its codes, which leave the class that they were in. The smaller
        part leaves, so the larger keeps its number, and with it its colour.
    """
    sizes = tree["sizes"]
    number = cut(tree["merges"], sizes, chosen, tree["smallest"]).tolist()
    member = {code: [code] for code in range(tree["codes"])}
    steps: list[tuple[int, list[int]]] = []
    order = links(tree["merges"], sizes, tree["smallest"])
    for made, (one, other) in reversed(list(enumerate(order, 1))):
        pair = sorted((member[one], member[other]), key=lambda codes: (-sum(sizes[c] for c in codes), codes))
        large, small = pair
        steps.append((made if made >= chosen else number[small[0]], small))
        joined = sorted(large + small)
        kept = number[large[0]]
        for code in joined:
            member[code] = joined
            if made < chosen:
                number[code] = kept
    return number[0], steps[::-1]


def scores_by_number(run: Run, archive: list[str], tree: dict[str, Any], names: dict[int, str]) -> list[dict]:
    """Return ``n``, ``accuracy`` and ``miou`` of every number of classes; nothing without labels.

    Counts are of the codes over all labelled pixels, matched for each number as the maps are. Maps are finer:
    codes are those of whole embeddings, before `segment.smooth` and `segment.min_area`.
    """
    counts: Counts = merge(
        *(
            from_rows(record["codes"])
            for shard in archive
            if (path := run.manifest("evaluate", shard)).exists()
            for record in read_json(path)["scenes"].values()
        )
    )
    if not counts:
        return []
    labels = label_ids(counts, names)
    rows, of_code = [], np.zeros(tree["codes"], np.int64)
    for n, (made, codes) in enumerate(partings(tree, 1)[1], 2):
        of_code[codes] = made
        grouped: Counts = {}
        for (label, code), pixels in counts.items():
            pair = label, int(of_code[code]) if code >= 0 else code
            grouped[pair] = grouped.get(pair, 0) + pixels
        found = scores(grouped, match(grouped, labels), labels)
        rows.append({"n": n, "accuracy": found["accuracy"], "miou": found["miou"]})
    return rows


def rows_by_number(diagnostics: list[dict[str, Any]], scored: list[dict]) -> list[dict[str, Any]]:
    """Join diagnostics and scores by number of classes."""
    held: dict[int, dict[str, Any]] = {}
    for row in (*diagnostics, *scored):
        held[row["n"]] = held.get(row["n"], {}) | row
    return [held[n] for n in sorted(held)]


def tree_of(found: Archive, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the slider needs of the merge tree, with what is known of each number of classes."""
    tree, chosen = found.hierarchy, min(len(found.classes), found.hierarchy["codes"])
    first, steps = partings(tree, chosen)
    own = {k.id: k.hex for k in found.classes}
    plain = found.named  # named classes are no cut of the tree, so its groups have numbers only
    return {
        "chosen": chosen,
        "named": plain,
        "sizes": tree["sizes"],
        "merges": tree["merges"],
        "order": leaf_order(tree["merges"], tree["codes"]),
        "first": first,
        "steps": steps,
        "names": [f"Class {i}" if plain else found.classes[i].name for i in range(chosen)],
        "colours": [
            hexadecimal(class_colour(i)) if plain or i >= chosen else own[i] for i in range(tree["codes"])
        ],
        "rows": {row["n"]: {key: value for key, value in row.items() if key != "n"} for row in rows},
    }
