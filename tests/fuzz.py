"""Fuzzing of all that reads what others wrote: valid files are mutated, and only our own errors may come.

``python tests/fuzz.py --minutes 10`` spends so many minutes of CPU on each target, in a process of its own,
and says how many inputs were tried and how many of them were taken. What crashes is kept and ends the run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from affine import Affine
from corpus import CASES, PLACE, scene, vrt
from rasterio.crs import CRS
from scenes import make_geotiff

from sass.catalog import load_index, load_labels, load_shard
from sass.config import Catalog, Ingest
from sass.errors import SassError
from sass.evidence import Grid, read_places
from sass.georeference import Georeference
from sass.grid import Window
from sass.headers import read_rows
from sass.ingest import ingest_shard
from sass.labels import label_reader, opened
from sass.run import Run
from sass.scan import scan
from sass.settings import assignment, default_yaml, load
from sass.sources import Candidate, find_candidates

TOKENS = [
    b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"null",
    b'"', b"'", b"\n", b",", b":", b"<", b"&x;", b"../", b"/vsicurl/http://127.0.0.1:9/", b"\xed\xa0\x80",
    b"9" * 40, b"[" * 3000, b"true",
]  # fmt: skip
"""Pieces on which readers stumble."""

Attempt = Callable[[Path, bytes], object]


@dataclass(frozen=True)
class Target:
    """Something that reads: valid inputs to begin with, and a function that reads one."""

    seeds: Callable[[Path], list[bytes]]
    attempt: Attempt


@dataclass
class Tally:
    """What has come of the inputs of a target."""

    tried: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)


def mutated(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Change a few places: bits, bytes, pieces cut out, doubled, taken from other inputs, or ends cut off."""
    out = bytearray(data)
    for _ in range(1 + rng.geometric(0.3)):
        at, length = int(rng.integers(len(out) + 1)), int(rng.geometric(0.05))
        match int(rng.integers(7)):
            case 0 if out:
                out[at % len(out)] ^= 1 << int(rng.integers(8))
            case 1 if out:
                out[at % len(out)] = int(rng.integers(256))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                token = TOKENS[int(rng.integers(len(TOKENS)))]
                out[at : at + (len(token) if rng.integers(2) else 0)] = token
            case 5:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(len(other) + 1))
                out[at : at + length] = other[start : start + length]
            case 6 if rng.integers(4) == 0:
                del out[at:]
    return bytes(out)


# --------------------------------------------------------------------------------------------------- targets


def rasters(home: Path) -> list[bytes]:
    """Return small rasters of every format and form."""
    names = (
        "cog", "jp2", "png", "planar", "bigtiff", "big_endian", "lerc", "palette", "scaled", "vrt_beside",
        "mask_inside", "directories", "gcps", "rotated", "as_float64", "block_bomb", "huge",
    )  # fmt: skip
    out = []
    for name in names:
        (home / name).mkdir()
        CASES[name].make(home / name)
        out += [p.read_bytes() for p in sorted((home / name).glob("*.*")) if p.is_file()]
    make_geotiff(home / "a.jpg", (3, 32, 32), driver="JPEG", nodata=None, crs=None)
    return [data for data in [*out, (home / "a.jpg").read_bytes()] if len(data) < 1 << 18]


def read_header(home: Path, data: bytes) -> None:
    (home / "a.tif").write_bytes(data)
    (row,) = read_rows([Candidate((str(home / "a.tif"),), "a")], [None])
    if isinstance(row, SassError):
        raise row
    json.dumps(row.as_json(), allow_nan=False)


def read_pixels(home: Path, data: bytes) -> None:
    (home / "archive").mkdir(exist_ok=True)
    (home / "archive" / "a.tif").write_bytes(data)
    run = Run(home / "run")
    result = scan(run, [str(home / "archive")], settings=Catalog(), prune=True)
    for shard, held in load_index(run).items():
        # mutated sizes are left alone: what is large takes long, and proves nothing here
        if held.pixels < 1 << 22 and all(row.bands < 64 for row in load_shard(run, shard).values()):
            ingest_shard(run, shard, Ingest(chunk=64, shard=1024), threads=1)
    if result.broken:
        raise SassError("set aside")


def catalogs(home: Path) -> list[bytes]:
    """Return the files of a catalog, each with its name before it."""
    for name in ("a", "b"):
        scene(home, f"archive/{name}.tif")
        make_geotiff(home / "labels" / f"{name}.tif", (1, 24, 40))
    run = Run(home / "made")
    scan(run, [str(home / "archive")], labels=[str(home / "labels")], settings=Catalog(shard_size=1))
    files = sorted(p for p in (home / "made" / "catalog").rglob("*.json"))
    return [f"{p.relative_to(home / 'made')}\n".encode() + p.read_bytes() for p in files]


def read_catalog(home: Path, data: bytes) -> None:
    name, _, content = data.partition(b"\n")
    # a name that was mutated means the index; the other files are those that a scan has written
    place = home / "made" / (os.fsdecode(name) if name in NAMES else "catalog/index.json")
    whole = place.read_bytes()
    place.write_bytes(content)
    run = Run(home / "made")
    try:
        for shard in load_index(run):
            load_shard(run, shard)
            load_labels(run, shard)
        scan(run, [str(home / "archive")], settings=Catalog(), dry_run=True)
    finally:
        place.write_bytes(whole)


NAMES = {f"catalog/{kind}/s0000{i}.json".encode() for kind in ("shards", "labels") for i in (0, 1)} | {
    b"catalog/broken.json"
}


def configurations(home: Path) -> list[bytes]:
    examples = sorted(Path(__file__).parents[1].glob("config/**/*.yaml"))
    return [
        default_yaml().encode(),
        *(path.read_bytes() for path in examples),
        b"segment.classes=12",
        b'ingest={"bands": [1, 2]}',
    ]


def read_configuration(home: Path, data: bytes) -> None:
    (home / "c.yaml").write_bytes(data)
    load(assignment(data.decode(errors="replace")) if b"\n" not in data else home / "c.yaml")


def label_rasters(home: Path) -> list[bytes]:
    make_geotiff(home / "map.tif", (1, 24, 40))
    for name, options in (("same", {}), ("other", {"res": 7.0}), ("real", {"dtype": "float32"})):
        make_geotiff(home / f"{name}.tif", (1, 24, 40), **options)
    vrt(home / "labels.vrt", "same.tif")
    return [p.read_bytes() for p in sorted(home.glob("*.*")) if p.name != "map.tif"]


def read_labels(home: Path, data: bytes) -> None:
    (home / "l.tif").write_bytes(data)
    with opened(home / "map.tif", "map") as grid, label_reader(home / "l.tif", grid) as read:
        read(Window(0, 0, 24, 40))


def places(home: Path) -> list[bytes]:
    point = {"type": "Point", "coordinates": [15.001, 48.745]}
    square = {"type": "Polygon", "coordinates": [[[15, 48.74], [15.01, 48.74], [15.01, 48.75], [15, 48.74]]]}
    features = [{"type": "Feature", "properties": {"label": "x"}, "geometry": g} for g in (point, square)]
    collection = {"type": "FeatureCollection", "features": features}
    return [
        b"csv\nlabel,lon,lat\nwater,15.001,48.745\nwood,15.002,48.744\n",
        b"csv\nlabel,scene,row,col\nwater,a,3,4\nwood,a,10,12\n",
        b"geojson\n" + json.dumps(collection).encode(),
        b"geojson\n" + json.dumps(collection | {"crs": {"properties": {"name": "EPSG:4326"}}}).encode(),
    ]


def read_points(home: Path, data: bytes) -> None:
    kind, _, content = data.partition(b"\n")
    path = home / ("p.geojson" if kind.startswith(b"g") else "p.csv")
    path.write_bytes(content)
    grid = Grid("a", (24, 40), Georeference(CRS.from_epsg(32633), Affine(*PLACE)), home)
    grid.__dict__["stride"] = 4  # of features that nobody has made
    read_places(path, [grid], None, None, {})


def lists(home: Path) -> list[bytes]:
    assets = {"B1": {"href": "a.tif", "type": "image/tiff", "roles": ["data"]}, "B2": {"href": "./b.tif"}}
    item = {
        "type": "Feature",
        "id": "x",
        "properties": {"datetime": "2020-01-02T03:04:05Z"},
        "assets": assets,
    }
    table = b"csv\npath,id,time,sensor,label\na.tif,first,2019-05-04,landsat,t.tif\nb.tif,,1999,,\n"
    many = {"type": "FeatureCollection", "features": [item, item]}
    return [table, b"json\n" + json.dumps(item).encode(), b"json\n" + json.dumps(many).encode()]


def read_list(home: Path, data: bytes) -> None:
    kind, _, content = data.partition(b"\n")
    path = home / ("list.json" if kind.startswith(b"j") else "list.csv")
    path.write_bytes(content)
    found, _ = find_candidates(Run(home / "run"), [str(path)], set())
    read_rows(found, [None] * len(found))


TARGETS = {
    "headers": Target(rasters, read_header),
    "pixels": Target(rasters, read_pixels),
    "catalog": Target(catalogs, read_catalog),
    "configuration": Target(configurations, read_configuration),
    "labels": Target(label_rasters, read_labels),
    "places": Target(places, read_points),
    "lists": Target(lists, read_list),
}


# -------------------------------------------------------------------------------------------------- the loop


def fuzz(name: str, home: Path, seed: int, goes_on: Callable[[Tally], bool]) -> Tally:
    """Try mutated inputs on a target while ``goes_on`` says so, and stop at the first crash."""
    target, rng, tally = TARGETS[name], np.random.default_rng(seed), Tally()
    seeds = target.seeds(home)
    while goes_on(tally) and not tally.crashes:
        data = mutated(seeds[int(rng.integers(len(seeds)))], seeds, rng)
        (home / "input").write_bytes(data)  # stands, whatever kills the process
        tally.tried += 1
        try:
            target.attempt(home, data)
        except SassError:
            tally.refused += 1
        except Exception as error:
            tally.crashes.append(f"{type(error).__name__}: {error}")
            raise
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of CPU for each target (10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations (the clock)")
    parser.add_argument("--only", choices=TARGETS, help="this target, in this process")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if not asked.only:
        again = [
            sys.executable,
            __file__,
            "--minutes",
            str(asked.minutes),
            "--seed",
            str(asked.seed),
            "--only",
        ]
        return max(subprocess.run([*again, name]).returncode != 0 for name in TARGETS)
    home = Path(tempfile.mkdtemp(prefix=f"fuzz-{asked.only}-"))
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    sys.stderr.flush()
    os.dup2(os.open(home / "said.txt", os.O_WRONLY | os.O_CREAT), 2)  # thousands of reasons
    tally = Tally()
    begun = time.process_time()
    print(f"{asked.only}: seed {asked.seed}, the input at hand is {home / 'input'}", flush=True)
    tally = fuzz(asked.only, home, asked.seed, lambda _: time.process_time() - begun < 60 * asked.minutes)
    taken = tally.tried - tally.refused
    minutes = (time.process_time() - begun) / 60
    print(f"{asked.only}: {minutes:.1f} CPU minutes, {tally.tried:,} inputs, {taken:,} taken, no crash")
    return 0


if __name__ == "__main__":
    sys.exit(main())
