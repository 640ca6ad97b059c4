import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from sass.errors import ConfigError
from sass.metrics import NO_LABEL, confusion, from_rows, match, merge, scores, summarise, to_rows

REFEREE = Path(__file__).parents[2] / "shared" / "referee" / "referee.py"

pairs = st.tuples(st.integers(0, 5), st.integers(-1, 7))
counts = st.dictionaries(pairs, st.integers(1, 10**6), max_size=30)
seeds = st.integers(0, 2**31)


def random_maps(seed: int, classes: int, clusters: int, shape=(40, 30), agree=0.6):
    """Labels and a map that agrees with them in part, over ids that start at 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape)
    answer = np.where(rng.random(shape) < agree, labels % clusters, rng.integers(0, clusters, shape))
    return labels, answer


def test_confusion_counts_pairs_and_leaves_out_what_is_not_scored():
    labels = np.array([[0, 0, 7], [7, 255, NO_LABEL]])
    classes = np.array([[3, 255, 3], [0, 1, 1]], np.uint8)
    expected = {(0, 3): 1, (0, -1): 1, (7, 0): 1, (7, 3): 1}
    assert confusion(labels, classes, ignore=[255], nodata=255) == expected
    assert confusion(labels, classes, ignore=[0, 7, 255]) == {}


def test_label_ids_may_be_any_integers():
    labels = np.array([[-5, 2_000_000_000], [11, 11]])
    result = summarise(confusion(labels, np.array([[1, 0], [2, 2]])), {11: "wood"})
    assert result["accuracy"] == 1
    assert result["matching"] == {"0": "2000000000", "1": "-5", "2": "wood"}
    assert result["iou"] == {"-5": 1.0, "wood": 1.0, "2000000000": 1.0}


def test_a_case_by_hand():
    # 10 pixels of 'water', 6 of 'wood': class 4 is mostly water, class 9 mostly wood, 1 pixel is left open
    result = summarise({(0, 4): 8, (0, 9): 2, (1, 9): 4, (1, 4): 1, (1, -1): 1}, {0: "water", 1: "wood"})
    assert result["matching"] == {"4": "water", "9": "wood"}
    assert result["accuracy"] == 12 / 16
    assert result["iou"] == {"water": 8 / 11, "wood": 4 / 8}
    assert result["f1"] == {"water": 16 / 19, "wood": 8 / 12}
    assert result["miou"] == pytest.approx((8 / 11 + 4 / 8) / 2)
    assert result["answered"] == 15 / 16
    chance = (10 * 9 + 6 * 6) / 16**2
    assert result["kappa"] == pytest.approx((12 / 16 - chance) / (1 - chance))
    assert result["confusion"] == {
        "labels": ["water", "wood"],
        "classes": [4, 9],
        "counts": [[8, 2], [1, 4]],
        "unanswered": [0, 1],
    }


def test_kappa_is_that_of_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    labels, answer = random_maps(seed=1, classes=4, clusters=4)
    result = summarise(confusion(labels, answer))
    named = [int(result["matching"][str(k)]) for k in answer.ravel()]
    assert result["kappa"] == pytest.approx(cohen_kappa_score(labels.ravel(), named))


def test_more_classes_than_labels_leave_errors_and_an_upper_bound_marked_as_such():
    result = summarise({(0, 0): 6, (0, 1): 4, (1, 2): 10})
    assert result["matching"] == {"0": "0", "2": "1"}
    assert result["accuracy"] == 16 / 20
    assert result["many_to_one"] == {"accuracy": 1.0, "miou": 1.0, "uses_labels": True}


def test_a_named_label_without_pixels_takes_part_but_has_no_score():
    result = summarise({(0, 0): 6, (0, 1): 4, (1, 2): 10}, {0: "water", 1: "wood", 5: "ice"})
    assert result["classes"] == 3
    assert set(result["iou"]) == set(result["f1"]) == {"water", "wood"}
    assert result["miou"] == (6 / 10 + 1) / 2


def test_nothing_labelled_gives_null():
    result = summarise({})
    assert [result[k] for k in ("accuracy", "miou", "kappa", "answered")] == [None] * 4
    assert (result["pixels"], result["iou"], result["matching"]) == (0, {}, {})
    assert result["many_to_one"] == {"accuracy": None, "miou": None, "uses_labels": True}


def test_kappa_is_null_where_chance_agrees_everywhere():
    result = summarise({(3, 0): 9})
    assert (result["accuracy"], result["kappa"]) == (1.0, None)


def test_two_ids_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"ids \[1, 2\] share the name 'wood'"):
        summarise({(1, 0): 5, (2, 1): 5}, {1: "wood", 2: "wood"})


@given(counts, counts, counts)
def test_merging_is_associative_and_keeps_every_pixel(a, b, c):
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(c, a, b)
    assert sum(merge(a, b).values()) == sum(a.values()) + sum(b.values())
    assert from_rows(json.loads(json.dumps(to_rows(a)))) == a


@given(seeds, st.integers(2, 5), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_windows_add_up_to_the_whole(seed, classes, clusters):
    labels, answer = random_maps(seed, classes, clusters)
    parts = [confusion(labels[y : y + 7], answer[y : y + 7]) for y in range(0, 40, 7)]
    assert merge(*parts) == confusion(labels, answer)


@given(seeds, st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_perfect_map_scores_1_whatever_its_ids(seed, classes):
    labels, _ = random_maps(seed, classes, classes)
    renamed = np.random.default_rng(seed).permutation(200)[labels]
    result = summarise(confusion(labels, renamed))
    assert result["accuracy"] == result["miou"] == result["many_to_one"]["miou"] == 1
    assert set(result["iou"].values()) == set(result["f1"].values()) == {1.0}


@given(seeds, st.integers(2, 4), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_the_ids_of_classes_mean_nothing(seed, classes, clusters):
    # large counts, so that no two matches are equally good
    rng = np.random.default_rng(seed)
    table = {(i, j): int(rng.integers(1, 10**9)) for i in range(classes) for j in range(-1, clusters)}
    ids = rng.permutation(100)
    renamed = {(i, int(ids[j]) if j >= 0 else j): n for (i, j), n in table.items()}
    before, after = summarise(table), summarise(renamed)
    for key in ("accuracy", "miou", "iou", "f1", "kappa", "many_to_one"):
        assert before[key] == after[key]


@given(seeds, st.integers(2, 4), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_no_other_match_has_more_hits(seed, classes, clusters):
    labels, answer = random_maps(seed, classes, clusters)
    total = confusion(labels, answer)
    ids = list(range(classes))
    best = scores(total, match(total, ids), ids)["accuracy"]
    padded = [*ids, *[None] * clusters]
    for names in set(itertools.permutations(padded, clusters)):
        other = {k: name for k, name in enumerate(names) if name is not None}
        assert scores(total, other, ids)["accuracy"] <= best


@given(seeds, st.integers(2, 5), st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_abstaining_never_helps(seed, classes, share):
    labels, answer = random_maps(seed, classes, classes)
    silent = np.where(np.random.default_rng(seed).random(labels.shape) < share, -1, answer)
    full, partial = summarise(confusion(labels, answer)), summarise(confusion(labels, silent))
    assert partial["accuracy"] <= full["accuracy"]
    assert partial["many_to_one"]["accuracy"] <= full["many_to_one"]["accuracy"]
    assert partial["answered"] < 1 == full["answered"]


@pytest.mark.skipif(not REFEREE.exists(), reason="no ../shared/referee beside the checkout")
@pytest.mark.parametrize(
    ("classes", "clusters", "present"),
    [(3, 3, 3), (4, 7, 4), (5, 3, 5), (6, 6, 3), (2, 40, 2), (7, 1, 6), (12, 12, 11)],
    ids=["equal", "more clusters", "fewer", "missing labels", "many clusters", "one cluster", "twelve"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_it_agrees_with_the_referee_to_the_last_digit(tmp_path, classes, clusters, present):
    total = {}
    folders = [tmp_path / "labels", tmp_path / "maps"]
    for folder in folders:
        folder.mkdir()
    for i, shape in enumerate([(61, 47), (33, 90), (128, 16)]):
        labels, answer = random_maps(100 * classes + i, present, clusters, shape, agree=0.5)
        rng = np.random.default_rng(i)
        labels[rng.random(shape) < 0.1] = 255
        answer[rng.random(shape) < 0.07] = 255
        for folder, array in zip(folders, (labels, answer)):
            write(folder / f"{i}.tif", array.astype(np.uint8), 255 if folder == folders[1] else None)
        total = merge(total, confusion(labels, answer, ignore=[255], nodata=255))
    arguments = ["--pred", folders[1], "--labels", folders[0], "--classes", str(classes)]
    command = [sys.executable, REFEREE, *arguments, "--json", tmp_path / "out.json"]
    subprocess.run(command, check=True, capture_output=True)
    theirs = json.loads((tmp_path / "out.json").read_text())
    ours = summarise(total, {i: f"label {i}" for i in range(classes)})
    for key in ("accuracy", "miou", "pixels", "answered"):
        assert ours[key] == theirs[key], key
    assert len(ours["confusion"]["classes"]) == theirs["clusters"]
    assert ours["many_to_one"] == {**theirs["many_to_one"], "uses_labels": True}
    assert list(ours["iou"].values()) == theirs["iou"][:present]


def write(path: Path, array: np.ndarray, nodata: int | None) -> None:
    size = {"height": array.shape[0], "width": array.shape[1], "count": 1, "dtype": array.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", nodata=nodata, **size) as raster:
        raster.write(array, 1)
