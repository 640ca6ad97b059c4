"""A made Potsdam of a few crops, in both layouts: each class has a colour of its own, with noise."""

from pathlib import Path

import numpy as np
from scenes import make_geotiff
from scipy.io import savemat

LABEL_COLOURS = np.array(
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]], np.uint8
)
"""Of impervious, building, low vegetation, tree, car and clutter, as ISPRS draws them."""
SEEN = np.array(
    [
        [120, 120, 125, 70], [170, 90, 80, 90], [90, 130, 70, 190],
        [50, 80, 45, 150], [220, 220, 230, 60], [140, 70, 60, 110],
    ]
)  # fmt: skip
"""Red, green, blue and infrared of the six classes."""


def make_truth(side: int, seed: int, patch: int) -> np.ndarray:
    """Make ids of the six classes in square patches, ``(y, x)``."""
    count = -(-side // patch)
    ids = np.random.default_rng(seed).choice(6, (count, count), p=[0.3, 0.25, 0.2, 0.15, 0.05, 0.05])
    return np.kron(ids, np.ones((patch, patch), np.int64))[:side, :side]


def make_image(truth: np.ndarray, seed: int) -> np.ndarray:
    """Make pixels uint8 ``(4, y, x)`` that show the classes."""
    noise = np.random.default_rng(seed).normal(0, 6, (4, *truth.shape))
    return np.clip(np.moveaxis(SEEN[truth], -1, 0) + noise, 0, 255).astype(np.uint8)


def make_tiles(root: Path, tiles: tuple[str, ...], side: int) -> None:
    """Write tiles and, of all of them, labels, as ISPRS names them."""
    for seed, tile in enumerate(tiles):
        truth = make_truth(side, seed, 24)
        image = root / "4_Ortho_RGBIR" / f"top_potsdam_{tile}_RGBIR.tif"
        make_geotiff(image, data=make_image(truth, seed), nodata=None, photometric="rgb")
        colours = np.moveaxis(LABEL_COLOURS[truth], -1, 0)
        make_geotiff(root / "5_Labels_all" / f"top_potsdam_{tile}_label.tif", data=colours, nodata=None)


def make_archive(
    root: Path, train: list[str], test: list[str], unlabelled: list[str], side: int = 200
) -> None:
    """Write crops, labels and lists as the archive of IIC has them."""
    for part in ("imgs", "gt"):
        (root / part).mkdir(parents=True)
    for name in (*train, *test, *unlabelled):
        truth = make_truth(side, int(name), 25)
        image = np.moveaxis(make_image(truth, int(name)), 0, -1)
        savemat(root / "imgs" / f"{name}.mat", {"img": image})
        if name not in unlabelled:
            savemat(root / "gt" / f"{name}.mat", {"gt": truth.astype(np.int32)})
    lists = {"labelled_train": train, "labelled_test": test, "unlabelled_train": unlabelled}
    for part, names in lists.items():
        (root / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
