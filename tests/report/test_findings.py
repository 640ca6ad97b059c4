"""What the report finds out by itself: where scenes lie, how far they drift, where maps are not sure."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from affine import Affine
from finished_run import LABELS, NO_PLACE, make_run
from rasterio.crs import CRS
from rasterio.warp import transform

from sass.files import read_json, write_json
from sass.georeference import Georeference
from sass.report.build import build_report
from sass.report.collect import gather
from sass.report.confidence import STEPS, confidence_by_class
from sass.report.drift import drift_of, farthest
from sass.report.examples import unsure
from sass.report.figures import LIGHT
from sass.report.footprints import archive_map, degrees, footprints, places
from sass.report.images import Stretch, read_map
from sass.run import Run
from sass.settings import load
from sass.statistics import BINS, bin_of
from sass.store import create_scene

PLACE = Georeference(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 5_400_000))
BAND = {"median": 100.0, "spread": 20.0, "low": 60.0, "high": 140.0}
STATISTICS = {"bands": [{"name": "red", **BAND}, {"name": "blue", **BAND}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("run"), {"a": (96, 120), "b": (96, 120), "c": (64, 64)}, place=PLACE
    )


# ---- where scenes lie


def test_scenes_on_both_sides_of_the_antimeridian_lie_side_by_side():
    """One to the west of it, one across it and one to the east, in UTM zones 60 and 1 at the equator."""
    lefts = {"west": (32660, 700_000), "across": (32660, 800_000), "east": (32601, 250_000)}
    scenes = [
        SimpleNamespace(
            id=name,
            wkt=CRS.from_epsg(zone).to_wkt(),
            outline=[(x, 90_000), (x + 60_000, 90_000), (x + 60_000, 30_000), (x, 30_000)],
        )
        for name, (zone, x) in lefts.items()
    ]
    outlines = footprints(scenes)
    for name, outline in outlines.items():
        assert np.ptp(outline[:, 0]) == pytest.approx(0.539, abs=0.01), name
    middles = {name: outline[:, 0].mean() for name, outline in outlines.items()}
    assert 178 < middles["west"] < middles["across"] < middles["east"] < 182 or (
        -182 < middles["west"] < middles["across"] < middles["east"] < -178
    )
    _, (_, rows) = archive_map(outlines, {})
    written = {row[0]: row[1::2] for row in rows}
    assert all(-180 <= value <= 180 for row in written.values() for value in row)
    assert min(written["west"]) > 178 and max(written["east"]) < -178
    assert min(written["across"]) < -179 and max(written["across"]) > 179
    assert degrees(181, "WE") == "179° W" and degrees(-179, "WE") == "179° W" and degrees(60, "SN") == "60° N"


def test_footprints_are_the_corners_of_scenes_in_degrees(made):
    outlines = footprints(gather(*made).scenes)
    assert list(outlines) == ["a", "b", "c"]
    corners = [(500_000, 5_400_000), (501_200, 5_400_000), (501_200, 5_399_040), (500_000, 5_399_040)]
    expected = np.array(transform("EPSG:32633", "EPSG:4326", *zip(*corners))).T
    np.testing.assert_allclose(outlines["a"], expected, atol=1e-9)
    assert outlines["a"][0] == pytest.approx((15, 48.75), abs=0.01)


def test_scenes_on_the_same_ground_have_one_place_on_the_page(made):
    found = gather(*made)
    outlines = footprints(found.scenes)
    draw, table = archive_map(outlines, {scene: np.full((8, 10, 4), 255, np.uint8) for scene in outlines})
    on_page = places(draw(LIGHT), outlines, list(outlines))
    assert [place.scenes for place in on_page] == [["a", "b"], ["c"]]
    points = np.array([[float(v) for v in point.split(",")] for point in on_page[0].points.split()])
    width, height = (np.ptp(points[:, axis]) for axis in (0, 1))
    assert width / height == pytest.approx(1200 / 960, rel=0.03)  # as on the ground
    assert points[0][1] < points[3][1]  # rows of the page fall from north to south
    assert [row[0] for row in table[1]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "letters", "text"),
    [(-78.7, "WE", "78.7° W"), (99.1, "WE", "99.1° E"), (-3.0, "SN", "3° S"), (0, "SN", "0°")],
)
def test_degrees(value, letters, text):
    assert degrees(value, letters) == text


# ---- drift


def scene_of(run: Run, name: str, red: np.ndarray, blue: np.ndarray) -> None:
    bands = np.stack([red, blue]).astype(np.uint8)[:, None]
    group = create_scene(run.scene(name), bands.shape, "uint8", ["red", "blue"], NO_PLACE, 64, 256, BINS)
    group["histogram"][:] = np.stack([np.bincount(bin_of(band.ravel()), minlength=BINS) for band in bands])


def test_drift_is_in_spreads_of_the_archive(tmp_path):
    run = Run(tmp_path)
    scene_of(run, "usual", np.arange(60, 141), np.arange(60, 141))
    scene_of(run, "bright", np.arange(90, 171), np.arange(60, 141))
    red, blue = drift_of(run, "bright", STATISTICS)
    assert (red.band, red.median, red.usual, red.drift) == ("red", 130, 100, 1.5)
    assert red.outside == pytest.approx(30 / 81)  # 141 to 170 are beyond the 98th percentile
    assert (blue.drift, blue.outside, blue.far) == (0, 0, False)
    drifts = {name: drift_of(run, name, STATISTICS) for name in ("usual", "bright")}
    assert [(scene, band.band) for scene, band in farthest(drifts)] == [("bright", "red")]


def test_a_scene_that_drifts_is_named_on_the_first_page_and_marked_on_its_own(tmp_path):
    run, shards, fit = make_run(tmp_path, {"near": (64, 64), "far": (64, 64)}, labelled=False)
    histogram = zarr.open_group(run.scene("far"), mode="r+", use_consolidated=False)["histogram"]
    histogram[:] = np.where(np.arange(BINS) == 240, 64 * 64, 0)[None].repeat(6, 0)
    index = build_report(run, load({"report": {"chips": 1}}), archive=shards, fit=fit)
    section = index.read_text().split('id="drift"')[1].split("</section>")[0]
    assert re.search(r'<a href="scenes/far.html">far</a> \(lsat7_2000_10 \+5.6\)', section)
    page = (run.report / "scenes/far.html").read_text()
    assert page.count('<tr class="far">') == 6 and "100.0 %" in page
    rows = list(csv.DictReader((run.report / "figures/drift.csv").read_text().splitlines()))
    assert len(rows) == 12 and {row["drift"] for row in rows if row["scene"] == "far"} == {"5.6"}


# ---- confidence


def test_confidence_is_counted_by_class(made):
    run = made[0]
    scenes = gather(*made).scenes
    counts = confidence_by_class(run, scenes, len(LABELS))
    maps, trust = (
        np.concatenate([read_map(run, scene, name, 512).ravel() for scene in scenes])
        for name in ("segments", "confidence")
    )
    assert counts.sum() == (maps >= 0).sum()
    for k in range(len(LABELS)):
        own = trust[maps == k] / 254
        assert counts[k].tolist() == np.histogram(own, STEPS)[0].tolist()


def test_the_least_sure_places_come_from_the_least_sure_scenes(made):
    run, shards, fit = made
    manifest = read_json(run.manifest("segment", "s00000"))
    for scene, value in {"a": 0.9, "b": 0.2, "c": 0.5}.items():
        manifest["scenes"][scene]["confidence"] = value
    write_json(run.manifest("segment", "s00000"), manifest)
    found = gather(run, shards, fit)
    stretch = Stretch.of(found.statistics, None)
    chips = unsure(run, found.scenes, 2, stretch, {k.id: k.colour for k in found.classes})
    assert [chip.scene for chip in chips] == ["b", "c"]
    scene = next(scene for scene in found.scenes if scene.id == "b")
    trust = read_map(run, scene, "confidence", 512)
    inside = trust[chips[0].window.slices]
    assert inside[inside >= 0].mean() < trust[trust >= 0].mean()
    assert chips[0].picture.shape == (192, 384, 4)  # the image beside its map, three times as large
