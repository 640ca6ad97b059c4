"""What the rules share: the configuration, the shards, the command, and the limits of a job.

Everything here is read while the Snakefile is parsed, and a cluster parses it again for every job. So
nothing is written, and nothing heavy is imported.
"""

import gc
import json
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from sass.catalog import fit_shards, load_index
from sass.errors import SassError
from sass.fingerprint import stage_fingerprint
from sass.run import ARCHIVE, Run
from sass.settings import check_whole, load, section_argument, stage_arguments

# What is imported by now stays, and syntax trees and jobs are many and not cyclic. Python's collector need not search
# them again and again: that would be a third of the time taken to parse this.
gc.freeze()
gc.set_threshold(100_000)

try:
    RUN = Run(Path(load(config).run))
    # a file named on the command line stands instead of the one that the scan left in the run
    own = RUN.config if RUN.config.exists() and not workflow.configfiles else None
    SETTINGS = check_whole(load(own, config))
    if "--lint" in sys.argv and not RUN.catalog.exists():
        SHARDS, FIT = {}, []  # rules can be checked without an archive
    else:
        SHARDS = load_index(RUN)
        FIT = fit_shards(SHARDS, SETTINGS.catalog)
except SassError as error:
    raise WorkflowError(str(error)) from None

# scenes that follow others of their footprint, where what has changed between them is asked for
FOLLOWING = [
    shard for shard, entry in SHARDS.items() if entry.earlier and SETTINGS.change.maps
]
LABELLED = [shard for shard, entry in SHARDS.items() if entry.labels]
# labelled places, if `sass name` was given any, and the shards that they lie in
NAMES = [RUN.names] if RUN.places.exists() else []
NAMED = json.loads(RUN.places.read_text())["shards"] if NAMES else []
BROKEN = [RUN.broken] if RUN.broken.exists() else []

# Two jobs of one thread do a third more than one of two (`python -m bench.speed --only threads`). A shard that is
# alone has nobody beside it.
THREADS = 1 if len(SHARDS) > 1 else 2

# The stages that fit are told on what, so that they and the plan cannot differ.
FIT_ARGUMENTS = f"--set {shlex.quote(f'catalog.fit_shards={json.dumps(FIT)}')}"

# Slurm warns every process of a job by SIGTERM. The shell has to wait for its stage, which saves what it has:
# if it died at once, the job would count as ended and what still saves would be killed.
PREFIX = "set -euo pipefail; trap : TERM; "
# Jobs run the package beside the interpreter of Snakemake itself, unless conda or a container brings another.
OTHERS = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER}
if not OTHERS & set(workflow.deployment_settings.deployment_method):
    PYTHON = shlex.quote(sys.executable)
    PREFIX += 'python() {{ {PYTHON} "$@"; }}; sass() {{ python -m sass "$@"; }}; '
shell.prefix(PREFIX)


def everything(wildcards):
    """Return all that is to stand in the end. Snakemake would not miss a file between others that stand."""
    fitted = ["normalize", "codebook", "hierarchy"]
    fitted += [] if SETTINGS.features.source else ["train"]
    fitted += ["baselines"] if LABELLED else []
    return [
        *[RUN.manifest(stage, ARCHIVE) for stage in fitted],
        *[
            path
            for stage in ("ingest", "features", "segment")
            for path in manifests(stage, SHARDS)
        ],
        *manifests("change", FOLLOWING),
        *manifests("evaluate", LABELLED),
        *NAMES,
        RUN.metrics,
        RUN.report / "index.html",
        RUN.complete,
    ]


def run_folder(wildcards):
    """Return the folder that every stage is told to work in."""
    return str(RUN.root)


def where(wildcards, input):
    """Return the section that says where work is done.

    It changes no byte, and a parameter that is a function of the input is none whose change reruns a rule.
    """
    return section_argument(SETTINGS, "dask")


# Hundreds of syntax trees are read for it, so it is asked of the stages of which jobs are planned, and once.
fingerprint = cache(stage_fingerprint)


def code_of(stage):
    """Return a parameter that changes when the code of a stage does."""
    return lambda wildcards: fingerprint(stage)


def manifests(stage, shards):
    """Return the manifests of a stage for these shards."""
    # a path is put together once, not for each of thousands of shards
    named = str(RUN.manifest(stage, "\0"))
    return [named.replace("\0", shard) for shard in shards]


def log_of(stage, unit="archive"):
    """Return the log of a stage's job on a shard, or on the whole archive."""
    return RUN.log(stage, unit)


def benchmark_of(stage, unit="archive"):
    """Return the file that gets the measured seconds and memory of a job."""
    return RUN.benchmarks / stage / f"{unit}.tsv"


def megabytes(base):
    """Memory of a job. It depends on the window, not on the scene; a job killed for memory gets twice as much."""
    return lambda wildcards, attempt: base * 2 ** (attempt - 1)


def minutes(per_gigapixel):
    """Time limit of a job that reads the pixels of its shard, or those of all fit shards."""

    def limit(wildcards, attempt):
        shards = [wildcards.shard] if "shard" in wildcards.keys() else FIT
        gigapixels = sum(SHARDS[shard].pixels for shard in shards) / 1e9
        return round((15 + per_gigapixel * gigapixels) * attempt)

    return limit


def training_megabytes(wildcards, attempt):
    """Memory of the training: the pool of tiles at eight bands of float16, and the program itself."""
    settings = SETTINGS.train
    pool = settings.pool * (2 * settings.crop) ** 2 * 8 * 2 / 1e6
    if SETTINGS.model.frozen:
        pool = 0
    return round((4000 + pool) * 2 ** (attempt - 1))


def training_minutes(wildcards, attempt):
    """Time limit of the training: a GPU of today needs a tenth of it."""
    settings = SETTINGS.train
    views = settings.steps * settings.batch * settings.crop**2
    if SETTINGS.model.frozen:
        views = 0
    return round((30 + views / 1e8) * attempt)
