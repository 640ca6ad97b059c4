"""The pictures of concepts.md and README, of a run that stands: ``python docs/pictures.py results/demo``."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import rasterio
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from sass.cluster.classes import Classes
from sass.colours import class_colour
from sass.files import read_json
from sass.report.images import Stretch
from sass.run import Run
from sass.store import SceneStore

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
INK, MUTED, ACCENT, PALE = "#1f2933", "#7b8794", "#0b6e99", "#e3eef3"
NUMBERS = (12, 7, 3)
SCENE = "north"
SHOWN, SIDE, GAP = ("south", "north-east"), 300, 8
"""Scenes in the picture of the README, the side of a square of it and what lies between two, in pixels."""


def main(run: Run) -> None:
    """Draw all of them."""
    plt.rcParams |= {"font.size": 9, "text.color": INK, "svg.hashsalt": "sass", "figure.facecolor": "white"}
    for name, draw in {"shards": shards, "windows": windows, "classes": classes}.items():
        figure = draw(run)
        figure.savefig(HERE / f"concept-{name}.png", dpi=130, metadata={"Software": None})
        plt.close(figure)
    demo(run).save(HERE / "demo.png", optimize=True)


def demo(run: Run) -> Image.Image:
    """Set images and maps of two scenes side by side, the upper square of each."""
    parts = [f"{scene}.{kind}.png" for scene in SHOWN for kind in ("scene", "segments")]
    picture = Image.new("RGB", (len(parts) * (SIDE + GAP) - GAP, SIDE), "white")
    for i, part in enumerate(parts):
        look = Image.open(run.report / "quicklooks" / part).convert("RGBA")
        square = look.crop((0, 0, look.width, look.width)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.paste(square, (i * (SIDE + GAP), 0), square)
    return picture.quantize(256)


def shards(run: Run) -> plt.Figure:
    """Which scenes fit, what they fit, and what all scenes get of it."""
    figure, axes = _page(7.4, 3.1)

    def box(x, y, width, height, text, colour=PALE, edge=ACCENT, **style) -> None:
        shape = FancyBboxPatch(
            (x, y), width, height, "round,pad=0,rounding_size=0.08", fc=colour, ec=edge, zorder=3
        )
        axes.add_patch(shape)
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", zorder=4, **style)

    def arrow(start, end, **style) -> None:
        look = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 2, "shrinkB": 2} | style
        axes.annotate("", end, start, arrowprops=look)

    for column, (shard, fit) in enumerate(
        [("s00000", True), ("s00001", True), ("s00002", False), ("s00003", False)]
    ):
        x = 0.15 + 1.85 * column
        box(x, 2.05, 1.6, 0.75, "", "#ffffff" if not fit else PALE, ACCENT if fit else MUTED)
        axes.text(x + 0.1, 2.63, shard, fontsize=7.5, color=MUTED, zorder=4)
        for place in range(4 if column < 3 else 2):
            axes.add_patch(
                Rectangle(
                    (x + 0.12 + 0.36 * place, 2.15),
                    0.3,
                    0.34,
                    fc=ACCENT if fit else MUTED,
                    alpha=0.75,
                    zorder=4,
                )
            )
        arrow((x + 0.8, 2.02), (x + 0.8, 0.58), connectionstyle="arc3") if not fit else None
        if fit:
            arrow((x + 0.8, 2.02), (1.9 + 0.25 * column, 1.66))
            arrow((x + 0.8 - 0.5, 2.02), (x + 0.8 - 0.5, 0.58), linestyle=":")
        box(x, 0.1, 1.6, 0.45, "maps", "#ffffff", INK)
    box(
        0.7,
        1.15,
        2.7,
        0.48,
        "statistics, encoder, codes: frozen",
        ACCENT,
        ACCENT,
        color="white",
        weight="bold",
    )
    for column in range(4):
        arrow((2.6 if column > 1 else 1.9, 1.13), (0.15 + 1.85 * column + 1.1, 0.58), color=ACCENT)
    axes.text(1.95, 2.93, "first scan: fit shards, closed for good", ha="center", color=ACCENT)
    axes.text(5.75, 2.93, "held out, or found later: only mapped", ha="center", color=MUTED)
    axes.set(xlim=(0, 7.4), ylim=(0, 3.1))
    return figure


def windows(run: Run) -> plt.Figure:
    """A window, its halo, and the map that shows nothing of either."""
    picture = _picture(run)
    with rasterio.open(run.segments(SCENE) / "segments.tif") as raster:
        labels = np.where(raster.read(1) == raster.nodata, -1, raster.read(1).astype(int))
        count = (
            len(raster.colormap(1))
            and read_json(run.manifest("segment", "s00000"))["scenes"][SCENE]["classes"]
        )
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3), layout="constrained")
    left.imshow(picture, interpolation="nearest")
    right.imshow(_painted(labels, count, run), interpolation="nearest")
    height, width = labels.shape
    side = 64
    for axes in (left, right):
        for line in range(side, max(height, width), side):
            style = {"color": "white", "linewidth": 0.7, "linestyle": (0, (4, 3)), "alpha": 0.9}
            axes.axhline(line - 0.5, **style) if line < height else None
            axes.axvline(line - 0.5, **style) if line < width else None
        axes.set_axis_off()
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    halo = 26
    left.add_patch(
        Rectangle(
            (side - halo, side - halo),
            side + 2 * halo,
            side + 2 * halo,
            fc="none",
            ec="#ffb000",
            lw=2,
            ls="--",
        )
    )
    left.add_patch(Rectangle((side, side), side, side, fc="none", ec="#ffb000", lw=2.5))
    left.set_title("what is written (solid), what is read for it (dashed)", fontsize=9)
    right.set_title("its map: nothing ends at a window's edge", fontsize=9)
    return figure


def classes(run: Run) -> plt.Figure:
    """One scene at three numbers of classes, cut from one tree."""
    figure, all_axes = plt.subplots(1, 1 + len(NUMBERS), figsize=(7.4, 2.3), layout="constrained")
    all_axes[0].imshow(_picture(run))
    all_axes[0].set_title("scene", fontsize=9)
    for axes, n in zip(all_axes[1:], NUMBERS):
        axes.imshow(_painted(_classes(run, SCENE, n), n, run), interpolation="nearest")
        axes.set_title(f"{n} classes", fontsize=9)
    for axes in all_axes:
        axes.set_axis_off()
    return figure


def _page(width: float, height: float) -> tuple[plt.Figure, plt.Axes]:
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def _picture(run: Run) -> np.ndarray:
    """Return the scene as people see it, RGBA ``(y, x, 4)``."""
    store = SceneStore(run.scene(SCENE))
    stretch = Stretch.of(read_json(run.statistics), [3, 2, 1])
    pixels = store.bands[:][list(stretch.bands)]
    return stretch.apply(pixels, store.valid[:].astype(bool))


def _classes(run: Run, scene: str, n: int) -> np.ndarray:
    """Return the class of each embedding ``(y, x)``, -1 without data."""
    with rasterio.open(run.segments(scene) / "codes.tif") as raster:
        codes, nodata = raster.read(1), raster.nodata
    of_code = Classes.of_tree(read_json(run.hierarchy), n).of_code
    return np.where(codes == nodata, -1, of_code[np.where(codes == nodata, 0, codes)])


def _painted(labels: np.ndarray, n: int, run: Run) -> np.ndarray:
    """Colour classes so that one that parts keeps its colour in its larger part."""
    tree = read_json(run.hierarchy)
    finest = Classes.of_tree(tree, max(NUMBERS)).of_code
    mine, sizes = Classes.of_tree(tree, n).of_code, np.array(tree["sizes"])
    colours = np.full((n + 1, 3), 255, np.uint8)
    for label in range(n):
        area = np.bincount(finest[mine == label], sizes[mine == label])
        colours[label] = class_colour(int(area.argmax()))
    return colours[labels]


if __name__ == "__main__":
    main(Run(Path(sys.argv[1])))
