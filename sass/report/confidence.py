"""How sure the maps are of each class."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sass.cog import CONFIDENCE_STEPS
from sass.report.collect import Klass, Scene
from sass.report.examples import OVERVIEW, spread_scenes
from sass.report.figures import BARS, Draw, Table, Theme, legend, new_figure, plain, style
from sass.report.images import CONFIDENCE_MAP, read_map
from sass.run import Run

STEPS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Bounds of the groups of confidence."""


def confidence_by_class(run: Run, scenes: Sequence[Scene], classes: int) -> np.ndarray:
    """Count pixels of overviews by class and group of confidence, int64 ``(class, group)``."""
    counts = np.zeros((classes, len(STEPS) - 1), np.int64)
    for scene in spread_scenes(scenes, classes):
        maps, trust = (read_map(run, scene, name, OVERVIEW) for name in ("segments", "confidence"))
        known = (maps >= 0) & (trust >= 0)
        group = np.digitize(trust[known] / CONFIDENCE_STEPS, STEPS[1:-1])
        pairs = np.bincount(maps[known] * counts.shape[1] + group, minlength=counts.size)
        counts += pairs.reshape(counts.shape)
    return counts


def confidence_figure(counts: np.ndarray, classes: list[Klass]) -> tuple[Draw, Table]:
    """Bars of the shares of each class by confidence, the least sure class on top."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    middle = [(low + high) / 2 for low, high in itertools.pairwise(STEPS)]
    met = [k for k in sorted(classes, key=lambda k: (-k.pixels, k.id))[:BARS] if counts[k.id].any()]
    ranked = sorted(met, key=lambda k: (-float(share[k.id] @ middle), k.id))
    words = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(STEPS)]

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, 5.8, 1.1 + 0.32 * len(ranked))
        axes = style(figure.subplots(), theme, grid="x")
        left = np.zeros(len(ranked))
        for g, (word, colour) in enumerate(zip(words, colormaps[CONFIDENCE_MAP](middle))):
            width = np.array([share[k.id, g] for k in ranked])
            names = [plain(k.name) for k in ranked]
            axes.barh(names, width, 0.7, left, color=colour, edgecolor=theme.muted, linewidth=0.4, label=word)
            left += width
        axes.set_xlim(0, 1)
        axes.margins(y=0.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(axis="y", labelcolor=theme.text)
        legend(axes, theme, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=len(words), columnspacing=1,
               handlelength=1, handletextpad=0.4)  # fmt: skip
        return figure

    return draw, (["class", *words], [[k.id, *counts[k.id].tolist()] for k in classes])
