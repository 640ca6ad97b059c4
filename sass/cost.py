"""What a scene and an archive cost: counts by the arithmetic of the stages, times measured rates.

Windows, inodes and products follow from the catalog and the configuration alone. Bytes after compression,
seconds and memory are such counts times the rates of ``sass/rates.yaml``. Nothing here reads a scene.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sass.catalog import Scene
from sass.config import Config
from sass.errors import ConfigError
from sass.grid import ceil_to
from sass.refine import reach

RATES = Path(__file__).with_name("rates.yaml")
BINS = 65536
"""Bins of a histogram (`sass.statistics`, which would bring numerical libraries that are not needed here)."""
CELLS = 64
"""Side of a chunk of embeddings (`sass.features`)."""
COLUMN, STRIP, ROWS = 4096, 256, 128
"""Pixels that the encoder of this package is given along and down (`sass.windows`)."""
THREADS = {"train": 8, "codebook": 4}
"""Threads of a job, as the rules ask for them; 1 where nothing is said."""


@dataclass(frozen=True)
class Look:
    """What of an encoder costs: its grid, and multiplications and numbers held for each pixel it is given."""

    stride: int
    alignment: int
    halo: int
    dim: int
    products: float
    activations: float

    @classmethod
    def of(cls, bands: int, config: Config) -> "Look":
        """Build the encoder of a configuration and let it look at an empty image."""
        import torch

        from sass.model.interface import make_encoder

        section = config.model.model_dump(mode="json")
        encoder = make_encoder([f"band {i + 1}" for i in range(bands)], section, 0).eval()
        side, counted = ceil_to(128, encoder.alignment), Counter()

        def count(module, given, made) -> None:
            weights = module.weight
            counted["products"] += made.numel() // made.shape[1] * weights.numel()
            counted["activations"] += made.numel()

        for module in encoder.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(count)
        with torch.inference_mode():
            encoder(torch.zeros(1, bands + 1, side, side))
        share = {key: value / side**2 for key, value in counted.items()}
        return cls(
            encoder.stride,
            encoder.alignment,
            encoder.halo,
            encoder.dim,
            share.get("products", 0.0),
            share.get("activations", 0.0),
        )


@dataclass(frozen=True)
class Use:
    """What a stage takes, of one scene, one job, or all of them."""

    windows: int = 0
    read: float = 0
    """Bytes, compressed as they lie on disk."""
    written: float = 0
    inodes: int = 0
    """Files and folders that are left behind."""
    cpu: float = 0
    """Seconds of one core, apart from the encoder."""
    encoder: float = 0
    """Seconds of one core for the encoder, where there is no GPU."""
    gpu: float = 0
    """Seconds of one GPU for the encoder, where there is one."""

    def __add__(self, other: "Use") -> "Use":
        return Use(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __mul__(self, scenes: int) -> "Use":
        return Use(*(value * scenes for value in astuple(self)))

    def scaled(self, factor: float) -> "Use":
        """Return the same work in another time."""
        return replace(self, cpu=self.cpu * factor, encoder=self.encoder * factor, gpu=self.gpu * factor)


def load_rates(path: Path | None) -> dict[str, Any]:
    """Read rates; keys that a file of your own leaves out are those measured for this package.

    Raises
    ------
    ConfigError
        The file cannot be read or names a rate that there is not.
    """
    rates = yaml.safe_load(RATES.read_text(encoding="utf-8"))
    if path is None:
        return rates
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: rates cannot be read from it ({error})") from None
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: holds no rates; write some of the keys of {RATES}")
    for section, values in own.items():
        if section == "about":
            continue
        known = rates.get(section)
        if not isinstance(known, dict) or not isinstance(values, dict) or values.keys() - known.keys():
            raise ConfigError(f"{path}: {section}: {values} are no rates; write some of the keys of {RATES}")
        rates[section] = known | values
    return rates | {"about": own.get("about", str(path))}


class Arithmetic:
    """Costs of single scenes and of the stages that see the whole archive, for a configuration and rates."""

    def __init__(self, config: Config, look: Look, rates: dict[str, Any]):
        self.config, self.look = config, look
        self.seconds, self.size, self.memory = rates["seconds"], rates["bytes"], rates["memory"]
        self.of_scene = cache(self._of_scene)  # scenes are much alike

    def grid(self, scene: Scene) -> tuple[int, int, int]:
        """Return bands, height and width of a scene's store; estimated where it is reprojected."""
        ingest = self.config.ingest
        bands = len(ingest.bands) if ingest.bands else scene.bands
        wanted = ingest.resolution
        if isinstance(wanted, dict):
            wanted = wanted.get(scene.sensor or "")
        steps = [size / wanted if wanted else 1 for size in scene.resolution or (wanted, wanted)]
        return bands, *(max(round(side * step), 1) for side, step in zip(scene.shape, steps))

    def length(self, bands: int) -> int:
        """Return the components of an embedding as stored."""
        return self.look.dim + (bands + 1 if self.config.features.appearance else 0)

    def scene(self, scene: Scene, label: int | None) -> dict[str, Use]:
        """Return what each stage takes of a scene; ``label`` is the size of its label raster in bytes.

        What ``change`` takes is that of a scene which follows another.
        """
        return self.of_scene(*self.grid(scene), scene.dtype, scene.size, label)

    def _of_scene(
        self, bands: int, height: int, width: int, dtype: str, size: int, label: int | None
    ) -> dict[str, Use]:
        config, look, rate = self.config, self.look, self.seconds
        pixels, megapixels = height * width, height * width / 1e6
        side = min(config.ingest.shard, ceil_to(max(height, width), config.ingest.chunk))
        windows = ceil(height / side) * ceil(width / side)
        scene_bytes = pixels * (bands * np.dtype(dtype).itemsize * self.size["pixels"] + self.size["mask"])
        kept = scene_bytes + bands * BINS * 8 * self.size["histogram"]
        ingest = Use(
            windows,
            size,
            kept,
            store_inodes(height, width, side, 2) + 3 + 2 * bands + 1,
            rate["ingest"] * megapixels * bands,
        )

        cells = ceil(height / look.stride), ceil(width / look.stride)
        length, step = self.length(bands), self._step()
        unit = look.alignment // look.stride
        chunk = max(min(CELLS, config.features.window // look.stride) // unit, 1) * unit
        shard = min(
            max(config.features.window // look.stride // chunk, 1) * chunk, ceil_to(max(cells), chunk)
        )
        aligned = tuple(ceil_to(length, look.alignment) for length in (height, width))
        step = min(step, shard * look.stride)
        # down a column of windows, rows come one after the other; other encoders are given each window
        ways = ((aligned[0], 0), (self._column(step), look.halo)) if self.ours else ((step, look.halo),) * 2
        given, touched = 1, 1
        for axis, extent, (side, halo) in zip(aligned, (height, width), ways):
            given *= sum(end - start for start, end in spans(axis, side, halo))
            touched *= sum(covered(span, config.ingest.chunk, extent) for span in spans(extent, side, halo))
        itemsize = 2 if config.features.dtype == "float16" else 1
        # beside int8 stand the remainders of colour and texture
        looks = bands + 1 if config.features.dtype == "int8" and config.features.appearance else 0
        features_bytes = prod(cells) * (
            (length * itemsize + looks) * self.size[config.features.dtype] + self.size["mask"] * look.stride
        )
        products = 0 if config.features.source else given * look.products
        features = Use(
            prod(ceil(axis / step) for axis in aligned),
            scene_bytes * touched / pixels,
            features_bytes,
            store_inodes(*cells, shard, 3 if looks else 2) + (2 if looks else 1),
            rate["features"] * megapixels,
            rate["encoder"] * products / 1e12,
            rate["gpu_encoder"] * products / 1e12,
        )

        step, half = config.segment.window, look.stride // 2
        around = 2 * config.segment.min_area + 1 + reach(config.segment.smooth)
        touched = prod(
            sum(
                covered(((start - half) // look.stride, (end - 1 - half) // look.stride + 2), chunk, count)
                for start, end in spans(length, step, around)
            )
            for length, count in zip((height, width), cells)
        )
        segment = Use(
            ceil(height / step) * ceil(width / step),
            features_bytes * touched / prod(cells) + pixels * self.size["mask"],
            pixels * self.size["maps"],
            7 + 1,
            rate["segment"] * megapixels * config.codebook.codes
            + rate["scores"] * prod(cells) * length * config.codebook.codes / 1e12,
        )
        maps = pixels * self.size["maps"]
        change = Use(
            ceil(height / 1024) * ceil(width / 1024), 2 * maps, maps, 5 + 1, rate["change"] * megapixels
        )
        out = {"ingest": ingest, "features": features, "segment": segment, "change": change}
        if label is not None:
            compared = 1 + len(config.evaluate.baselines)
            seen = kept if config.evaluate.baselines else 0
            out["evaluate"] = Use(
                ceil(height / 1024) * ceil(width / 1024),
                label + pixels * self.size["maps"] / 2 + seen,
                0,
                2,
                rate["evaluate"] * megapixels * compared,
            )
        return out

    @property
    def ours(self) -> bool:
        """Whether the encoder is that of this package."""
        return self.config.model.encoder == "sass"

    @staticmethod
    def _column(step: int) -> int:
        return max(COLUMN // step, 1) * step

    def _step(self) -> int:
        return max(self.config.features.window // self.look.alignment, 1) * self.look.alignment

    def once(self, fit: Use, fit_scenes: int, cells: float, length: int, scenes: int) -> dict[str, Use]:
        """Return what the stages take that see the whole archive.

        Parameters
        ----------
        fit
            What features took of the fit scenes.
        cells
            Embeddings of the fit scenes.
        """
        config, rate = self.config, self.seconds
        views = 2 * config.train.steps * config.train.batch * config.train.crop**2
        # forward by both encoders, backward by one: twice a forward pass
        products = 0 if config.model.frozen else 4 * views * self.look.products
        passes = config.codebook.refine + 2
        pages = min(config.report.pages, scenes)
        return {
            "normalize": Use(cpu=rate["normalize"] * fit_scenes, inodes=1),
            "train": Use(
                inodes=3,
                encoder=rate["encoder"] * products / 1e12,
                gpu=rate["gpu_training"] * products / 1e12,
            ),
            "codebook": Use(
                read=fit.written * passes,
                inodes=2,
                cpu=rate["codebook"] * cells * length * passes / 1e9
                + rate["scores"] * cells * length * config.codebook.codes * (passes - 1) / 1e12,
            ),
            "hierarchy": Use(inodes=1, cpu=rate["hierarchy"] * config.hierarchy.trees),
            "baselines": Use(inodes=2, cpu=rate["baselines"] * len(config.evaluate.baselines)),
            "metrics": Use(inodes=2, cpu=rate["merge"] * scenes / 1e3),
            "report": Use(inodes=4 * pages + 50, cpu=rate["page"] * pages + rate["merge"] * scenes / 1e3),
            "complete": Use(inodes=2, cpu=rate["merge"] * scenes / 1e3),
        }

    def peak(self, stage: str, bands: int, itemsize: int, scenes: int, fit_scenes: int) -> float:
        """Return the largest resident memory of a job, in MB."""
        config, look, threads = self.config, self.look, THREADS.get(stage, 1)
        base, factor = self.memory[stage]
        numbers = {
            "ingest": threads * config.ingest.shard**2 * (bands * itemsize + 8),
            "features": self._given(bands),
            # embeddings of a window, also as stored; its maps; scores of a strip and of the pixels in it
            "segment": threads
            * 4
            * (
                1.5 * (config.segment.window / look.stride + 4) ** 2 * self.length(bands)
                + config.segment.window**2
                + 16 * (1 << 20)
            ),
            "train": config.train.pool * (2 * config.train.crop) ** 2 * (bands + 1) * 2
            + 4 * config.train.batch * config.train.crop**2 * 4 * look.activations,
            "codebook": config.codebook.sample * self.length(bands) * 4 * 4,
            "metrics": scenes * 1e3,
            "report": scenes * 1e3,
            "complete": 0,
            "normalize": fit_scenes * 1e3,
            "evaluate": 1024**2 * bands * 4 * 8,
            "baselines": config.evaluate.sample * bands * 4 * 8,
            "change": 1024**2 * 8 * 6,
        }
        return base + factor * numbers.get(stage, 0) / 1e6

    def _given(self, bands: int) -> float:
        """Return the bytes of what goes through the encoder at once, and of what it is given and makes."""
        step, look = self._step(), self.look
        if not self.ours:
            return (step + 2 * look.halo) ** 2 * 4 * (look.activations + 4 * bands)
        column = self._column(step)
        layers = (column + 2 * look.halo) * 4 * (ROWS * look.activations + STRIP * 8 * bands)
        return layers + column * step / look.stride**2 * self.length(bands) * 4 * 2


def spans(length: int, step: int, halo: int) -> Iterable[tuple[int, int]]:
    """Return start and end along one axis of what is read of each window with its halo."""
    return [(max(y - halo, 0), min(min(y + step, length) + halo, length)) for y in range(0, length, step)]


def covered(span: tuple[int, int], chunk: int, length: int) -> int:
    """Return the pixels along an axis of all chunks that a span touches."""
    start, end = max(span[0], 0), min(span[1], length)
    return min(ceil_to(end, chunk), length) - start // chunk * chunk


def store_inodes(height: int, width: int, side: int, arrays: int) -> int:
    """Return files and folders of a store of so many arrays, the first of three axes, without histograms.

    One file a shard and folders down to it, ``zarr.json`` of each array and of the group, two coordinates.
    """
    rows, columns = ceil(height / side), ceil(width / side)
    files = arrays * rows * columns + arrays + 1 + 1 + 2 * 2
    # of an array: itself, `c`, its rows, and one for the axis of the bands; of a coordinate: itself and `c`
    folders = 1 + arrays * (2 + rows) + 1 + 2 * 2 + 1
    return files + folders
