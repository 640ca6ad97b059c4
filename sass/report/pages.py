"""Templates and what they are filled with: scores, names and numbers as people read them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from sass.report.collect import Archive, Klass
from sass.report.footprints import degrees

BASELINES = {
    "raw": "k-means on raw pixels",
    "blurred": "k-means on blurred pixels",
    "deviation": "k-means on pixels and their local deviation",
    "random": "the encoder of SASS with random weights",
}
STAGES = {
    "scan": "headers into the catalog",
    "ingest": "rasters into Zarr",
    "normalize": "statistics of the bands",
    "train": "training of the encoder",
    "features": "embeddings of every scene",
    "codebook": "fine codes",
    "hierarchy": "merge tree and diagnostics",
    "segment": "maps of every scene",
    "change": "maps of what has changed",
    "evaluate": "counts against labels",
    "baselines": "fit of the baselines",
    "metrics": "one match over the archive",
    "report": "these pages",
}


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the comparison: ours or a baseline."""

    name: str
    ours: bool
    accuracy: float | None
    miou: float | None
    named_accuracy: float | None
    """Accuracy when each class takes the name of its commonest label: this uses labels."""
    named_miou: float | None


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One row of the scores by label."""

    name: str
    klass: Klass | None
    """The class matched with the label."""
    pixels: int
    iou: float | None
    f1: float | None


@dataclass(frozen=True)
class Scores:
    """The metrics, sorted for reading."""

    methods: list[Method]
    best: Method
    """The one of highest mean IoU."""
    labels: list[LabelScore]
    matrix_classes: list[str]
    matrix: np.ndarray
    """Pixels ``(label, class)``; matched classes stand on the diagonal, the rest to the right."""

    @property
    def ours(self) -> Method:
        return self.methods[0]

    def better(self) -> list[Method]:
        """Return the baselines that score higher than the maps, best first."""
        better = [m for m in self.methods if not m.ours and m.miou is not None and m.miou > self.ours.miou]
        return sorted(better, key=lambda m: -m.miou)


def scores(archive: Archive) -> Scores | None:
    """Arrange ``metrics.json`` for the pages; None without labels."""
    if not archive.labelled:
        return None
    metrics = archive.metrics
    methods = [_method("These maps", metrics, True)]
    methods += [
        _method(BASELINES.get(name, name), value, False) for name, value in metrics["baselines"].items()
    ]
    matched = {k.label: k for k in archive.classes if k.label is not None}
    table = metrics["confusion"]
    labels: list[str] = table["labels"]
    counts = np.asarray(table["counts"], dtype=np.int64).reshape(len(labels), len(table["classes"]))
    silent = np.asarray(table["unanswered"], dtype=np.int64)
    column = {int(k): j for j, k in enumerate(table["classes"])}
    diagonal = [column[matched[name].id] for name in labels if name in matched and matched[name].id in column]
    order = diagonal + [j for j in range(len(column)) if j not in diagonal]
    matrix, names = counts[:, order], [f"Class {table['classes'][j]}" for j in order]
    if silent.any():
        matrix, names = np.column_stack([matrix, silent]), [*names, "no answer"]
    return Scores(
        methods=methods,
        best=max(methods, key=lambda m: -1 if m.miou is None else m.miou),
        labels=[
            LabelScore(
                name, matched.get(name), int(pixels), metrics["iou"].get(name), metrics["f1"].get(name)
            )
            for name, pixels in zip(labels, matrix.sum(axis=1))
        ],
        matrix_classes=names,
        matrix=matrix,
    )


def _method(name: str, value: dict[str, Any], ours: bool) -> Method:
    named = value.get("many_to_one") or {}
    return Method(name, ours, value["accuracy"], value["miou"], named.get("accuracy"), named.get("miou"))


def environment() -> Environment:
    """Return the templates' environment. Everything is escaped: names come from strangers' files."""
    templates = Environment(
        loader=PackageLoader("sass.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": percent,
        "whole": whole,
        "number": number,
        "duration": duration,
        "km2": km2,
        "degrees": degrees,
    }
    templates.globals |= {"stages": STAGES}
    return templates


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction in percent."""
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def whole(value: float) -> str:
    """Write an integer with thin spaces between thousands."""
    return f"{round(value):,}".replace(",", "\u202f")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed number of digits."""
    return "–" if value is None else f"{value:.{digits}f}"


def km2(value: float | None) -> str:
    """Write an area, with fewer digits the larger it is."""
    if value is None:
        return "–"
    return whole(value) if value >= 100 else f"{value:.{3 if value < 1 else 2 if value < 10 else 1}f}"


def duration(seconds: float) -> str:
    """Write a time in the units a person would take."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def class_css(classes: list[Klass]) -> str:
    """Return the style sheet with the colour of each class: the pages need no inline styles."""
    return "".join(f".c{k.id} {{ --class: {k.hex}; }}\n" for k in classes)
