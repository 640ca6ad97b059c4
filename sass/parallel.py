"""Windows on the threads of one machine: a function of each, by Dask, or generators that go abreast."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from queue import SimpleQueue
from threading import Event, Lock, Semaphore
from typing import Any

from dask.threaded import get
from threadpoolctl import threadpool_limits

AHEAD = 2
"""Results that may wait for their turn, for each thread."""
GRAPH, LARGEST = 16, 256
"""Tasks of the first graph and of the largest, for each thread. Where one ends, threads wait for each other;
the next has twice as many, and many take long to set up."""


def ordered_map(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of the items, computed a few ahead on ``threads`` threads.

    A few results are held, so memory does not grow with the number of items. Numerical libraries are kept to
    one thread each: results then do not depend on ``threads``, and cores are not fought over. Where several
    items raise, it is the error of the first of them that comes.
    """
    with threadpool_limits(1):
        if threads == 1:
            yield from map(function, items)
            return
        numbered, turn = enumerate(items), Lock()
        room, ready, ended = Semaphore((AHEAD + 1) * threads), SimpleQueue(), Event()

        def task() -> None:
            """Do the next item, whichever it is: Dask may run tasks in any order."""
            room.acquire()
            with turn:
                number, item = next(numbered, (None, None))
            if number is None or ended.is_set():
                ended.set()
                room.release()
                return
            try:
                ready.put((number, function(item), None))
            except Exception as error:
                ready.put((number, None, error))

        def run() -> None:
            size = GRAPH * threads
            try:
                while not ended.is_set():
                    graph = {("window", i): (task,) for i in range(size)}
                    get(graph, list(graph), pool=pool)
                    size = min(2 * size, LARGEST * threads)
            finally:
                ready.put(None)

        # Dask would make a pool for each thread that asks, and keep it
        with ThreadPoolExecutor(threads, "windows") as pool, ThreadPoolExecutor(1, "graphs") as runner:
            done = runner.submit(run)
            try:
                yield from _sorted(iter(ready.get, None), room)
                done.result()
            finally:
                ended.set()
                room.release(threads)


def abreast(made: Sequence[Generator[Any, None, None]]) -> Iterator[list[Any]]:
    """Yield the next items of all generators together, each run on a thread of its own, an item ahead.

    It ends where one of them does. What one raises ends all, and all are closed in any case.
    """
    with ExitStack() as opened:
        for generator in made:
            opened.enter_context(closing(generator))
        threads = [opened.enter_context(ThreadPoolExecutor(1, "generator")) for _ in made]

        def ask() -> list[Future]:
            return [thread.submit(next, generator, None) for thread, generator in zip(threads, made)]

        ahead = ask()
        while None not in (items := [future.result() for future in ahead]):
            ahead = ask()
            yield items


def _sorted(results: Iterable[tuple[int, Any, Exception | None]], room: Semaphore) -> Iterator[Any]:
    """Yield numbered results in their order, or raise; make room for another with each."""
    waiting, turn = {}, 0
    for number, *outcome in results:
        waiting[number] = outcome
        while turn in waiting:
            result, error = waiting.pop(turn)
            turn += 1
            room.release()
            if error:
                raise error
            yield result
