"""Where everything in a run's folder stands."""

from dataclasses import dataclass
from pathlib import Path

SHARD_STAGES = ("ingest", "features", "segment", "change", "evaluate")
"""Stages whose unit of work is a shard."""
ARCHIVE = "archive"
"""In place of a shard where the unit of work is the whole archive."""
ARCHIVE_STAGES = ("normalize", "train", "codebook", "hierarchy", "name", "baselines", "metrics", "report")
"""Stages, by the names of their rules, whose unit of work is the archive."""
STAGES = (
    "scan", "ingest", "normalize", "train", "features", "codebook", "hierarchy", "name", "segment", "change",
    "baselines", "evaluate", "metrics", "report", "complete",
)  # fmt: skip
"""All of them, and what is done before and after, in the order in which data flows."""
REPORT_FOLDERS = ("scenes", "figures", "quicklooks", "chips", "choice", "tables", "static")
"""What the report owns below its folder; a file in there that a build does not write is stale."""


@dataclass(frozen=True)
class Run:
    """The folder of a run. Every path of the interface is named here and nowhere else."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog" / "index.json"

    @property
    def broken(self) -> Path:
        return self.root / "catalog" / "broken.json"

    @property
    def left(self) -> Path:
        return self.root / "catalog" / "left.json"

    def catalog_shard(self, shard: str) -> Path:
        return self.root / "catalog" / "shards" / f"{shard}.json"

    def catalog_labels(self, shard: str) -> Path:
        return self.root / "catalog" / "labels" / f"{shard}.json"

    def catalog_earlier(self, shard: str) -> Path:
        return self.root / "catalog" / "earlier" / f"{shard}.json"

    def scene(self, scene: str) -> Path:
        return self.root / "scenes" / f"{scene}.zarr"

    @property
    def statistics(self) -> Path:
        return self.root / "statistics.json"

    @property
    def encoder(self) -> Path:
        return self.root / "model" / "encoder.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.root / "model" / "checkpoint.safetensors"

    @property
    def training_log(self) -> Path:
        return self.root / "model" / "training.jsonl"

    def features(self, scene: str) -> Path:
        return self.root / "features" / f"{scene}.zarr"

    @property
    def codebook(self) -> Path:
        return self.root / "codebook" / "codebook.safetensors"

    @property
    def hierarchy(self) -> Path:
        return self.root / "codebook" / "hierarchy.json"

    @property
    def names(self) -> Path:
        return self.root / "names" / "names.json"

    @property
    def places(self) -> Path:
        return self.root / "names" / "places.json"

    def segments(self, scene: str) -> Path:
        return self.root / "segments" / scene

    def changes(self, scene: str) -> Path:
        return self.root / "changes" / scene

    def evaluation(self, scene: str) -> Path:
        return self.root / "evaluation" / f"{scene}.json"

    @property
    def baselines(self) -> Path:
        return self.root / "baselines" / "baselines.safetensors"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def stac(self) -> Path:
        return self.root / "stac"

    @property
    def metrics(self) -> Path:
        return self.report / "metrics.json"

    def log(self, stage: str, unit: str) -> Path:
        return self.root / "logs" / stage / f"{unit}.log"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    def payload(self, stage: str, scene: str) -> Path:
        """What a stage leaves of a scene, beside its record."""
        place = {
            "ingest": self.scene,
            "features": self.features,
            "segment": self.segments,
            "change": self.changes,
            "evaluate": self.evaluation,
        }
        return place[stage](scene)

    def outputs(self, stage: str) -> tuple[Path, ...]:
        """What a stage on the whole archive leaves; first the file that Snakemake watches."""
        return {
            "normalize": (self.statistics,),
            "train": (self.encoder, self.training_log, self.checkpoint),
            "codebook": (self.codebook,),
            "hierarchy": (self.hierarchy,),
            "name": (self.names, *(self.names.with_name(f"next.{kind}") for kind in ("csv", "geojson"))),
            "baselines": (self.baselines,),
            "metrics": (self.metrics,),
            "report": (
                self.report / "index.html",
                *(self.report / name for name in REPORT_FOLDERS),
                self.stac,
            ),
        }[stage]

    @property
    def complete(self) -> Path:
        return self.root / "manifests" / "complete.json"

    def manifest(self, stage: str, shard: str) -> Path:
        return self.root / "manifests" / stage / f"{shard}.json"

    def archive_record(self, stage: str) -> Path:
        return self.record(stage, ARCHIVE, self.outputs(stage)[0].name)

    def record(self, stage: str, shard: str, scene: str) -> Path:
        return self.root / "manifests" / stage / shard / f"{scene}.json"
