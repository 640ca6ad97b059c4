"""How fast every stage is, as a share of what could be: one command, a table for each stage.

    python -m bench.speed                      ratios at 10 megapixels, memory at 20 and 100; minutes
    python -m bench.speed --full               memory at 1,000 megapixels too; hours and 40 GB of disk
    python -m bench.speed --only segment       one stage, and those before it that it needs

Every ratio is of two things done in turn in one process. bench/README.md says what is compared and why.
"""

import argparse
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import stages
from bench.machine import about
from bench.memory import growth_of_codebook, memory
from bench.plan import plan
from bench.ratio import Row, table
from bench.stages import Subject
from bench.users import beside, peers
from bench.workers import growth_of_scenes, threads
from sass.files import replacing
from sass.settings import assignment

RESULTS = Path(__file__).parent / "results"
RATIOS = ("ingest", "training", "features", "codebook", "segment")
"""Stages in the order of the data: each needs those before it."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, write ``results/<stage>.json`` and print the tables."""
    parser = argparse.ArgumentParser("python -m bench.speed", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("results/speed"), help="folder for scenes and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the rows")
    parser.add_argument("--megapixels", type=float, default=10, help="of the measured scene (10)")
    parser.add_argument(
        "--memory", type=float, nargs=2, default=None, metavar=("SMALL", "LARGE"),
        help="megapixels of the scenes whose peaks are compared (20 100)",
    )  # fmt: skip
    parser.add_argument("--small", type=float, default=0.8, help="megapixels of a scene among several (0.8)")
    parser.add_argument("--full", action="store_true", help="peaks of 100 and 1000 megapixels")
    parser.add_argument("--times", type=int, default=5, help="pairs of each ratio (5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a stage and of its limit (2)")
    parser.add_argument(
        "--labelled", nargs=4, metavar=("SCENES", "LABELS", "CLASSES", "CONFIG"),
        help="scenes on which a whole run stands beside what people do instead",
    )  # fmt: skip
    parser.add_argument("--only", action="append", help="a table; may be repeated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of sass")
    args = parser.parse_args(arguments)
    layers = [assignment(text) for text in args.set]
    subject = Subject(args.into.absolute(), args.megapixels, args.times, args.threads, layers)
    small, large = args.memory or ((100, 1000) if args.full else (20, 100))
    tables = {stage: lambda stage=stage: getattr(stages, stage)(subject) for stage in RATIOS}
    tables |= {
        "whole": lambda: stages.whole(subject),
        "growth": lambda: [
            *growth_of_codebook(subject),
            *growth_of_scenes(subject, args.results / "growth.svg", args.small),
        ],
        "threads": lambda: threads(subject, args.small),
        "memory": lambda: memory(subject, small, large),
        "plan": lambda: plan(subject),
    }
    if args.labelled:
        scenes, labels, classes, config = args.labelled
        tables["peers"] = lambda: peers(subject, scenes, labels, int(classes), Path(config))
    wanted = set(args.only or tables)
    if unknown := wanted - set(tables):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; there are {', '.join(tables)}")
    made = about(args.threads) | {"date": datetime.now(UTC).strftime("%Y-%m-%d")}
    rows: list[Row] = []
    for name, measure in tables.items():
        if name in wanted or (name in RATIOS and _needed(name, wanted)):
            started = time.monotonic()
            got = measure()
            print(f"== {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            print(f"\n### {name}\n\n{beside(got) if name == 'peers' else table(got)}", flush=True)
            write_rows(args.results / f"{name}.json", got, made)
            rows += got
    shutil.rmtree(subject.folder, ignore_errors=True)
    missed = [f"{row.stage}: {row.metric}" for row in rows if row.ok is False]
    print(f"{made['device']}, commit {made['commit']}, {made['date']}")
    print(f"out of reach: {'; '.join(missed)}" if missed else "all within reach")


def _needed(name: str, wanted: set[str]) -> bool:
    """Tell whether a stage must be run for one after it."""
    later = {*RATIOS[RATIOS.index(name) + 1 :], "growth"} - {"training"}
    return "whole" in wanted or (name != "training" and bool(wanted & later))


def write_rows(path: Path, rows: list[Row], made: dict[str, Any]) -> None:
    """Write rows as a JSON list, each with what it was measured on."""
    with replacing(path) as temporary:
        lines = [json.dumps(row.as_json() | made) for row in rows]
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
