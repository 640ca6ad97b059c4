"""Colours of classes: the usual ones for names that say what a place is, of a palette for all others."""

import colorsys
import re
from collections.abc import Sequence

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

PALETTE = (
    "4e79a7", "f28e2b", "59a14f", "e15759", "76b7b2", "edc948", "b07aa1", "9c755f", "bab0ac", "d37295",
    "2f4b7c", "a0cbe8", "8cd17d", "ff9d9a", "b6992d", "499894",
)  # fmt: skip
"""Colours of the first classes, told apart by lightness too; further ones walk around the colour circle."""

USUAL = {
    "4878a8": r"water|lake|river|sea|ocean|pond|stream|reservoir",
    "58a8a0": r"wetland|marsh|swamp|bog|mangrove|peat",
    "2f6b3c": r"forest|tree|wood(s|land)?\b",
    "8a9a50": r"shrub|scrub|bush|heath",
    "e3c14c": r"crop|field|farm|agricult|cultivat|arable|orchard|vineyard|rice",
    "8fc46c": r"grass|meadow|pasture|herb|lawn|vegetation|low veg",
    "c49a6c": r"bare|soil|sand|rock|barren|desert|beach|quarry|mine\b",
    "c94f52": r"built|building|urban|developed|settlement|residential|house|city|town|roof",
    "6f6f78": r"road|street|paved|impervious|asphalt|rail|runway",
    "e6eef5": r"snow|ice\b|glacier|cloud",
    "b8b8b8": r"unnamed$|unknown|unlabel",
}
"""Colour to the beginnings of words that ask for it; of a name that has several, the first counts."""

UNCHANGED = (222, 222, 222)
"""Colour, in a map of changes, of what has stayed as it was; what has changed has that of its new class."""

NEAR = 60
"""Sum of differences in red, green and blue up to which two colours are taken for each other."""


def class_colour(number: int) -> Colour:
    """Return the colour of a class without a name."""
    if number < len(PALETTE):
        return _read(PALETTE[number])
    hue = (number * 0.618034) % 1  # the golden angle keeps neighbours apart
    value = (0.9, 0.65, 0.8)[number % 3]
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.55, value))  # type: ignore[return-value]


def class_colours(classes: int, names: Sequence[str] = ()) -> list[Colour]:
    """Return the colour of each class; one that is usual for its name goes to the first that asks for it."""
    found: dict[int, Colour] = {}
    for number, name in enumerate(names):
        for digits, words in USUAL.items():
            if re.search(rf"\b({words})", name.lower()):
                if _read(digits) not in found.values():
                    found[number] = _read(digits)
                break
    if not found:
        return [class_colour(number) for number in range(classes)]
    left = (c for c in map(class_colour, range(classes + len(PALETTE))) if _far(c, found.values()))
    return [found[n] if n in found else next(left, class_colour(n)) for n in range(classes)]


def _far(colour: Colour, others: Sequence[Colour]) -> bool:
    """Tell whether a colour is not taken for one of the others."""
    return all(sum(abs(a - b) for a, b in zip(colour, other)) > NEAR for other in others)


def _read(digits: str) -> Colour:
    return tuple(bytes.fromhex(digits))  # type: ignore[return-value]
