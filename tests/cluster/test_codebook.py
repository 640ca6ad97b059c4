"""The codebook: out of core, in any number of threads and shards, the codes are those of plain k-means."""

import numpy as np
import pytest
from builders import add_features, make_run, ramps
from sklearn.cluster import MiniBatchKMeans

from sass.cluster import codebook
from sass.cluster.codebook import Codes, fit_codebook
from sass.cluster.kmeans import nearest
from sass.config import Codebook, Weights
from sass.errors import SassError
from sass.run import Run
from sass.store import FeatureStore

SETTINGS = Codebook(codes=7, sample=900, refine=2)


def holed(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    bands, valid = ramps(shape, seed), np.ones(shape, bool)
    valid[20:60, 30:90] = False
    return np.where(valid, bands, 0).astype(np.uint8), valid


SCENES = {
    "a": holed((200, 330), 0),
    "b": holed((130, 90), 1),
    "c": holed((300, 200), 2),
    "d": holed((70, 260), 3),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Give a run of one shard whose scenes have several pieces each."""
    made = make_run(tmp_path_factory.mktemp("run"), {"s00000": SCENES})
    add_features(made, ["s00000"], window=128)
    return made


@pytest.fixture(scope="module")
def fitted(run) -> Codes:
    return fit_codebook(run, ["s00000"], SETTINGS, threads=1)


def all_vectors(run: Run, scenes=tuple(SCENES)) -> np.ndarray:
    """Return every embedding with data, as it is stored, float64 ``(N, D)``."""
    parts = []
    for scene in scenes:
        store = FeatureStore(run.features(scene))
        parts.append(store.embedding[:].astype(np.float64)[:, store.valid[:].astype(bool)].T)
    return np.concatenate(parts)


def mapped(run: Run, fitted: Codes) -> np.ndarray:
    """Return every embedding with data in the metric of a codebook, float64 ``(N, D)``."""
    return (all_vectors(run) - fitted.metric.offset) @ fitted.metric.matrix.astype(np.float64)


def test_threads_change_no_byte(run, fitted):
    before = run.codebook.read_bytes()
    fit_codebook(run, ["s00000"], SETTINGS, threads=4)
    assert run.codebook.read_bytes() == before


def test_how_scenes_are_cut_into_shards_changes_no_byte(run, fitted, tmp_path):
    parts = {"s00000": ["a"], "s00001": ["b", "c"], "s00002": ["d"]}
    other = make_run(
        tmp_path, {shard: {name: SCENES[name] for name in names} for shard, names in parts.items()}
    )
    add_features(other, list(parts), window=128)
    fit_codebook(other, list(parts), SETTINGS, threads=2)
    assert other.codebook.read_bytes() == run.codebook.read_bytes()


def test_the_order_in_which_scenes_were_made_changes_no_byte(run, fitted, tmp_path):
    other = make_run(tmp_path, {"s00000": dict(reversed(SCENES.items()))})
    add_features(other, ["s00000"], window=128)
    fit_codebook(other, ["s00000"], SETTINGS, threads=1)
    assert other.codebook.read_bytes() == run.codebook.read_bytes()


def test_only_the_fit_shards_matter(run, fitted, tmp_path):
    other = make_run(tmp_path, {"s00000": SCENES, "s00001": {"z": ramps((100, 100), 9)}}, fit=["s00000"])
    add_features(other, ["s00000", "s00001"], window=128)
    fit_codebook(other, ["s00000"], SETTINGS, threads=1)
    assert other.codebook.read_bytes() == run.codebook.read_bytes()


def test_every_embedding_with_data_is_counted_once(run, fitted):
    vectors = mapped(run, fitted)
    assert fitted.sizes.sum() == len(vectors)
    assert fitted.sizes.min() > 0
    distances = ((vectors[:, None] - fitted.codes[None]) ** 2).sum(2)
    assert np.bincount(distances.argmin(1), minlength=7).tolist() == fitted.sizes.tolist()
    assert fitted.spread == pytest.approx(distances.min(1).mean(), rel=1e-5)


def test_passes_over_the_stores_are_lloyd_steps_in_memory(run, fitted, monkeypatch):
    start = codebook.lloyd
    held = {}
    monkeypatch.setattr(codebook, "lloyd", lambda *a: held.setdefault("codes", start(*a)).copy())
    fit_codebook(run, ["s00000"], SETTINGS, threads=2)
    vectors, codes = mapped(run, fitted), held["codes"].astype(np.float64)
    for _ in range(SETTINGS.refine):
        first = ((vectors[:, None] - codes[None]) ** 2).sum(2).argmin(1)
        codes = np.stack([vectors[first == k].mean(0) for k in range(7)])
    np.testing.assert_allclose(fitted.codes, codes, atol=1e-5)


def test_the_codes_fit_about_as_well_as_those_of_k_means_on_everything_in_memory(run, fitted):
    vectors = mapped(run, fitted)
    reference = MiniBatchKMeans(7, random_state=0, n_init=5, max_iter=200, batch_size=4096).fit(vectors)
    assert fitted.spread < 1.1 * reference.inertia_ / len(vectors)


def test_the_file_gives_back_what_was_fitted(run, fitted):
    loaded = Codes.load(run.codebook)
    for name in ("codes", "sizes"):
        assert np.array_equal(getattr(loaded, name), getattr(fitted, name))
    for name in ("offset", "matrix"):
        assert np.array_equal(getattr(loaded.metric, name), getattr(fitted.metric, name))
    assert loaded.spread == fitted.spread
    np.testing.assert_allclose(loaded.sample, fitted.sample, rtol=2**-11, atol=1e-6)


def drawn_for(run: Run, monkeypatch) -> np.ndarray:
    """Return the sample as it was drawn, which the metric is fitted on."""
    drawn = {}
    real = codebook.fit_metric
    monkeypatch.setattr(codebook, "fit_metric", lambda s, *rest: real(drawn.setdefault("sample", s), *rest))
    fit_codebook(run, ["s00000"], SETTINGS, threads=1)
    return drawn["sample"]


def test_the_sample_is_drawn_by_valid_area(run, monkeypatch):
    drawn = drawn_for(run, monkeypatch)
    assert len(drawn) == 900
    shares = [len(all_vectors(run, [name])) for name in SCENES]
    stored = {tuple(row) for row in drawn.astype(np.float64).tolist()}
    found = [sum(tuple(row) in stored for row in all_vectors(run, [name]).tolist()) for name in SCENES]
    np.testing.assert_allclose(np.array(found) / sum(found), np.array(shares) / sum(shares), atol=0.02)


def test_the_sample_kept_is_the_one_drawn_in_random_order(run, fitted, monkeypatch):
    drawn = fitted.metric.apply(drawn_for(run, monkeypatch))
    assert not np.array_equal(fitted.sample, drawn)
    assert sorted(fitted.sample.tolist()) == sorted(drawn.tolist())
    # so the first part of it is of all scenes, not of the first
    rows = {tuple(row): i / len(drawn) for i, row in enumerate(drawn.tolist())}
    places = [rows[tuple(row)] for row in fitted.sample[:200].tolist()]
    np.testing.assert_allclose(np.quantile(places, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.1)


def test_distances_are_taken_in_the_metric_of_the_weights(run, fitted):
    def variance(codes: Codes, part: slice) -> float:
        return mapped(run, codes)[:, part].var(0).sum()

    embedding, colour, texture = slice(0, 8), slice(8, 10), slice(10, 11)
    for part in (embedding, colour, texture):
        assert variance(fitted, part) == pytest.approx(1, rel=0.15)  # as many as 900 tell
    alone = {"weights": Weights(embedding=0, colour=2)}
    other = fit_codebook(run, ["s00000"], SETTINGS.model_copy(update=alone), threads=1)
    assert not other.codes[:, embedding].any()
    assert variance(other, colour) == pytest.approx(4, rel=0.15)
    fit_codebook(run, ["s00000"], SETTINGS, threads=1)


def test_the_seed_is_the_only_chance(run, fitted, tmp_path):
    other = fit_codebook(run, ["s00000"], SETTINGS.model_copy(update={"seed": 1}), threads=1)
    assert not np.array_equal(other.codes, fitted.codes)
    again = fit_codebook(run, ["s00000"], SETTINGS, threads=1)
    assert np.array_equal(again.codes, fitted.codes)


def test_scenes_without_variety_leave_codes_empty_but_break_nothing(tmp_path):
    flat = np.full((2, 300, 300), 7, np.uint8)
    flat[:, :, 150:] = 90
    run = make_run(tmp_path, {"s00000": {"flat": flat}})
    add_features(run, ["s00000"])
    fitted = fit_codebook(run, ["s00000"], Codebook(codes=1000, sample=4000), threads=1)
    assert np.isfinite(fitted.codes).all()
    assert fitted.sizes.sum() == 75 * 75
    assert (fitted.sizes == 0).any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"codes": 500}, r"\d+ embeddings in the fit shards cannot make 500 codes; lower codebook.codes"),
        (
            {"codes": 50, "sample": 20},
            r"sample of 20 embeddings cannot start 50 codes; raise codebook.sample",
        ),
    ],
    ids=["few pixels", "small sample"],
)
def test_too_few_embeddings_is_a_clear_error(tmp_path, settings, says):
    run = make_run(tmp_path, {"s00000": {"a": ramps((70, 70))}})
    add_features(run, ["s00000"])
    with pytest.raises(SassError, match=says):
        fit_codebook(run, ["s00000"], Codebook(**settings), threads=1)


def test_nearest_by_hand():
    codes = np.array([[0, 0], [1, 0], [0, 3]], np.float32)
    vectors = np.array([[0.2, 0], [0.9, 0.1], [0, 2.9], [0, 1.0]], np.float32)
    first, distance = nearest(vectors, codes)
    assert first.tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(distance, [0.04, 0.02, 0.01, 1.0], atol=1e-6)
