"""How cost grows with scenes and workers, and whether a core is better used by a thread or by a worker.

Workers are processes that have imported all they need, so that starts of programs do not count.
"""

import multiprocessing
import shutil
import time
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from bench.ratio import Row, alternated
from bench.scenes import write_scene
from bench.stages import Subject
from sass.catalog import load_index
from sass.cluster.codebook import fit_codebook
from sass.cluster.hierarchy import build_hierarchy
from sass.features import features_shard
from sass.ingest import ingest_shard
from sass.run import Run
from sass.scan import scan
from sass.segment import segment_shard
from sass.settings import load
from sass.statistics import normalize
from sass.train import train_encoder

STAGES = {"ingest": ingest_shard, "features": features_shard, "segment": segment_shard}
SCENES, WORKERS = (1, 2, 4, 8), (1, 2)
FEW = {"catalog": {"shard_size": 1}, "model": {"frozen": True}}
"""A scene a shard, and an encoder that need not be trained."""


class Archive:
    """An archive of small scenes, each a shard, with all that is fitted standing."""

    def __init__(self, subject: Subject, megapixels: float, scenes: int):
        self.layers = [FEW, *subject.layers]
        self.run, config = Run(subject.folder / "workers"), load(*self.layers)
        shutil.rmtree(self.run.root, ignore_errors=True)
        files = [subject.folder / "small" / f"{number}.tif" for number in range(scenes)]
        for number, path in enumerate(files):
            write_scene(path, megapixels, number)
        scan(self.run, [str(files[0].parent)], settings=config.catalog)
        self.shards, self.megapixels = list(load_index(self.run)), megapixels
        for shard in self.shards:
            ingest_shard(self.run, shard, config.ingest, subject.threads)
        normalize(self.run, self.shards, config.normalize)
        train_encoder(self.run, self.shards, config.model, config.train, subject.threads)
        first = self.shards[:1]
        features_shard(self.run, *first, config.features, subject.threads)
        fit_codebook(self.run, first, config.codebook, subject.threads)
        build_hierarchy(self.run, config.hierarchy)

    def work(self, pool: Pool, stages: list[str], shards: int, threads: int) -> float:
        """Do stages anew on some shards, a shard a worker; return the seconds."""
        for stage in stages:
            for shard in self.shards[:shards]:
                shutil.rmtree(self.run.manifest(stage, shard).with_suffix(""), ignore_errors=True)
        jobs = [(str(self.run.root), stages, shard, threads, self.layers) for shard in self.shards[:shards]]
        started = time.perf_counter()
        pool.map(_job, jobs, chunksize=1)
        return time.perf_counter() - started


def _job(job: tuple[str, list[str], str, int, list[dict[str, Any]]]) -> None:
    root, stages, shard, threads, layers = job
    config = load(*layers)
    for stage in stages:
        STAGES[stage](Run(Path(root)), shard, getattr(config, stage), threads)


def _pool(workers: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(workers)


def threads(subject: Subject, megapixels: float) -> list[Row]:
    """Two scenes by two workers of one thread, beside one after the other by one of two threads."""
    archive, rows = Archive(subject, megapixels, 2), []
    with _pool(2) as two, _pool(1) as one:
        for stage in STAGES:
            pairs = alternated(
                lambda stage=stage: archive.work(two, [stage], 2, 1),
                lambda stage=stage: archive.work(one, [stage], 2, 2),
                subject.times,
            )
            said = "above 1: two workers of one thread are faster"
            size = (2 * megapixels, "Mpx")
            rows.append(pairs.row("threads", stage, "one worker of two threads", size, note=said))
    return rows


def growth_of_scenes(subject: Subject, plot: Path, megapixels: float) -> list[Row]:
    """Measure the stages of 1, 2, 4 and 8 scenes by one worker and by two; draw the curve."""
    archive, rows, seconds = Archive(subject, megapixels, SCENES[-1]), [], {}
    for workers in WORKERS:
        with _pool(workers) as pool:
            archive.work(pool, list(STAGES), workers, 1)  # imports
            for scenes in SCENES:
                seconds[workers, scenes] = archive.work(pool, list(STAGES), scenes, 1)
    alone = seconds[WORKERS[0], SCENES[0]]
    for (workers, scenes), taken in seconds.items():
        wanted = alone * scenes / workers
        # fewer scenes than workers leave some without work
        reach = 0.8 if scenes >= workers else None
        rows.append(
            Row("growth", f"{scenes} scenes, workers: {workers}", wanted / taken, "one scene, one worker",
                reach, ours=taken, bare=wanted, unit="s", note=f"{megapixels:g} Mpx a scene")
        )  # fmt: skip
    draw(plot, seconds, megapixels)
    return rows


def draw(path: Path, seconds: dict[tuple[int, int], float], megapixels: float) -> None:
    """Draw seconds by scenes, a line for each number of workers, as SVG; equal numbers give equal bytes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "sass", "svg.fonttype": "none", "font.size": 10}):
        figure, axes = pyplot.subplots(figsize=(5.6, 3.6), layout="constrained")
        for workers, colour in zip(WORKERS, ("#4e79a7", "#f28e2b")):
            taken = [seconds[workers, scenes] for scenes in SCENES]
            said = "1 worker" if workers == 1 else f"{workers} workers"
            axes.plot(SCENES, taken, "o-", color=colour, label=said)
            axes.plot(
                SCENES, [taken[0] * s / max(min(workers, s), 1) for s in SCENES], ":", color=colour, lw=1
            )
        axes.set(xscale="log", yscale="log", xlabel=f"scenes of {megapixels:g} megapixels", ylabel="seconds")
        axes.set_xticks(SCENES, [str(s) for s in SCENES])
        axes.set_yticks(ticks := [2**n for n in range(-6, 12)], [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.set_ylim(min(seconds.values()) / 1.3, max(seconds.values()) * 1.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
