"""The hierarchy: nested classes for every n, by a linkage that agrees with SciPy's, from trees that agree."""

import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics import adjusted_rand_score

from sass.cluster import hierarchy
from sass.cluster.codebook import Codes
from sass.cluster.hierarchy import (
    Merge,
    _one_tree,
    agreement,
    average_linkage,
    build_hierarchy,
    consensus,
)
from sass.cluster.kmeans import nearest
from sass.cluster.metric import Metric
from sass.config import Hierarchy
from sass.files import read_json
from sass.run import Run

cut = partial(hierarchy.cut, smallest=Hierarchy().smallest)
"""As the configuration cuts, if nothing else is said."""


def made(k: int, seed: int = 0, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and sizes of a made codebook."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, dim)), rng.integers(0, 5000, k)


def tree_of(codes: np.ndarray, sizes: np.ndarray) -> list[Merge]:
    return average_linkage(cdist(codes, codes), sizes)


# ---- linkage


@pytest.mark.parametrize("seed", range(5))
def test_the_merges_are_those_of_scipy(seed):
    codes, _ = made(40, seed)
    merges = tree_of(codes, np.full(40, 10))
    reference = linkage(pdist(codes), "average")
    assert [(a, b) for a, b, _ in merges] == [(int(a), int(b)) for a, b, *_ in reference]
    np.testing.assert_allclose([height for *_, height in merges], reference[:, 2], rtol=1e-9)


def test_any_distance_will_do():
    distance = np.array([[0, 0.9, 0.2, 0.8], [0.9, 0, 0.7, 0.3], [0.2, 0.7, 0, 1], [0.8, 0.3, 1, 0]])
    before = distance.copy()
    merges = average_linkage(distance, np.array([10, 10, 30, 10]))
    assert np.array_equal(distance, before)
    assert [(a, b) for a, b, _ in merges] == [(0, 2), (1, 3), (4, 5)]
    # (10 x 10 x 0.9 + 10 x 10 x 0.8 + 30 x 10 x 0.7 + 30 x 10 x 1) / (40 x 20)
    np.testing.assert_allclose([height for *_, height in merges], [0.2, 0.3, 0.85])


def test_a_tree_over_codes_with_sizes_is_the_tree_over_the_pixels_themselves():
    rng = np.random.default_rng(3)
    codes, sizes = rng.normal(size=(9, 3)), rng.integers(1, 6, 9)
    pixels, owner = np.repeat(codes, sizes, 0), np.repeat(np.arange(9), sizes)
    merges = tree_of(codes, sizes)
    reference = linkage(pixels, "average")
    for n in range(1, 10):
        ours = cut(merges, np.full(9, 1), n)[owner]  # of equal weight, so that no branch is small
        assert adjusted_rand_score(ours, fcluster(reference, n, "maxclust")) == 1


def test_a_thousand_codes_take_seconds():
    codes, sizes = made(1024, dim=64)
    started = time.process_time()
    merges = tree_of(codes, sizes)
    assert time.process_time() - started < 10  # about 1 on an idle core
    for n in (2, 300, 1024):
        assert len(np.unique(cut(merges, sizes.tolist(), n))) == n


# ---- cut


@settings(deadline=None, max_examples=60)
@given(k=st.integers(2, 30), seed=st.integers(0, 1000), small=st.integers(0, 30))
def test_classes_are_nested_and_there_are_as_many_as_asked_for(k, seed, small):
    codes, sizes = made(k, seed)
    sizes[:small] //= 1000  # so few that their branches wait
    merges = tree_of(codes, sizes)
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


def test_cut_by_hand():
    merges = [(0, 2, 0.1), (1, 4, 0.2), (3, 5, 0.9)]
    assert cut(merges, [10, 100, 20, 90], 4).tolist() == [3, 0, 2, 1]
    assert cut(merges, [10, 100, 20, 90], 3).tolist() == [2, 0, 2, 1]
    assert cut(merges, [10, 100, 20, 90], 2).tolist() == [0, 0, 0, 1]
    assert cut(merges, [10, 100, 20, 900], 2).tolist() == [1, 1, 1, 0]
    assert cut(merges, [10, 100, 20, 90], 1).tolist() == [0, 0, 0, 0]


def test_a_tiny_outlier_far_from_all_waits_until_larger_branches_are_apart():
    # codes 0 and 1, then 2 and 3 lie together; code 4, 1 % of all, lies far from both pairs
    merges = [(0, 1, 0.1), (2, 3, 0.2), (5, 6, 0.5), (4, 7, 9.0)]
    sizes = [40, 20, 25, 14, 1]
    assert cut(merges, sizes, 2).tolist() == [0, 0, 1, 1, 0]  # with the largest code beside it
    assert cut(merges, sizes, 3).tolist() == [0, 0, 1, 2, 0]
    assert cut(merges, sizes, 4).tolist() == [0, 2, 1, 3, 0]
    assert cut(merges, sizes, 5).tolist() == [0, 2, 1, 3, 4]
    # with twice as many pixels it is 2 %, and a class at once
    assert cut(merges, [40, 20, 24, 14, 2], 2).tolist() == [0, 0, 0, 0, 1]


def test_of_branches_too_small_the_larger_come_first():
    # 0.9 % and 1.6 % of the archive lie farther away than 0.3 %; thresholds are 2, 1, 0.5 and 0.25 %
    merges = [(0, 1, 0.1), (2, 4, 0.5), (3, 5, 0.9)]
    assert cut(merges, [972, 3, 9, 16], 2).tolist() == [0, 0, 0, 1]
    assert cut(merges, [972, 3, 9, 16], 3).tolist() == [0, 0, 2, 1]
    assert cut(merges, [972, 9, 3, 16], 3).tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize("n", [0, 5])
def test_a_number_of_classes_the_codes_cannot_make_is_refused(n):
    with pytest.raises(ValueError, match=f"4 codes cannot make {n} classes"):
        cut([(0, 2, 0.1), (1, 4, 0.2), (3, 5, 0.9)], [1, 1, 1, 1], n)


# ---- agreement


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 12), count=st.integers(2, 60), seed=st.integers(0, 1000))
def test_agreement_is_the_adjusted_rand_index_of_scikit_learn(n, count, seed):
    rng = np.random.default_rng(seed)
    classes, others = rng.integers(0, n, count), rng.integers(0, n, (4, count)).astype(np.uint8)
    others[0] = (classes + 1) % n  # alike but for the names
    theirs = [adjusted_rand_score(classes, other) for other in others]
    np.testing.assert_allclose(agreement(classes, others, n), theirs, atol=1e-12)


# ---- consensus


def codebook_of(sample: np.ndarray, codes: np.ndarray) -> Codes:
    first, distance = nearest(sample, codes)
    dim = sample.shape[1]
    metric = Metric(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32))
    return Codes(metric, codes, np.bincount(first, minlength=len(codes)), float(distance.mean()), sample)


def stored(run: Run, groups: int = 3, each: int = 4) -> Codes:
    """Write a codebook whose codes stand in far groups, each with a cloud of embeddings around it."""
    rng = np.random.default_rng(0)
    centres = np.eye(groups, 8) * 10
    codes = (np.repeat(centres, each, 0) + rng.normal(0, 0.7, (groups * each, 8))).astype(np.float32)
    sample = (np.repeat(codes, 30, 0) + rng.normal(0, 0.2, (groups * each * 30, 8))).astype(np.float32)
    codebook = codebook_of(rng.permutation(sample), codes)
    codebook.save(run.codebook)
    return codebook


def overlapping() -> Codes:
    """Make five groups that overlap, of unequal size and width, with 40 codes among them."""
    rng = np.random.default_rng(1)
    centres, widths = rng.normal(0, 1.5, (5, 3)), rng.uniform(0.6, 1.2, 5)
    group = rng.choice(5, 6000, p=[0.4, 0.25, 0.15, 0.12, 0.08])
    sample = (centres[group] + widths[group, None] * rng.normal(size=(6000, 3))).astype(np.float32)
    return codebook_of(sample, sample[:40])


def test_diagnostics_find_the_number_of_groups_there_are(tmp_path):
    run = Run(tmp_path)
    stored(run)
    tree = build_hierarchy(run, Hierarchy(trees=3))
    assert read_json(run.hierarchy) == tree
    assert tree["codes"] == 12
    assert len(tree["merges"]) == 11
    rows = {row["n"]: row for row in tree["diagnostics"]}
    assert list(rows) == list(range(2, 13))
    assert max(rows, key=lambda n: rows[n]["silhouette"]) == 3
    assert min(rows, key=lambda n: rows[n]["davies_bouldin"]) == 3
    assert rows[3]["stability"] == 1
    assert rows[3]["silhouette"] > 0.7
    groups = cut(tree["merges"], tree["sizes"], 3)
    assert len({tuple(groups[i : i + 4]) for i in (0, 4, 8)}) == 3
    assert all(len(set(groups[i : i + 4])) == 1 for i in (0, 4, 8))


def test_what_many_trees_agree_on_hangs_less_on_the_seed_than_a_tree():
    codes, of_many, of_one = overlapping(), [], []
    for seed in range(4):
        merges, trees = consensus(codes, Hierarchy(trees=12, seed=seed))
        of_many.append([cut(merges, codes.sizes.tolist(), n) for n in range(3, 9)])
        one, sizes, *_, near = _one_tree(codes, [seed, 0])
        of_one.append([cut(one, sizes.tolist(), n)[near] for n in range(3, 9)])

    def alike(runs: list) -> float:
        return np.mean([adjusted_rand_score(a, b) for one, two in pairwise(runs) for a, b in zip(one, two)])

    assert alike(of_many) > alike(of_one) + 0.1
    heights = [height for *_, height in merges]
    assert min(heights) >= 0 and max(heights) <= 1  # shares
    assert trees.shape == (12, 29, 4000)
    assert all(trees[:, n - 2].max() == n - 1 for n in range(2, 31))


def test_the_same_codebook_gives_the_same_file(tmp_path):
    run = Run(tmp_path)
    stored(run)
    build_hierarchy(run, Hierarchy(trees=2))
    before = run.hierarchy.read_bytes()
    run.hierarchy.unlink()
    build_hierarchy(run, Hierarchy(trees=2))
    assert run.hierarchy.read_bytes() == before


def test_two_codes_are_enough(tmp_path):
    run = Run(tmp_path)
    stored(run, groups=2, each=1)
    tree = build_hierarchy(run, Hierarchy(trees=2))
    assert len(tree["merges"]) == 1
    assert [row["n"] for row in tree["diagnostics"]] == [2]


def test_codes_that_nothing_is_nearest_to_go_with_what_lies_around_them(tmp_path):
    run = Run(tmp_path)
    codes = stored(run)
    ahead = codes.codes[[0, 4, 8]] * 1.2  # beyond three of the groups' codes, with no embedding
    codebook_of(codes.sample, np.concatenate([codes.codes, ahead])).save(run.codebook)
    tree = build_hierarchy(run, Hierarchy(trees=3))
    assert tree["sizes"][12:] == [0, 0, 0]
    groups = cut(tree["merges"], tree["sizes"], 3)
    assert groups[12:].tolist() == groups[[0, 4, 8]].tolist()
