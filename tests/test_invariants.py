"""What must change no label: into how many shards an archive falls, the order of its scenes, the threads."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import TINY, class_map, ramps
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_geotiff

from sass.cli import main
from sass.run import Run
from sass.statistics import Histogram

STAGES = ("ingest", "normalize", "train", "features", "codebook", "hierarchy", "segment")
SCENES = {"a": (90, 70), "b": (64, 128), "c": (100, 100)}
CONFIG = TINY | {"ingest": {"chunk": 64, "shard": 128}, "segment": {"classes": 4, "window": 64}}


def mapped(folder: Path, archive: Path, shard_size: int, threads: int, patterns: list[str]) -> Run:
    """Take the archive from scan to maps."""
    run, config = Run(folder / "run"), folder / "config.yaml"
    folder.mkdir()
    config.write_text(yaml.safe_dump(CONFIG | {"catalog": {"shard_size": shard_size}}))
    asked = [str(archive / pattern) for pattern in patterns]
    assert main(["scan", *asked, "--into", str(run.root), "--config", str(config)]) == 0
    for stage in STAGES:
        # sums of a training are rounded otherwise on other threads, so it has one
        assert main([stage, str(run.root), "--threads", str(1 if stage == "train" else threads)]) == 0
    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, Run]:
    archive = tmp_path_factory.mktemp("archive")
    for seed, (name, shape) in enumerate(SCENES.items()):
        image = ramps(shape, seed)
        image[:, :9, :11] = 0
        make_geotiff(archive / f"{name}.tif", data=image, origin=(500_000 + 5000 * seed, 5_400_000))
    return archive, mapped(tmp_path_factory.mktemp("plain") / "x", archive, 10, 1, ["*.tif"])


def test_shards_order_and_threads_change_no_label(plain, tmp_path, capsys):
    archive, run = plain
    other = mapped(tmp_path / "x", archive, 1, 2, ["c.tif", "b.tif", "a.tif"])
    assert len(list(other.catalog_shard("x").parent.iterdir())) == 3
    for scene, shape in SCENES.items():
        one, two = class_map(run, scene), class_map(other, scene)
        assert np.array_equal(one, two)
        assert len(np.unique(one)) > 2
        # nodata in is nodata out
        assert one.shape == shape and (one[:9, :11] == 255).all() and (one[9:] < 255).all()
    assert other.codebook.read_bytes() == run.codebook.read_bytes()


counts = st.dictionaries(st.sampled_from([-3.5, 0.0, 1.0, 2.0, 7.0, 1e9]), st.integers(1, 99), max_size=5)


def histogram(held: dict[float, int]) -> Histogram:
    values = np.array(sorted(held), np.float64)
    return Histogram(values, np.array([held[v] for v in values], np.int64))


@given(counts, counts, counts)
def test_the_merge_of_histograms_is_associative_and_commutes(a, b, c):
    one, two, three = map(histogram, (a, b, c))
    sums = (one + two) + three, one + (two + three), three + (one + two)
    for other in sums[1:]:
        assert np.array_equal(sums[0].values, other.values)
        assert np.array_equal(sums[0].counts, other.counts)
    assert sums[0].counts.sum() == sum(map(sum, (a.values(), b.values(), c.values())))
