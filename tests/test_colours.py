"""Colours of classes: told apart, and those that people expect."""

from itertools import combinations

import pytest

from sass.colours import NEAR, class_colour, class_colours


def apart(colours: list[tuple[int, int, int]]) -> int:
    """Return the least sum of differences between two of them."""
    return min(sum(abs(a - b) for a, b in zip(*pair)) for pair in combinations(colours, 2))


def test_classes_without_names_have_the_colours_of_the_palette():
    assert class_colours(40) == [class_colour(n) for n in range(40)]


def test_names_that_say_nothing_of_land_change_no_colour():
    assert class_colours(3, ["a", "class 7", "Gräser & <Moor>"]) == [class_colour(n) for n in range(3)]


@pytest.mark.parametrize(
    ("name", "strongest"),
    [
        ("Water", 2),
        ("lakes and rivers", 2),
        ("forest", 1),
        ("Grassland", 1),
        ("built-up", 0),
        ("bare soil", 0),
    ],
)
def test_water_is_blue_what_grows_is_green_what_is_built_is_red(name, strongest):
    (colour,) = class_colours(1, [name])
    assert max(colour) == colour[strongest]


def test_a_name_is_read_by_the_beginnings_of_its_words():
    plain = [class_colour(n) for n in range(3)]
    assert class_colours(3, ["office", "undersea-like rubbish", "notice"])[::2] == plain[::2]


def test_of_two_names_of_one_kind_the_first_has_the_usual_colour_and_all_are_told_apart():
    names = ["deciduous forest", "evergreen forest", "water", "unnamed", "thing"]
    colours = class_colours(5, names)
    assert colours[0] == class_colours(1, ["forest"])[0]
    assert apart(colours) > NEAR


def test_there_are_colours_for_as_many_classes_as_a_table_holds():
    names = ["water", "forest", "crop", "grass", "bare", "road", "built", *(f"c{n}" for n in range(247))]
    colours = class_colours(254, names)
    assert len(colours) == 254 and all(0 <= value <= 255 for colour in colours for value in colour)
    assert apart(colours[:20]) > NEAR / 2
