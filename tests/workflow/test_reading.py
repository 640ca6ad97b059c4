"""A run in a notebook: what `sass.open` gives, and that the page about it is true."""

import re
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from builders import add_features, make_run, ramps
from snake import CHECKOUT

import sass
from sass.cli import main
from sass.errors import SassError
from sass.files import read_json
from sass.grid import Window
from sass.store import FeatureStore


@pytest.fixture
def opened(archive):
    return sass.open(archive.run.root)


def test_the_page_is_true(archive, monkeypatch):
    """Every line of docs/notebook.md, from top to bottom, on the small run."""
    page = (CHECKOUT / "docs" / "notebook.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    (archive.folder / "results").mkdir()
    (archive.folder / "results" / "mine").symlink_to(archive.run.root)
    monkeypatch.chdir(archive.folder)
    held: dict = {}
    for block in blocks:
        exec(compile(block, "docs/notebook.md", "exec"), held)

    assert repr(held["run"]) == "<run results/mine: scenes 4, features 4, segments 4>"
    assert 0 < held["share"] < 1
    with rasterio.open(archive.folder / "sure.tif") as raster:
        assert raster.crs.to_epsg() == 32633 and raster.nodata == 255
    assert np.allclose(held["shares"].sum(axis=1), 1)
    first = {"first": 0, "second": 1}
    assert set(held["run"].catalog.index) == {*first, "third", "fourth"}
    assert held["spectrum"].dims == ("band",) and len(held["spectrum"]) == 3


def test_arrays_are_those_on_disk_and_lie_where_they_should(archive, opened):
    run = archive.run
    with rasterio.open(run.segments("first") / "segments.tif") as raster:
        assert (opened.segments["first"].values == raster.read(1)).all()
        assert opened.segments["first"].rio.transform() == raster.transform
    with rasterio.open(run.segments("first") / "confidence.tif") as raster:
        stored = raster.read(1)
    confidence = opened.confidence["first"]
    assert (np.isnan(confidence.values) == (stored == 255)).all()
    assert np.allclose(confidence.values[stored != 255], stored[stored != 255] / 254)
    assert confidence.rio.crs.to_epsg() == 32633

    pixels = opened.scenes["first"]
    with rasterio.open(archive.raster("first")) as raster:
        assert (pixels.bands.values == raster.read()).all()
        assert (pixels.valid.values == (raster.dataset_mask() > 0)).all()
        assert pixels.bands.rio.transform() == raster.transform
    store = FeatureStore(run.features("first"))
    vectors = opened.features["first"]
    assert vectors.embedding.shape == store.embedding.shape
    assert np.allclose(vectors.embedding.values, store.embedding[:].astype(np.float32))
    assert set(vectors.part.values) == {"embedding", "colour", "texture"}


def test_int8_embeddings_are_those_that_the_stages_read(tmp_path):
    run = make_run(tmp_path, {"s00000": {"a": ramps((90, 70))}})
    add_features(run, ["s00000"], dtype="int8")
    store = FeatureStore(run.features("a"))
    held = sass.open(run.root).features["a"]
    expected, valid = store.read(Window(0, 0, *store.embedding.shape[1:]))
    assert np.allclose(held.embedding.values, expected, atol=1e-7)
    assert (held.valid.values == valid).all()


def test_nothing_is_read_before_it_is_asked_for(opened):
    for kind in (opened.segments, opened.confidence, opened.codes):
        assert kind["first"].chunks is not None
    assert opened.scenes["first"].bands.chunks is not None
    assert opened.features["first"].embedding.chunks is not None


def test_areas_are_those_of_the_maps(opened):
    table = opened.areas()
    for scene, row in table.iterrows():
        held = opened.segments[scene].values
        assert row.tolist() == [(held == number).sum() for number in range(len(opened.names))]


def test_a_scene_or_a_run_that_is_not_there_is_named(archive, opened):
    with pytest.raises(KeyError, match="no segments of a scene 'fifth' stands"):
        opened.segments["fifth"]
    with pytest.raises(SassError, match="is not there; give the folder of a run"):
        sass.open(archive.folder / "nowhere")
    with pytest.raises(SassError, match="has no catalog of scenes yet"):
        sass.open(archive.folder)


def test_names_are_those_that_were_given(archive, opened):
    before = opened.names
    assert before == ["0", "1", "2", "3"]
    assert opened.codebook.members.shape == (read_json(archive.run.hierarchy)["codes"],)
    assert main(["name", str(archive.run.root), "--points", str(archive.label("first"))]) == 0
    named = opened.names
    assert named == read_json(archive.run.names)["names"] and named != before


def test_importing_sass_imports_nothing_heavy():
    code = "import sass, sys; print({'numpy', 'xarray', 'torch', 'rasterio'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"
