"""The command line: its words, their help and their examples. What they do is in `sass.commands`."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sass import __version__, commands
from sass.cores import share_cores
from sass.errors import SassError
from sass.stopping import Stopped, stoppable, system_trouble

TOUR = """\
From an archive of scenes to one consistent set of maps, without labels:

  sass scan 'archive/**/*.tif' --into results/mine     find the scenes (headers only)
  snakemake --config run=results/mine                  do all the stages below, on this machine
  snakemake --profile slurm --config run=results/mine  the same on a cluster

or stage by stage:

  ingest      rasters to Zarr stores             codebook    features to fine codes
  normalize   robust statistics of each band     hierarchy   codes to a merge tree
  train       the encoder                        segment     maps for any number of classes
  features    embeddings of every pixel          change      what became of it between two dates
  name        classes by a few labelled places   evaluate    scores against labels
                                                 report      pages to look at

and at any time:

  explain     what a run will take, before anything runs
  polygons    the maps as polygons, for a GIS or a database
  status      what stands, runs and has failed, and what to do next
  verify      hold every file of a run against what its stage wrote down

Exit codes: 0 all stands; 1 an error; 2 wrong usage; 3 scenes were set aside; 4 `verify` has found faults;
5 `status` sees work left; 130 or 143 stopped by Ctrl-C or SIGTERM. After 1, 130 and 143 the same command goes
on with what stands, a training from its checkpoint. Every command has an example: sass COMMAND --help.
Words are completed by Tab after: source <(sass completion bash)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code.

    0 all stands; 1 an error, such as a full disk; 2 wrong usage; 3 scenes set aside; 4 `verify` has found
    faults; 5 `status` sees work left; 130 or 143 stopped by SIGINT (Ctrl-C) or SIGTERM (Slurm's warning
    before it kills). After 1, 130 and 143 the same command goes on with what stands, a training from its
    checkpoint.
    """
    parsed = _parser().parse_args(arguments)
    share_cores(getattr(parsed, "threads", 1))
    try:
        with stoppable():
            return parsed.call(parsed) or 0
    except Stopped as stop:
        said = f"stopped by {stop.signal}; what is finished stands, and the same command goes on from there"
        code = stop.code
    except SassError as error:
        said, code = str(error), 1
    except Exception as error:
        folder = getattr(parsed, "run", None) or getattr(parsed, "into", None) or Path()
        said = system_trouble(error, folder) or _path_trouble(error) or _damage(error, folder)
        code = 1
        if said is None:
            traceback.print_exc()
            said = (
                f"this is a fault of SASS, or a file of {folder} is damaged: `sass verify {folder}` would "
                "find that. If it finds none, please report the lines above"
            )
    print(f"sass {parsed.command}: {said}", file=sys.stderr)
    return code


def _path_trouble(error: Exception) -> str | None:
    """Say which path cannot be used, if that is what an error tells."""
    if not isinstance(error, OSError) or not error.filename:
        return None
    return (
        f"{error.filename}: {error.strerror}; see that the path is spelled rightly and that you may read and "
        "write there, then give the same command again"
    )


def _damage(error: Exception, folder: Path) -> str | None:
    """Say that a file of weights or codes is damaged, if that is what an error tells."""
    if type(error).__name__ != "SafetensorError":  # its package is not imported for this alone
        return None
    return (
        f"a file of weights or codes is damaged or is no safetensors file ({error}); `sass verify {folder}` "
        "names it, and with --repair the next run makes it again"
    )


def _parser() -> argparse.ArgumentParser:
    plain = partial(argparse.RawDescriptionHelpFormatter, max_help_position=16)
    parser = argparse.ArgumentParser("sass", description=TOUR, formatter_class=plain)
    parser.add_argument("--version", action="version", version=f"sass {__version__}")
    words = parser.add_subparsers(dest="command", required=True, metavar="COMMAND [OPTION]")

    def command(
        name: str, call: Callable, about: str, example: str, run: bool = True
    ) -> argparse.ArgumentParser:
        text = f"{about}\n\nExample:\n  {example}"
        sub = words.add_parser(name, help=about, description=text, formatter_class=plain)
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
        commands.scan,
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
        commands.ingest,
        "Rasters to Zarr stores, with masks and histograms.",
        "sass ingest results/mine",
        shard=True,
    )
    stage(
        "normalize",
        commands.normalize,
        "Robust statistics of each band over the fit shards.",
        "sass normalize results/mine",
    )
    stage(
        "train",
        commands.train,
        "Train the encoder, or write down a frozen one; goes on where it was stopped.",
        "sass train results/mine --set train.steps=2000",
    )
    stage(
        "features",
        commands.features,
        "Embeddings of every scene, by the encoder or as others have made them.",
        "sass features results/mine",
        shard=True,
    )
    stage(
        "codebook",
        commands.codebook,
        "Fine codes from the features of the fit shards.",
        "sass codebook results/mine",
    )
    stage(
        "hierarchy",
        commands.hierarchy,
        "The merge tree that makes any number of classes.",
        "sass hierarchy results/mine",
    )
    name = command(
        "name",
        commands.name,
        "Name the classes by a handful of labelled places; maps then have these classes.",
        "sass name results/mine --points places.csv",
    )
    name.add_argument(
        "--points",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="labelled places: CSV (x and y, lon and lat, or scene, row and col), GeoJSON of points or "
        "polygons, or a label raster (without it: those given last time)",
    )
    name.add_argument("--field", help="field or column of the name (label, class or name)")
    name.add_argument("--crs", help="CRS of the coordinates in a CSV (EPSG:4326)")
    name.add_argument("--next", type=_count, default=20, help="places to propose for labelling next (20)")
    name.add_argument(
        "--forget", action="store_true", help="forget places and names: classes are numbers again"
    )
    _settings(name)
    segment = stage(
        "segment",
        commands.segment,
        "Class and confidence maps of every scene.",
        "sass segment results/mine --classes 12",
        shard=True,
    )
    segment.add_argument("--classes", type=_count, help="number of classes, instead of segment.classes")
    stage(
        "change",
        commands.change,
        "What has changed since the scene before it, of each scene that follows one of its footprint.",
        "sass change results/mine",
        shard=True,
    )
    polygons = command(
        "polygons",
        commands.polygons,
        "The patches of the maps as polygons, in GeoParquet or GeoPackage, a file a scene.",
        "sass polygons results/mine --scene tile_7 --format gpkg\n\n"
        "What is written is an export: give the command again when maps have been made anew.",
    )
    polygons.add_argument(
        "--scene", action="append", default=[], metavar="ID", help="only this scene; may be given again (all)"
    )
    polygons.add_argument("--shard", help="only the scenes of this shard (all)")
    polygons.add_argument(
        "--format", choices=["geoparquet", "gpkg"], default="geoparquet", help="of the files (geoparquet)"
    )
    polygons.add_argument("--into", type=Path, metavar="DIR", help="folder of the files (RUN/polygons)")
    evaluate = stage(
        "evaluate",
        commands.evaluate,
        "Scores where scenes have labels.",
        "sass evaluate results/mine",
        shard=True,
    )
    evaluate.add_argument("--baselines", action="store_true", help="only fit what the maps are compared with")
    evaluate.add_argument(
        "--merge", action="store_true", help="only add up what the shards have counted and match once"
    )
    stage("report", commands.report, "The pages to look at.", "sass report results/mine")
    benchmark = command(
        "benchmark",
        commands.benchmark,
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
    verify = command(
        "verify",
        commands.verify,
        "Hold catalog, manifests and every byte of a run against each other; name every fault.",
        "sass verify results/mine --repair\n\n"
        "Give it while nothing else is at work in the run. Exit code 0: sound; 4: faults were found,\n"
        "repaired or not. Notes, such as a raster that has changed since the scan, are no faults.",
    )
    verify.add_argument("--shard", help="only the scenes of this shard (all, and what the archive shares)")
    verify.add_argument(
        "--quick",
        action="store_true",
        help="names and sizes only: reads no store, and does not see changed bytes",
    )
    verify.add_argument(
        "--repair",
        action="store_true",
        help="remove what must be made again, and nothing else: the next run of the workflow makes it",
    )
    verify.add_argument(
        "--threads", type=_count, default=_cores(), help="files to read at a time (all cores)"
    )
    command(
        "complete",
        commands.complete,
        "Say which scenes were set aside, if any; exit 0 if none.",
        "sass complete results/mine",
    )
    explain = command(
        "explain",
        commands.explain,
        "What a run will take, before anything runs: windows, bytes, inodes, hours, memory.",
        "sass explain results/mine --cores 256 --gpus 4",
    )
    _settings(explain)
    explain.add_argument(
        "--rates", type=Path, metavar="FILE", help="YAML with rates of your own (those of sass/rates.yaml)"
    )
    explain.add_argument(
        "--measured", type=Path, metavar="RUN", help="scale the rates by what the jobs of a finished run took"
    )
    explain.add_argument(
        "--cores", type=_count, default=_cores(), help="of the cluster (all of this machine)"
    )
    explain.add_argument("--gpus", type=int, default=0, help="of the cluster (0)")
    explain.add_argument("--jobs", type=_count, default=100, help="that run side by side (100)")
    explain.add_argument("--json", action="store_true", help="print JSON instead of a table")
    status = command(
        "status",
        commands.status,
        "What of a run stands, runs and has failed, and what to do next.",
        "sass status results/mine\n\n"
        "Exit code 0: all stands; 1: a job has failed; 3: scenes are set aside, all else stands; 5: work is\n"
        "left, or jobs are at it. It reads what lies in the run's folder and asks no scheduler.",
    )
    _settings(status)
    status.add_argument("--json", action="store_true", help="print JSON instead of a table")
    shells = command(
        "completion",
        commands.completion_script,
        "Print a script that completes commands, options and configuration keys in a shell.",
        "source <(sass completion bash)   # zsh too; in fish: sass completion fish | source",
        run=False,
    )
    shells.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell that reads it")
    shells.set_defaults(parser=parser)
    config = command(
        "config",
        commands.config,
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
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
