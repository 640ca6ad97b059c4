"""The hierarchy: nested classes for every n, by linkages that agree with SciPy's."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score

from sass.cluster.codebook import Codes, nearest_two
from sass.cluster.hierarchy import build_hierarchy, cut, merge_tree
from sass.config import Hierarchy
from sass.manifest import read_json
from sass.run import Run

LINKAGES = ["average", "ward", "graph"]


def made(k: int, seed: int = 0, dim: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, sizes and pairs of a made codebook."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(k, dim)).astype(np.float32)
    sizes = rng.integers(0, 5000, k)
    pairs = rng.integers(0, 300, (k, k))
    pairs = np.triu(pairs, 1)
    return codes, sizes, pairs + pairs.T


@settings(deadline=None, max_examples=40)
@given(k=st.integers(2, 30), seed=st.integers(0, 1000), kind=st.sampled_from(LINKAGES))
def test_classes_are_nested_and_there_are_as_many_as_asked_for(k, seed, kind):
    codes, sizes, pairs = made(k, seed)
    merges = merge_tree(codes, sizes, pairs, kind)
    assert len(merges) == k - 1
    assert sorted(node for a, b, _ in merges for node in (a, b)) == list(range(2 * k - 2))
    heights = [height for *_, height in merges]
    assert heights == sorted(heights)
    finer = cut(merges, sizes.tolist(), k)
    assert sorted(finer.tolist()) == list(range(k))
    for n in range(k - 1, 0, -1):
        coarser = cut(merges, sizes.tolist(), n)
        assert sorted(set(coarser.tolist())) == list(range(n))
        # each class of the finer map lies in one class of the coarser
        assert len(set(zip(finer.tolist(), coarser.tolist()))) == n + 1
        area = np.bincount(coarser, weights=sizes, minlength=n)
        assert (np.diff(area) <= 0).all()  # class 0 is the largest, and so on
        finer = coarser


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["average", "ward"])
def test_linkages_make_the_classes_of_scipy(kind, seed):
    codes, _, pairs = made(40, seed)
    sizes = np.full(40, 10)
    merges = merge_tree(codes, sizes, pairs, kind)
    reference = linkage(pdist(codes.astype(np.float64)), kind)
    for n in range(1, 41):
        ours, theirs = cut(merges, sizes.tolist(), n), fcluster(reference, n, "maxclust")
        assert adjusted_rand_score(ours, theirs) == 1
    heights = np.array([height for *_, height in merges])
    # SciPy gives the root of twice the growth of the sum of squares, for points of weight 1
    scipys = reference[:, 2] if kind == "average" else 10 * reference[:, 2] ** 2 / 2
    np.testing.assert_allclose(heights, scipys, rtol=1e-5)


@pytest.mark.parametrize("kind", ["average", "ward"])
def test_a_tree_over_codes_with_sizes_is_the_tree_over_the_pixels_themselves(kind):
    rng = np.random.default_rng(3)
    codes, sizes = rng.normal(size=(9, 3)), rng.integers(1, 6, 9)
    pixels, owner = np.repeat(codes, sizes, 0), np.repeat(np.arange(9), sizes)
    merges = merge_tree(codes, sizes, np.zeros((9, 9), np.int64), kind)
    reference = linkage(pixels, kind)
    for n in range(1, 10):
        ours = cut(merges, sizes.tolist(), n)[owner]
        assert adjusted_rand_score(ours, fcluster(reference, n, "maxclust")) == 1


def test_graph_merges_what_pixels_lie_between_and_not_what_is_near():
    # codes 0 and 1 are the nearest, yet no pixel lies between them; most lie between 0 and 2, then 1 and 3
    codes = np.array([[0, 0], [0.1, 0], [5, 0], [5, 0.2], [9, 9]])
    sizes = np.full(5, 100)
    pairs = np.zeros((5, 5), np.int64)
    pairs[0, 2] = pairs[2, 0] = 60
    pairs[1, 3] = pairs[3, 1] = 40
    pairs[3, 4] = pairs[4, 3] = 10
    pairs[2, 3] = pairs[3, 2] = 2
    merges = merge_tree(codes, sizes, pairs, "graph")
    assert [(a, b) for a, b, _ in merges] == [(0, 2), (1, 3), (4, 6), (5, 7)]
    heights = [height for *_, height in merges]
    # 1 - pairs / sqrt(size * size), where merged nodes add up pairs and sizes
    np.testing.assert_allclose(heights, [0.4, 0.6, 1 - 10 / np.sqrt(200 * 100), 1 - 2 / np.sqrt(200 * 300)])
    assert merge_tree(codes, sizes, pairs, "average")[0][:2] == (0, 1)


def test_graph_weighs_pairs_by_size():
    # 50 of 100 pixels between small codes say more than 60 of 10 000 between large ones
    pairs = np.array([[0, 60, 0, 0], [60, 0, 0, 0], [0, 0, 0, 50], [0, 0, 50, 0]])
    merges = merge_tree(np.eye(4), np.array([10_000, 10_000, 100, 100]), pairs, "graph")
    assert [(a, b) for a, b, _ in merges[:2]] == [(2, 3), (0, 1)]


def test_cut_by_hand():
    merges = [(0, 2, 0.1), (1, 4, 0.2), (3, 5, 0.9)]
    assert cut(merges, [10, 100, 20, 90], 4).tolist() == [3, 0, 2, 1]
    assert cut(merges, [10, 100, 20, 90], 3).tolist() == [2, 0, 2, 1]
    assert cut(merges, [10, 100, 20, 90], 2).tolist() == [0, 0, 0, 1]
    assert cut(merges, [10, 100, 20, 900], 2).tolist() == [1, 1, 1, 0]
    assert cut(merges, [10, 100, 20, 90], 1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("n", [0, 5])
def test_a_number_of_classes_the_codes_cannot_make_is_refused(n):
    with pytest.raises(ValueError, match=f"4 codes cannot make {n} classes"):
        cut([(0, 2, 0.1), (1, 4, 0.2), (3, 5, 0.9)], [1, 1, 1, 1], n)


@pytest.mark.parametrize("kind", LINKAGES)
def test_a_thousand_codes_take_seconds(kind):
    codes, sizes, pairs = made(1024, dim=64)
    started = time.process_time()
    merges = merge_tree(codes, sizes, pairs, kind)
    assert time.process_time() - started < 10  # about 1 on an idle core
    for n in (2, 300, 1024):
        assert len(np.unique(cut(merges, sizes.tolist(), n))) == n


def stored(run: Run, groups: int = 3, each: int = 4) -> Codes:
    """Write a codebook whose codes stand in far groups, each with a cloud of embeddings around it."""
    rng = np.random.default_rng(0)
    centres = np.eye(groups, 8) * 10
    codes = (np.repeat(centres, each, 0) + rng.normal(0, 0.7, (groups * each, 8))).astype(np.float32)
    sample = (np.repeat(codes, 30, 0) + rng.normal(0, 0.2, (groups * each * 30, 8))).astype(np.float32)
    first, second, distance = nearest_two(sample, codes)
    k = len(codes)
    pairs = np.bincount(first * k + second, minlength=k * k).reshape(k, k)
    codebook = Codes(codes, np.bincount(first, minlength=k), pairs + pairs.T, float(distance.mean()), sample)
    codebook.save(run.codebook)
    return codebook


@pytest.mark.parametrize("kind", LINKAGES)
def test_diagnostics_find_the_number_of_groups_there_are(tmp_path, kind):
    run = Run(tmp_path)
    stored(run)
    tree = build_hierarchy(run, Hierarchy(linkage=kind, bootstrap=3))
    assert read_json(run.hierarchy) == tree
    assert tree["codes"] == 12
    assert len(tree["merges"]) == 11
    rows = {row["n"]: row for row in tree["diagnostics"]}
    assert list(rows) == list(range(2, 13))
    assert max(rows, key=lambda n: rows[n]["silhouette"]) == 3
    assert min(rows, key=lambda n: rows[n]["davies_bouldin"]) == 3
    # a resample of 360 has too few pixels between codes to tell the graph's groups each time
    assert rows[3]["stability"] == 1 or kind == "graph"
    assert rows[3]["silhouette"] > 0.7
    groups = cut(tree["merges"], tree["sizes"], 3)
    assert len({tuple(groups[i : i + 4]) for i in (0, 4, 8)}) == 3
    assert all(len(set(groups[i : i + 4])) == 1 for i in (0, 4, 8))


def test_the_same_codebook_gives_the_same_file(tmp_path):
    run = Run(tmp_path)
    stored(run)
    build_hierarchy(run, Hierarchy(bootstrap=2))
    before = run.hierarchy.read_bytes()
    run.hierarchy.unlink()
    build_hierarchy(run, Hierarchy(bootstrap=2))
    assert run.hierarchy.read_bytes() == before


def test_two_codes_are_enough(tmp_path):
    run = Run(tmp_path)
    stored(run, groups=2, each=1)
    tree = build_hierarchy(run, Hierarchy(bootstrap=2))
    assert len(tree["merges"]) == 1
    assert [row["n"] for row in tree["diagnostics"]] == [2]
