"""The command line: parse, call a stage, print. Heavy imports wait until a stage is called."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sass import __version__
from sass.catalog import fit_shards, load_broken, load_index
from sass.config import Config, assignment, default_yaml, load, schema
from sass.errors import SassError
from sass.manifest import Outcome, digest, failures, file_digest, needed, write_json
from sass.run import SHARD_STAGES, Run

SET_ASIDE = 3
"""Exit code: all was done that could be, but scenes were set aside."""

NEEDS = {
    "train": ("statistics", "normalize"),
    "features": ("encoder", "train"),
    "hierarchy": ("codebook", "codebook"),
    "segment": ("hierarchy", "hierarchy"),
    "report": ("metrics", "evaluate"),
}
"""What of a run must be there before a command, and the command that makes it."""

TOUR = """\
From an archive of scenes to one consistent set of maps, without labels:

  sass scan 'archive/**/*.tif' --into results/mine     find the scenes (headers only)
  snakemake --config run=results/mine                  do all the stages below, on this machine
  snakemake --profile slurm --config run=results/mine  the same on a cluster

or stage by stage:

  ingest      rasters to Zarr stores             codebook    features to fine codes
  normalize   robust statistics of each band     hierarchy   codes to a merge tree
  train       the encoder                        segment     maps for any number of classes
  features    embeddings of every pixel          evaluate    scores against labels
                                                 report      pages to look at
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (0 all stands, 1 an error, 2 usage, 3 scenes were set aside)."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.call(parsed) or 0
    except SassError as error:
        print(f"sass {parsed.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("sass", description=TOUR, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"sass {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, call: Callable, about: str, example: str, run: bool = True
    ) -> argparse.ArgumentParser:
        text = f"{about}\n\nExample:\n  {example}"
        sub = commands.add_parser(name, help=about, description=text, formatter_class=plain)
        sub.set_defaults(call=call)
        if run:
            sub.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
        return sub

    def stage(
        name: str, call: Callable, about: str, example: str, shard: bool = False
    ) -> argparse.ArgumentParser:
        sub = command(name, call, about, example)
        _settings(sub)
        sub.add_argument("--threads", type=_count, default=_cores(), help="threads to use (all cores)")
        if shard:
            sub.add_argument("--shard", help="only this shard (all of them, one after the other)")
            sub.add_argument(
                "--set-aside",
                action="store_true",
                help="exit 0 though scenes were set aside: the manifest names them",
            )
        return sub

    scan = command(
        "scan",
        _scan,
        "Find scenes by their headers and give each a shard.",
        "sass scan 'archive/{scene}/B{band}.tif' --into results/mine --labels 'labels/*.tif'",
        run=False,
    )
    scan.add_argument(
        "patterns",
        nargs="+",
        metavar="PATTERN",
        help="raster, folder, glob, pattern with {scene} and {band}, CSV or Parquet list, STAC items",
    )
    scan.add_argument("--into", type=Path, required=True, metavar="RUN", help="folder of the run")
    scan.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="PATTERN",
        help="label rasters, matched to scenes by stem",
    )
    scan.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    scan.add_argument(
        "--prune",
        action="store_true",
        help="forget scenes that no pattern names, though their files are there",
    )
    _settings(scan)
    stage(
        "ingest",
        _ingest,
        "Rasters to Zarr stores, with masks and histograms.",
        "sass ingest results/mine",
        shard=True,
    )
    stage(
        "normalize",
        _normalize,
        "Robust statistics of each band over the fit shards.",
        "sass normalize results/mine",
    )
    stage(
        "train",
        _train,
        "Train the encoder, or write down a frozen one; goes on where it was stopped.",
        "sass train results/mine --set train.steps=2000",
    )
    stage(
        "features",
        _features,
        "Embeddings of every scene, by the encoder or as others have made them.",
        "sass features results/mine",
        shard=True,
    )
    stage(
        "codebook", _codebook, "Fine codes from the features of the fit shards.", "sass codebook results/mine"
    )
    stage(
        "hierarchy",
        _hierarchy,
        "The merge tree that makes any number of classes.",
        "sass hierarchy results/mine",
    )
    segment = stage(
        "segment",
        _segment,
        "Class and confidence maps of every scene.",
        "sass segment results/mine --classes 12",
        shard=True,
    )
    segment.add_argument("--classes", type=_count, help="number of classes, instead of segment.classes")
    evaluate = stage(
        "evaluate", _evaluate, "Scores where scenes have labels.", "sass evaluate results/mine", shard=True
    )
    evaluate.add_argument("--baselines", action="store_true", help="only fit what the maps are compared with")
    evaluate.add_argument(
        "--merge", action="store_true", help="only add up what the shards have counted and match once"
    )
    stage("report", _report, "The pages to look at.", "sass report results/mine")
    benchmark = command(
        "benchmark",
        _benchmark,
        "Score on a public data set by its own protocol, beside published numbers.",
        "sass benchmark potsdam3 --root /data/potsdam --protocol iic --seeds 5",
        run=False,
    )
    benchmark.add_argument("benchmark", choices=["potsdam3", "potsdam6"], help="three classes, or all six")
    benchmark.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the data set")
    benchmark.add_argument(
        "--protocol",
        choices=["iic", "stego"],
        required=True,
        help="fit on all crops and score the labelled ones, or fit and score by the lists",
    )
    benchmark.add_argument(
        "--into", type=Path, metavar="RUN", help="folder of the run (results/BENCHMARK-PROTOCOL)"
    )
    benchmark.add_argument("--seeds", type=_count, default=1, help="trainings, with seeds from 0 on (1)")
    benchmark.add_argument("--threads", type=_count, default=_cores(), help="threads to use (all cores)")
    _settings(benchmark, "the defaults, fitted to crops")
    command(
        "complete",
        _complete,
        "Say which scenes were set aside, if any; exit 0 if none.",
        "sass complete results/mine",
    )
    config = command(
        "config",
        _config,
        "Print the default configuration, or its JSON schema.",
        "sass config > mine.yaml",
        run=False,
    )
    config.add_argument("--schema", action="store_true", help="print the JSON schema")
    return parser


def _settings(sub: argparse.ArgumentParser, otherwise: str = "RUN/config.yaml, else the defaults") -> None:
    sub.add_argument("--config", type=Path, metavar="FILE", help=f"configuration ({otherwise})")
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one value, such as segment.classes=12",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    shards = [args.shard] if args.shard else list(load_index(run))
    failed = [scene for shard in shards for scene in work(run, shard, config).failed]
    return SET_ASIDE if failed and not args.set_aside else 0


def _scan(args: argparse.Namespace) -> int:
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
        run.config.write_bytes(args.config.read_bytes())
    print(result)
    return SET_ASIDE if result.broken else 0


def _ingest(args: argparse.Namespace) -> int:
    from sass.ingest import ingest_shard

    return _over_shards(
        args, lambda run, shard, config: ingest_shard(run, shard, config.ingest, args.threads)
    )


def _normalize(args: argparse.Namespace) -> None:
    from sass.statistics import normalize

    run, config = _load(args, args.run)
    tree = normalize(run, _fit(run, config), config.normalize)
    for band in tree["bands"]:
        print(f"{band['name']}: median {band['median']:g}, spread {band['spread']:g}")


def _train(args: argparse.Namespace) -> None:
    from sass.train import train_encoder

    run, config = _load(args, args.run)
    if config.features.source:
        print(f"nothing to train: features.source brings the embeddings ({config.features.source})")
        return
    train_encoder(run, _fit(run, config), config.model, config.train, args.threads)


def _features(args: argparse.Namespace) -> int:
    from sass.features import features_shard

    return _over_shards(
        args, lambda run, shard, config: features_shard(run, shard, config.features, args.threads)
    )


def _codebook(args: argparse.Namespace) -> None:
    from sass.cluster.codebook import fit_codebook

    run, config = _load(args, args.run)
    fitted = fit_codebook(run, _fit(run, config), config.codebook, args.threads)
    sizes = f"sizes {fitted.sizes.min()} to {fitted.sizes.max()}"
    print(f"{len(fitted.codes)} codes, {sizes}, spread {fitted.spread:.4f}")


def _hierarchy(args: argparse.Namespace) -> None:
    from sass.cluster.hierarchy import build_hierarchy

    run, config = _load(args, args.run)
    for row in build_hierarchy(run, config.hierarchy)["diagnostics"]:
        print(json.dumps(row))


def _segment(args: argparse.Namespace) -> int:
    from sass.segment import segment_shard

    if args.classes:
        args.set.append(f"segment.classes={args.classes}")
    return _over_shards(
        args, lambda run, shard, config: segment_shard(run, shard, config.segment, args.threads)
    )


def _evaluate(args: argparse.Namespace) -> int:
    from sass.baselines import fit_baselines
    from sass.evaluate import evaluate_shard, format_table, score_archive

    run, config = _load(args, args.run)
    index = load_index(run)
    labelled = [shard for shard, entry in index.items() if entry.labels]
    whole = not (args.baselines or args.shard or args.merge)
    code = 0
    if (whole and labelled) or args.baselines:
        fit_baselines(run, _fit(run, config), config.evaluate, config.segment.classes, config.model)
    for shard in [args.shard] if args.shard else labelled if whole else []:
        if evaluate_shard(run, shard, config.evaluate).failed and not args.set_aside:
            code = SET_ASIDE
    if whole or args.merge:
        print(format_table(score_archive(run, list(index), config.evaluate)))
    return code


def _report(args: argparse.Namespace) -> None:
    from sass.report.build import build_report

    run, config = _load(args, args.run)
    index = load_index(run)
    print(build_report(run, config, archive=list(index), fit=_fit(run, config)))


def _benchmark(args: argparse.Namespace) -> None:
    from sass.benchmark.run import format_result, run_benchmark

    run = Run(args.into or Path("results") / f"{args.benchmark}-{args.protocol}")
    layers = [args.config, *(assignment(text) for text in args.set)]
    result = run_benchmark(
        args.benchmark, args.protocol, args.root, run, *layers, seeds=args.seeds, threads=args.threads
    )
    print(format_result(result))


def _complete(args: argparse.Namespace) -> int:
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
    stages = {
        stage: {shard: file_digest(path) for shard in shards if (path := run.manifest(stage, shard)).exists()}
        for stage in SHARD_STAGES
    }
    write_json(run.root / "manifests" / "complete.json", {"manifests": digest(stages), "shards": len(shards)})
    return 0


def _config(args: argparse.Namespace) -> None:
    print(
        json.dumps(schema(), indent=1) if args.schema else default_yaml(), end="" if not args.schema else "\n"
    )


def _fit(run: Run, config: Config) -> list[str]:
    return fit_shards(load_index(run), config.catalog)
