"""Scores: between embeddings of any stride, in any window, the best of each class is what it must be."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sass.scores
from sass.grid import Window
from sass.scores import Classifier, best_two, class_scores

RNG = np.random.default_rng(0)
CELLS, LENGTH = (9, 8), 5
CODES = Classifier(
    RNG.normal(size=(7, LENGTH)), RNG.normal(size=7), RNG.permutation(7), np.array([0, 2, 3, 7]), 1.0
)
VALUES = RNG.normal(size=(LENGTH, *CELLS)).astype(np.float32)
SEEN = RNG.random(CELLS) > 0.2


def store(stride: int, mask: np.ndarray = SEEN) -> SimpleNamespace:
    """Give embeddings as a store of features does."""

    def read(window: Window, into: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        into[:] = VALUES[(slice(None), *window.slices)]
        return into, mask[window.slices]

    return SimpleNamespace(stride=stride, shape=CELLS, embedding=VALUES, read=read)


def taken(stride: int, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores of classes in a window, where any embedding is near, and codes, -1 for none."""
    codes = np.full(window.cells(stride).shape, -1)
    scores, near, height = np.full((3, *window.shape), np.nan, np.float32), np.zeros(window.shape, bool), 0
    for strip, (values,), seen in class_scores(store(stride), window, CODES, lambda scores: (scores,), codes):
        scores[(slice(None), *strip.inside(window))], near[strip.inside(window)] = values, seen
        height += strip.height
    assert height == window.height
    return scores, near, codes


@st.composite
def windows(draw) -> tuple[int, Window]:
    stride = draw(st.integers(1, 7))
    (y, height), (x, width) = (
        (start, draw(st.integers(1, length * stride - start)))
        for length in CELLS
        for start in [draw(st.integers(0, length * stride - 1))]
    )
    return stride, Window(y, x, height, width)


@given(windows())
def test_a_window_has_the_scores_of_the_whole(made):
    stride, window = made
    whole = Window(0, 0, *(side * stride for side in CELLS))
    scores, near, codes = taken(stride, whole)
    some, some_near, some_codes = taken(stride, window)
    assert np.array_equal(some, scores[(slice(None), *window.slices)])
    assert np.array_equal(some_near, near[window.slices])
    assert np.array_equal(some_codes, codes[window.cells(stride).slices])


@given(st.integers(1, 7))
def test_scores_are_interpolated_among_the_embeddings_that_there_are(stride):
    whole = Window(0, 0, *(side * stride for side in CELLS))
    scores, near, codes = taken(stride, whole)
    single = np.einsum("kd,dyx->kyx", CODES.weights, VALUES) - CODES.bias[:, None, None]
    assert np.array_equal(codes, np.where(SEEN, CODES.numbers[single.argmax(0)], -1))
    (y0, y1, fy), (x0, x1, fx) = (between(side, stride) for side in CELLS)
    fy = fy[:, None]

    def enlarged(values: np.ndarray) -> np.ndarray:
        upper, lower = (
            values[..., rows, :][..., x0] * (1 - fx) + values[..., rows, :][..., x1] * fx for rows in (y0, y1)
        )
        return upper * (1 - fy) + lower * fy

    weight = enlarged(SEEN.astype(float))
    best = enlarged(single * SEEN) / np.maximum(weight, 1e-6)
    best = np.stack([best[a:b].max(0) for a, b in zip(CODES.bounds[:-1], CODES.bounds[1:])])
    assert np.array_equal(near, weight > 0)
    np.testing.assert_allclose(scores[:, near], best[:, near], rtol=1e-4, atol=1e-5)


def between(length: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the embedding before each pixel of an axis, the one after it, and the share of the latter."""
    place = (np.arange(length * stride) + 0.5) / stride - 0.5
    first = np.floor(place).astype(int)
    return first.clip(0), (first + 1).clip(0, length - 1), place - first


@settings(max_examples=20)
@given(windows(), st.integers(1, 4000))
def test_how_much_is_held_at_once_changes_nothing(made, strip):
    expected, held = taken(*made), sass.scores.STRIP
    try:
        sass.scores.STRIP = strip
        for one, other in zip(taken(*made), expected):
            assert np.array_equal(one, other)
    finally:
        sass.scores.STRIP = held


def test_the_first_of_equal_codes_is_the_nearest():
    twice = Classifier(
        CODES.weights[[0, 1, 1]], np.array([9.0, -9, -9]), np.arange(3), np.array([0, 2, 3]), 1.0
    )
    codes = np.full(CELLS, -1)
    all_seen = store(1, np.ones(CELLS, bool))
    assert sum(1 for _ in class_scores(all_seen, Window(0, 0, *CELLS), twice, lambda scores: (), codes))
    assert (codes == 1).all()


@given(windows())
def test_the_best_two_classes_of_a_pixel_need_not_know_of_the_others(made):
    stride, window = made

    def two_best(two: bool) -> list[np.ndarray]:
        codes, found = np.full(window.cells(stride).shape, -1), []
        for _, values, _ in class_scores(store(stride), window, CODES, best_two, codes, two):
            found.append(values)
        return [*map(np.concatenate, zip(*found)), codes]

    for one, other in zip(two_best(True), two_best(False), strict=True):
        assert np.array_equal(one, other)


@given(hnp.arrays(np.float32, (5, 40), elements=st.floats(-3, 3, width=16)))
def test_the_best_two_are_those_of_a_sorted_list(scores):
    best, second, index = best_two(scores)
    ordered = np.sort(scores, axis=0)
    assert np.array_equal(best, ordered[-1]) and np.array_equal(second, ordered[-2])
    assert np.array_equal(index, scores.argmax(0))
