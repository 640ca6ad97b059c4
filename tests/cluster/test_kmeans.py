"""K-means in memory: seeds that lie apart, and passes that are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from sass.cluster.kmeans import lloyd, nearest, seeds


def cloud(n: int, seed: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 60), k=st.integers(1, 20), seed=st.integers(0, 1000))
def test_the_nearest_centre_is_the_one_that_all_distances_tell(n, k, seed):
    vectors, centres = cloud(n, seed), cloud(k, seed + 1)
    squares = ((vectors[:, None].astype(float) - centres[None]) ** 2).sum(2)
    first, distance = nearest(vectors, centres)
    np.testing.assert_allclose(squares[np.arange(n), first], squares.min(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(distance, squares.min(1), rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 60), k=st.integers(1, 20), seed=st.integers(0, 1000))
def test_seeds_are_vectors_and_none_is_drawn_twice_while_others_are_left(n, k, seed):
    vectors = cloud(n, seed)
    drawn = seeds(vectors, k, np.random.default_rng(seed))
    assert drawn.shape == (k, 5)
    assert {tuple(v) for v in drawn} <= {tuple(v) for v in vectors}
    assert len(np.unique(drawn, axis=0)) == min(n, k)


@pytest.mark.parametrize("seed", range(10))
def test_each_of_far_groups_gets_a_seed_however_small_it_is(seed):
    sizes = [2000, 300, 40, 6]
    groups = np.repeat(np.arange(4), sizes)
    vectors = cloud(sum(sizes), seed) * 0.01 + 10 * np.eye(5, dtype=np.float32)[groups]
    drawn = seeds(vectors, 4, np.random.default_rng(seed))
    assert sorted(drawn[:, :4].argmax(1)) == [0, 1, 2, 3]


def test_seeds_are_drawn_by_their_squared_distance():
    vectors = np.array([[0.0], [1.0], [3.0]], np.float32)
    random, counts = np.random.default_rng(0), np.zeros(3)
    for _ in range(6000):
        first, second = seeds(vectors, 2, random)[:, 0]
        if first == 0:
            counts[int(np.flatnonzero(vectors[:, 0] == second)[0])] += 1
    np.testing.assert_allclose(counts / counts.sum(), [0, 0.1, 0.9], atol=0.02)  # 1 to 9


@pytest.mark.parametrize("passes", [1, 3, 10])
def test_passes_are_those_of_scikit_learn(passes):
    vectors = cloud(3000, 0)
    start = vectors[:12].copy()
    ours = lloyd(vectors, start, passes)
    theirs = KMeans(12, init=start, n_init=1, max_iter=passes, tol=0, algorithm="lloyd")
    np.testing.assert_allclose(ours, theirs.fit(vectors).cluster_centers_, atol=1e-4)
    assert np.array_equal(start, vectors[:12])  # what was given is left alone


def test_a_centre_that_nothing_is_nearest_to_stays():
    vectors = cloud(100, 0)
    start = np.concatenate([vectors[:2], np.full((1, 5), 50, np.float32)])
    assert np.array_equal(lloyd(vectors, start, 3)[2], start[2])


def test_every_pass_brings_vectors_nearer():
    vectors = cloud(2000, 1)
    start = seeds(vectors, 30, np.random.default_rng(0))
    spreads = [nearest(vectors, lloyd(vectors, start, passes))[1].mean() for passes in range(6)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.9 * spreads[0]
