"""How long a plan takes on a cluster: its critical path, and a simulation job by job. Pure arithmetic."""

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A job of the workflow; ``after`` are the numbers of the jobs it waits for, all smaller than its own."""

    stage: str
    seconds: float
    """From its start to its end on a node that it has asked for."""
    cores: int
    gpus: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What may be in use at once."""

    cores: int
    gpus: int
    jobs: int
    """Jobs that run side by side."""


@dataclass(frozen=True)
class Schedule:
    """When a simulated cluster did what."""

    seconds: float
    spans: dict[str, tuple[float, float]]
    """Stage to the start of its first job and the end of its last one."""


def critical_path(jobs: Sequence[Job]) -> tuple[float, list[int]]:
    """Return the seconds and the jobs of the longest chain: no cluster is faster than that."""
    ends, before = [], []
    for job in jobs:
        last = max(job.after, key=ends.__getitem__, default=None)
        before.append(last)
        ends.append(job.seconds + (0 if last is None else ends[last]))
    chain: list[int] = []
    last = max(range(len(jobs)), key=ends.__getitem__, default=None)
    while last is not None:
        chain.append(last)
        last = before[last]
    return max(ends, default=0.0), chain[::-1]


def simulate(jobs: Sequence[Job], cluster: Cluster) -> Schedule:
    """Run the jobs on a cluster: whatever is ready and fits starts at once, the oldest of a kind first.

    A job that asks for more cores than there are gets all of them, as Snakemake does it, in the same time.
    """
    asks = [(min(job.cores, cluster.cores), min(job.gpus, cluster.gpus)) for job in jobs]
    waiting = [len(set(job.after)) for job in jobs]
    then: dict[int, list[int]] = defaultdict(list)
    for number, job in enumerate(jobs):
        for earlier in set(job.after):
            then[earlier].append(number)
    # queues by what is asked for: of equal jobs only the first need be looked at
    ready: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    for number in range(len(jobs)):
        if not waiting[number]:
            ready[asks[number]].append(number)
    free = [cluster.cores, cluster.gpus, cluster.jobs]
    running: list[tuple[float, int]] = []
    now, spans = 0.0, {}
    while True:
        while free[2] and (fitting := [q[0] for q in ready.values() if q and _fits(asks[q[0]], free)]):
            number = min(fitting)
            ready[asks[number]].popleft()
            _take(asks[number], free, 1)
            heapq.heappush(running, (now + jobs[number].seconds, number))
            start, end = spans.get(jobs[number].stage, (now, now))
            spans[jobs[number].stage] = (start, max(end, now + jobs[number].seconds))
        if not running:
            return Schedule(now, spans)
        now, number = heapq.heappop(running)
        _take(asks[number], free, -1)
        for later in then[number]:
            waiting[later] -= 1
            if not waiting[later]:
                ready[asks[later]].append(later)


def _fits(asked: tuple[int, int], free: list[int]) -> bool:
    return asked[0] <= free[0] and asked[1] <= free[1]


def _take(asked: tuple[int, int], free: list[int], sign: int) -> None:
    for i, amount in enumerate((*asked, 1)):
        free[i] -= sign * amount
