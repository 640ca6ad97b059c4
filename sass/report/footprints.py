"""The archive on the ground: footprints of all scenes with quicklooks, and links to lay over the figure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Affine2D
from rasterio.warp import transform

from sass.report.collect import Scene
from sass.report.figures import WIDTH, Draw, Table, Theme, new_figure, style
from sass.report.images import Rgba

SHARP = 800
"""Pixels of a quicklook along the width of the figure, if it were alone there."""
CORNERS = ("upper_left", "upper_right", "lower_right", "lower_left")


@dataclass(frozen=True)
class Place:
    """Scenes of one footprint on the page."""

    scenes: list[str]
    points: str
    """Its outline in pixels of the figure, as SVG has it."""


def footprints(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    """Return longitude and latitude of the corners ``(4, 2)`` of scenes with a CRS, from upper left on.

    Longitudes run on beyond 180 where the archive lies on both sides of that meridian.
    """
    by_crs: dict[str, list[Scene]] = defaultdict(list)
    for scene in scenes:
        if scene.wkt:
            by_crs[scene.wkt].append(scene)
    found = {}
    for wkt, group in by_crs.items():
        corners = np.array([scene.outline for scene in group], float).reshape(-1, 2)
        placed = np.array(transform(wkt, "EPSG:4326", *corners.T)).T.reshape(-1, 4, 2)
        found |= {scene.id: outline for scene, outline in zip(group, placed) if np.isfinite(outline).all()}
    return _side_by_side(dict(sorted(found.items())))


def _side_by_side(outlines: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn longitudes by whole circles so that scenes, and the corners of each, lie near one another."""
    if not outlines:
        return outlines
    every = np.stack(list(outlines.values()))
    every[..., 0] = np.unwrap(every[..., 0], period=360, axis=1)
    middles = every[..., 0].mean(1)
    around = np.sort(middles % 360)
    gaps = np.diff(around, append=around[0] + 360)
    first = around[(gaps.argmax() + 1) % len(around)]  # east of the widest gap
    turned = first + (middles - first) % 360
    turned -= 360 * np.round(turned.mean() / 360)
    every[..., 0] += 360 * np.round((turned - middles) / 360)[:, None]
    return dict(zip(outlines, every))


def archive_map(outlines: Mapping[str, np.ndarray], pictures: Mapping[str, Rgba]) -> tuple[Draw, Table]:
    """Footprints in degrees, with the quicklooks of some, ``pictures``, laid into theirs.

    Of scenes on the same ground the last is seen.
    """
    seen = {outlines[scene].round(6).tobytes(): scene for scene in pictures}
    side = math.ceil(SHARP / math.sqrt(max(len(seen), 1)))
    every = np.stack(list(outlines.values()))
    low, high = every.min((0, 1)), every.max((0, 1))
    margin = np.maximum(0.03 * (high - low).max(), 1e-6)
    low, high = low - margin, high + margin
    squeeze = math.cos(math.radians(float(np.clip((low[1] + high[1]) / 2, -80, 80))))
    ratio = float((high - low)[1] / ((high - low)[0] * squeeze))

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, float(np.clip(0.8 + (WIDTH - 1) * ratio, 2.5, 6.5)))
        axes = style(figure.subplots(), theme)
        axes.grid(True, color=theme.grid, linewidth=0.8)
        for scene in seen.values():
            step = math.ceil(max(pictures[scene].shape) / side)
            _lay(axes, pictures[scene][::step, ::step], outlines[scene])
        few = len(outlines) <= 400
        axes.add_collection(
            PolyCollection(
                every, facecolors="none" if few else theme.accent, alpha=1 if few else 0.35,
                edgecolors=theme.accent, linewidths=1.2 if few else 0.2, zorder=3,
            )
        )  # fmt: skip
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect=1 / squeeze)
        for axis, letters in ((axes.xaxis, "WE"), (axes.yaxis, "SN")):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(lambda value, _, of=letters: degrees(value, of)))
        return figure

    header = ["scene", *(f"{corner}_{axis}" for corner in CORNERS for axis in ("longitude", "latitude"))]
    return draw, (
        header,
        [[scene, *_wrapped(outline).ravel().tolist()] for scene, outline in outlines.items()],
    )


def _lay(axes: Axes, picture: Rgba, outline: np.ndarray) -> None:
    """Draw a picture so that three of its corners fall on those of a footprint."""
    origin, right, down = outline[0], outline[1] - outline[0], outline[3] - outline[0]
    matrix = np.array([[*pair, start] for pair, start in zip(zip(right, down), origin)] + [[0, 0, 1]])
    where = Affine2D(matrix) + axes.transData
    axes.imshow(picture, extent=(0, 1, 1, 0), transform=where, interpolation="nearest", zorder=2)


def _wrapped(outline: np.ndarray) -> np.ndarray:
    """Return corners with longitudes from -180 to 180."""
    return np.stack([outline[:, 0] - 360 * np.round(outline[:, 0] / 360), outline[:, 1]], 1)


def degrees(value: float, letters: str) -> str:
    """Write a longitude (``letters`` WE), which may have run on beyond 180, or a latitude (SN)."""
    value -= 360 * round(value / 360)
    return f"{abs(round(value, 5)):g}° {letters[int(value > 0)]}" if value else "0°"


def places(figure: Figure, outlines: Mapping[str, np.ndarray], shown: Sequence[str]) -> list[Place]:
    """Return where the footprints of the scenes ``shown`` lie on the figure; those that coincide, once."""
    figure.draw_without_rendering()
    axes, height = figure.axes[0], figure.bbox.height
    found: dict[str, list[str]] = defaultdict(list)
    for scene in shown:
        if scene in outlines:
            points = axes.transData.transform(outlines[scene])
            found[" ".join(f"{x:.0f},{height - y:.0f}" for x, y in points)].append(scene)
    return [Place(scenes, points) for points, scenes in found.items()]
