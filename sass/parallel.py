"""Windows side by side on the threads of one machine, by Dask."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import dask
from threadpoolctl import threadpool_limits

AHEAD = 2
"""Items of a batch, for each thread. One batch is computed while the results of the one before are taken."""


def ordered_map(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of the items, computed a few ahead on ``threads`` threads.

    The results of two batches are held, so memory does not grow with the number of items. Numerical libraries
    are kept to one thread each: results then do not depend on ``threads``, and cores are not fought over.
    Where several items raise, it is the error of the first of them that comes.
    """
    items = iter(items)
    with threadpool_limits(1):
        if threads == 1:
            yield from map(function, items)
            return

        def batch() -> tuple[tuple[Any, Exception | None], ...]:
            tasks = [
                dask.delayed(_outcome, pure=False)(function, item) for item in islice(items, AHEAD * threads)
            ]
            return dask.compute(*tasks, scheduler="threads", num_workers=threads)

        with ThreadPoolExecutor(1, "batches") as ahead:
            given = ahead.submit(batch)
            while results := given.result():
                given = ahead.submit(batch)
                for result, error in results:
                    if error:
                        raise error
                    yield result


def _outcome(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        return None, error
