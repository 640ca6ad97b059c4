"""Beliefs: a code goes by its own places, then by its neighbours in the tree, and else stays unknown."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sass.cluster.belief import beliefs, closeness, decided, kept, left_out, most_telling, tally
from sass.cluster.hierarchy import average_linkage

TREE = [(0, 1, 0.3), (2, 3, 0.3), (4, 5, 0.99)]
"""Codes 0 and 1 are nearly one, 2 and 3 too, and the two pairs are strangers."""


def counts(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, float)


@st.composite
def labelled_trees(draw):
    """Make a merge tree whose heights rise to at most 1, and places of some of its codes."""
    k, names = draw(st.integers(2, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    distance = rng.uniform(0, 1, (k, k))
    merges = average_linkage((distance + distance.T) / 2, rng.integers(1, 9, k))
    return merges, rng.poisson(draw(st.floats(0, 3)), (k, names)).astype(float)


def test_a_place_names_its_code_and_the_one_beside_it_and_no_stranger():
    belief = beliefs(counts((1, 0), (0, 0), (0, 0), (0, 0)), TREE)
    assert decided(belief).tolist() == [0, -1, -1, -1]  # one place is worth as much as not knowing
    belief = beliefs(counts((3, 0), (0, 0), (0, 0), (0, 0)), TREE)
    assert decided(belief).tolist() == [0, 0, -1, -1]
    belief = beliefs(counts((3, 0), (0, 0), (0, 3), (0, 0)), TREE)
    assert decided(belief).tolist() == [0, 0, 1, 1]


def test_places_that_disagree_name_nothing():
    belief = beliefs(counts((2, 2), (0, 0), (0, 0), (0, 0)), TREE)
    assert decided(belief)[0] == -1
    assert decided(beliefs(counts((2, 9), (0, 0), (0, 0), (0, 0)), TREE))[0] == 1


def test_own_places_outweigh_those_of_neighbours():
    belief = beliefs(counts((20, 0), (0, 4), (0, 0), (0, 0)), TREE)
    assert decided(belief)[:2].tolist() == [0, 1]


@given(labelled_trees())
@settings(deadline=None, max_examples=60)
def test_beliefs_are_shares_and_what_is_left_is_unknown(made):
    merges, given_counts = made
    belief = beliefs(given_counts, merges)
    assert (belief >= 0).all() and (belief.sum(1) < 1).all()
    met = given_counts.sum(0) > 0
    assert (belief[:, ~met] == 0).all()


@given(labelled_trees(), st.integers(0, 11))
@settings(deadline=None, max_examples=60)
def test_a_further_place_never_lowers_the_belief_in_its_name(made, code):
    merges, given_counts = made
    code %= len(given_counts)
    before = beliefs(given_counts, merges)[code, 0]
    given_counts[code, 0] += 1
    assert beliefs(given_counts, merges)[code, 0] >= before - 1e-12


@given(labelled_trees())
@settings(deadline=None, max_examples=60)
def test_closeness_is_what_the_node_where_two_codes_meet_has_kept(made):
    merges, given_counts = made
    close = closeness(merges)
    assert np.array_equal(close, close.T) and (np.diag(close) == 1).all()
    group = {code: {code} for code in range(len(given_counts))}
    for i, (a, b, height) in enumerate(merges):
        one, other = group.pop(a), group.pop(b)
        for x in one:
            for y in other:
                assert close[x, y] == kept(height)
        group[len(given_counts) + i] = one | other


def test_what_the_others_say_of_a_place_does_not_hang_on_the_place():
    # code 0 has a single place: without it nobody says anything of it
    codes, names = np.array([0, 2, 2, 2]), np.array([0, 1, 1, 1])
    said = left_out(np.arange(4), codes, names, np.ones(4), TREE, 2)
    assert said.tolist() == [-1, 1, 1, 1]
    # and cells of one place are left out together
    said = left_out(np.zeros(4, int), np.full(4, 2), np.ones(4, int), np.ones(4), TREE, 2)
    assert said.tolist() == [-1] * 4


def test_the_next_places_are_where_most_area_is_open_and_not_twice_in_one_group():
    sizes = np.array([100, 90, 50, 40])
    nothing = beliefs(np.zeros((4, 1)), TREE)
    assert most_telling(nothing, sizes, closeness(TREE), 4)[:2] in ([0, 2], [1, 2])
    sure = beliefs(counts((50,), (50,), (0,), (0,)), TREE)
    assert most_telling(sure, sizes, closeness(TREE), 1) in ([2], [3])
    assert sorted(most_telling(nothing, sizes, closeness(TREE), 9)) == [0, 1, 2, 3]


def test_cells_are_tallied_by_code_and_name():
    table = tally(np.array([0, 0, 2]), np.array([1, 1, 0]), np.array([1.0, 0.5, 2.0]), 3, 2)
    assert table.tolist() == [[0, 1.5], [0, 0], [2, 0]]
