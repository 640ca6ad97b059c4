"""Encoders that users bring: what they say of themselves is held against what they do."""

from pathlib import Path

import pytest
import torch

from sass.config import Model
from sass.model.interface import EncoderError, load_encoder, make_encoder, save_encoder

FILE = Path(__file__).parents[1] / "own_encoders.py"
STATISTICS = {"bands": [{"name": "red"}, {"name": "nir"}], "clip": 4.0}


def section(function: str, **options) -> dict:
    return Model(encoder=f"own_encoders:{function}", options=options).model_dump(mode="json")


def test_a_module_and_a_file_name_the_same_factory():
    by_module = make_encoder(["a", "b"], section("own"), seed=3).state_dict()
    by_file = Model(encoder=f"{FILE}:own").model_dump(mode="json")
    again = make_encoder(["a", "b"], by_file, seed=3).state_dict()
    other = make_encoder(["a", "b"], by_file, seed=4).state_dict()
    assert torch.equal(by_module["convolution.weight"], again["convolution.weight"])
    assert not torch.equal(by_module["convolution.weight"], other["convolution.weight"])


def test_a_file_gives_back_the_same_encoder_by_its_factory(tmp_path):
    model = section("own", stride=2, offset=127, scale=128)
    encoder = make_encoder(["red", "nir"], model, seed=1).eval()
    save_encoder(tmp_path / "encoder.safetensors", encoder, model, STATISTICS)
    loaded, about = load_encoder(tmp_path / "encoder.safetensors")
    image = torch.randn(1, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded(image), encoder(image))
    assert (about["stride"], about["model"]["encoder"]) == (2, "own_encoders:own")
    assert about["normalisation"] == [[127.0, 127.0], [128.0, 128.0]]


def test_a_factory_that_has_changed_since_is_refused(tmp_path):
    model = section("own", stride=2)
    encoder = make_encoder(["red", "nir"], model, seed=1)
    encoder.halo = 4
    save_encoder(tmp_path / "encoder.safetensors", encoder, model, STATISTICS)
    with pytest.raises(EncoderError, match=r"'own_encoders:own': its halo differ .*run `sass train` again"):
        load_encoder(tmp_path / "encoder.safetensors")
    save_encoder(tmp_path / "other.safetensors", encoder, section("own", stride=4, dim=5), STATISTICS)
    with pytest.raises(EncoderError, match=r"its dim, stride, alignment, weights \(.*size mismatch"):
        load_encoder(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:encoder", r"'no_such_package:encoder' cannot be imported \(ModuleNotFoundError"),
        ("no/such/file.py:encoder", r"cannot be imported \(FileNotFoundError"),
        ("own_encoders:missing", r"cannot be imported \(AttributeError: .*install its package"),
    ],
)
def test_a_factory_that_is_not_there_is_named_with_the_cause(name, message):
    with pytest.raises(EncoderError, match=message):
        make_encoder(["a", "b"], Model(encoder=name).model_dump(mode="json"), seed=0)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("own", {"strid": 4}, r"fails for the 2 bands a, b with model.options \{'strid': 4\} \(TypeError"),
        ("nothing", {}, r"returns a NoneType, .*return a torch.nn.Module"),
        ("silent", {}, r"has no attribute halo, exact"),
        ("claiming", {"claims": {"stride": 0}}, r"says stride 0, .*integer of at least 1"),
        ("claiming", {"claims": {"halo": 8.0}}, r"says halo 8.0"),
        (
            "claiming",
            {"claims": {"halo": 12}},
            r"says halo 12 and alignment 8, .*make halo a multiple of alignment",
        ),
        ("claiming", {"claims": {"exact": "yes"}}, r"says exact 'yes'"),
        (
            "claiming",
            {"claims": {"bands": 3}},
            r"takes 3 bands and the archive has 2 \(a, b\), .*ingest.bands",
        ),
        ("claiming", {"claims": {"normalisation": [[1], [1]]}}, r"says normalisation .*for each band"),
        ("claiming", {"claims": {"normalisation": [[1, 1], [0, 1]]}}, r"a scale other than 0"),
        (
            "claiming",
            {"claims": {"dim": 5}},
            r"returns \(1, 6, 1, 5\) .* where dim 5 and stride 8 promise \(1, 5, 1, 5\)",
        ),
        ("claiming", {"claims": {"stride": 4}}, r"returns \(1, 6, 1, 5\) .* promise \(1, 6, 2, 10\)"),
        ("sided", {}, r"returns \(1, 6, 5, 1\) .* promise \(1, 6, 1, 5\)"),
        (
            "claiming",
            {"claims": {"halo": 0}},
            r"depend on 0 pixels around them, but .* changes them by .* exact = False",
        ),
        ("attentive", {"exact": True}, r"what lies farther along x changes them"),
        ("fixed", {}, r"fails on pixels of shape \(1, 3, 8, 40\) .*multiples of its alignment 8"),
        ("lost", {}, r"not finite"),
    ],
)
def test_an_encoder_that_is_not_what_it_says_is_refused(function, options, message):
    with pytest.raises(EncoderError, match=message):
        make_encoder(["a", "b"], section(function, **options), seed=0)


def test_an_encoder_that_owns_to_look_at_everything_is_taken():
    assert not make_encoder(["a", "b"], section("attentive"), seed=0).exact
