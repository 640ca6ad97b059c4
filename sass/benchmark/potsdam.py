"""Potsdam as its users cut it: tiles halved, crops of 200 x 200, classes merged, written as plain rasters.

Two layouts are read: the tiles as ISPRS distributes them, and the crops of the IIC archive (Ji et al. 2019,
ICCV), which alone has the lists that say which labelled crops are for training and which for scoring.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from sass.errors import SassError
from sass.files import replacing

CLASSES = ("impervious", "building", "low vegetation", "tree", "car", "clutter")
"""The six classes; their places are the ids in the IIC archive."""
MERGED = {"potsdam3": (0, 1, 2, 2, 0, 1), "potsdam6": (0, 1, 2, 3, 4, 5)}
"""Class of each of the six in the two forms of the benchmark."""
NAMES = {
    "potsdam3": {0: "impervious, car", 1: "building, clutter", 2: "low vegetation, tree"},
    "potsdam6": dict(enumerate(CLASSES)),
}
IMPERVIOUS, BUILDING = 0, 1
"""Ids, in both forms, of the two classes that are hardest to tell apart."""

BANDS = {"iic": 4, "stego": 3}
"""Bands of each protocol: red, green, blue, infrared, or the first three."""
HOLD_OUT = {"iic": [], "stego": ["test-*"]}
"""Patterns of the crops that are segmented and never fitted on."""
WHOLE = {"iic": (8550, 5400), "stego": (5400, 855)}
"""Crops of the whole data set, and those that are scored."""

TILE_NAME = ("top_potsdam_", "_RGBIR.tif")
LABEL_FOLDERS = ("5_Labels_all", "5_Labels_for_participants")
SCORED_TILES = frozenset(
    f"{row}_{column}"
    for row, columns in {2: "10 11 12", 3: "10 11 12", 4: "10 11 12", 5: "10 11 12",
                         6: "7 8 9 10 11 12", 7: "7 8 9 10 11 12"}.items()
    for column in columns.split()
)  # fmt: skip
"""The 24 tiles whose labels ISPRS gave to participants; those of the other 14 came later and are not used."""

NO_CLASS = 255
OF_COLOUR = np.full(8, NO_CLASS, np.uint8)
OF_COLOUR[[0b111, 0b001, 0b011, 0b010, 0b110, 0b100]] = range(6)
"""Id of each colour by which of red, green and blue are on: white, blue, cyan, green, yellow, red."""


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels."""

    crop: int = 200
    across: int = 15
    """Crops along a side of a tile."""
    enlarged: int = 320
    """Side to which crops are enlarged where the protocol says so."""

    @property
    def tile(self) -> int:
        """Side of a tile before it is halved."""
        return 2 * self.crop * self.across


SIZES = Sizes()
"""Those of the data set."""


@dataclass(frozen=True)
class Crop:
    """One scene of the benchmark."""

    name: str
    pixels: np.ndarray
    """uint8 ``(band, y, x)``: red, green, blue and, in one of the protocols, infrared."""
    labels: np.ndarray | None
    """Ids of `CLASSES`, uint8 ``(y, x)``; None where the crop is not scored."""


def read_crops(root: Path, protocol: str, sizes: Sizes) -> Iterator[Crop]:
    """Give the crops of a protocol, in one order whatever the disk says.

    Raises
    ------
    SassError
        ``root`` has neither layout or not what the protocol needs, or a file is not as it should be.
    """
    if (root / "imgs").is_dir():
        return _listed_crops(root, sizes) if protocol == "stego" else _all_crops(root, sizes)
    if (root / "4_Ortho_RGBIR").is_dir():
        if protocol == "stego":
            raise SassError(
                f"{root} holds the tiles of ISPRS, but the protocol stego needs lists of the IIC archive: "
                "the draw they come from has no seed, so nobody can make it again. Give the folder of that "
                "archive (imgs, gt, labelled_train.txt, labelled_test.txt), or --protocol iic"
            )
        return _tile_crops(root, sizes)
    raise SassError(
        f"{root} has neither 4_Ortho_RGBIR (the tiles of ISPRS, with 5_Labels_all beside it) nor imgs (the "
        "crops of the IIC archive, with gt beside it), so there is nothing to read; see docs/potsdam.md"
    )


def write_crops(folder: Path, crops: Iterator[Crop], benchmark: str) -> tuple[int, int]:
    """Write ``images/<name>.tif`` and, where scored, ``labels/<name>.tif``; return how many of each."""
    classes = np.array(MERGED[benchmark], np.uint8)
    total = scored = 0
    with replacing(folder) as temporary:
        for part in ("images", "labels"):
            (temporary / part).mkdir(parents=True)
        for crop in crops:
            _write(temporary / "images" / f"{crop.name}.tif", crop.pixels)
            if crop.labels is not None:
                _write(temporary / "labels" / f"{crop.name}.tif", classes[crop.labels][None])
                scored += 1
            total += 1
    return total, scored


def halved(pixels: np.ndarray) -> np.ndarray:
    """Return the rounded mean of each 2 x 2 pixels, uint8 ``(band, y, x)``."""
    wide = pixels.astype(np.uint16)
    total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def enlarged(image: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
    """Return an image uint8 ``(y, x)`` brought to ``side`` x ``side`` pixels."""
    return np.asarray(Image.fromarray(image).resize((side, side), method))


def _tile_crops(root: Path, sizes: Sizes) -> Iterator[Crop]:
    """Read tiles by the strips of 2 x 200 rows that make a row of crops."""
    prefix, suffix = TILE_NAME
    for path in sorted((root / "4_Ortho_RGBIR").glob(f"{prefix}*{suffix}")):
        tile = path.name.removeprefix(prefix).removesuffix(suffix)
        candidates = [root / folder / f"{prefix}{tile}_label.tif" for folder in LABEL_FOLDERS]
        found = next((p for p in candidates if p.exists()), None) if tile in SCORED_TILES else None
        with _opened(path, 4, sizes) as image, _opened(found, 3, sizes) as colours:
            for row in range(sizes.across):
                strip = Window(0, 2 * sizes.crop * row, sizes.tile, 2 * sizes.crop)
                pixels = halved(_read(image, strip))
                # the first of each 2 x 2, as nearest neighbour takes it: no class is between two others
                ids = None if colours is None else _ids(_read(colours, strip), found)[::2, ::2]
                for column in range(sizes.across):
                    part = slice(column * sizes.crop, (column + 1) * sizes.crop)
                    labels = None if ids is None else ids[:, part]
                    yield Crop(f"{tile}_{row:02}_{column:02}", pixels[:, :, part], labels)


@contextlib.contextmanager
def _opened(path: Path | None, bands: int, sizes: Sizes) -> Iterator[rasterio.DatasetReader | None]:
    """Open a tile of the expected form; None stands for a tile without labels."""
    if path is None:
        yield None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            raster = rasterio.open(path)
        except RasterioError as error:
            raise SassError(f"{path} cannot be opened ({error}); fetch it again from ISPRS") from None
    with raster:
        form = (raster.count, raster.height, raster.width, raster.dtypes[0])
        if form != (bands, sizes.tile, sizes.tile, "uint8"):
            raise SassError(
                f"{path} is {form[0]} x {form[1]} x {form[2]} {form[3]} (band, y, x), not "
                f"{bands} x {sizes.tile} x {sizes.tile} uint8, so its crops would not be those that others "
                "score: fetch the file as ISPRS distributes it"
            )
        yield raster


def _read(raster: rasterio.DatasetReader, window: Window) -> np.ndarray:
    try:
        return raster.read(window=window)
    except RasterioError as error:
        raise SassError(
            f"{raster.name} cannot be read from row {window.row_off} on ({error}); fetch it again from ISPRS"
        ) from None


def _ids(colours: np.ndarray, path: Path) -> np.ndarray:
    """Turn colours ``(3, y, x)`` into ids ``(y, x)``; a channel is on above 127."""
    red, green, blue = (colours > 127).astype(np.uint8)
    ids = OF_COLOUR[red << 2 | green << 1 | blue]
    if (ids == NO_CLASS).any():
        y, x = np.argwhere(ids == NO_CLASS)[0]
        raise SassError(
            f"{path} holds the colour {tuple(colours[:, y, x].tolist())}, which is none of the six classes, "
            "and all pixels count here; take the labels with boundaries, as ISPRS distributes them"
        )
    return ids


def _all_crops(root: Path, sizes: Sizes) -> Iterator[Crop]:
    """Give every crop of the IIC archive with its labels, where it has some."""
    for name in sorted((path.stem for path in (root / "imgs").glob("*.mat")), key=lambda n: (len(n), n)):
        labelled = (root / "gt" / f"{name}.mat").exists()
        yield Crop(name, _image(root, name, sizes), _truth(root, name, sizes) if labelled else None)


def _listed_crops(root: Path, sizes: Sizes) -> Iterator[Crop]:
    """Give the crops to train on, without labels, and those to score, enlarged; RGB."""
    bands = BANDS["stego"]
    for name in _listed(root / "labelled_train.txt"):
        yield Crop(f"train-{name}", _image(root, name, sizes)[:bands], None)
    for name in _listed(root / "labelled_test.txt"):
        pixels = [
            enlarged(band, sizes.enlarged, Image.Resampling.BILINEAR)
            for band in _image(root, name, sizes)[:bands]
        ]
        labels = enlarged(_truth(root, name, sizes), sizes.enlarged, Image.Resampling.NEAREST)
        yield Crop(f"test-{name}", np.stack(pixels), labels)


def _listed(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SassError(
            f"{path} cannot be read ({error}); the protocol stego needs the lists of the IIC archive, for "
            "their draw has no seed. Put them beside imgs and gt"
        ) from None
    odd = [name for name in names if not name.isdecimal()]
    if odd:
        raise SassError(f"{path} names {odd[0]!r}, which is no number of a crop; fetch the list again")
    return names


def _image(root: Path, name: str, sizes: Sizes) -> np.ndarray:
    image = _array(root / "imgs" / f"{name}.mat", "img", (sizes.crop, sizes.crop, 4))
    return np.ascontiguousarray(np.moveaxis(image, -1, 0), np.uint8)


def _truth(root: Path, name: str, sizes: Sizes) -> np.ndarray:
    path = root / "gt" / f"{name}.mat"
    ids = _array(path, "gt", (sizes.crop, sizes.crop))
    if ids.max() >= len(CLASSES):
        raise SassError(
            f"{path} holds the label {ids.max()}; the ids are 0 to {len(CLASSES) - 1} and all pixels count, "
            "so the crop cannot be scored: fetch it again"
        )
    return ids.astype(np.uint8)


def _array(path: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read one array of whole numbers from 0 to 255 out of a MATLAB file; nothing else of it is looked at."""
    try:
        array = loadmat(path, appendmat=False, variable_names=(key,)).get(key)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise SassError(f"{path} cannot be read ({error}); fetch the archive again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "ui" or array.shape != shape:
        form = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise SassError(f"{path} has {form} for {key!r}, not whole numbers {shape} (y, x, band): not a crop")
    if array.min() < 0 or array.max() > 255:
        raise SassError(f"{path} holds values from {array.min()} to {array.max()} in {key!r}, not 0 to 255")
    return array


def _write(path: Path, bands: np.ndarray) -> None:
    """Write uint8 ``(band, y, x)``. A fourth band is infrared: left to itself, GDAL takes it for alpha."""
    form = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", **form, compress="deflate", photometric="minisblack", alpha="no"
        ) as raster:
            raster.write(bands)
