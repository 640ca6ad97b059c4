"""What an encoder is to the rest of SASS, where one of your own comes from, and its file.

The encoder of `sass.model.encoder` is one `DenseEncoder`; any function that returns another takes its place
(``model.encoder``). Such a function is code that runs: name only what you trust. Weights are read
from safetensors alone.
"""

import importlib
import importlib.util
import json
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sass.model.encoder import build_encoder

OURS = "sass"
"""The value of ``model.encoder`` that means the encoder of this package."""

TOLERANCE = 2**-11
"""What float16, in which embeddings are stored, rounds a component of 1 by: a halo may leave less."""


class EncoderError(Exception):
    """An encoder cannot be built, or is not what it says of itself."""


class DenseEncoder(Protocol):
    """A `torch.nn.Module` that maps pixels to embeddings on a grid.

    It is built by a factory, ``factory(bands, band_names, **model.options)``, called anew wherever the
    encoder is needed; the weights are then replaced by those of ``model/encoder.safetensors``. Scenes are
    embedded window by window, so it must say how far it looks.
    """

    bands: int
    """Bands of the scenes it takes, at least 1; the validity mask is not counted."""

    dim: int
    """Length of an embedding."""

    stride: int
    """Pixels per embedding along an axis, at least 1."""

    alignment: int
    """Windows start and end at multiples of this many pixels; a multiple of ``stride``.

    The largest stride inside the network. An image is shifted against its inner grids by nothing less.
    """

    halo: int
    """Pixels around a window that are read with it and whose embeddings are thrown away.

    A multiple of ``alignment``; as wide as an embedding sees beyond its own ``stride`` x ``stride`` block, so
    that windows leave no trace. Where ``exact`` is false, whatever context you find worth its time.
    """

    exact: bool
    """Whether nothing beyond the halo changes an embedding, which is tested when the encoder is built.

    False for networks that look at the whole window at once (global attention, global pooling, positions
    counted from the window's corner): maps then depend on ``features.window``, and the report says so.
    """

    normalisation: tuple[list[float], list[float]] | None
    """What the pixels were scaled by when the weights were made: offset and scale of each band.

    Pixels come as ``(value - offset) / scale``, with values as in the rasters; about 1 in size, because
    training holds them as float16. None: by the archive's frozen statistics, as ``normalize.transform`` and
    ``normalize.clip`` say.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Map float32 ``(n, bands + 1, y, x)`` to ``(n, dim, y / stride, x / stride)``.

        Sides are multiples of ``alignment``. The last channel is the validity mask, 1 with data; pixels
        without data are 0 in every channel, and so is what lies beyond the scene. Embeddings are brought to
        unit length afterwards.
        """


def make_encoder(names: list[str], model: dict[str, Any], seed: int) -> nn.Module:
    """Build the encoder that the configuration names, for scenes with these bands, and check it.

    Parameters
    ----------
    names
        Names of the bands.
    model
        The section ``model`` of the configuration.
    seed
        Seed of whatever weights are random. Torch's own generator is left as it was.

    Raises
    ------
    EncoderError
        The factory cannot be imported or fails, or what it returns is not the `DenseEncoder` it claims to be.
    """
    encoder = _built(names, model, seed)
    if model["encoder"] != OURS:
        _check(encoder, model["encoder"])
    return encoder


def save_encoder(path: Path, encoder: nn.Module, model: dict[str, Any], statistics: dict[str, Any]) -> None:
    """Write the weights, and with them where they came from and the normalisation they belong to."""
    about = {"model": model, "statistics": statistics, **_claims(encoder)}
    # cloned: safetensors refuses weights that share memory
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
    # not save_file: its own temporary file would stay where it is killed
    path.write_bytes(save(weights, {"sass": json.dumps(about, sort_keys=True)}))


def load_encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return what `save_encoder` wrote: the encoder, ready for inference, and what stands beside it.

    Raises
    ------
    EncoderError
        The factory that the file names cannot be imported, or no longer makes the encoder of these weights.
    """
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["sass"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    name = about["model"]["encoder"]
    encoder = _built([band["name"] for band in about["statistics"]["bands"]], about["model"], seed=0)
    changed = [key for key, value in _claims(encoder).items() if about.get(key) != value]
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        changed.append(f"weights ({' '.join(str(error).split())[:200]})")
    if changed:
        raise EncoderError(
            f"{path} was written by another {name!r}: its {', '.join(changed)} differ from what the factory "
            "makes now, so the weights mean nothing to it; run `sass train` again"
        )
    if name != OURS:
        _check(encoder, name)
    return encoder.eval(), about


def _built(names: list[str], model: dict[str, Any], seed: int) -> nn.Module:
    name = model["encoder"]
    if name == OURS:
        return build_encoder(len(names), model, seed)
    factory = _factory(name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = factory(len(names), list(names), **model["options"])
    except Exception as error:  # whatever code of others raises
        raise EncoderError(
            f"model.encoder {name!r} fails for the {len(names)} bands {', '.join(names)} with model.options "
            f"{model['options']} ({_cause(error)}), so there is no encoder; choose bands it takes "
            "(ingest.bands) or change the options"
        ) from error
    _check_claims(encoder, name, names)
    return encoder


def _factory(name: str) -> Callable[..., nn.Module]:
    """Import ``package.module:function`` or ``path/to/file.py:function``."""
    where, _, function = name.rpartition(":")
    try:
        if where.endswith(".py"):
            path = Path(where).resolve()
            spec = importlib.util.spec_from_file_location(f"sass_encoder_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        return getattr(module, function)
    except Exception as error:  # an import runs any code
        raise EncoderError(
            f"model.encoder {name!r} cannot be imported ({_cause(error)}), so there is no encoder; "
            "install its package in this environment, or give package.module:function or "
            "path/to/file.py:function"
        ) from error


def _cause(error: BaseException) -> str:
    """Name an error of foreign code and the line it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())}; {Path(last.filename).name}:{last.lineno}"


def _claims(encoder: nn.Module) -> dict[str, Any]:
    """Return what an encoder says of itself, as JSON has it."""
    names = ("bands", "dim", "stride", "alignment", "halo", "exact", "normalisation")
    claims = {name: getattr(encoder, name) for name in names}
    if claims["normalisation"] is not None:
        claims["normalisation"] = [[float(v) for v in row] for row in claims["normalisation"]]
    return claims


def _check_claims(encoder: nn.Module, name: str, names: list[str]) -> None:
    def wrong(what: str, remedy: str) -> EncoderError:
        return EncoderError(f"model.encoder {name!r} {what}, so it cannot be used; {remedy}")

    if not isinstance(encoder, nn.Module):
        raise wrong(f"returns a {type(encoder).__name__}", "return a torch.nn.Module")
    missing = [key for key in DenseEncoder.__annotations__ if not hasattr(encoder, key)]
    if missing:
        raise wrong(f"has no attribute {', '.join(missing)}", "set it as sass/model/interface.py explains")
    for key, least in (("bands", 1), ("dim", 1), ("stride", 1), ("alignment", 1), ("halo", 0)):
        value = getattr(encoder, key)
        if type(value) is not int or value < least:
            raise wrong(f"says {key} {value!r}", f"make it an integer of at least {least}")
    if type(encoder.exact) is not bool:
        raise wrong(f"says exact {encoder.exact!r}", "say True or False")
    if encoder.bands != len(names):
        raise wrong(
            f"takes {encoder.bands} bands and the archive has {len(names)} ({', '.join(names)})",
            "choose bands with ingest.bands, or build it for as many",
        )
    for key, unit in (("alignment", "stride"), ("halo", "alignment")):
        value, step = getattr(encoder, key), getattr(encoder, unit)
        if value % step:
            raise wrong(f"says {key} {value} and {unit} {step}", f"make {key} a multiple of {unit}")
    if encoder.normalisation is not None:
        rows = _claims(encoder)["normalisation"]
        fits = len(rows) == 2 and all(len(row) == len(names) for row in rows)
        if not fits or not all(map(math.isfinite, rows[0] + rows[1])) or 0 in rows[1]:
            raise wrong(f"says normalisation {rows}", "give an offset and a scale other than 0 for each band")


@torch.inference_mode()
def _check(encoder: nn.Module, name: str) -> None:
    """Hold an encoder to what it says: the shape of what it returns and, where it is exact, the halo.

    A strip is embedded whole, and its middle again from a window with the halo around it, along each axis.
    """
    training = encoder.training
    encoder.eval()
    side, halo = encoder.alignment, encoder.halo if encoder.exact else 0
    generator = torch.Generator().manual_seed(0)
    long = 3 * side + 2 * halo
    strip = torch.randn(1, encoder.bands, side, long, generator=generator)
    strip = torch.cat([strip, torch.ones(1, 1, side, long)], 1)
    inner = slice(halo // encoder.stride, (halo + side) // encoder.stride)
    for axis, image in (("x", strip), ("y", strip.transpose(2, 3).contiguous())):
        whole = _embedded(encoder, image, name)
        if not encoder.exact:
            continue
        narrow = image[..., side : long - side] if axis == "x" else image[..., side : long - side, :]
        part = _embedded(encoder, narrow.contiguous(), name)
        if axis == "y":
            whole, part = whole.transpose(2, 3), part.transpose(2, 3)
        left = float((whole[..., side // encoder.stride :][..., inner] - part[..., inner]).abs().max())
        if not left <= TOLERANCE:
            raise EncoderError(
                f"model.encoder {name!r} says that its embeddings depend on {encoder.halo} pixels around "
                f"them, but what lies farther along {axis} changes them by {left:.2g}, so maps would show "
                "seams; state a wider halo or alignment, or exact = False where it looks at the whole window"
            )
    encoder.train(training)


def _embedded(encoder: nn.Module, image: Tensor, name: str) -> Tensor:
    expected = (1, encoder.dim, *(side // encoder.stride for side in image.shape[2:]))
    try:
        out = encoder(image)
    except Exception as error:  # whatever code of others raises
        raise EncoderError(
            f"model.encoder {name!r} fails on pixels of shape {tuple(image.shape)} ({_cause(error)}), so "
            "there are no embeddings; it must take any sides that are multiples of its alignment "
            f"{encoder.alignment}"
        ) from error
    if not isinstance(out, Tensor) or tuple(out.shape) != expected:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise EncoderError(
            f"model.encoder {name!r} returns {got} for pixels of shape {tuple(image.shape)}, where dim "
            f"{encoder.dim} and stride {encoder.stride} promise {expected}, so its maps would "
            "lie elsewhere; correct the attributes or what it returns"
        )
    if not out.isfinite().all():
        raise EncoderError(
            f"model.encoder {name!r} returns values that are not finite for pixels of ordinary size, which "
            "cannot be clustered; look for a division by 0, or weights of another network"
        )
    return F.normalize(out.float(), dim=1)
