"""How good maps are, configuration by configuration and seed by seed, on a set with labels.

    python -m bench.quality small --scenes 'dubai/images/*.jpg' --labels 'dubai/labels/*.png' --classes 5

Every row goes through the stages that users run. Scan, ingest and normalize are done once for all rows,
training once for all rows that differ only after it. What stands in the results is not measured again.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from bench.machine import about, measured
from bench.rows import CLUSTERING, ROWS, SHARED, Job, Suite, load_suite, plan
from bench.scores import Labelled, linear_probe, named_codes
from bench.table import Record, markdown
from sass.benchmark.run import call_stage, configure, linked_run
from sass.catalog import fit_shards, load_index, load_labels, load_shard
from sass.errors import ConfigError, SassError
from sass.files import digest, file_digest, read_json, remove, replacing, write_json
from sass.fingerprint import stage_fingerprint
from sass.run import Run
from sass.settings import assignment, load, stage_settings
from sass.train import train_encoder

RESULTS = Path(__file__).parent / "results"


def data_digest(archive: Run) -> str:
    """Hash the bytes of all scenes and label rasters of a catalog."""
    shards = load_index(archive)
    scenes = {
        name: [file_digest(Path(path)) for path in scene.paths]
        for shard in shards
        for name, scene in load_shard(archive, shard).items()
    }
    labels = {
        name: file_digest(Path(label.path))
        for shard in shards
        for name, label in load_labels(archive, shard).items()
    }
    if not labels:
        raise SassError("no scene of the archive has labels, so there is nothing to score; check --labels")
    return digest(scenes, labels)


def measure(job: Job, archive: Run, threads: int) -> Record:
    """Do a row with a seed, from training to score, but for what an earlier row has done of it."""
    settings = job.settings
    run = linked_run(archive, f"encoders/{job.encoder}", settings)
    fit = fit_shards(load_index(run), settings.catalog)

    def train() -> None:
        objective = job.row.objective_class()
        train_encoder(run, fit, settings.model, settings.train, threads, objective)

    def stage(name: str) -> None:
        call_stage(name, str(run.root), "--threads", str(threads))

    trained = _once(run, job, "train", train)
    made = _once(run, job, "features", lambda: stage("features"))
    with measured() as rest:
        for name in CLUSTERING:
            stage(name)
    metrics = read_json(run.metrics)
    spent = [trained, made, rest]
    if job.row.baseline:
        metrics, spent = metrics["baselines"][job.row.baseline], [rest]
        uses_labels: dict[str, Any] = {"named": None, "probe": None}
    else:
        labelled = Labelled(run, settings.evaluate.ignore)
        uses_labels = {"named": named_codes(labelled), "probe": linear_probe(labelled, job.seed)}
    return {
        "name": job.row.name,
        "group": job.row.group,
        "seed": job.seed,
        "fingerprint": job.fingerprint,
        "overrides": job.row.overrides,
        "objective": job.row.objective,
        "accuracy": metrics["accuracy"],
        "miou": metrics["miou"],
        **uses_labels,
        "train_seconds": None if job.row.baseline else trained["seconds"],
        "seconds": round(sum(part["seconds"] for part in spent), 1),
        **{
            key: max((part[key] for part in spent if part[key]), default=None)
            for key in ("peak_mb", "gpu_mb")
        },
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _once(run: Run, job: Job, stage: str, work: Callable[[], None]) -> dict[str, float | None]:
    """Do a stage unless an earlier row has; return what it took, now or then."""
    record = run.root / f"{stage}.json"
    key = digest(stage_fingerprint(stage), stage_settings(job.settings, stage))
    if record.exists() and (stood := read_json(record))["key"] == key:
        return stood["spent"]
    with measured() as spent:
        work()
    write_json(record, {"key": key, "spent": spent})
    return spent


def _leave(run: Run) -> None:
    """Remove what only takes room once all rows of an encoder are done; the encoder stays."""
    for part in ("features.json", "features", "manifests/features", "segments", "manifests/segment"):
        remove(run.root / part)


@dataclass
class Results:
    """The measured rows, in a file that is written after each."""

    path: Path

    def __post_init__(self):
        rows = read_json(self.path)["rows"] if self.path.exists() else []
        self.rows: dict[tuple[str, int], Record] = {(row["name"], row["seed"]): row for row in rows}

    def standing(self, job: Job) -> Record | None:
        """Return what was measured of a job, if nothing that determines it has changed."""
        record = self.rows.get((job.row.name, job.seed))
        return record if record and record["fingerprint"] == job.fingerprint else None

    def put(self, record: Record) -> None:
        """Take up a row in the place of an earlier one of its name and seed."""
        self.rows[record["name"], record["seed"]] = record
        write_json(self.path, {"rows": [self.rows[key] for key in sorted(self.rows)]})


def run_quality(
    suite: Suite,
    name: str,
    scan: list[str],
    base: dict[str, Any],
    *,
    into: Path,
    results: Path,
    only: list[str],
    seeds: int,
    threads: int,
) -> tuple[str, list[str]]:
    """Measure what is not measured yet and write the table.

    Parameters
    ----------
    name
        Of the results: ``<name>.json`` and ``<name>.md`` in the folder ``results``.
    scan
        What `sass scan` is to be called with: patterns, and those of labels.
    base
        The configuration under all rows.
    into
        Folder of the runs.
    only
        Names of the rows to measure; all of them, if there is none.

    Returns
    -------
    table
        Markdown.
    failed
        A line for each row and seed that could not be measured.
    """
    made_by = about(threads)  # now: the tree may be changed and committed while rows are measured
    archive = Run(into)
    configure(archive, load(base))
    call_stage("scan", *scan, "--into", str(archive.root))
    jobs = plan(suite, seeds, data_digest(archive), base)
    stood = Results(results / f"{name}.json")
    waiting = [job for job in jobs if not stood.standing(job) and (not only or job.row.name in only)]
    if waiting:
        for stage in SHARED:
            call_stage(stage, str(archive.root), "--threads", str(threads))
    sharing: dict[str, dict[str, list[Job]]] = {}
    for job in waiting:
        sharing.setdefault(job.encoder, {}).setdefault(job.features, []).append(job)
    failed, done = [], 0
    for encoder, by_features in sharing.items():
        for job in chain.from_iterable(by_features.values()):
            done += 1
            print(f"== {done}/{len(waiting)}: {job.row.name}, seed {job.seed}", file=sys.stderr, flush=True)
            try:
                stood.put(measure(job, archive, threads) | made_by)
            except SassError as error:
                failed.append(f"{job.row.name}, seed {job.seed}: {error}")
        _leave(Run(archive.root / "encoders" / encoder))
    rows = [
        (
            row.name,
            row.group,
            [r for job in jobs if job.row == row and (r := stood.standing(job))],
            row.missing,
        )
        for row in suite.rows
    ]
    table = markdown(name, rows, seeds)
    with replacing(results / f"{name}.md") as path:
        path.write_text(table, encoding="utf-8")
    return table, failed


def main(arguments: list[str] | None = None) -> int:
    """Run a suite; exit 1 if a row could not be measured."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m bench.quality", description=__doc__, formatter_class=plain)
    parser.add_argument("suite", help="small (a CPU, minutes) or full (a GPU)")
    parser.add_argument("--scenes", required=True, metavar="PATTERN", help="scenes, as sass scan takes them")
    parser.add_argument("--labels", required=True, metavar="PATTERN", help="label rasters, matched by stem")
    parser.add_argument("--classes", type=int, required=True, help="number of classes of the labels")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value for all rows that do not set it",
    )
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="measure this row alone")
    parser.add_argument("--seeds", type=int, help="seeds of each row, instead of the suite's number")
    parser.add_argument("--name", help="of the results (quality-SUITE); one for each set of scenes")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="declares suites and rows")
    parser.add_argument("--into", type=Path, help="folder of the runs (results/NAME)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results and tables")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads to use")
    args = parser.parse_args(arguments)
    name = args.name or f"quality-{args.suite}"
    try:
        suite = load_suite(args.rows, args.suite)
        unknown = sorted(set(args.only) - {row.name for row in suite.rows})
        if unknown:
            raise ConfigError(f"the suite {args.suite} has no row {', '.join(unknown)}")
        given = [assignment(text) for text in args.set]
        base = load(suite.settings, *given, {"segment": {"classes": args.classes}}).model_dump(mode="json")
        with contextlib.redirect_stdout(sys.stderr):  # the table alone is the result
            table, failed = run_quality(
                suite,
                name,
                [args.scenes, "--labels", args.labels],
                base,
                into=args.into or Path("results") / name,
                results=args.results,
                only=args.only,
                seeds=args.seeds or suite.seeds,
                threads=args.threads,
            )
    except SassError as error:
        print(f"bench.quality: {error}", file=sys.stderr)
        return 1
    print(table)
    for line in failed:
        print(f"not measured: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
