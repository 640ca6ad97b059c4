"""Features: windows, their grid and threads leave no trace, and nodata stays nodata."""

import json
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import (
    NOWHERE,
    add_codes,
    add_features,
    add_maps,
    class_map,
    confidence_map,
    make_run,
    ramps,
    statistics_of,
)

from sass.appearance import appearance
from sass.cluster.kmeans import nearest
from sass.config import Features
from sass.features import features_shard
from sass.files import file_digest, read_json, remove
from sass.model.interface import load_encoder
from sass.run import Run
from sass.store import INT8_SCALE, FeatureStore, SceneStore
from sass.windows import _Way, embed, embedded

DEEP = {"widths": [8, 8, 8], "blocks": 1, "dim": 8}
HALF = 2**-11
"""What float16 rounds a component of 1 by, at most."""


def holed(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and a mask with holes: a block with a pixel left in it, an edge, a corner, a pixel."""
    height, width = shape
    bands, valid = ramps(shape, seed), np.ones(shape, bool)
    valid[height // 5 : height // 3, width // 2 : width // 2 + 97] = False
    valid[height - 9 :, : width // 3] = False
    valid[: height // 8, width - 41 :] = False
    valid[7, 11] = False
    valid[height // 4, width // 2 + 51] = True
    return np.where(valid, bands, 0).astype(np.uint8), valid


def stored(run: Run, name: str = "a") -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings ``(dim, y, x)``, as float32, and their mask."""
    store = FeatureStore(run.features(name))
    scale = INT8_SCALE if store.embedding.dtype == np.int8 else 1
    return store.embedding[:].astype(np.float32) * np.float32(scale), store.valid[:].astype(bool)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Run, np.ndarray, np.ndarray, np.ndarray]:
    """Give a scene of 2000 x 1500 done whole, in one window: run, embeddings, classes and confidence."""
    run = make_run(tmp_path_factory.mktemp("large"), {"s00000": {"a": holed((2000, 1500))}}, model=DEEP)
    add_features(run, ["s00000"], window=2048)
    add_codes(run, ["s00000"])
    add_maps(run, ["s00000"], window=2048)
    return run, stored(run)[0], class_map(run, "a"), confidence_map(run, "a")


def test_tiled_equals_whole(large):
    run, whole, classes, confidence = large
    add_features(run, ["s00000"], window=256)
    add_maps(run, ["s00000"], window=256)
    tiled, _ = stored(run)
    assert FeatureStore(run.features("a")).embedding.shards == (
        11,
        64,
        64,
    )  # eight, two of colour, one of texture
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=HALF)
    assert np.array_equal(class_map(run, "a"), classes)
    assert np.array_equal(confidence_map(run, "a"), confidence)
    assert len(np.unique(classes)) == 6  # five classes and nodata: there was something to compare


def test_the_store_says_what_its_components_are_made_up_of(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70))}})
    add_features(run, ["s00000"])
    store = FeatureStore(run.features("a"))
    assert list(store.parts.items()) == [("embedding", 8), ("colour", 2), ("texture", 1)]
    whole = stored(run)[0]
    assert np.abs(whole[8:]).max() <= 1 and (whole[10] > 0).all()
    add_features(run, ["s00000"], appearance=False)
    assert FeatureStore(run.features("a")).parts == {"embedding": 8}
    assert np.array_equal(stored(run)[0], whole[:8])


def test_int8_changes_few_labels(large):
    run, whole, classes, _ = large
    add_features(run, ["s00000"], window=1024, dtype="int8")
    add_maps(run, ["s00000"], window=1024)
    halved, _ = stored(run)
    np.testing.assert_allclose(halved, whole, rtol=0, atol=INT8_SCALE / 2 + HALF)
    changed = class_map(run, "a") != classes
    # texture is alike everywhere in these waves: its spread would be four steps of int8, had it no remainder
    assert 0 < changed[classes != 255].mean() < 0.005
    assert np.array_equal(class_map(run, "a") == 255, classes == 255)


def test_nodata_in_is_nodata_out(large):
    run, _, classes, confidence = large
    _, valid = holed((2000, 1500))
    assert np.array_equal(classes == 255, ~valid)
    assert np.array_equal(confidence == 255, ~valid)
    embedding, seen = stored(run)
    assert np.array_equal(seen, valid.reshape(500, 4, 375, 4).any((1, 3)))
    assert (embedding[:, ~seen] == 0).all()
    lengths = np.linalg.norm(embedding[:8, seen], axis=0)
    np.testing.assert_allclose(lengths, 1, atol=0.02)  # int8 rounds eight components by 1/254 each


@pytest.mark.parametrize("column, strip, rows", [(128, 48, 16), (256, 64, 128), (64, 256, 64)])
def test_columns_and_strips_leave_no_trace(tmp_path, monkeypatch, column, strip, rows):
    run = make_run(tmp_path, {"s00000": {"a": holed((500, 410))}}, model=DEEP)
    add_features(run, ["s00000"])
    one, held = stored(run)
    for name, value in (("COLUMN", column), ("STRIP", strip), ("ROWS", rows)):
        monkeypatch.setattr(f"sass.windows.{name}", value)
    remove(run.manifest("features", "s00000").with_suffix(""))
    add_features(run, ["s00000"], window=128)
    two, seen = stored(run)
    np.testing.assert_array_equal(seen, held)
    np.testing.assert_allclose(one, two, rtol=0, atol=HALF)
    assert np.array_equal(one[8:], two[8:])  # appearance is summed in one order


@pytest.mark.parametrize("other", [320, 128, 700])
def test_a_shifted_grid_gives_the_same_labels(tmp_path, other):
    run = make_run(tmp_path, {"s00000": {"a": holed((700, 600))}}, model=DEEP)
    encoder, _ = load_encoder(run.encoder)
    scene = SceneStore(run.scene("a"))

    def assembled(step: int) -> np.ndarray:
        out = np.full((11, 176, 152), np.nan, np.float32)
        for window, embedding, valid in embedded(scene, encoder, statistics_of(run), step, True):
            out[(slice(None), *window.coarsened(4).slices)] = np.where(valid, embedding, 0)
        return out[:, :175, :150]

    one, two = assembled(512), assembled(other)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
    assert np.array_equal(one[8:], two[8:])  # appearance is summed in one order
    codes = one.reshape(11, -1).T[:: 175 * 10]
    labels = [
        nearest(m.astype(np.float16).astype(np.float32).reshape(11, -1).T, codes)[0] for m in (one, two)
    ]
    assert np.array_equal(*labels)


@pytest.mark.parametrize("shape", [(117, 203), (64, 64), (1, 1), (3, 500), (130, 61)], ids=str)
def test_sides_of_any_length(tmp_path, shape):
    run = make_run(tmp_path, {"s00000": {"a": ramps(shape)}}, model=DEEP)
    add_features(run, ["s00000"], window=64)
    embedding, seen = stored(run)
    assert embedding.shape == (11, -(-shape[0] // 4), -(-shape[1] // 4))
    assert seen.all()
    np.testing.assert_allclose(np.linalg.norm(embedding[:8], axis=0), 1, atol=0.01)
    # the same as the padded scene in one piece
    encoder, _ = load_encoder(run.encoder)
    side = [-(-length // 16) * 16 for length in shape]
    z = np.zeros((2, *side), np.float32)
    valid = np.zeros(side, bool)
    valid[: shape[0], : shape[1]] = True
    bands, held = SceneStore(run.scene("a")).bands[:], np.ones(shape, bool)
    statistics = statistics_of(run)
    z[:, : shape[0], : shape[1]] = statistics.apply(bands, held)
    parts = [embed(encoder, z, valid), appearance(z, valid, 4, statistics.clip)]
    expected = np.concatenate(parts)[:, : embedding.shape[1], : embedding.shape[2]]
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=HALF)


@pytest.mark.parametrize("window", [64, 192, 320, 1024])
def test_every_window_the_configuration_allows(tmp_path, window):
    run = make_run(tmp_path, {"s00000": {"a": ramps((400, 330))}})
    add_features(run, ["s00000"], window=window)
    assert read_json(run.manifest("features", "s00000"))["scenes"]["a"]["valid"] == 100 * 83


@pytest.mark.parametrize("window", [128, 512], ids=["several swaths", "one swath"])
def test_threads_change_no_byte(tmp_path, window):
    run = make_run(
        tmp_path, {"s00000": {"a": holed((600, 500))}}, model={"widths": [64, 128], "blocks": 1, "dim": 64}
    )
    digests = []
    try:
        for threads in (1, 2, 3):
            add_features(run, ["s00000"], threads=threads, window=window)
            digests.append(file_digest(run.features("a")))
            run.features("a").rename(tmp_path / f"{threads}.zarr")
    finally:
        torch.set_num_threads(1)
    assert digests == digests[:1] * 3


@pytest.mark.parametrize(
    ("width", "threads", "sides"),
    [
        (700, 1, [[700]]),
        (700, 2, [[348, 352]]),
        (700, 3, [[232, 232, 236]]),
        (700, 9, [[140, 140, 140, 140, 140]]),  # never narrower than two halos
        (60, 2, [[60]]),
        (9000, 1, [[3072], [3072], [2856]]),
        (9000, 2, [[1536, 1536], [1536, 1536], [1428, 1428]]),
    ],
)
def test_threads_have_columns_alike_in_swaths_of_whole_windows(width, threads, sides):
    way = _Way(None, SimpleNamespace(halo=64, alignment=4), None, (256, width), 128, True)
    swaths = way.swaths(threads)
    assert [[column.width for column in columns] for columns in swaths] == sides
    columns, widths = list(chain(*swaths)), list(chain(*sides))
    assert [column.x for column in columns] == [sum(widths[:i]) for i in range(len(widths))]
    assert {(column.y, column.height) for column in columns} == {(0, 256)}
    assert all(columns[0].x % 128 == 0 for columns in swaths)


def test_the_store_opens_in_xarray_and_knows_where_it_lies(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((130, 90))}})
    add_features(run, ["s00000"])
    cube = FeatureStore(run.features("a")).to_xarray()
    assert cube.embedding.dims == ("embedding", "y", "x")
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.resolution() == (40, -40)
    assert cube.rio.bounds()[:1] + cube.rio.bounds()[3:] == (500_000, 5_400_000)


def test_a_scene_without_georeference(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((130, 90))}}, place=NOWHERE)
    add_features(run, ["s00000"])
    assert not FeatureStore(run.features("a")).place.known


def test_what_stands_is_kept_and_what_has_changed_is_made_again(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70)), "b": ramps((70, 90), 1)}})
    first = features_shard(run, "s00000", Features(), threads=1)
    assert (first.computed, first.kept) == (["a", "b"], [])
    again = features_shard(run, "s00000", Features(), threads=1)
    assert (again.computed, again.kept) == ([], ["a", "b"])
    manifest = read_json(run.manifest("ingest", "s00000"))
    manifest["scenes"]["b"]["digest"] = "new pixels"
    run.manifest("ingest", "s00000").write_text(json.dumps(manifest))
    third = features_shard(run, "s00000", Features(), threads=1)
    assert (third.computed, third.kept) == (["b"], ["a"])


MEASURE = """
import sys; sys.path.insert(0, {tests!r})
import re
from pathlib import Path
from builders import add_features, add_maps
from sass.run import Run
run = Run(Path(sys.argv[1]))
add_features(run, ["s00000"], window=512)
add_maps(run, ["s00000"], window=512)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_scene(tmp_path):
    model = {"widths": [8], "blocks": 1, "dim": 4}
    script = MEASURE.format(tests=str(Path(__file__).parent))
    codes = make_run(tmp_path / "codes", {"s00000": {"a": ramps((300, 300), bands=1)}}, model=model)
    add_features(codes, ["s00000"])
    add_codes(codes, ["s00000"], codes=6)
    peaks = []
    for height in (2000, 6000):
        blocks = np.kron(ramps((height // 500, 9), bands=1)[0], np.ones((500, 500), np.uint8))[None]
        run = make_run(tmp_path / str(height), {"s00000": {"a": blocks}}, model=model)
        shutil.copytree(codes.codebook.parent, run.codebook.parent)
        done = subprocess.run(
            [sys.executable, "-c", script, str(run.root)], capture_output=True, text=True, check=True
        )
        # not ru_maxrss, which a process inherits from the one that started it
        peaks.append(int(done.stdout) / 1024)
    # 18 million pixels more: 72 MB for a single band held in float32, and as much for the embeddings
    assert peaks[1] - peaks[0] < 53
