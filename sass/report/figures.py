"""The figures, each drawn twice, for light and dark pages, with a table of its numbers."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sass.report.collect import Klass
from sass.report.examples import Signatures

DPI = 200
"""Twice the 100 that figure sizes are meant in, for sharp screens."""
WIDTH = 9.6
"""Width of a figure that has a page's width to itself, in inches."""
CELL_TEXT = 14
"""A confusion matrix of more classes than this has colours only."""
LINES = 16
"""Classes in the signature figure, largest first; its table has all."""
BARS = 48
"""Classes in the figure of areas, largest first; its table has all."""


@dataclass(frozen=True)
class Theme:
    """Colours of everything in a figure that is not data; the same as in ``report.css``."""

    surface: str
    text: str
    muted: str
    grid: str
    accent: str
    second: str
    third: str


LIGHT = Theme("#ffffff", "#1c2530", "#5b6876", "#e3e8ee", "#1b6ca8", "#c2571a", "#2e7d5b")
DARK = Theme("#171d24", "#e6ebf0", "#9aa7b4", "#2b343e", "#6db3e8", "#f0a36b", "#7cc9a4")

Draw = Callable[[Theme], Figure]
Table = tuple[list[str], list[list[Any]]]


def png(figure: Figure) -> bytes:
    """Encode a figure; equal figures give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=DPI, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return stream.getvalue()


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches."""
    return Figure(figsize=(width, height), facecolor=theme.surface, layout="constrained")


def style(axes: Axes, theme: Theme, title: str = "", grid: str | None = "y") -> Axes:
    """Take the frame off axes and give them the colours of the theme."""
    axes.set_facecolor(theme.surface)
    axes.set_title(title, loc="left", fontsize=9.5, color=theme.text, pad=8)
    axes.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" and grid == "y")
        spine.set_color(theme.grid)
    if grid:
        axes.grid(axis=grid, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.muted, fontsize=8.5)
    return axes


def legend(axes: Axes, theme: Theme, **where: Any) -> None:
    """Name the lines of axes."""
    axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.text, **where)


def areas(classes: list[Klass]) -> tuple[Draw, Table]:
    """Bars of the share of each class."""
    ranked = sorted(classes, key=lambda k: (k.share, -k.id))[-BARS:]

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, 5.8, 0.7 + 0.32 * len(ranked))
        axes = style(figure.subplots(), theme, grid="x")
        bars = axes.barh(
            [plain(k.name) for k in ranked],
            [k.share for k in ranked],
            color=[k.hex for k in ranked],
            height=0.7,
        )
        axes.bar_label(bars, [f"{k.share:.1%}" for k in ranked], padding=5, fontsize=8.5, color=theme.text)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.margins(x=0.12, y=0.02)
        axes.tick_params(axis="y", labelcolor=theme.text)
        return figure

    rows = [[k.id, k.label or "", k.pixels, k.share, "" if k.km2 is None else k.km2] for k in classes]
    return draw, (["class", "label", "pixels", "share", "km2"], rows)


def signature_lines(
    found: Signatures, classes: list[Klass], statistics: dict[str, Any]
) -> tuple[Draw, Table]:
    """Mean and spread of each band in each class, in spreads of the archive from its median."""
    names = [band["name"] for band in statistics["bands"]]
    mean, spread = found.normalised(statistics)
    met = [k for k in classes if found.pixels[k.id]]
    shown = sorted(sorted(met, key=lambda k: -k.pixels)[:LINES], key=lambda k: k.id)

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, 4.2)
        axes = style(figure.subplots(), theme)
        axes.axhline(0, color=theme.muted, linewidth=0.8)
        # side by side, so that the spreads do not hide each other
        shifts = np.linspace(-0.2, 0.2, len(shown)) if len(shown) > 1 else [0]
        for k, shift in zip(shown, shifts):
            at = np.arange(len(names)) + shift
            axes.errorbar(at, mean[k.id], spread[k.id], color=k.hex, alpha=0.55, linewidth=0, elinewidth=1.6)
            axes.plot(at, mean[k.id], color=k.hex, linewidth=1.6, label=plain(k.name))
            axes.scatter(
                at, mean[k.id], color=k.hex, s=34, edgecolors=theme.surface, linewidths=0.8, zorder=3
            )
        slanted = (
            {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 12 else {}
        )
        axes.set_xticks(np.arange(len(names)), [plain(name) for name in names], **slanted)
        axes.set_ylabel("spreads from the median")
        legend(axes, theme, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    rows = [
        [k.id, name, int(found.pixels[k.id]), *(a[k.id, b] for a in (found.mean, found.spread, mean, spread))]
        for k in met
        for b, name in enumerate(names)
    ]
    return draw, (["class", "band", "pixels", "mean", "spread", "normalised_mean", "normalised_spread"], rows)


def training_curves(log: list[dict[str, float]]) -> tuple[Draw, Table]:
    """The loss and its three terms."""
    terms = [term for term in ("fine", "coarse", "instance") if any(term in line for line in log)]

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, 2.9)
        whole, parts = figure.subplots(1, 2)
        style(whole, theme, "Loss")
        whole.plot(
            [line["step"] for line in log], [line["loss"] for line in log], color=theme.text, linewidth=1.5
        )
        style(parts, theme, "Its terms")
        for term, colour in zip(terms, (theme.accent, theme.second, theme.third)):
            points = [(line["step"], line[term]) for line in log if line.get(term) is not None]
            parts.plot(*zip(*points), color=colour, linewidth=1.5, label=term)
        if terms:
            legend(parts, theme)
        for axes in (whole, parts):
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return figure

    keys = ["step", "loss", *terms, "lr"]
    return draw, (keys, [[line.get(key, "") for key in keys] for line in log])


def confusion(
    labels: list[str],
    classes: list[str],
    counts: np.ndarray,
    down: str = "label",
    across: str = "class of the map",
) -> tuple[Draw, Table]:
    """Heat map of where the pixels of each label went; a row adds up to 100 %."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, max(5.8, 2.2 + 0.5 * len(classes)), max(2.4, 1.3 + 0.42 * len(labels)))
        axes = style(figure.subplots(), theme, grid=None)
        ramp = LinearSegmentedColormap.from_list("share", [theme.surface, theme.accent])
        axes.pcolormesh(share, cmap=ramp, vmin=0, vmax=1, edgecolors=theme.grid, linewidth=0.8)
        axes.invert_yaxis()
        small = max(len(labels), len(classes)) > CELL_TEXT
        axes.set_xticks(
            np.arange(len(classes)) + 0.5,
            [plain(c) for c in classes],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
        axes.set_yticks(np.arange(len(labels)) + 0.5, [plain(label) for label in labels])
        axes.tick_params(labelcolor=theme.text, labelsize=6.5 if small else 8.5)
        for (i, j), value in np.ndenumerate(share):
            if not small and value >= 0.005:
                colour = theme.surface if value > 0.55 else theme.text
                axes.text(
                    j + 0.5, i + 0.5, f"{value:.0%}", ha="center", va="center", fontsize=8.5, color=colour
                )
        axes.set_ylabel(down)
        axes.set_xlabel(across)
        return figure

    return draw, ([down, *classes], [[label, *row] for label, row in zip(labels, counts.tolist())])


def plain(text: str) -> str:
    """Keep a name from being read as a formula, and short enough for an axis."""
    short = text if len(text) <= 24 else text[:23] + "…"
    return short.replace("$", r"\$")


def csv_text(table: Table) -> str:
    """Write a table as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows(table[1])
    return stream.getvalue()


def size(figure: Figure) -> tuple[int, int]:
    """Return width and height in pixels of a page."""
    return tuple(int(inches * 100) for inches in figure.get_size_inches())
