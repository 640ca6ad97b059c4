"""The figures of the merge tree, and of what speaks for each number of classes."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sass.report.collect import Klass
from sass.report.figures import WIDTH, Draw, Table, Theme, new_figure, style

PANELS = {
    "silhouette": "Silhouette, higher is better",
    "davies_bouldin": "Davies–Bouldin, lower is better",
    "stability": "Stability, higher is better",
    "accuracy": "Accuracy, uses labels",
    "miou": "Mean IoU, uses labels",
}
"""What is known of a number of classes."""
SHOWN = 30
"""Numbers of classes in the figure, fewest first; its table has all."""


def class_choice(rows: list[dict[str, Any]], chosen: int) -> tuple[Draw, Table]:
    """Diagnostics and scores, if there are some, against the number of classes; the chosen one is marked."""
    panels = [(key, title) for key, title in PANELS.items() if any(key in row for row in rows)]

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, 2.5 * math.ceil(len(panels) / 3))
        grid = figure.subplots(math.ceil(len(panels) / 3), 3, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes, (key, title), colour in zip(
            grid, panels, itertools.cycle((theme.accent, theme.second, theme.third))
        ):
            style(axes, theme, title)
            points = [(d["n"], d[key]) for d in rows if d["n"] <= SHOWN and d.get(key) is not None]
            if not points:
                axes.text(
                    0.5,
                    0.5,
                    "not measured",
                    ha="center",
                    transform=axes.transAxes,
                    color=theme.muted,
                    fontsize=8.5,
                )
                continue
            axes.plot(*zip(*points), color=colour, linewidth=1.8, marker="o", markersize=2.5)
            axes.axvline(chosen, color=theme.muted, linewidth=1, linestyle=(0, (3, 3)))
            for n, value in points:
                if n == chosen:
                    axes.plot(
                        n,
                        value,
                        "o",
                        markersize=8,
                        color=colour,
                        markeredgecolor=theme.surface,
                        markeredgewidth=1.5,
                    )
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_xlabel("number of classes")
        return figure

    keys = ["n", *(key for key, _ in panels)]
    return draw, (keys, [["" if d.get(key) is None else d[key] for key in keys] for d in rows])


def tree(hierarchy: dict[str, Any], classes: list[Klass], of_code: np.ndarray) -> tuple[Draw, Table]:
    """The merge tree of the codes: branches below the cut have the colour of their class, ``of_code``."""
    merges = [(int(a), int(b), float(height)) for a, b, height in hierarchy["merges"]]
    sizes = np.asarray(hierarchy["sizes"], float)
    leaves = int(hierarchy["codes"])
    colour = {k.id: k.hex for k in classes}
    order, (height, group) = leaf_order(merges, leaves), _nodes(merges, of_code)

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, 3.6)
        top, bottom = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        style(top, theme, "Height of merge", grid="y")
        x = np.empty(leaves + len(merges))
        x[order] = np.arange(leaves)
        lines, colours = [], []
        for i, (a, b, level) in enumerate(merges):
            x[leaves + i] = (x[a] + x[b]) / 2
            lines.append([(x[a], height[a]), (x[a], level), (x[b], level), (x[b], height[b])])
            colours.append(theme.muted if group[leaves + i] < 0 else colour[int(group[leaves + i])])
        top.add_collection(LineCollection(lines, colors=colours, linewidths=1.6 if leaves <= 128 else 0.8))
        singles = [i for i in range(leaves) if (of_code == of_code[i]).sum() == 1]
        top.scatter(
            x[singles], height[singles], s=14, color=[colour[int(of_code[i])] for i in singles], zorder=3
        )
        top.autoscale_view()
        top.margins(y=0.06)
        top.spines["bottom"].set_visible(False)
        style(bottom, theme, "Share of pixels of each code", grid="y")
        bottom.bar(
            x[:leaves], sizes / max(sizes.sum(), 1), color=[colour[int(c)] for c in of_code], width=0.8
        )
        bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bottom.yaxis.set_major_locator(MaxNLocator(2))
        bottom.set_xticks([])
        return figure

    rows = [[a, b, leaves + i, level, int(group[leaves + i])] for i, (a, b, level) in enumerate(merges)]
    return draw, (["first", "second", "node", "height", "class"], rows)


def leaf_order(merges: Sequence[Sequence[float]], leaves: int) -> list[int]:
    """Return the leaves in an order in which no branches cross."""
    below: list[list[int]] = [[i] for i in range(leaves)]
    for a, b, _ in merges:
        below.append(below[int(a)] + below[int(b)])
    return below[-1]


def _nodes(merges: list[tuple[int, int, float]], of_code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the height of every node and its class, -1 where it joins several."""
    leaves = len(of_code)
    height = np.concatenate([np.zeros(leaves), [level for *_, level in merges]])
    group = np.concatenate([of_code, np.full(len(merges), -1)])
    for i, (a, b, _) in enumerate(merges):
        if group[a] == group[b]:
            group[leaves + i] = group[a]
    return height, group
