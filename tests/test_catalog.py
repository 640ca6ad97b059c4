"""What the other stages read of a catalog."""

import subprocess
import sys

import pytest

from sass.catalog import Scene, ShardInfo, fit_shards, load_broken, load_index, load_labels, load_shard
from sass.config import Catalog
from sass.errors import ConfigError, SassError
from sass.files import write_json
from sass.run import Run

SCENE = Scene(
    id="a",
    paths=("/archive/a.tif",),
    driver="GTiff",
    bands=2,
    band_names=("red", "nir"),
    dtype="float32",
    nodata=("nan", None),
    crs=None,
    transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    shape=(30, 20),
    resolution=None,
    time="2019-05-04",
    sensor=None,
    size=1234,
    modified=1_700_000_000_000_000_001,
)


def index(**fit: bool) -> dict[str, ShardInfo]:
    return {name: ShardInfo(fit=is_fit, scenes=1, labels=0, pixels=600) for name, is_fit in fit.items()}


def test_a_row_survives_json(tmp_path):
    write_json(tmp_path / "row.json", SCENE.as_json())
    run = Run(tmp_path)
    write_json(run.catalog_shard("s00000"), {"shard": "s00000", "scenes": [SCENE.as_json()]})
    assert load_shard(run, "s00000") == {"a": SCENE}
    assert SCENE.pixels == 600


def test_source_identity_does_not_tell_where_the_archive_lies():
    assert SCENE.source_identity == [1234, 1_700_000_000_000_000_001, 1]


def test_a_run_without_a_catalog_says_which_command_to_run(tmp_path):
    with pytest.raises(SassError, match=r"has no catalog.*`sass scan PATTERN\.\.\. --into .*run`") as error:
        load_index(Run(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert load_broken(Run(tmp_path / "run")) == {}


def test_a_damaged_catalog_is_named(tmp_path):
    run = Run(tmp_path)
    run.catalog.parent.mkdir()
    run.catalog.write_text("{")
    with pytest.raises(SassError, match=r"index\.json.*missing or damaged"):
        load_index(run)
    with pytest.raises(SassError, match=r"s00007\.json.*missing or damaged"):
        load_labels(run, "s00007")


def test_fit_shards_are_those_of_the_first_scan_or_those_named():
    shards = index(s00000=True, s00001=True, s00002=False)
    assert fit_shards(shards, Catalog()) == ["s00000", "s00001"]
    assert fit_shards(shards, Catalog(fit_shards=["s00002", "s00001", "s00002"])) == ["s00001", "s00002"]


def test_an_unknown_fit_shard_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"no shard s00009.*s00000, s00001"):
        fit_shards(index(s00000=True, s00001=False), Catalog(fit_shards=["s00000", "s00009"]))


@pytest.mark.parametrize("settings", [Catalog(), Catalog(fit_shards=[])])
def test_nothing_to_fit_on_is_an_error(settings):
    with pytest.raises(SassError, match=r"no shard to fit on.*catalog\.fit_shards"):
        fit_shards(index(s00000=False), settings)


def test_the_import_is_light():
    code = (
        "import sys, sass.catalog; print(sorted({'numpy', 'rasterio', 'zarr', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
