"""What a run will take, before anything runs: windows, bytes, inodes, hours and memory of each stage.

The costs of scenes (`sass.cost`) are added up by job, the jobs are ordered as the rules order them, and a
cluster is simulated that runs them (`sass.simulate`).
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sass.catalog import ShardInfo, fit_shards, load_earlier, load_index, load_labels, load_shard
from sass.config import Config
from sass.cost import THREADS, Arithmetic, Look, Use
from sass.errors import ConfigError
from sass.run import SHARD_STAGES, STAGES, Run
from sass.settings import load
from sass.simulate import Cluster, Job, critical_path, simulate

ON_GPU = ("train", "features")
"""Stages whose encoder goes to a GPU, where the cluster has some."""


@dataclass(frozen=True)
class StagePlan:
    """A stage of the plan."""

    stage: str
    jobs: int
    left: int
    """Jobs whose output is not there yet."""
    use: Use
    cpu_hours: float
    gpu_hours: float
    peak_mb: float
    hours: float
    """From the start of its first job to the end of its last one, on the cluster."""


@dataclass(frozen=True)
class Explained:
    """The whole plan."""

    scenes: int
    pixels: int
    stages: list[StagePlan]
    hours: float
    """On the cluster, all jobs, none of which fails or waits for others' jobs."""
    critical_hours: float
    """The longest chain of jobs: no cluster is faster."""
    critical: list[str]
    """Its stages."""
    cluster: Cluster
    rates: dict[str, Any]
    """Where the rates come from."""


def explain(
    run: Run, config: Config, rates: dict[str, Any], cluster: Cluster, measured: Run | None = None
) -> Explained:
    """Work out what the run takes. Needs a catalog and nothing else.

    Parameters
    ----------
    measured
        A finished run: each stage's seconds and memory are scaled by what its jobs took over what these rates
        say they take.
    """
    index = load_index(run)
    fit = fit_shards(index, config.catalog)
    scales = _scales(measured, config, rates) if measured else {}
    first = next(iter(load_shard(run, fit[0]).values()))
    bands = len(config.ingest.bands) if config.ingest.bands else first.bands
    arithmetic = Arithmetic(config, Look.of(bands, config), rates)
    uses = _scenes(run, index, arithmetic, config.change.maps)
    fitted = sum((uses["features"][shard] for shard in fit), Use())
    cells = sum(index[shard].pixels for shard in fit) / arithmetic.look.stride**2
    scenes, fit_scenes = (sum(index[shard].scenes for shard in some) for some in (index, fit))
    once = arithmetic.once(fitted, fit_scenes, cells, arithmetic.length(bands), scenes)
    uses |= {stage: {"archive": use} for stage, use in once.items()}
    if not uses["evaluate"]:
        del uses["baselines"]
    if config.features.source:
        del uses["train"]
    uses = {
        stage: {unit: use.scaled(scales.get(stage, (1, 1))[0]) for unit, use in of_unit.items()}
        for stage, of_unit in uses.items()
    }
    jobs = _jobs(uses, index, fit, cluster, rates["seconds"]["job"])
    schedule, (critical, chain) = simulate(jobs, cluster), critical_path(jobs)
    itemsize = np.dtype(first.dtype).itemsize
    stages = []
    for stage in (name for name in STAGES if uses.get(name)):
        count, use = len(uses[stage]), sum(uses[stage].values(), Use())
        # manifest, log, measured time and Snakemake's own note of each job, and the folder of the records
        use = replace(use, inodes=use.inodes + count * (5 if stage in SHARD_STAGES else 4))
        on_gpu = stage in ON_GPU and cluster.gpus > 0
        start, end = schedule.spans[stage]
        stages.append(
            StagePlan(
                stage=stage,
                jobs=count,
                left=_left(run, stage, uses[stage]),
                use=use,
                cpu_hours=(use.cpu + (0 if on_gpu else use.encoder) + count * rates["seconds"]["job"]) / 3600,
                gpu_hours=use.gpu / 3600 if on_gpu else 0.0,
                peak_mb=arithmetic.peak(stage, bands, itemsize, scenes, fit_scenes)
                * scales.get(stage, (1, 1))[1],
                hours=(end - start) / 3600,
            )
        )
    return Explained(
        scenes,
        sum(entry.pixels for entry in index.values()),
        stages,
        schedule.seconds / 3600,
        critical / 3600,
        [jobs[number].stage for number in chain],
        cluster,
        rates["about"],
    )


def _scenes(
    run: Run, index: dict[str, ShardInfo], arithmetic: Arithmetic, changes: bool
) -> dict[str, dict[str, Use]]:
    """Add up what each stage takes of the scenes of each shard.

    Evaluate takes something of scenes with labels; change, if asked for, of those that follow others.
    """
    uses: dict[str, dict[str, Use]] = {stage: {} for stage in SHARD_STAGES}
    for shard, entry in index.items():
        labels = load_labels(run, shard) if entry.labels else {}
        follows = load_earlier(run, shard) if changes and entry.earlier else {}
        kinds: Counter[int] = Counter()
        following: Counter[int] = Counter()
        held: dict[int, dict[str, Use]] = {}
        for name, scene in load_shard(run, shard).items():
            costs = arithmetic.scene(scene, labels[name].size if name in labels else None)
            held[id(costs)] = costs  # scenes that are alike share one object
            kinds[id(costs)] += 1
            following[id(costs)] += name in follows
        for stage, of_stage in uses.items():
            count = following if stage == "change" else kinds
            parts = [costs[stage] * count[key] for key, costs in held.items() if stage in costs]
            if any(part.windows for part in parts):
                of_stage[shard] = sum(parts, Use())
    return uses


def _jobs(
    uses: dict[str, dict[str, Use]],
    index: dict[str, ShardInfo],
    fit: list[str],
    cluster: Cluster,
    start: float,
) -> list[Job]:
    """Return the jobs, each waiting for those that its rule names; ``start`` is what any job takes."""
    jobs: list[Job] = []
    made: dict[str, dict[str, int]] = {}

    def add(stage: str, after: Callable[[str], list[int]]) -> None:
        threads = min(THREADS.get(stage, 1), cluster.cores)
        on_gpu = stage in ON_GPU and cluster.gpus > 0
        side_by_side = 1 if stage == "features" else threads  # only its encoder has several threads
        made[stage] = {}
        for unit, use in uses.get(stage, {}).items():
            embedding = use.gpu if on_gpu else use.encoder / threads
            made[stage][unit] = len(jobs)
            jobs.append(
                Job(
                    stage,
                    start + use.cpu / side_by_side + embedding,
                    threads,
                    int(on_gpu),
                    tuple(after(unit)),
                )
            )

    def of(*stages: str) -> list[int]:
        return [number for stage in stages for number in made[stage].values()]

    def fitted(stage: str) -> list[int]:
        return [made[stage][shard] for shard in fit]

    add("ingest", lambda shard: [])
    add("normalize", lambda _: fitted("ingest"))
    add("train", lambda _: of("normalize"))
    add("features", lambda shard: [made["ingest"][shard], *(of("train") or of("normalize"))])
    add("codebook", lambda _: fitted("features"))
    add("hierarchy", lambda _: of("codebook"))
    add("segment", lambda shard: [made["features"][shard], *of("hierarchy")])
    add("change", lambda shard: [made["segment"][one] for one in {shard, *index[shard].earlier}])
    add("baselines", lambda _: of("normalize"))
    add("evaluate", lambda shard: [made["segment"][shard], *of("baselines")])
    add("metrics", lambda _: of("segment", "evaluate"))
    add("report", lambda _: of("metrics", "change"))
    add("complete", lambda _: of("report"))
    return jobs


def _left(run: Run, stage: str, units: Iterable[str]) -> int:
    """Count the jobs whose output is not there. Whether what is there still counts, Snakemake says."""
    if stage in SHARD_STAGES:
        return sum(not run.manifest(stage, shard).exists() for shard in units)
    made = {
        "normalize": run.statistics,
        "train": run.encoder,
        "codebook": run.codebook,
        "hierarchy": run.hierarchy,
        "baselines": run.baselines,
        "metrics": run.metrics,
        "report": run.report / "index.html",
        "complete": run.root / "manifests" / "complete.json",
    }
    return int(not made[stage].exists())


def _scales(measured: Run, config: Config, rates: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return, by stage, what a finished run took over what the rates say it takes: CPU seconds and memory."""
    own = load(measured.config) if measured.config.exists() else config
    plan = explain(measured, own, rates, Cluster(1, 0, 1))
    scales = {}
    for stage in plan.stages:
        rows = [
            row
            for path in (measured.benchmarks / stage.stage).glob("*.tsv")
            for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t")
        ]
        cpu = [float(row["cpu_time"]) for row in rows if _number(row.get("cpu_time"))]
        memory = [float(row["max_rss"]) for row in rows if _number(row.get("max_rss"))]
        expected = stage.use.cpu + stage.use.encoder
        if cpu and memory and expected > 0:
            start = rates["seconds"]["imports"] * len(cpu)
            scales[stage.stage] = (max(sum(cpu) - start, 0) / expected, max(memory) / stage.peak_mb)
    if not scales:
        raise ConfigError(
            f"{measured.benchmarks} holds no measured job, so there are no rates in it; name a run that "
            "Snakemake has finished"
        )
    return scales


def _number(text: str | None) -> bool:
    # Snakemake writes "-" or "NA" where a job was too short to be measured
    return text not in (None, "", "-", "NA")


def as_json(plan: Explained) -> dict[str, Any]:
    """Return the plan as plain data."""
    return asdict(plan)


def as_text(plan: Explained) -> str:
    """Lay the plan out as a table."""
    head = (
        f"{'stage':<10} {'jobs':>7} {'left':>7} {'windows':>11} {'read':>9} {'written':>9} {'inodes':>11} "
        f"{'CPU h':>9} {'GPU h':>7} {'peak MB':>8} {'hours':>8}"
    )
    lines = [head, "-" * len(head)]
    total = Use()
    for s in plan.stages:
        total += s.use
        lines.append(
            _line(s.stage, s.jobs, s.left, s.use, s.cpu_hours, s.gpu_hours, f"{s.peak_mb:,.0f}", s.hours)
        )
    sums = [sum(getattr(s, key) for s in plan.stages) for key in ("jobs", "left", "cpu_hours", "gpu_hours")]
    lines += ["-" * len(head), _line("all", *sums[:2], total, *sums[2:], "", plan.hours)]
    c = plan.cluster
    lines += [
        "",
        f"{plan.scenes:,} scenes, {plan.pixels / 1e6:,.0f} megapixels; "
        f"{c.cores} cores, {c.gpus} GPUs, {c.jobs} jobs at once",
        f"critical path {plan.critical_hours:,.2f} hours: {' > '.join(plan.critical)}",
        f"rates: {plan.rates}",
    ]
    return "\n".join(lines)


def _line(name, jobs, left, use: Use, cpu, gpu, peak: str, hours) -> str:
    return (
        f"{name:<10} {jobs:>7,} {left:>7,} {use.windows:>11,} {_bytes(use.read):>9} {_bytes(use.written):>9} "
        f"{use.inodes:>11,} {cpu:>9,.1f} {gpu:>7,.1f} {peak:>8} {hours:>8,.2f}"
    )


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"
