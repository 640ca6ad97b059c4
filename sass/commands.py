"""What each command does: read the configuration, call a stage, print. Heavy imports wait for the call."""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sass.catalog import ShardInfo, fit_shards, load_broken, load_index
from sass.config import Config
from sass.errors import SassError, SceneError
from sass.files import read_json, replacing, write_json
from sass.manifest import Outcome, completion, failures, needed
from sass.run import SHARD_STAGES, Run
from sass.settings import assignment, default_yaml, load, schema

SET_ASIDE = 3
"""Exit code: all was done that could be, but scenes were set aside."""

FAULTS = 4
"""Exit code: something in the run is not as it was written."""

LEFT = 5
"""Exit code: nothing is wrong, but there is work left, or jobs are at it."""

NEEDS = {
    "train": ("statistics", "normalize"),
    "features": ("encoder", "train"),
    "hierarchy": ("codebook", "codebook"),
    "name": ("hierarchy", "hierarchy"),
    "segment": ("hierarchy", "hierarchy"),
    "report": ("metrics", "evaluate"),
}
"""What of a run must be there before a command, and the command that makes it."""


def _load(args: argparse.Namespace, root: Path) -> tuple[Run, Config]:
    run = Run(root)
    own = args.config or (run.config if run.config.exists() else None)
    config = load(own, *(assignment(text) for text in args.set))
    if args.command in NEEDS:
        load_index(run)  # a run without a catalog says so first
        # embeddings that others have made need what training needs, and no encoder
        imports = args.command == "features" and config.features.source
        name, stage = NEEDS["train" if imports else args.command]
        needed(getattr(run, name), f"sass {stage} {root}")
    return run, config


def _over_shards(args: argparse.Namespace, work: Callable[[Run, str, Config], Outcome]) -> int:
    """Do a stage on one shard or on all; return its exit code."""
    run, config = _load(args, args.run)
    shards = _shards(args, load_index(run))
    failed = [scene for shard in shards for scene in work(run, shard, config).failed]
    return SET_ASIDE if failed and not args.set_aside else 0


def scan(args: argparse.Namespace) -> int:
    """Find scenes and give each a shard."""
    from sass.scan import scan

    run, config = _load(args, args.into)
    result = scan(
        run,
        args.patterns,
        labels=args.labels,
        settings=config.catalog,
        dry_run=args.dry_run,
        prune=args.prune,
    )
    if args.config and not args.dry_run:
        with replacing(run.config) as path:
            path.write_bytes(args.config.read_bytes())
    print(result)
    return SET_ASIDE if result.broken else 0


def ingest(args: argparse.Namespace) -> int:
    """Turn the rasters of a shard, or of all, into stores."""
    from sass.ingest import ingest_shard

    return _over_shards(
        args, lambda run, shard, config: ingest_shard(run, shard, config.ingest, args.threads, config.dask)
    )


def normalize(args: argparse.Namespace) -> None:
    """Fit and print the statistics of each band."""
    from sass.statistics import normalize_archive

    run, config = _load(args, args.run)
    normalize_archive(run, _fit(run, config), config.normalize)
    for band in read_json(run.statistics)["bands"]:
        print(f"{band['name']}: median {band['median']:g}, spread {band['spread']:g}")


def train(args: argparse.Namespace) -> None:
    """Train the encoder, or write down a frozen one."""
    from sass.train import train_archive

    run, config = _load(args, args.run)
    if config.features.source:
        print(f"nothing to train: features.source brings the embeddings ({config.features.source})")
        return
    train_archive(run, _fit(run, config), config.model, config.train, args.threads)


def features(args: argparse.Namespace) -> int:
    """Embed the scenes of a shard, or of all."""
    from sass.features import features_shard

    return _over_shards(
        args, lambda run, shard, config: features_shard(run, shard, config.features, args.threads)
    )


def codebook(args: argparse.Namespace) -> None:
    """Fit the fine codes."""
    from sass.cluster.codebook import Codes, codebook_archive

    run, config = _load(args, args.run)
    codebook_archive(run, _fit(run, config), config.codebook, args.threads, config.dask)
    fitted = Codes.load(run.codebook)
    sizes = f"sizes {fitted.sizes.min()} to {fitted.sizes.max()}"
    print(f"{len(fitted.codes)} codes, {sizes}, spread {fitted.spread:.4f}")


def hierarchy(args: argparse.Namespace) -> None:
    """Grow the merge tree and print its diagnostics."""
    from sass.cluster.hierarchy import hierarchy_archive

    run, config = _load(args, args.run)
    hierarchy_archive(run, config.hierarchy)
    for row in read_json(run.hierarchy)["diagnostics"]:
        print(json.dumps(row))


def name(args: argparse.Namespace) -> None:
    """Name the classes by labelled places and print what each name rests on, or forget the names."""
    from sass.naming import forget, format_names, name_classes

    run, config = _load(args, args.run)
    again = f"now make the maps anew: snakemake --config run={args.run}, or sass segment {args.run}"
    if args.forget:
        forget(run)
        print(f"the classes of {args.run} are numbers again; {again}")
        return
    names = config.evaluate.class_names
    print(
        format_names(
            name_classes(run, _fit(run, config), args.points, args.field, args.crs, names, args.next)
        )
    )
    print(
        f"label next: {run.names.with_name('next.csv')} (fill in its first column and give it with --points)"
    )
    print(again)


def segment(args: argparse.Namespace) -> int:
    """Map the scenes of a shard, or of all."""
    from sass.segment import segment_shard

    names = Run(args.run).names
    if args.classes and names.exists():
        raise SassError(
            f"--classes {args.classes} would change nothing: the classes of this run are the "
            f"{len(read_json(names)['names'])} that {names} names; leave --classes out to map these, or give "
            f"`sass name {args.run} --forget` first to have numbers again"
        )
    if args.classes:
        args.set.append(f"segment.classes={args.classes}")
    return _over_shards(
        args, lambda run, shard, config: segment_shard(run, shard, config.segment, args.threads)
    )


def change(args: argparse.Namespace) -> int:
    """Compare the maps of a shard, or of all, with those before them."""
    from sass.change import change_shard

    if args.shard is None and not any(entry.earlier for entry in load_index(Run(args.run)).values()):
        print("no scene follows another of the same footprint with an earlier time: nothing to compare")
    return _over_shards(args, lambda run, shard, config: change_shard(run, shard, config.change))


def polygons(args: argparse.Namespace) -> int:
    """Write the polygons of the maps of some scenes, a shard, or all; return the exit code."""
    from sass.vectors import scenes_with_maps, write_polygons

    run = Run(args.run)
    folder, aside = args.into or run.root / "polygons", 0
    for scene in scenes_with_maps(run, _shards(args, load_index(run)), args.scene):
        try:
            path, count = write_polygons(run, scene, args.format, folder)
            print(f"{path}: {count} polygons", flush=True)
        except SceneError as error:
            aside += 1
            print(f"polygons: scene {scene} is set aside: {error}", file=sys.stderr)
    return SET_ASIDE if aside else 0


def evaluate(args: argparse.Namespace) -> int:
    """Fit baselines, count shards, or add up and match; without a word which, all of it."""
    from sass.baselines import baselines_archive
    from sass.evaluate import evaluate_shard, format_table, score_archive

    run, config = _load(args, args.run)
    index = load_index(run)
    labelled = [shard for shard, entry in index.items() if entry.labels]
    whole = not (args.baselines or args.shard or args.merge)
    code = 0
    if (whole and labelled) or args.baselines:
        baselines_archive(run, _fit(run, config), config.evaluate, config.segment.classes, config.model)
    for shard in _shards(args, index) if args.shard else labelled if whole else []:
        if evaluate_shard(run, shard, config.evaluate).failed and not args.set_aside:
            code = SET_ASIDE
    if whole or args.merge:
        for shard in index.keys() - labelled:  # whose labels are gone
            if run.manifest("evaluate", shard).exists():
                evaluate_shard(run, shard, config.evaluate)
                run.manifest("evaluate", shard).unlink()
        print(format_table(score_archive(run, list(index), config.evaluate)))
    return code


def report(args: argparse.Namespace) -> None:
    """Build the pages and print where they are."""
    from sass.report.build import build_report

    run, config = _load(args, args.run)
    index = load_index(run)
    print(build_report(run, config, archive=list(index), fit=_fit(run, config)))


def benchmark(args: argparse.Namespace) -> None:
    """Score on a public data set and print the table."""
    from sass.benchmark.run import format_result, run_benchmark

    run = Run(args.into or Path("results") / f"{args.benchmark}-{args.protocol}")
    layers = [args.config, *(assignment(text) for text in args.set)]
    result = run_benchmark(
        args.benchmark, args.protocol, args.root, run, *layers, seeds=args.seeds, threads=args.threads
    )
    print(format_result(result))


def complete(args: argparse.Namespace) -> int:
    """Say what was set aside; leave a word that all stands where nothing was."""
    run = Run(args.run)
    shards = list(load_index(run))
    broken = load_broken(run)
    aside = {
        **{path: f"scan: {reason}" for path, reason in broken.items()},
        **failures(run, shards, SHARD_STAGES),
    }
    for name, reason in aside.items():
        print(f"set aside: {name}: {reason}", file=sys.stderr)
    if aside:
        print(
            f"{len(aside)} set aside; everything else is complete. See {run.report / 'index.html'}",
            file=sys.stderr,
        )
        return SET_ASIDE
    write_json(run.complete, completion(run, shards))
    return 0


def status(args: argparse.Namespace) -> int:
    """Print what stands, runs and has failed."""
    from sass.status import as_json, as_text, status

    run, config = _load(args, args.run)
    found = status(run, config)
    print(json.dumps(as_json(found), indent=1) if args.json else as_text(found))
    return {"complete": 0, "failed": 1, "aside": SET_ASIDE}.get(found.state, LEFT)


def verify(args: argparse.Namespace) -> int:
    """Print what is not as it was written; with a repair, remove what must be made again."""
    from sass.verify.finding import Look, repair
    from sass.verify.run import verify

    run, faults, notes = Run(args.run), [], 0
    with ThreadPoolExecutor(args.threads) as pool:
        look = Look(run, args.quick, pool.map)
        for finding in verify(look, args.shard):
            print(finding, flush=True)
            faults += [finding] * finding.fault
            notes += not finding.fault
    said = f"{len(faults)} faults" if faults else "sound"
    print(
        f"{said}, {notes} notes: {look.scenes} scenes, {look.files} files, {look.read / 1e6:.1f} MB read",
        file=sys.stderr,
    )
    if faults and args.repair:
        for name in repair(run, faults):
            print(f"removed {name}")
        print("Run the workflow now: it makes again what is missing.", file=sys.stderr)
    return FAULTS if faults else 0


def explain(args: argparse.Namespace) -> None:
    """Print what a run will take."""
    from sass.cost import load_rates
    from sass.explain import as_json, as_text, explain
    from sass.simulate import Cluster

    run, config = _load(args, args.run)
    cluster = Cluster(args.cores, args.gpus, args.jobs)
    plan = explain(run, config, load_rates(args.rates), cluster, args.measured and Run(args.measured))
    print(json.dumps(as_json(plan), indent=1) if args.json else as_text(plan))


def completion_script(args: argparse.Namespace) -> None:
    """Print what a shell needs to complete the words of this command line."""
    from sass.completion import script

    print(script(args.shell, args.parser), end="")


def config(args: argparse.Namespace) -> None:
    """Print the default configuration or its schema."""
    print(
        json.dumps(schema(), indent=1) if args.schema else default_yaml(), end="" if not args.schema else "\n"
    )


def _shards(args: argparse.Namespace, index: dict[str, ShardInfo]) -> list[str]:
    """Return the shard that is asked for, or all."""
    if args.shard and args.shard not in index:
        held = f"{min(index)} to {max(index)}: name one of them, or none to do all" if index else "none"
        raise SassError(f"there is no shard {args.shard}; the catalog has {len(index)}, {held}")
    return [args.shard] if args.shard else list(index)


def _fit(run: Run, config: Config) -> list[str]:
    return fit_shards(load_index(run), config.catalog)
