"""Change: what has become of each pixel since the scene before it, of the same footprint.

Both maps have the classes of one codebook, so they can be compared pixel by pixel; the earlier one is read
on the grid of the later one, by its nearest pixel. A change is as sure as the less confident of its two maps.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from sass.catalog import load_earlier
from sass.cluster.classes import load_classes
from sass.cog import CONFIDENCE_STEPS, new_classes, new_confidence
from sass.colours import UNCHANGED, class_colours
from sass.config import Change
from sass.errors import SassError
from sass.files import digest, replacing, write_json
from sass.fingerprint import stage_fingerprint
from sass.georeference import Georeference
from sass.grid import Window, tiles
from sass.manifest import Outcome, Record, run_shard, scenes_of
from sass.run import Run
from sass.stac import change_item, read_item
from sass.store import SceneStore

WINDOW = 1024
"""Side in pixels of the window that is compared at a time. Sets the memory of this stage."""
CACHE = 256 << 20
"""Bytes of GDAL's block cache, which otherwise grows with the machine."""
MOST = 254
"""Classes whose pairs have a value each in 16 bits."""


@dataclass
class Transitions:
    """Pixels by their class before and after: ``all`` and those that are ``sure``, int64 ``(n, n)`` each."""

    classes: int
    all: np.ndarray = field(init=False)
    sure: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.all, self.sure = np.zeros((2, self.classes, self.classes), np.int64)

    def add(self, before: np.ndarray, after: np.ndarray, sure: np.ndarray) -> None:
        """Count pixels ``(k)`` of known classes; ``sure`` says of each whether it counts twice."""
        pairs = before.astype(np.int64) * self.classes + after
        for counts, some in ((self.all, pairs), (self.sure, pairs[sure])):
            counts += np.bincount(some, minlength=self.classes**2).reshape(counts.shape)

    def rows(self) -> list[list[int]]:
        """Return ``[before, after, pixels, sure pixels]`` of the pairs that occur."""
        return [[a, b, int(self.all[a, b]), int(self.sure[a, b])] for a, b in np.argwhere(self.all).tolist()]


def change_shard(run: Run, shard: str, settings: Change) -> Outcome:
    """Bring the change maps of a shard up to date: of each scene that follows another of its footprint.

    A scene has none where the map of the one before was set aside.

    Raises
    ------
    SassError
        There are more than `MOST` classes, or maps with another number of them.
    """
    maps_of = cache(partial(scenes_of, run, "segment"))
    before: dict[str, str] = {}
    pairs: dict[str, tuple[Record, Record]] = {}
    for scene, (other, home) in load_earlier(run, shard).items():
        if scene in maps_of(shard) and other in maps_of(home):
            before[scene], pairs[scene] = other, (maps_of(home)[other], maps_of(shard)[scene])
    made_by = [stage_fingerprint("change"), settings.sure]
    prints = {
        scene: digest(made_by, before[scene], now["digest"], then["digest"])
        for scene, (then, now) in pairs.items()
    }
    counts = {record["classes"] for pair in pairs.values() for record in pair}
    if len(counts) > 1 or max(counts, default=0) > MOST:
        raise SassError(
            f"shard {shard}: maps of {' and '.join(map(str, sorted(counts)))} classes cannot be compared: "
            f"they must have one number, {MOST} at most; give `sass segment {run.root} --classes N`"
        )
    names = load_classes(run, max(counts)).names if counts else ()
    return run_shard(
        run,
        "change",
        shard,
        prints,
        run.changes,
        lambda scene: change_scene(run, scene, before[scene], max(counts), names, settings.sure),
    )


def change_scene(
    run: Run, scene: str, before: str, classes: int, names: tuple[str, ...], sure: float
) -> Record:
    """Write the change map of one scene, its confidence and its STAC item; return its record.

    The map has 0 where the class is that of before and ``1 + before * classes + after`` elsewhere; no data
    where one of both maps has none.
    """
    store = SceneStore(run.scene(scene))
    shape, place = store.shape, store.place
    transitions, trust = Transitions(classes), 0
    called = names or tuple(f"class {c}" for c in range(classes))
    pairs = list(product(range(classes), repeat=2))
    words = ["unchanged", *(f"{called[a]} to {called[b]}" for a, b in pairs)]
    own = class_colours(classes, names)
    colours = [UNCHANGED, *(own[b] for _, b in pairs)]
    with replacing(run.changes(scene)) as folder:
        folder.mkdir()
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE),
            _maps(run.segments(before), shape, place) as then,
            _maps(run.segments(scene), shape, place) as now,
            new_classes(folder / "change.tif", shape, place, len(words), words, colours) as map_file,
            new_confidence(folder / "confidence.tif", shape, place) as trust_file,
        ):
            for window in tiles(shape, WINDOW):
                (old, trusted), (new, trusts) = then(window), now(window)
                known = (old >= 0) & (new >= 0)
                value = np.where(old == new, 0, 1 + old * classes + new)
                value[~known] = map_file.nodata
                confidence = np.where(known, np.minimum(trusted, trusts), 255).astype(np.uint8)
                map_file.write(value.astype(map_file.target.dtypes[0]), window)
                trust_file.write(confidence, window)
                transitions.add(old[known], new[known], confidence[known] >= sure * CONFIDENCE_STEPS)
                trust += int(confidence[known].sum(dtype=np.int64))
        items = (read_item(run, run.segments(each)) for each in (before, scene))
        write_json(folder / "item.json", change_item(folder, *items, classes, names, transitions.rows()))
    pixels = int(transitions.all.sum())
    return {
        "before": before,
        "classes": classes,
        "transitions": transitions.rows(),
        "confidence": round(trust / max(pixels, 1) / CONFIDENCE_STEPS, 6),
    }


@contextmanager
def _maps(
    folder: Path, shape: tuple[int, int], place: Georeference
) -> Iterator[Callable[[Window], tuple[np.ndarray, np.ndarray]]]:
    """Open the maps of a scene on the grid of another.

    What is given reads a window: classes, int64 and -1 where there is none, and the stored confidence, ``(y,
    x)`` each.
    """
    grid = {"crs": place.crs, "transform": place.transform, "height": shape[0], "width": shape[1]}
    with ExitStack() as stack:
        classes, trust = (
            stack.enter_context(
                WarpedVRT(
                    stack.enter_context(rasterio.open(folder / name)), **grid, resampling=Resampling.nearest
                )
            )
            for name in ("segments.tif", "confidence.tif")
        )

        def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
            where = rasterio.windows.Window(window.x, window.y, window.width, window.height)
            values = classes.read(1, window=where)
            known = np.where(values == classes.nodata, -1, values.astype(np.int64))
            return known, trust.read(1, window=where)

        yield read
