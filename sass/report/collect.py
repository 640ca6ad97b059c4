"""What the report tells, gathered from manifests, small JSON files and one colour table."""

import contextlib
import functools
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioIOError
from safetensors import safe_open

from sass.colours import Colour, class_colours
from sass.errors import SassError
from sass.files import file_digest, read_json
from sass.report.provenance import StageCost, stage_costs, versions
from sass.run import SHARD_STAGES, Run


def hexadecimal(colour: Colour) -> str:
    """Write a colour as in CSS."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene that has a map."""

    id: str
    shape: tuple[int, int]
    """Height and width in pixels."""
    bands: int
    dtype: str
    crs: str
    """Name of the CRS, empty for a scene without georeference."""
    wkt: str
    """The CRS itself, empty where there is none."""
    outline: tuple[tuple[float, float], ...]
    """Its corners in the CRS, x and y, from upper left on around."""
    pixel_area: float | None
    """Square metres of a pixel in the plane of the CRS; None where the CRS has no metres."""
    fitted: bool
    """Whether statistics, encoder and codebook were fitted on it."""
    valid: int
    """Pixels with data."""
    classes: int
    """Classes of its map, met in it or not."""
    counts: dict[int, int]
    """Pixels of each class."""
    confidence: float | None
    """Mean confidence, a fraction."""
    digest: str
    """Digest of its segments."""

    @property
    def mapped(self) -> int:
        """Pixels with a class."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class SetAside:
    """A scene or a file that a stage could not process, and why."""

    name: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Klass:
    """One class of the maps, with what it covers in the whole archive."""

    id: int
    given: str | None
    """Its own name, where `sass name` has given one."""
    label: str | None
    """Name of the label it is matched with, where there are labels."""
    colour: Colour
    pixels: int
    share: float
    """Fraction of all pixels with a class."""
    km2: float | None
    """Area over the scenes whose CRS is metric; None where no scene has such a CRS."""

    @property
    def name(self) -> str:
        own = self.given or f"Class {self.id}"
        return own if self.label in (None, self.given) else f"{own} · {self.label}"

    @property
    def hex(self) -> str:
        """The colour as in CSS."""
        return hexadecimal(self.colour)


@dataclass(frozen=True)
class Archive:
    """Everything the pages say, apart from what pixels show."""

    scenes: list[Scene]
    set_aside: list[SetAside]
    classes: list[Klass]
    statistics: dict[str, Any]
    hierarchy: dict[str, Any]
    metrics: dict[str, Any]
    training: list[dict[str, float]]
    costs: list[StageCost]
    versions: dict[str, str]
    digests: dict[str, str]
    exact: bool
    """Whether embeddings, and so maps, are the same whatever the window; see `sass.model.interface`."""

    @property
    def pixels(self) -> int:
        """Pixels with data over all scenes with a map."""
        return sum(scene.valid for scene in self.scenes)

    @property
    def named(self) -> bool:
        """Whether `sass name` has given the classes names: they are then no cut of the merge tree."""
        return any(k.given is not None for k in self.classes)

    @property
    def labelled(self) -> bool:
        """Whether there were labels to score against."""
        return self.metrics.get("accuracy") is not None


def gather(run: Run, archive: list[str], fit: list[str]) -> Archive:
    """Read what the stages left, one manifest at a time.

    Raises
    ------
    SassError
        A file of an earlier stage is missing, or no scene has a map.
    """
    scenes, set_aside = _scenes(run, archive, set(fit))
    if not scenes:
        reasons = "; ".join(f"{aside.name}: {aside.reason}" for aside in set_aside[:5])
        raise SassError(f"{run.root}: no scene has a map to report on ({reasons or 'no scenes'})")
    metrics = _read(run.metrics, "evaluate")
    return Archive(
        scenes=scenes,
        set_aside=set_aside,
        classes=_classes(run, scenes, metrics.get("matching") or {}),
        statistics=_read(run.statistics, "normalize"),
        hierarchy=_read(run.hierarchy, "hierarchy"),
        metrics=metrics,
        training=_training(run.training_log),
        costs=stage_costs(run.benchmarks),
        versions=versions(),
        digests={
            path.relative_to(run.root).as_posix(): file_digest(path)
            for path in (run.statistics, run.encoder, run.codebook, run.hierarchy)
            if path.exists()
        },
        exact=_exact(run.encoder),
    )


def _scenes(run: Run, archive: list[str], fit: set[str]) -> tuple[list[Scene], list[SetAside]]:
    scenes: list[Scene] = []
    aside = [SetAside(path, "scan", reason) for path, reason in _optional(run.broken).items()]
    for shard in archive:
        manifests = {stage: _optional(run.manifest(stage, shard)) for stage in SHARD_STAGES}
        for stage, manifest in manifests.items():
            aside += [SetAside(scene, stage, reason) for scene, reason in manifest.get("failed", {}).items()]
        ingested = manifests["ingest"].get("scenes", {})
        for scene, record in manifests["segment"].get("scenes", {}).items():
            scenes.append(_scene(scene, ingested[scene], record, shard in fit))
    return sorted(scenes, key=lambda s: s.id), sorted(aside, key=lambda a: (a.name, a.stage))


def _scene(scene: str, ingested: dict[str, Any], segmented: dict[str, Any], fitted: bool) -> Scene:
    name, metres = _crs(ingested.get("crs"))
    place, (height, width) = Affine(*ingested["transform"]), ingested["shape"][-2:]
    return Scene(
        id=scene,
        shape=(height, width),
        bands=int(ingested["bands"]),
        dtype=ingested["dtype"],
        crs=name,
        wkt=sys.intern(ingested.get("crs") or ""),
        outline=tuple(place @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))),
        pixel_area=None if metres is None else abs(place.determinant) * metres**2,
        fitted=fitted,
        valid=int(ingested["valid"]),
        classes=int(segmented["classes"]),
        counts={int(k): int(n) for k, n in segmented["counts"].items()},
        confidence=segmented.get("confidence"),
        digest=segmented.get("digest", ""),
    )


@functools.cache
def _crs(wkt: str | None) -> tuple[str, float | None]:
    """Return the name of a CRS and the metres in its unit, None where its unit is an angle."""
    if not wkt:
        return "", None
    try:
        crs = CRS.from_wkt(wkt)
    except CRSError as error:
        raise SassError(f"a manifest of ingest has an unreadable CRS ({error}); run ingest again") from None
    code = crs.to_epsg()
    name = f"EPSG:{code}" if code else wkt.split('"')[1]
    return name, crs.linear_units_factor[1] if crs.is_projected else None


def _classes(run: Run, scenes: list[Scene], matching: dict[str, str]) -> list[Klass]:
    pixels: Counter[int] = Counter()
    square_metres: Counter[int] = Counter()
    for scene in scenes:
        pixels.update(scene.counts)
        if scene.pixel_area is not None:
            square_metres.update({k: n * scene.pixel_area for k, n in scene.counts.items()})
    metric = any(scene.pixel_area is not None for scene in scenes)
    total = max(sum(pixels.values()), 1)
    names = read_json(run.names)["names"] if run.names.exists() else []
    colours = colour_table(run, scenes[0].id, scenes[0].classes, names)
    area = {k: square_metres[k] / 1e6 if metric else None for k in colours}
    given = dict(enumerate(names)) if len(names) == len(colours) else {}
    return [
        Klass(k, given.get(k), matching.get(str(k)), colour, pixels[k], pixels[k] / total, area[k])
        for k, colour in colours.items()
    ]


@contextlib.contextmanager
def open_map(path: Path) -> Iterator[rasterio.DatasetReader]:
    """Open a map for reading; one without georeference is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioIOError as error:
            raise SassError(f"{path}: cannot be read ({error}); run segment again") from None
    with source:
        yield source


def colour_table(run: Run, scene: str, classes: int, names: list[str]) -> dict[int, Colour]:
    """Return the colour of each class from a scene's map, so that the report and a GIS agree.

    Maps of 16 bits have no colour table; their classes get the colours that a table would hold.
    """
    path = run.segments(scene) / "segments.tif"
    with open_map(path) as source:
        if source.dtypes[0] != "uint8":
            return dict(enumerate(class_colours(classes, names)))
        try:
            table = source.colormap(1)
        except ValueError:
            raise SassError(f"{path}: has no colour table to show classes by; run segment again") from None
    return {k: tuple(table[k][:3]) for k in range(classes)}


def _training(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _exact(path: Path) -> bool:
    if not path.exists():
        return True
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["sass"])["exact"]


def _read(path: Path, stage: str) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise SassError(f"{path} is missing, so the report cannot be made; run sass {stage} first") from None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
