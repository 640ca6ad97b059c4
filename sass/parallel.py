"""Windows side by side on one machine, by Dask."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import dask
from threadpoolctl import threadpool_limits


def ordered_map(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of the items, a few at a time on ``threads`` threads.

    Only one batch of results is held, so memory does not grow with the number of items. Numerical
    libraries are kept to one thread each: results then do not depend on ``threads``, and cores are
    not fought over.
    """
    items = iter(items)
    with threadpool_limits(1):
        while batch := list(islice(items, 4 * threads)):
            tasks = [dask.delayed(function, pure=False)(item) for item in batch]
            scheduler = "threads" if threads > 1 else "synchronous"
            yield from dask.compute(*tasks, scheduler=scheduler, num_workers=threads)


def each(function: Callable[[Any], None], items: Iterable[Any], threads: int) -> None:
    """Call ``function`` on every item, for its effect."""
    for _ in ordered_map(function, items, threads):
        pass
