"""The catalog of a run: which scenes there are, and which shard each belongs to.

`sass.scan` writes it, everything else reads it here. This module is imported while a Snakefile is
parsed, so it imports nothing heavy.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from sass.config import Catalog
from sass.errors import ConfigError, SassError
from sass.files import read_json
from sass.run import Run

Kind = TypeVar("Kind")
SAFE = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
"""A name that leads nowhere but into its own folder."""
Name = Annotated[str, Field(pattern=SAFE)]
"""Id of a scene, or name of a shard."""


@dataclass(frozen=True)
class Scene:
    """One row of the catalog: what the headers of a scene's files say."""

    id: Name
    """Safe file name, unique in the run."""
    paths: tuple[str, ...]
    """Absolute paths: one file, or several single-band files in the order of the bands."""
    driver: str
    """GDAL driver of the first file."""
    bands: int
    """Number of bands, alpha included."""
    band_names: tuple[str, ...]
    """A name for each band."""
    dtype: str
    """The numpy dtype that holds every band."""
    nodata: tuple[float | str | None, ...]
    """The 'no data' value of each band: a number, ``"nan"`` (also ``"inf"``, ``"-inf"``), or None."""
    crs: str | None
    """CRS as WKT, or None without georeference."""
    transform: tuple[float, ...]
    """Affine transform a, b, c, d, e, f; the identity without georeference."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    resolution: tuple[float, float] | None
    """Height and width of a pixel in units of the CRS, or None without georeference."""
    time: str | None
    """When it was taken: an ISO time, date or year."""
    sensor: str | None
    """What took it, where known."""
    size: int
    """Bytes of all files."""
    modified: int
    """Newest modification time of the files, in nanoseconds."""

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.shape[0] * self.shape[1]

    @property
    def source_identity(self) -> list[int]:
        """What changes when the files do, but not when the archive is moved: size, mtime, number of files."""
        return [self.size, self.modified, len(self.paths)]

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@dataclass(frozen=True)
class Label:
    """The label raster of a scene."""

    path: str
    size: int
    """Bytes."""
    modified: int
    """Modification time in nanoseconds."""


@dataclass(frozen=True)
class ShardInfo:
    """One entry of the index."""

    fit: bool
    """Whether statistics, encoder and codebook may be fitted on the shard's scenes."""
    scenes: int
    labels: int
    """Scenes that have a label raster."""
    pixels: int
    earlier: list[str] = field(default_factory=list)
    """Shards of the scenes that scenes of this shard follow: of the same footprint, taken before."""
    digests: list[str] | None = field(default=None, compare=False)
    """Of the file of scenes and the file of labels, as the scan wrote them."""


def size_and_time(paths: Iterable[str]) -> tuple[int, int]:
    """Return the total size in bytes and the newest mtime in nanoseconds of the files that are there."""
    stats = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            stats.append(os.stat(path))
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def load_index(run: Run) -> dict[str, ShardInfo]:
    """Return shard name to what the index says of it, sorted by name.

    Raises
    ------
    SassError
        The run has no catalog.
    """
    if not run.catalog.exists():
        raise SassError(
            f"{run.root} has no catalog of scenes yet: run `sass scan PATTERN... --into {run.root}` first, "
            "such as `sass scan 'archive/**/*.tif' --into " + f"{run.root}`."
        )
    return dict(sorted(_read(run, run.catalog, "shards", dict[Name, ShardInfo]).items()))


def load_shard(run: Run, shard: str) -> dict[str, Scene]:
    """Return the scenes of a shard by id, sorted."""
    return {row.id: row for row in _read(run, run.catalog_shard(shard), "scenes", list[Scene])}


def load_labels(run: Run, shard: str) -> dict[Name, Label]:
    """Return the label rasters of a shard by scene id, sorted; scenes without one are left out."""
    return dict(sorted(_read(run, run.catalog_labels(shard), "scenes", dict[Name, Label]).items()))


def load_earlier(run: Run, shard: str) -> dict[Name, tuple[Name, Name]]:
    """Return for each scene of a shard that follows another of its footprint that one, and its shard."""
    path = run.catalog_earlier(shard)
    return _read(run, path, "scenes", dict[Name, tuple[Name, Name]]) if path.exists() else {}


def load_broken(run: Run) -> dict[str, str]:
    """Return path to reason of the files that scans could not use."""
    return _read(run, run.broken, None, dict[str, str]) if run.broken.exists() else {}


def load_left(run: Run) -> dict[str, str]:
    """Return the shard of each scene that was there once."""
    return _read(run, run.left, None, dict[Name, Name]) if run.left.exists() else {}


def fit_shards(index: dict[str, ShardInfo], settings: Catalog) -> list[str]:
    """Return the names of the shards that everything is fitted on, sorted.

    Raises
    ------
    ConfigError
        ``catalog.fit_shards`` names a shard that does not exist.
    SassError
        No shard is left to fit on.
    """
    if settings.fit_shards is not None:
        unknown = sorted(set(settings.fit_shards) - set(index))
        if unknown:
            raise ConfigError(
                f"catalog.fit_shards: there is no shard {', '.join(unknown)}; "
                f"the catalog has {', '.join(index) or 'none'}"
            )
        chosen = sorted(set(settings.fit_shards))
    else:
        chosen = [name for name, entry in index.items() if entry.fit]
    if not chosen:
        raise SassError(
            "the catalog has no shard to fit on, so there is nothing to train with: name some in "
            f"catalog.fit_shards (the catalog has {', '.join(index) or 'no shards'}), "
            "or scan readable scenes into a fresh run"
        )
    return chosen


def _read(run: Run, path: Path, key: str | None, kind: type[Kind]) -> Kind:
    """Read a file, or what stands under a key of it, and check that it is of the kind that a scan writes."""
    try:
        tree = read_json(path)
        return _adapter(kind).validate_python(tree if key is None else tree[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else repr(error)
        raise SassError(
            f"{path}: this part of the catalog is missing or damaged ({said}); "
            f"scan the archive into a fresh run instead of {run.root}"
        ) from None


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)
