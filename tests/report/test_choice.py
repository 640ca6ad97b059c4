"""Any number of classes, before it is chosen: nested parts, stable colours, true scores."""

import base64
import json
import zlib

import numpy as np
import pytest
import rasterio
from finished_run import LABELS, NO_PLACE, make_run

from sass.cluster.hierarchy import cut
from sass.cog import new_codes
from sass.files import file_digest, read_json, write_json
from sass.metrics import merge, summarise
from sass.report.build import build_report
from sass.report.choice import NOTHING, PREVIEW, partings, scores_by_number, script, small_map
from sass.run import Run
from sass.settings import load


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with labels and seven classes of 24 codes."""
    return make_run(tmp_path_factory.mktemp("run"), {"a": (120, 100), "b": (90, 140)})


def classes_at(first: int, steps: list, codes: int, n: int) -> np.ndarray:
    """Return the class of each code, as the script of the page finds it."""
    out = np.full(codes, first)
    for number, left in steps[: n - 1]:
        out[left] = number
    return out


@pytest.mark.parametrize("chosen", [2, 7, 24])
def test_parts_make_the_classes_of_the_tree_and_the_larger_keeps_its_number(made, chosen):
    tree = read_json(made[0].hierarchy)
    first, steps = partings(tree, chosen)
    sizes, before = np.array(tree["sizes"]), None
    assert len(steps) == tree["codes"] - 1
    for n in range(1, tree["codes"] + 1):
        now = classes_at(first, steps, tree["codes"], n)
        expected = cut(tree["merges"], tree["sizes"], n, tree["smallest"])
        assert len(set(zip(now.tolist(), expected.tolist()))) == n == len(set(now.tolist()))
        if n == chosen:
            assert np.array_equal(now, expected)  # the numbers of the maps
        if before is not None:
            changed = now != before
            assert len(set(now[changed])) == 1
            old = before[changed][0]
            assert sizes[changed].sum() <= sizes[now == old].sum()
        before = now


def test_a_small_map_holds_the_codes_of_the_scene(made):
    run = made[0]
    packed = small_map(run, "a")
    codes = np.frombuffer(zlib.decompress(base64.b64decode(packed["codes"])), "<u2")
    codes = codes.reshape(packed["height"], packed["width"])
    with rasterio.open(run.segments("a") / "codes.tif") as source:
        assert max(source.shape) < PREVIEW
        expected = source.read(1).astype(int)
        assert (expected == source.nodata).any()
        assert np.array_equal(codes, np.where(expected == source.nodata, NOTHING, expected))


def test_a_large_scene_has_a_map_as_small_as_any(tmp_path):
    run = Run(tmp_path)
    run.segments("wide").mkdir(parents=True)
    codes = np.arange(500 * 1300).reshape(500, 1300) % 300
    with new_codes(run.segments("wide") / "codes.tif", codes.shape, NO_PLACE, 300, 4) as raster:
        raster.write(codes.astype(np.uint16))
    packed = small_map(run, "wide")
    assert (packed["height"], packed["width"]) == (99, PREVIEW)
    assert len(zlib.decompress(base64.b64decode(packed["codes"]))) == 99 * PREVIEW * 2


def test_scores_at_every_number_are_those_of_maps_with_such_classes(made):
    run, shards, _ = made
    tree, names = read_json(run.hierarchy), dict(enumerate(LABELS))
    rows = {row["n"]: row for row in scores_by_number(run, shards, tree, names)}
    assert list(rows) == list(range(2, 25))
    records = read_json(run.manifest("evaluate", "s00000"))["scenes"].values()
    for n in (2, 7, 24):
        of_code = cut(tree["merges"], tree["sizes"], n, tree["smallest"])
        counts = merge(*({(a, int(of_code[b])): n} for r in records for a, b, n in r["codes"]))
        expected = summarise(counts, names)
        assert (rows[n]["accuracy"], rows[n]["miou"]) == (expected["accuracy"], expected["miou"])
    assert rows[2]["accuracy"] < rows[7]["accuracy"]  # two classes cannot answer seven labels


def test_without_labels_there_are_no_scores(tmp_path):
    run, shards, _ = make_run(tmp_path, {"a": (40, 40)}, labelled=False)
    assert scores_by_number(run, shards, read_json(run.hierarchy), {}) == []


def test_a_script_is_data_whatever_a_name_holds():
    text = script("sassMaps", '</script>\u2028"];alert(1)//', {"x": ["\\", "é"]})
    assert text.isascii() and text.count("\n") == 1
    key, value = text.removeprefix("(globalThis.sassMaps ??= {})[").removesuffix(";\n").split("] = ")
    assert json.loads(key) == '</script>\u2028"];alert(1)//' and json.loads(value) == {"x": ["\\", "é"]}


def test_named_classes_are_no_cut_of_the_tree_and_the_page_says_so(tmp_path):
    run, shards, fit = make_run(tmp_path, {"a": (60, 60)}, labelled=False)
    tree = read_json(run.hierarchy)
    names = {
        "codebook": file_digest(run.codebook),
        "names": [f"<i>{label}</i>" for label in LABELS],
        "of_code": cut(tree["merges"], tree["sizes"], 7, 0).tolist(),
    }
    write_json(run.names, names)
    index = build_report(run, load(), archive=shards, fit=fit).read_text()
    assert "named classes, which are no cut of the tree" in index
    data = (run.report / "choice/tree.js").read_text()
    assert '"names":["Class 0","Class 1"' in data and "&lt;i&gt;forest" in index
