"""Ratios that a busy machine hardly changes: two things done in turn, the median of what each pair says."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    stage, metric
        What was measured of what.
    value
        The number that is judged, as a rule a ratio.
    limit
        What it is a ratio to, by the name of the function that says so, or in words.
    reach
        Where it should be; None where nothing was set.
    at
        ``>=`` or ``<=``: on which side of it.
    ok
        Whether it is there; None where nothing was set.
    ours, bare
        The two numbers of a ratio, medians, in ``unit``.
    spread
        Lowest and highest of the single ratios, and how many there were.
    note
        What a reader should know of it.
    """

    stage: str
    metric: str
    value: float
    limit: str
    reach: float | None = None
    at: str = ">="
    ours: float | None = None
    bare: float | None = None
    unit: str = ""
    spread: tuple[float, float, int] | None = None
    note: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the value is where it should be."""
        if self.reach is None:
            return None
        return self.value >= self.reach if self.at == ">=" else self.value <= self.reach

    def as_json(self) -> dict[str, Any]:
        """Return plain data, numbers with four digits."""
        return {key: _short(value) for key, value in asdict(self).items()} | {"ok": self.ok}


@dataclass(frozen=True)
class Pairs:
    """Seconds of two things done in turn."""

    ours: list[float]
    bare: list[float]

    def row(self, stage: str, metric: str, limit: str, work: tuple[float, str], **more: Any) -> Row:
        """Return how fast ours is as a share of how fast the bare one is.

        Parameters
        ----------
        work
            How much either did, and in what; both speeds are given in it by second.
        """
        ratios = [bare / ours for ours, bare in zip(self.ours, self.bare)]
        amount, unit = work
        return Row(
            stage,
            metric,
            statistics.median(ratios),
            limit,
            ours=amount / statistics.median(self.ours),
            bare=amount / statistics.median(self.bare),
            unit=f"{unit}/s",
            spread=(min(ratios), max(ratios), len(ratios)),
            **more,
        )


def alternated(ours: Work, bare: Work, times: int) -> Pairs:
    """Do both once unmeasured, then in turn, each as often.

    Either may return the seconds that count, where it does more than that.
    """
    ours(), bare()
    taken = [(_seconds(ours), _seconds(bare)) for _ in range(times)]
    return Pairs(*map(list, zip(*taken)))


def _seconds(work: Work) -> float:
    started = time.perf_counter()
    counted = work()
    return counted if isinstance(counted, float) else time.perf_counter() - started


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_short(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(rows: list[Row]) -> str:
    """Lay rows out in Markdown."""
    heads = ("metric", "value", "reach", "ok", "ours", "limit", "of what", "spread")
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---|---|---:|---:|---|---|"]
    for row in rows:
        reach = "" if row.reach is None else f"{row.at} {row.reach:g}"
        ok = {True: "yes", False: "**no**", None: ""}[row.ok]
        pair = [f"{v:.4g} {row.unit}" if v is not None else "" for v in (row.ours, row.bare)]
        spread = "{:.3g} to {:.3g}, {} times".format(*row.spread) if row.spread else ""
        said = f"{row.metric} ({row.note})" if row.note else row.metric
        lines.append(f"| {' | '.join([said, f'{row.value:.3g}', reach, ok, *pair, row.limit, spread])} |")
    return "\n".join(lines) + "\n"
