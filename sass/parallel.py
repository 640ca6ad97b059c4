"""Windows side by side on the threads of one machine."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from threadpoolctl import threadpool_limits

AHEAD = 2
"""Results that may wait for their turn, for each thread."""


def ordered_map(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of the items, computed a few ahead on ``threads`` threads.

    A few results are held, so memory does not grow with the number of items. Numerical libraries are kept to
    one thread each: results then do not depend on ``threads``, and cores are not fought over. Where several
    items raise, it is the error of the first of them that comes.
    """
    items = iter(items)
    with threadpool_limits(1):
        if threads == 1:
            yield from map(function, items)
            return
        given: deque[Future] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="windows") as pool:
            try:
                given.extend(pool.submit(function, item) for item in islice(items, AHEAD * threads))
                while given:
                    yield given.popleft().result()
                    given.extend(pool.submit(function, item) for item in islice(items, 1))
            finally:
                for future in given:
                    future.cancel()
