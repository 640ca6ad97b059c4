"""Which scene follows which: only one of the same footprint, CRS and an earlier time."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sass.catalog import Scene
from sass.series import OVERLAP, bounds, earlier_scenes, overlap

CRS = "EPSG:32633"


def scene(
    name: str, time: str | None, x: float = 0, y: float = 0, side: int = 100, crs: str | None = CRS
) -> Scene:
    return Scene(
        id=name,
        paths=(f"/archive/{name}.tif",),
        driver="GTiff",
        bands=1,
        band_names=("band 1",),
        dtype="uint8",
        nodata=(None,),
        crs=crs,
        transform=(10.0, 0.0, x, 0.0, -10.0, y),
        shape=(side, side),
        resolution=(10, 10),
        time=time,
        sensor=None,
        size=1,
        modified=1,
    )


def follows(*scenes: Scene) -> dict[str, str]:
    return earlier_scenes({row.id: row for row in scenes})


def test_dates_of_one_place_follow_each_other_in_time_whatever_their_order_and_names():
    years = [scene("b", "2012"), scene("c", "2009-08-18"), scene("a", "2010-06-29T10:00:00Z")]
    assert follows(*years) == {"a": "c", "b": "a"}
    assert follows(*reversed(years)) == {"a": "c", "b": "a"}


def test_grids_that_differ_by_a_few_pixels_are_one_place():
    assert follows(scene("old", "2010"), scene("new", "2011", x=20, y=-15, side=99)) == {"new": "old"}


@pytest.mark.parametrize(
    "other",
    [
        scene("other", "2011", x=300),
        scene("other", "2011", side=90),
        scene("other", "2011", crs="EPSG:32634"),
        scene("other", "2011", crs=None),
        scene("other", None),
        scene("other", "2010"),
    ],
    ids=["beside it", "smaller", "another CRS", "no CRS", "no time", "the same time"],
)
def test_what_is_no_second_date_of_a_place_follows_nothing(other):
    assert follows(scene("one", "2010"), other) == {}


def test_a_rotated_scene_has_the_bounds_of_its_corners():
    turned = replace(scene("turned", "2010"), transform=(6.0, 8.0, 0.0, 8.0, -6.0, 0.0))
    assert bounds(turned) == (0, -600, 1400, 800)


places = st.builds(
    scene,
    name=st.uuids().map(str),
    time=st.sampled_from(["2009", "2010", "2011", None]),
    x=st.sampled_from([0, 10, 40, 60, 1000, 1020]),
    y=st.sampled_from([0, -10, 50, -2000]),
    side=st.sampled_from([94, 97, 100, 103, 127, 129, 200]),
)


@given(st.lists(places, max_size=12))
def test_the_grid_of_cells_finds_what_looking_at_all_pairs_finds(scenes):
    expected = {}
    for one, other in product(scenes, repeat=2):
        alike = overlap(bounds(one), bounds(other)) >= OVERLAP
        if one.time and other.time and other.time < one.time and alike:
            best = expected.get(one.id, other)
            expected[one.id] = max(best, other, key=lambda row: (row.time, row.id))
    assert follows(*scenes) == {name: row.id for name, row in expected.items()}
