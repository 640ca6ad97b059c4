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
    not fought over. Where several items raise, it is the error of the first of them that comes.
    """
    items = iter(items)
    with threadpool_limits(1):
        while batch := list(islice(items, 4 * threads)):
            tasks = [dask.delayed(_outcome, pure=False)(function, item) for item in batch]
            scheduler = "threads" if threads > 1 else "synchronous"
            for result, error in dask.compute(*tasks, scheduler=scheduler, num_workers=threads):
                if error:
                    raise error
                yield result


def _outcome(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        return None, error
