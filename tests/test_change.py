"""What has changed between two dates: each pixel of the later map beside the nearest one of the earlier."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from builders import UTM, catalog_row, ramps, store_scene
from stac_schemas import faults

import sass.change
from sass.change import change_shard
from sass.cluster.classes import Classes
from sass.cog import new_classes, new_confidence
from sass.config import Change
from sass.errors import SassError
from sass.files import read_json, sealed, write_json
from sass.georeference import Georeference
from sass.run import Run
from sass.stac import segment_item

SHAPE, CLASSES, NODATA = (150, 130), 4, 255
DATES = {"old": "1957", "mid": "2001-07-08", "new": "2003-09-10T12:00:00Z"}


def rectangles(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Make a map of fields with a corner of no data, and confidences, uint8 ``(y, x)`` each."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, CLASSES, (15, 13), np.uint8), np.ones((10, 10), np.uint8))
    trust = rng.integers(0, 255, SHAPE, np.uint8)
    classes[: 5 + seed, :7] = NODATA
    trust[classes == NODATA] = 255
    return classes[: shape[0], : shape[1]], trust[: shape[0], : shape[1]]


def add_map(
    run: Run, shard: str, name: str, pixels: tuple, place: Georeference = UTM, n: int = CLASSES
) -> None:
    """Write the store and the maps of a scene as ingest and segment would, and what its shard says of it.

    Its time is that of its name in `DATES`.
    """
    classes, trust = pixels
    store_scene(run, name, ramps(classes.shape), place)
    run.segments(name).mkdir(parents=True)
    with new_classes(run.segments(name) / "segments.tif", classes.shape, place, n) as raster:
        raster.write(classes)
    with new_confidence(run.segments(name) / "confidence.tif", classes.shape, place) as raster:
        raster.write(trust)
    (run.segments(name) / "codes.tif").touch()
    row = catalog_row(name, classes.shape, DATES.get(name, "2020"))
    item = segment_item(run.segments(name), row, classes.shape, place, {}, n, codes=n, stride=1)
    write_json(run.segments(name) / "item.json", item)
    path = run.manifest("segment", shard)
    scenes = json.loads(path.read_text())["scenes"] if path.exists() else {}
    scenes[name] = {"digest": f"of {name}", "classes": n}
    write_json(path, {"stage": "segment", "shard": shard, "scenes": scenes, "failed": {}})


def follow(run: Run, shard: str, **follows: tuple[str, str]) -> None:
    """Write down which scenes follow which, as a scan would."""
    write_json(run.catalog_earlier(shard), sealed({"shard": shard, "scenes": follows}))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    """Give a run of three dates of one place: the first in a shard of its own."""
    monkeypatch.setattr(sass.change, "load_classes", lambda run, n: Classes(np.arange(n), n))
    run = Run(tmp_path / "run")
    for shard, name, seed in (("s00000", "old", 0), ("s00001", "mid", 1), ("s00001", "new", 2)):
        add_map(run, shard, name, rectangles(seed))
    follow(run, "s00001", mid=("old", "s00000"), new=("mid", "s00001"))
    return run


def read(run: Run, scene: str) -> tuple[np.ndarray, np.ndarray]:
    with (
        rasterio.open(run.changes(scene) / "change.tif") as change,
        rasterio.open(run.changes(scene) / "confidence.tif") as trust,
    ):
        return change.read(1), trust.read(1)


def record(run: Run, scene: str) -> dict:
    return json.loads(run.manifest("change", "s00001").read_text())["scenes"][scene]


def test_every_pixel_says_from_which_class_to_which_and_no_data_stays(run):
    assert change_shard(run, "s00001", Change()).computed == ["mid", "new"]
    for before, after in pairwise(("old", "mid", "new")):
        (was, trusted), (now, trusts) = (rectangles(("old", "mid", "new").index(s)) for s in (before, after))
        change, trust = read(run, after)
        known = (was != NODATA) & (now != NODATA)
        assert (change == 255).tolist() == (~known).tolist()
        assert (change[known & (was == now)] == 0).all()
        differ = known & (was != now)
        assert (divmod(change[differ].astype(int) - 1, CLASSES)[0] == was[differ]).all()
        assert (divmod(change[differ].astype(int) - 1, CLASSES)[1] == now[differ]).all()
        assert (trust[known] == np.minimum(trusted, trusts)[known]).all()
        assert (trust[~known] == 255).all()
        said = record(run, after)
        assert said["before"] == before
        sure = known & (np.minimum(trusted, trusts) >= 127)
        assert said["transitions"] == [
            [a, b, int((known & (was == a) & (now == b)).sum()), int((sure & (was == a) & (now == b)).sum())]
            for a in range(CLASSES)
            for b in range(CLASSES)
            if (known & (was == a) & (now == b)).any()
        ]


def test_windows_change_nothing(run, monkeypatch):
    change_shard(run, "s00001", Change())
    whole = read(run, "new"), record(run, "new")
    monkeypatch.setattr(sass.change, "WINDOW", 48)
    run.record("change", "s00001", "new").unlink()
    assert change_shard(run, "s00001", Change()).computed == ["new"]
    again = read(run, "new"), record(run, "new")
    assert np.array_equal(whole[0], again[0])
    assert whole[1] == again[1]


def test_an_earlier_map_on_a_shifted_grid_is_read_at_the_nearest_pixel(run):
    moved = Georeference(UTM.crs, Affine.translation(12, 26) * UTM.transform)  # one pixel right and three up
    add_map(run, "s00001", "moved", rectangles(0), moved)
    follow(run, "s00001", moved=("old", "s00000"))
    change_shard(run, "s00001", Change())
    change, _ = read(run, "moved")
    was, now = rectangles(0)[0], rectangles(0)[0]
    beside, after = was[:-3, 1:], now[3:, :-1]
    expected = np.where(beside == after, 0, 1 + beside.astype(int) * CLASSES + after)
    expected[(beside == NODATA) | (after == NODATA)] = 255
    assert np.array_equal(change[3:, :-1], expected)
    assert (change[:3] == 255).all() and (change[:, -1] == 255).all()  # there the earlier map has ended


def test_only_what_has_another_map_before_it_is_compared_again(run):
    change_shard(run, "s00001", Change())
    path = run.manifest("segment", "s00000")
    manifest = json.loads(path.read_text())
    manifest["scenes"]["old"]["digest"] = "another"
    write_json(path, manifest)
    outcome = change_shard(run, "s00001", Change())
    assert (outcome.computed, outcome.kept) == (["mid"], ["new"])
    assert change_shard(run, "s00001", Change(sure=0.9)).computed == ["mid", "new"]


def test_a_scene_whose_forerunner_was_set_aside_has_no_change_map(run):
    write_json(
        run.manifest("segment", "s00000"), {"stage": "segment", "scenes": {}, "failed": {"old": "..."}}
    )
    assert change_shard(run, "s00001", Change()).computed == ["new"]
    assert not run.changes("mid").exists()


def test_maps_with_unlike_numbers_of_classes_are_refused(run):
    add_map(run, "s00000", "three", rectangles(0), n=3)
    follow(run, "s00001", new=("three", "s00000"))
    with pytest.raises(SassError, match="maps of 3 and 4 classes cannot be compared"):
        change_shard(run, "s00001", Change())


def test_a_gis_reads_names_and_colours_of_the_changes(run):
    change_shard(run, "s00001", Change())
    with rasterio.open(run.changes("new") / "change.tif") as file:
        colours, tags = file.colormap(1), file.tags(1)
    assert tags["class_0"] == "unchanged"
    assert tags["class_7"] == "class 1 to class 2"
    with rasterio.open(run.segments("new") / "segments.tif") as file:
        assert colours[7] == file.colormap(1)[2]  # of what it has become
    assert colours[0] == (222, 222, 222, 255)


def test_the_item_of_a_change_map_says_when_where_and_what(run):
    change_shard(run, "s00001", Change())
    for before, scene in pairwise(("old", "mid", "new")):
        plain = read_json(run.changes(scene) / "item.json")
        assert faults(plain) == []
        item = pystac.Item.from_dict(plain, href=str(run.changes(scene) / "item.json"))
        maps = [pystac.Item.from_file(run.segments(name) / "item.json") for name in (before, scene)]
        assert (item.id, item.collection_id, item.bbox) == (scene, "changes", maps[1].bbox)
        assert item.ext.proj.transform == maps[1].ext.proj.transform
        assert item.datetime is None
        ends = maps[0].datetime or maps[0].common_metadata.start_datetime, maps[1].datetime
        assert (item.common_metadata.start_datetime, item.common_metadata.end_datetime) == ends
        sources = [link.get_absolute_href() for link in item.get_links("derived_from")]
        assert sources == [each.get_self_href() for each in maps]
        values, counts = np.unique(read(run, scene)[0], return_counts=True)
        said = {c["value"]: c["count"] for c in plain["assets"]["change"]["classification:classes"]}
        assert said == {int(v): int(n) for v, n in zip(values, counts) if v != NODATA}
        for asset in item.assets.values():
            assert asset.extra_fields["file:size"] == Path(asset.get_absolute_href()).stat().st_size
    words = {c["value"]: c["name"] for c in plain["assets"]["change"]["classification:classes"]}
    assert (words[0], words[7]) == ("unchanged", "class-1-to-class-2")
