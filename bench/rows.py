"""Rows of the quality benchmark: what is declared in quality.yaml, and the jobs that come of it."""

import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from sass.config import Config, Count, Section
from sass.errors import ConfigError
from sass.files import digest, file_digest
from sass.fingerprint import stage_fingerprint
from sass.model.interface import OURS, EncoderError, _factory
from sass.model.objective import Sass
from sass.settings import check_whole, load, stage_settings
from sass.train import objective_identity

HERE = Path(__file__).parent
ROWS = HERE / "quality.yaml"
SHARED = ("ingest", "normalize")
"""Stages that are done once for all rows, after the scan."""
CLUSTERING = ("codebook", "hierarchy", "segment", "evaluate")
"""Stages that are done for every row."""
FREE = {"model", "train", "features", "codebook", "hierarchy", "segment"}
"""Sections that a row may change; the others are the same for all."""


class Row(Section):
    """What is measured: a configuration, an objective, or one of the baselines."""

    name: str
    group: Literal["sass", "ablation", "clustering", "peer", "encoder", "baseline"]
    overrides: dict[str, Any] = Field({})
    objective: str | None = None
    """``package.module:Class`` instead of SASS's own."""
    baseline: Literal["raw", "blurred", "deviation", "random"] | None = None
    needs: list[str] = Field([])
    """Packages without which the row is left out."""

    @property
    def missing(self) -> list[str]:
        """Packages that are needed and not there."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def objective_class(self) -> type:
        """Import the objective."""
        if self.objective is None:
            return Sass
        module, _, name = self.objective.partition(":")
        return getattr(importlib.import_module(module), name)


class Suite(Section):
    """Rows, how many seeds each has, and the settings under all of them."""

    seeds: Count
    settings: dict[str, Any] = Field({})
    rows: list[Row]


def load_suite(path: Path, name: str) -> Suite:
    """Read a suite and check it.

    Raises
    ------
    ConfigError
        The file does not declare it, or a row is not as it should be.
    """
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    if name not in tree:
        raise ConfigError(f"{path} declares no suite {name!r}, only {', '.join(tree)}")
    try:
        suite = Suite.model_validate(tree[name])
    except ValidationError as error:
        raise ConfigError(f"{path}: the suite {name!r} is not valid: {error}") from None
    names = [row.name for row in suite.rows]
    for row in suite.rows:
        if names.count(row.name) > 1:
            raise ConfigError(f"{path}: two rows of {name!r} are called {row.name!r}; give each its own name")
        if fixed := sorted(set(row.overrides) - FREE):
            raise ConfigError(
                f"{path}: the row {row.name!r} changes {', '.join(fixed)}, which all rows share; give it "
                "with --set for all of them"
            )
    return suite


@dataclass(frozen=True)
class Job:
    """A row with a seed: the whole configuration it stands for."""

    row: Row
    seed: int
    settings: Config
    data: str
    """Digest of scenes and labels."""

    @cached_property
    def encoder(self) -> str:
        """What tells encoders apart: jobs with the same one share it."""
        return digest(self._made_by("scan", *SHARED, "train"), self._brought)[:16]

    @property
    def features(self) -> str:
        """What tells features of one encoder apart."""
        return digest(stage_settings(self.settings, "features"))

    @cached_property  # of the code as it was when asked first: files may be edited while rows are measured
    def fingerprint(self) -> str:
        """All that determines the scores."""
        if self.row.baseline:
            others = self.settings.segment.classes, self.settings.model.model_dump(mode="json")
            return digest(self._made_by("scan", *SHARED, "evaluate"), others)
        made_by = self._made_by("scan", *SHARED, "train", "features", *CLUSTERING)
        return digest(made_by, self._brought, file_digest(HERE / "scores.py"))

    @property
    def _brought(self) -> list[Any]:
        """What no stage's fingerprint holds: the code of an objective and of an encoder of others."""
        return [objective_identity(self.row.objective_class()), _factory_digest(self.settings.model.encoder)]

    def _made_by(self, *stages: str) -> list[Any]:
        code = [stage_fingerprint(stage) for stage in stages if stage != "scan"]
        return [self.data, code, [stage_settings(self.settings, stage) for stage in stages]]


def _factory_digest(encoder: str) -> str | None:
    """Hash the file of the function that ``model.encoder`` names; None for this package's."""
    if encoder == OURS:
        return None
    try:
        return file_digest(Path(inspect.getfile(_factory(encoder))))
    except EncoderError as error:
        raise ConfigError(str(error)) from error


def plan(suite: Suite, seeds: int, data: str, base: dict[str, Any]) -> list[Job]:
    """Return the jobs of all rows whose packages are there, seed by seed; each configuration is checked."""
    jobs = []
    for seed in range(seeds):
        own = {section: {"seed": seed} for section in ("train", "codebook", "hierarchy", "evaluate")}
        for row in suite.rows:
            if not row.missing:
                compared = {"evaluate": {"baselines": [row.baseline] if row.baseline else []}}
                jobs.append(Job(row, seed, check_whole(load(base, row.overrides, own, compared)), data))
    return jobs
