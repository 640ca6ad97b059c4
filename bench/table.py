"""The results as a table in Markdown: mean and deviation over seeds."""

import statistics
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
"""What was measured of a row with a seed, as it stands in the results."""
Measured = tuple[str, str, list[Record], list[str]]
"""Name and group of a row, its records, and the packages that it lacks."""

TITLES = {
    "sass": "SASS",
    "ablation": "SASS, one thing changed",
    "clustering": "SASS, clustered otherwise",
    "peer": "objectives of others, same encoder, data and budget",
    "encoder": "encoders of others, pretrained and frozen",
    "baseline": "k-means on other features",
}
SCORES: list[tuple[str, Callable[[Record], float | None]]] = [
    ("accuracy", lambda r: r["accuracy"]),
    ("mIoU", lambda r: r["miou"]),
    ("named: accuracy*", lambda r: r["named"] and r["named"]["accuracy"]),
    ("named: mIoU*", lambda r: r["named"] and r["named"]["miou"]),
    ("probe: accuracy*", lambda r: r["probe"] and r["probe"]["accuracy"]),
    ("probe: mIoU*", lambda r: r["probe"] and r["probe"]["miou"]),
]
COSTS = [("train s", "train_seconds"), ("whole s", "seconds"), ("peak MB", "peak_mb"), ("GPU MB", "gpu_mb")]


def markdown(name: str, rows: list[Measured], seeds: int) -> str:
    """Lay rows out by group; percent, mean +- standard deviation (n - 1) over seeds."""
    heads = ["", "seeds", *(head for head, _ in SCORES), *(head for head, _ in COSTS)]
    lines = [f"# {name}", "", _line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    for group, title in TITLES.items():
        members = [row for row in rows if row[1] == group]
        if members:
            lines.append(_line([f"**{title}**", *[""] * (len(heads) - 1)]))
            lines += [_line(_cells(*row)) for row in members]
    records = [record for _, _, found, _ in rows for record in found]
    lines += [
        "",
        "Percent, mean +- standard deviation over seeds. \\* uses labels. Columns: see bench/README.md.",
        "",
        *(f"- {line}" for line in _provenance(records)),
        *(
            f"- {row}: left out, for want of the package {', '.join(missing)}"
            for row, _, _, missing in rows
            if missing
        ),
    ]
    left = [row for row, _, found, missing in rows if len(found) < seeds and not missing]
    if left:
        lines.append(f"- not measured with all {seeds} seeds as things stand: {', '.join(left)}")
    return "\n".join(lines) + "\n"


def _cells(name: str, group: str, records: list[Record], missing: list[str]) -> list[str]:
    scores = [_spread([value for r in records if (value := of(r)) is not None]) for _, of in SCORES]
    costs = [[r[key] for r in records if r[key] is not None] for _, key in COSTS]
    return [
        name,
        str(len(records) or "-"),
        *scores,
        *(f"{statistics.mean(c):.0f}" if c else "-" for c in costs),
    ]


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} +- {100 * statistics.stdev(values):.1f}"


def _provenance(records: list[Record]) -> list[str]:
    """Say what the rows were measured on: a line for each commit, device and version."""
    made = {}
    for record in records:
        state = " with changes" if record["dirty"] else ""
        key = f"commit {record['commit']}{state}, {record['device']}, torch {record['torch']}"
        made.setdefault(key, []).append(record["date"])
    return [f"{key}: {len(dates)} measurements, {min(dates)} to {max(dates)}" for key, dates in made.items()]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
