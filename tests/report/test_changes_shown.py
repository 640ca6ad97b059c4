"""What the report says of two dates of one place: as much as the maps of both differ."""

import csv

import numpy as np
import pytest
from finished_run import make_run
from test_report import check_links, pages_of, pixels_of

import sass.report.changes
from sass.change import change_scene
from sass.colours import UNCHANGED, class_colour
from sass.files import write_json
from sass.report.build import build_report
from sass.report.changes import changes_of
from sass.settings import load

CLASSES = 7
SHAPE = (150, 140)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the report of three dates of one place, the last of which was held out."""
    scenes = {f"place_{year}": SHAPE for year in (2018, 2019, 2020)}
    run, shards, fit = make_run(tmp_path_factory.mktemp("run"), scenes, held_out=("place_2020",))
    for shard, scene, before in (
        ("s00000", "place_2019", "place_2018"),
        ("s00001", "place_2020", "place_2019"),
    ):
        record = change_scene(run, scene, before, CLASSES, (), 0.5)
        manifest = {"stage": "change", "shard": shard, "scenes": {scene: record}, "failed": {}}
        write_json(run.manifest("change", shard), manifest)
    build_report(run, load({"change": {"maps": True}}), archive=shards, fit=fit)
    return run, shards, fit


def read(run, scene: str) -> np.ndarray:
    path = run.segments(scene) / "segments.tif"
    with sass.report.changes.open_map(path) as source:
        return source.read(1)


def test_shares_are_those_of_the_maps(built):
    run, shards, _ = built
    changes = changes_of(run, [s for s in shards if run.manifest("change", s).exists()])
    assert [(c.scene, c.before) for c in changes] == [
        ("place_2019", "place_2018"),
        ("place_2020", "place_2019"),
    ]
    with (run.report / "tables" / "changes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for change, row in zip(changes, rows, strict=True):
        was, now = read(run, change.before), read(run, change.scene)
        known = (was != 255) & (now != 255)
        assert change.changed == pytest.approx((was != now)[known].mean())
        assert float(row["changed"]) == pytest.approx(change.changed)
        assert int(row["pixels"]) == known.sum()
        a, b, pixels, _ = change.largest()[0]
        assert pixels == ((was == a) & (now == b)).sum()
        assert pixels == max(((was == i) & (now == j)).sum() for i in range(7) for j in range(7) if i != j)
    with (run.report / "figures" / "transitions.csv").open() as file:
        matrix = np.array([line[1:] for line in csv.reader(file)][1:], int)
    assert matrix.tolist() == sum(change.counts for change in changes).tolist()


def test_the_picture_has_the_colour_of_what_a_pixel_became(built):
    run = built[0]
    was, now = read(run, "place_2019"), read(run, "place_2020")
    picture = pixels_of(run.report / "quicklooks" / "place_2020.change.png")
    assert picture.shape == (*SHAPE, 4)
    known = (was != 255) & (now != 255)
    assert (picture[~known, 3] == 0).all()
    assert (picture[known & (was == now), :3] == UNCHANGED).all()
    for k in range(CLASSES):
        assert (picture[known & (was != now) & (now == k), :3] == class_colour(k)).all()


def test_pages_name_what_follows_what_and_everything_linked_is_there(built):
    run = built[0]
    check_links(run.report)
    pages = {path.stem: page for path, page in pages_of(run.report).items()}
    assert "2 scenes follow others" in pages["index"].text
    assert "Since place_2019" in " ".join(pages["place_2020"].text.split())
    assert "change" in pages["place_2019"].ids
    assert "change" not in pages["place_2018"].ids


def test_without_being_asked_for_changes_are_not_shown(built):
    run, shards, fit = built
    build_report(run, load({}), archive=shards, fit=fit)
    assert "changes" not in {i for page in pages_of(run.report).values() for i in page.ids}
    assert not list((run.report / "quicklooks").glob("*.change.png"))
