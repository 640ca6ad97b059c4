"""Drift: how far the values of a scene lie from the frozen statistics that it was normalised by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sass.report.figures import WIDTH, Draw, Table, Theme, legend, new_figure, plain, style
from sass.run import Run
from sass.statistics import Histogram
from sass.store import SceneStore

FAR = 1.0
"""Spreads from the median of the archive beyond which the median of a scene is pointed out."""
NAMED = 5
"""Scenes that the figure names, those farthest away."""


@dataclass(frozen=True, slots=True)
class BandDrift:
    """One band of a scene against the archive."""

    band: str
    median: float
    """Of the scene, in the unit of the rasters."""
    usual: float
    """Median of the archive."""
    drift: float
    """Spreads of the archive from the one to the other."""
    outside: float
    """Share of the scene's pixels beyond the 2nd or 98th percentile of the archive; 0.04 is ordinary."""

    @property
    def far(self) -> bool:
        return abs(self.drift) > FAR


def drift_of(run: Run, scene: str, statistics: dict[str, Any]) -> list[BandDrift]:
    """Hold the histograms of a scene against ``statistics.json``, band by band."""
    store = SceneStore(run.scene(scene))
    rows = []
    for counts, band in zip(store.group["histogram"][:], statistics["bands"]):
        histogram = Histogram.of_bins(counts, store.bands.dtype)
        median = histogram.quantile(0.5)
        beyond = (histogram.values < band["low"]) | (histogram.values > band["high"])
        rows.append(
            BandDrift(
                band["name"],
                median,
                band["median"],
                (median - band["median"]) / band["spread"],
                float(histogram.counts[beyond].sum() / histogram.counts.sum()),
            )
        )
    return rows


def farthest(drifts: Mapping[str, list[BandDrift]]) -> list[tuple[str, BandDrift]]:
    """Return scenes with a band that is far from the archive, and that band, farthest first."""
    worst = [(scene, max(bands, key=lambda band: abs(band.drift))) for scene, bands in drifts.items()]
    return sorted(((s, b) for s, b in worst if b.far), key=lambda row: (-abs(row[1].drift), row[0]))


def drift_figure(drifts: Mapping[str, list[BandDrift]], fitted: set[str]) -> tuple[Draw, Table]:
    """Median of each scene in each band, in spreads of the archive from its median."""
    names = [band.band for band in next(iter(drifts.values()))]
    named = [scene for scene, _ in farthest(drifts)[:NAMED]]

    def draw(theme: Theme) -> Figure:
        figure = new_figure(theme, WIDTH, 3.4)
        axes = style(figure.subplots(), theme)
        axes.axhspan(-FAR, FAR, color=theme.grid, alpha=0.5, linewidth=0)
        axes.axhline(0, color=theme.muted, linewidth=0.8)
        for seen, colour, word in ((True, theme.accent, "fitted on"), (False, theme.second, "not fitted on")):
            group = [scene for scene in drifts if (scene in fitted) is seen]
            values = np.array([[band.drift for band in drifts[scene]] for scene in group])
            if group:
                # side by side in their order, so that those of one footprint show their years
                shifts = np.linspace(-0.3, 0.3, len(group))[:, None] if len(group) > 1 else np.zeros((1, 1))
                x = np.arange(len(names)) + shifts
                axes.scatter(x, values, s=22, color=colour, alpha=0.75, linewidths=0, label=word)
        for scene in named:
            band = max(range(len(names)), key=lambda b: abs(drifts[scene][b].drift))
            value = drifts[scene][band].drift
            above = 1 if value > 0 else -1
            axes.annotate(
                plain(scene if len(scene) <= 20 else f"…{scene[-19:]}"), (band, value), (0, 7 * above),
                textcoords="offset points", ha="center", va="bottom" if value > 0 else "top",
                fontsize=7.5, color=theme.text,
            )  # fmt: skip
        axes.set_xticks(np.arange(len(names)), [plain(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.margins(y=0.15)
        axes.set_ylabel("spreads from the median")
        if not fitted.issuperset(drifts):
            legend(axes, theme, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    rows = [
        [scene, band.band, band.median, band.usual, band.drift, band.outside]
        for scene, bands in drifts.items()
        for band in bands
    ]
    return draw, (["scene", "band", "median", "archive_median", "drift", "outside"], rows)
