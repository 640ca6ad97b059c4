"""Windows side by side: their order, what is held of them, and how errors and early ends come through."""

import gc
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sass.parallel import AHEAD, abreast, ordered_map


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 4))
def test_results_come_in_the_order_of_their_items(count, threads):
    assert list(ordered_map(lambda n: n * n, range(count), threads)) == [n * n for n in range(count)]


def test_a_slow_item_keeps_no_other_thread_waiting_for_long_and_few_results_are_held():
    begun, go = [], threading.Event()

    def work(n: int) -> int:
        begun.append(n)
        if n == 0:
            assert go.wait(30)
        return n

    results = ordered_map(work, range(1000), 2)
    first = threading.Thread(target=lambda: next(results))
    first.start()
    until = time.monotonic() + 30
    while len(begun) < (AHEAD + 1) * 2 and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)  # time to begin too many
    assert len(begun) == (AHEAD + 1) * 2
    go.set()
    first.join()
    assert list(results) == list(range(1, 1000))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_error_of_the_first_item_that_fails_comes_after_what_is_before_it(threads):
    def work(n: int) -> int:
        if n in (40, 41, 90):
            raise ValueError(str(n))
        return n

    got = []
    with pytest.raises(ValueError, match=r"^40$"):
        for n in ordered_map(work, range(200), threads):
            got.append(n)
    assert got == list(range(40))


def test_who_takes_no_more_leaves_no_thread_behind():
    before, done = threading.active_count(), []
    results = ordered_map(done.append, range(100_000), 2)
    next(results)
    results.close()
    assert len(done) < 100
    assert threading.active_count() <= before


def test_nothing_is_left_of_a_hundred_small_scenes():
    def held() -> int:
        gc.collect()
        return len(gc.get_objects())

    list(ordered_map(abs, range(3), 2))
    before = held()
    for _ in range(100):
        list(ordered_map(abs, range(3), 2))
    assert held() < before + 100


def test_items_that_end_in_an_error_end_so():
    def items():
        yield from range(5)
        raise OSError("no more of them")

    with pytest.raises(OSError, match="no more of them"):
        list(ordered_map(lambda n: n, items(), 2))


def counting(numbers, closed=None):
    """Yield numbers, and note in ``closed`` that there is no more to be yielded."""
    try:
        yield from numbers
    finally:
        if closed is not None:
            closed.append(threading.current_thread())


@settings(deadline=None)
@given(st.lists(st.lists(st.integers()), min_size=1, max_size=6))
def test_generators_go_abreast_each_in_its_order_until_one_ends(lists):
    numbered = [[(i, n) for n in numbers] for i, numbers in enumerate(lists)]
    assert list(abreast([counting(items) for items in numbered])) == [list(row) for row in zip(*numbered)]


def test_generators_run_at_the_same_time_and_each_on_its_own_thread():
    meet = threading.Barrier(2, timeout=30)

    def meeting():
        for _ in range(3):
            meet.wait()
            yield threading.get_ident()

    rows = list(abreast([meeting(), meeting()]))
    assert rows == rows[:1] * 3 and len(set(rows[0])) == 2


def test_what_a_generator_raises_ends_all_and_leaves_none_open():
    closed, before = [], threading.active_count()

    def failing():
        yield 1
        raise ValueError("of the scene")

    with pytest.raises(ValueError, match="of the scene"):
        list(abreast([counting(range(10**9), closed), failing()]))
    assert len(closed) == 1 and threading.active_count() == before


def test_who_takes_no_more_of_generators_leaves_none_open():
    closed, before = [], threading.active_count()
    taken = abreast([counting(range(10**9), closed) for _ in range(3)])
    next(taken)
    taken.close()
    assert len(closed) == 3 and threading.active_count() == before
