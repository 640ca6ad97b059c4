"""Where everything in a run's folder stands."""

from dataclasses import dataclass
from pathlib import Path

SHARD_STAGES = ("ingest", "features", "segment", "evaluate")
"""Stages whose unit of work is a shard."""


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

    def catalog_shard(self, shard: str) -> Path:
        return self.root / "catalog" / "shards" / f"{shard}.json"

    def catalog_labels(self, shard: str) -> Path:
        return self.root / "catalog" / "labels" / f"{shard}.json"

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

    def evaluation(self, scene: str) -> Path:
        return self.root / "evaluation" / f"{scene}.json"

    @property
    def baselines(self) -> Path:
        return self.root / "baselines" / "baselines.safetensors"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def metrics(self) -> Path:
        return self.report / "metrics.json"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    def manifest(self, stage: str, shard: str) -> Path:
        return self.root / "manifests" / stage / f"{shard}.json"

    def record(self, stage: str, shard: str, scene: str) -> Path:
        return self.root / "manifests" / stage / shard / f"{scene}.json"
