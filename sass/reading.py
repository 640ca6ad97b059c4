"""A run as arrays: ``sass.open("results/mine")`` in a notebook. Nothing is read before it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import rioxarray
import xarray as xr

from sass.catalog import load_index, load_shard
from sass.cluster.codebook import Codes
from sass.cog import CONFIDENCE_STEPS
from sass.errors import SassError
from sass.files import read_json
from sass.manifest import needed, scenes_of
from sass.run import Run
from sass.store import INT8_SCALE, REMAINDER_SCALE, FeatureStore, SceneStore

V = TypeVar("V")
CHUNKS = {"band": 1, "y": 2048, "x": 2048}
"""What dask reads at a time of a map: several blocks of the file."""


class Lazily(Mapping[str, V]):
    """Scene id to what is opened when it is asked for."""

    def __init__(self, what: str, scenes: Callable[[], list[str]], opened: Callable[[str], V]):
        self.what, self._scenes, self._opened = what, scenes, opened

    def __getitem__(self, scene: str) -> V:
        if scene not in self._scenes():
            raise KeyError(
                f"no {self.what} of a scene {scene!r} stands; those that do: list(run.{self.what})"
            )
        return self._opened(scene)

    def __iter__(self) -> Iterator[str]:
        return iter(self._scenes())

    def __len__(self) -> int:
        return len(self._scenes())

    def __repr__(self) -> str:
        return f"<{self.what} of {len(self)} scenes>"


class OpenRun:
    """What stands in a run when it is first looked at, as xarray objects whose values wait on disk.

    Attributes
    ----------
    scenes
        Scene id to a dataset: ``bands (band, y, x)`` as the raster has them, 0 without data, and ``valid
        (y, x)`` bool.
    features
        Scene id to a dataset: ``embedding (embedding, y, x)`` float32, one for 4 x 4 pixels, and ``valid``.
    segments
        Scene id to the classes ``(y, x)``, uint8 or uint16; ``rio.nodata`` where there is no data.
    confidence
        Scene id to float32 ``(y, x)``: 0, another class is as near; 1, none is near; NaN without data.
    codes
        Scene id to the fine code of each embedding, ``(y, x)``; ``rio.nodata`` where there is no data.
    """

    def __init__(self, root: Path):
        self.run = Run(root)
        load_index(self.run)  # says so where there is no run
        self._records = cache(self._read)
        self.scenes = Lazily("scenes", lambda: self._made("ingest"), self._scene)
        self.features = Lazily("features", lambda: self._made("features"), self._features)
        self.segments = Lazily(
            "segments", lambda: self._made("segment"), lambda s: self._raster(s, "segments")
        )
        self.confidence = Lazily("confidence", lambda: self._made("segment"), self._confidence)
        self.codes = Lazily("codes", lambda: self._made("segment"), lambda s: self._raster(s, "codes"))

    def __repr__(self) -> str:
        held = (f"{kind.what} {len(kind)}" for kind in (self.scenes, self.features, self.segments))
        return f"<run {self.run.root}: {', '.join(held)}>"

    @cached_property
    def catalog(self) -> pd.DataFrame:
        """What the scan found: a row a scene, by its id, with the shard it belongs to."""
        rows = [
            {**scene.as_json(), "shard": shard}
            for shard in load_index(self.run)
            for scene in load_shard(self.run, shard).values()
        ]
        return pd.DataFrame(rows).set_index("id").sort_index()

    @property
    def codebook(self) -> xr.Dataset:
        """The codes: ``codes (code, component)`` in the metric of the codebook, and their ``members (code)``.

        Also ``offset (embedding)`` and ``matrix (embedding, component)``: an embedding x lies at
        ``(x - offset) @ matrix``.
        """
        held = Codes.load(needed(self.run.codebook, f"sass codebook {self.run.root}"))
        return xr.Dataset(
            {
                "codes": (("code", "component"), held.codes),
                "members": ("code", held.sizes),
                "offset": ("embedding", held.metric.offset),
                "matrix": (("embedding", "component"), held.metric.matrix),
            },
            attrs={"spread": held.spread},
        )

    @property
    def names(self) -> list[str]:
        """The names of the classes, in their order, by `sass name`; without it, numbers."""
        if self.run.names.exists():
            return list(read_json(self.run.names)["names"])
        counts = {record["classes"] for record in self._records("segment").values()}
        return [str(number) for number in range(max(counts, default=0))]

    def areas(self) -> pd.DataFrame:
        """Pixels of each class (columns, by name) in each scene (rows); reads the manifests only."""
        table = {scene: record["counts"] for scene, record in self._records("segment").items()}
        frame = pd.DataFrame.from_dict(table, orient="index").rename_axis("scene")
        columns = [str(number) for number in range(len(self.names))]
        return frame.reindex(columns=columns).fillna(0).astype(int).set_axis(self.names, axis=1).sort_index()

    def _read(self, stage: str) -> dict[str, dict]:
        shards = (shard for shard in load_index(self.run) if self.run.manifest(stage, shard).exists())
        return {
            scene: record for shard in shards for scene, record in scenes_of(self.run, stage, shard).items()
        }

    def _made(self, stage: str) -> list[str]:
        return sorted(self._records(stage))

    def _scene(self, scene: str) -> xr.Dataset:
        store = SceneStore(self.run.scene(scene))
        opened = _chunked(store.to_xarray(), store.bands.shards)
        names = opened.assign_coords(band=store.band_names)[["bands", "valid"]]
        return names.assign(valid=opened.valid.astype(bool))

    def _features(self, scene: str) -> xr.Dataset:
        store = FeatureStore(self.run.features(scene))
        opened = _chunked(store.to_xarray(), store.embedding.shards)
        values = opened.embedding.astype(np.float32)
        if opened.embedding.dtype == np.int8:
            values = values * np.float32(INT8_SCALE)
        if "remainder" in opened:
            rest = opened.remainder.astype(np.float32) * np.float32(REMAINDER_SCALE)
            first = values.sizes["embedding"] - rest.sizes["look"]
            values = xr.concat([values[:first], values[first:] + rest.rename(look="embedding")], "embedding")
        parts = [name for name, length in store.parts.items() for _ in range(length)]
        out = opened[["valid"]].assign(embedding=values, valid=opened.valid.astype(bool))
        return out.assign_coords(part=("embedding", parts))

    def _raster(self, scene: str, name: str) -> xr.DataArray:
        path = self.run.segments(scene) / f"{name}.tif"
        opened = rioxarray.open_rasterio(path, chunks=CHUNKS)
        return opened.squeeze("band", drop=True).rename(name)

    def _confidence(self, scene: str) -> xr.DataArray:
        stored = self._raster(scene, "confidence")
        shares = (stored / np.float32(CONFIDENCE_STEPS)).where(stored != stored.rio.nodata)
        return shares.astype(np.float32).rename("confidence").rio.write_crs(stored.rio.crs)


def _chunked(opened: xr.Dataset, sides: tuple[int, ...]) -> xr.Dataset:
    """Let dask read a store by its files: a part of one would read all of it."""
    return opened.chunk({"y": sides[-2], "x": sides[-1]})


def open_run(root: str | Path) -> OpenRun:
    """Open the folder of a run.

    Parameters
    ----------
    root
        The folder, such as ``results/mine``.

    Returns
    -------
    OpenRun

    Raises
    ------
    SassError
        There is no run.
    """
    root = Path(root)
    if not root.exists():
        raise SassError(
            f"{root} is not there; give the folder of a run, the one that `sass scan --into` was given"
        )
    return OpenRun(root)
