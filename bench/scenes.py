"""Made scenes of any size for measurements: every byte follows from the size.

They must cost a codec what real scenes cost. So they have what real ones have: brightness with a falling
spectrum that all bands share, fields with sharp edges, noise of the sensor, 12 bits in 16, an edge without
data. One block is repeated in larger scenes; the codecs' own windows are far smaller than it.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

BANDS, BLOCK = 4, 1024
NOISE = 6.0
"""Standard deviation of the sensor's noise, in counts."""
ROTATED = 0.04
"""Share of the width that has no data at the top, less and less downwards: an orbit is not a grid."""


def side_of(megapixels: float) -> int:
    """Return the side of a square scene."""
    return round((megapixels * 1e6) ** 0.5)


def write_scene(path: Path, megapixels: float, number: int = 0) -> Path:
    """Write a square scene as a tiled GeoTIFF: uint16 ``(4, y, x)``, nodata 0, deflate.

    Scenes of other numbers lie beside it. A file that is there is kept.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    side = side_of(megapixels)
    place = rasterio.Affine(10, 0, 500_000 + 10 * side * number, 0, -10, 5_400_000)
    form = {"count": BANDS, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32633", "transform": place}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    layout |= {"bigtiff": "if_safer", "num_threads": "all_cpus"}
    temporary = path.with_suffix(".partial")
    with rasterio.open(temporary, "w", "GTiff", side, side, **form, **layout) as raster:
        for top in range(0, side, BLOCK):
            rows = min(BLOCK, side - top)
            blocks = [_block(number + top // BLOCK + i) for i in range(-(-side // BLOCK))]
            strip = np.concatenate(blocks, axis=2)[:, :rows, :side].copy()
            empty = (ROTATED * side * (1 - (top + np.arange(rows)) / side)).astype(int)
            strip[:, np.arange(side) < empty[:, None]] = 0
            raster.write(strip, window=Window(0, top, side, rows))
    temporary.rename(path)
    return path


def _block(number: int) -> np.ndarray:
    """Return the block turned one of four ways; where two meet is an edge like that of a field."""
    block = _made()
    return [block, block[:, ::-1], block[:, :, ::-1], block[:, ::-1, ::-1]][number % 4]


@lru_cache(maxsize=1)
def _made() -> np.ndarray:
    random = np.random.default_rng(0)
    shared = _falling(random)
    fields = np.zeros((BLOCK, BLOCK), np.int64)
    for size in (16, 48, 128):  # larger fields lie under smaller ones
        cells = random.integers(0, 12, (BLOCK // size + 1, BLOCK // size + 1))
        wide = np.kron(cells, np.ones((size, size), np.int64))[:BLOCK, :BLOCK]
        fields = np.where(wide > 6, wide, fields)
    colours = random.uniform(-1, 1, (12, BANDS))
    bands = []
    for band in range(BANDS):
        own = _falling(random)
        counts = 900 + 350 * band + 160 * shared + 40 * own + 220 * colours[fields, band]
        bands.append(counts + random.normal(0, NOISE, counts.shape))
    return np.clip(np.rint(bands), 1, 4095).astype(np.uint16)


def _falling(random: np.random.Generator) -> np.ndarray:
    """Return noise of unit variance whose amplitude falls with frequency, as that of landscapes does."""
    frequency = np.hypot(np.fft.fftfreq(BLOCK)[:, None], np.fft.rfftfreq(BLOCK)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.normal(size=(BLOCK, BLOCK))) / frequency**1.5
    image = np.fft.irfft2(spectrum, (BLOCK, BLOCK))
    return image / image.std()
