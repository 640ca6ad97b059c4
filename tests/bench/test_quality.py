"""The quality benchmark on a made archive: its rows, what it keeps, its probe, and objectives of others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import TINY, add_codes, add_features, add_maps, make_run
from scenes import make_geotiff

from bench import clusterings
from bench.peers.dino import Dino
from bench.peers.iic import Iic
from bench.quality import main
from bench.rows import ROWS, load_suite, plan
from bench.scores import Labelled, linear_probe, named_codes
from sass.config import Model, Train
from sass.errors import ConfigError
from sass.files import read_json, write_json
from sass.model.encoder import build_encoder
from sass.model.objective import Seen
from sass.model.train import train
from sass.run import Run
from sass.train import train_encoder

COLOURS = np.array([[60, 60], [190, 70], [110, 200]])
"""Both bands of three classes."""
FEW = TINY | {"codebook": TINY["codebook"] | {"codes": 8}}
SUITE = {
    "tiny": {
        "seeds": 2,
        "settings": FEW,
        "rows": [
            {"name": "default", "group": "sass"},
            {"name": "int8", "group": "clustering", "overrides": {"features": {"dtype": "int8"}}},
            {"name": "more trees", "group": "clustering", "overrides": {"hierarchy": {"trees": 3}}},
            {"name": "IIC", "group": "peer", "objective": "bench.peers.iic:Iic"},
            {"name": "raw pixels", "group": "baseline", "baseline": "raw"},
            {"name": "bought", "group": "peer", "needs": ["not_to_be_had"]},
        ],
    }
}
PEERS = {row.name: row for row in load_suite(ROWS, "small").rows if row.objective}


def truth(seed: int, side: int = 96, patch: int = 16) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, 3, (side // patch, side // patch))
    return np.kron(ids, np.ones((patch, patch), np.int64))


def image(ids: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, (2, *ids.shape))
    return np.clip(np.moveaxis(COLOURS[ids], -1, 0) + noise, 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed, name in enumerate("abcd"):
        make_geotiff(folder / "images" / f"{name}.tif", data=image(truth(seed), seed), nodata=None)
        make_geotiff(folder / "labels" / f"{name}.tif", data=truth(seed)[None], nodata=None)
    return folder


def labelled_run(folder: Path) -> Run:
    """Make a run of four scenes with labels, up to the maps."""
    run = make_run(
        folder / "run", {"s00000": {name: image(truth(seed), seed) for seed, name in enumerate("abcd")}}
    )
    labels = {}
    for seed, name in enumerate("abcd"):
        ids = truth(seed)
        ids[:8] = 255
        path = make_geotiff(folder / f"{name}.tif", data=ids[None], nodata=None)
        labels[name] = {"path": str(path), "size": 1, "modified": 1}
    write_json(run.catalog, {"shards": {"s00000": {"fit": True, "scenes": 4, "labels": 4, "pixels": 1}}})
    write_json(run.catalog_labels("s00000"), {"shard": "s00000", "scenes": labels})
    add_features(run, ["s00000"])
    add_codes(run, ["s00000"])
    add_maps(run, ["s00000"], classes=3)
    return run


def bench(archive: Path, suite: dict, folder: Path, *more: str) -> tuple[int, list[dict], str]:
    """Run a suite; return the exit code, the rows of the results and the table."""
    rows = folder / "rows.yaml"
    rows.write_text(yaml.safe_dump(suite))
    places = ["--rows", str(rows), "--into", str(folder / "runs"), "--results", str(folder)]
    data = ["--scenes", str(archive / "images"), "--labels", str(archive / "labels"), "--classes", "3"]
    code = main(["tiny", *data, *places, "--threads", "1", *more])
    return code, read_json(folder / "quality-tiny.json")["rows"], (folder / "quality-tiny.md").read_text()


def test_rows_are_measured_once_and_stand_until_what_determines_them_changes(archive, tmp_path, capfd):
    code, rows, table = bench(archive, SUITE, tmp_path)
    assert code == 0
    assert {(row["name"], row["seed"]) for row in rows} == {
        (name, seed) for name in ("default", "int8", "more trees", "IIC", "raw pixels") for seed in (0, 1)
    }
    by_name = {row["name"]: row for row in rows}
    assert by_name["raw pixels"]["accuracy"] > 0.9
    assert by_name["raw pixels"]["probe"] is None
    assert by_name["more trees"]["overrides"] == {"hierarchy": {"trees": 3}}
    assert by_name["more trees"]["train_seconds"] == by_name["default"]["train_seconds"]
    # for each seed one for the rows of SASS and the baseline, and one for the peer
    assert len(list((tmp_path / "runs" / "encoders").iterdir())) == 2 * 2
    said = capfd.readouterr()
    assert said.err.count("$ sass features") == 2 * 3
    assert said.out == table + "\n"
    for words in ("| default | 2 |", "SASS, clustered otherwise", "+-", "package not_to_be_had", "commit"):
        assert words in table
    assert "not measured with all" not in table

    before = (tmp_path / "quality-tiny.json").read_bytes()
    assert bench(archive, SUITE, tmp_path)[0] == 0
    assert (tmp_path / "quality-tiny.json").read_bytes() == before
    assert "sass train" not in (said := capfd.readouterr().err)
    assert "== " not in said

    changed = json.loads(json.dumps(SUITE))
    changed["tiny"]["rows"][2]["overrides"]["hierarchy"]["trees"] = 4
    code, rows, table = bench(archive, changed, tmp_path, "--only", "default")
    assert "not measured with all 2 seeds as things stand: more trees" in table
    bench(archive, changed, tmp_path)
    assert capfd.readouterr().err.count("== ") == 2


def test_a_row_that_fails_is_named_and_stops_no_other(archive, tmp_path, capfd):
    suite = json.loads(json.dumps(SUITE))
    suite["tiny"] |= {"seeds": 1, "rows": suite["tiny"]["rows"][:2]}
    suite["tiny"]["rows"][0]["overrides"] = {"codebook": {"codes": 900, "sample": 100}}
    code, rows, _ = bench(archive, suite, tmp_path)
    assert code == 1
    assert [row["name"] for row in rows] == ["int8"]
    assert "not measured: default, seed 0: " in capfd.readouterr().err


def test_the_row_of_a_pretrained_encoder_is_measured(archive, tmp_path):
    row = next(row for row in load_suite(ROWS, "full").rows if row.group == "encoder")
    if row.missing:
        pytest.skip(f"not installed: {', '.join(row.missing)}")
    declared = row.model_dump(exclude_defaults=True)
    declared["overrides"]["model"]["options"] = {"rgb": [1, 2, 2]}  # the archive has two bands
    suite = {"tiny": {"seeds": 1, "settings": FEW, "rows": [declared]}}
    code, rows, table = bench(archive, suite, tmp_path)
    assert code == 0
    assert "| **encoders of others, pretrained and frozen** |" in table
    assert rows[0]["named"]["accuracy"] > 0.5
    assert rows[0]["probe"]["accuracy"] > 0.5


def test_rows_may_not_change_what_all_share(tmp_path):
    suite = {"tiny": {"seeds": 1, "rows": [{"name": "b", "group": "ablation", "overrides": {"ingest": {}}}]}}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(ConfigError, match="'b' changes ingest, which all rows share"):
        load_suite(tmp_path / "rows.yaml", "tiny")


def test_an_encoder_that_cannot_be_imported_is_named(archive, tmp_path, capfd):
    data = ["--scenes", str(archive / "images"), "--labels", str(archive / "labels"), "--classes", "3"]
    places = ["--into", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert main(["small", *data, *places, "--set", "model.encoder=missing:fn"]) == 1
    said = capfd.readouterr().err
    assert "model.encoder 'missing:fn' cannot be imported" in said
    assert "install its package" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["small", "full"])
def test_every_declared_row_is_a_valid_configuration(name):
    suite = load_suite(ROWS, name)
    jobs = plan(suite, 2, "data", suite.settings | {"segment": {"classes": 5}})
    assert len(jobs) == 2 * sum(not row.missing for row in suite.rows)
    assert len({job.fingerprint for job in jobs}) == len(jobs)


def test_separable_classes_are_found_by_probe_and_codes(tmp_path):
    run = labelled_run(tmp_path)
    labelled = Labelled(run, ignore=[255])
    assert sum(len(part[1]) for part in labelled.read("a")) == 22 * 24
    probe, codes = linear_probe(labelled, seed=0), named_codes(labelled)
    assert probe["accuracy"] > 0.98
    assert probe["miou"] > 0.95
    assert codes["accuracy"] > 0.9
    assert linear_probe(labelled, seed=0) == probe


def test_ways_to_classes_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.clusterings.CODES", 16)
    run = labelled_run(tmp_path)
    asked = [str(run.root), "--classes", "3", "--seeds", "2", "--json", str(tmp_path / "rows.json")]
    # squares of texture are wider than the patches
    assert clusterings.main([*asked, "--parts", "embedding", "colour"]) == 0
    said = capsys.readouterr().out
    rows = {row["name"]: row for row in read_json(tmp_path / "rows.json")}
    assert set(rows) >= {"k-means", "16 codes, Ward", "16 codes, borders", "many trees (SASS)"}
    for name, row in rows.items():
        assert f"| {name} |" in said
        assert [set(scores) for scores in row["scores"]] == [{"accuracy", "miou"}] * 2
    assert "Spearman correlation of stability and mean IoU: " in said
    for name in ("k-means", "many trees (SASS)"):
        assert min(score["accuracy"] for score in rows[name]["scores"]) > 0.9
    assert rows["k-means"]["stability"] > 0.9

    assert clusterings.main([*asked, "--parts", "embedding", "height"]) == 1
    assert "no part height, only embedding, colour, texture" in capsys.readouterr().err


def test_codes_side_by_side_more_than_by_chance_are_merged(monkeypatch):
    monkeypatch.setattr("bench.clusterings.CODES", 4)
    # four codes on a line; in space the first lies beside the last, and those in the middle side by side
    random = np.random.default_rng(0)
    place = random.integers(0, 4, 4000)
    partner = np.where(random.random(4000) < 0.9, 3 - place, random.integers(0, 4, 4000))
    pairs, sample = (
        random.normal(0, 0.01, (*codes.shape, 2)) + codes[..., None] * [1, 0]
        for codes in (np.stack([place, partner]), place)
    )
    fine = clusterings.Fine.fit(sample.astype(np.float32), 0)
    of_code = clusterings.bordering(pairs.astype(np.float32), 0.0)(fine, 2)
    classes = of_code[fine.nearest(np.array([[0, 0], [1, 0], [2, 0], [3, 0]], np.float32))]
    assert classes[0] == classes[3] != classes[1] == classes[2]


def test_a_checkpoint_is_not_taken_up_by_another_objective(tmp_path):
    run = make_run(tmp_path / "run", {"s00000": {"a": image(truth(0), 0)}})
    settings = Train(**TINY["train"])
    made = []
    for objective in (Iic, Dino, Iic):
        train_encoder(run, ["s00000"], Model(**TINY["model"]), settings, 1, objective)
        made.append(run.encoder.read_bytes())
    assert made[0] == made[2] != made[1]


@pytest.mark.parametrize("name", PEERS)
def test_objectives_of_others_learn(name, tmp_path):
    tiny = {
        "steps": 100, "batch": 4, "crop": 32, "pool": 16, "points": 128, "lr": 3e-3, "ema": 0.97,
        "fine": {"prototypes": 6}, "coarse": {"prototypes": 3},
    }  # fmt: skip
    settings = Train(**tiny).model_dump(mode="json")

    def tile(draw: int) -> np.ndarray:
        bands = (image(truth(draw, 64), draw) - 120.0) / 60
        return np.concatenate([bands, np.ones((1, 64, 64))]).astype(np.float16)

    encoder = build_encoder(2, {"widths": [8, 8], "blocks": 1, "dim": 8}, seed=0)
    train(
        tile, encoder, 4.0, settings, checkpoint=tmp_path / "checkpoint",
        log=tmp_path / "log", key="k", threads=1, objective=PEERS[name].objective_class(),
    )  # fmt: skip
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log").read_text().splitlines()]
    assert np.isfinite(losses).all()
    settled = 20 if name == "DINO" else 0  # its loss rises while its centre moves away from 0
    assert np.mean(losses[-10:]) < np.mean(losses[settled : settled + 5])


@pytest.mark.parametrize("name", PEERS)
def test_objectives_of_others_are_finite_where_views_share_no_place(name):
    torch.manual_seed(0)
    settings = Train().model_dump(mode="json")
    student = PEERS[name].objective_class()(8, settings)
    maps = torch.randn(4, 8, 8, 8, requires_grad=True)
    kept = torch.zeros(2, 5, dtype=torch.bool)
    seen = Seen(maps, maps.detach(), torch.ones(4, 3, 32, 32), torch.full((4, 5, 2), 16.0), kept, 32)
    loss = sum(student.terms(seen, PEERS[name].objective_class()(8, settings)).values())
    loss.backward()
    assert loss.isfinite()
    assert maps.grad is None or maps.grad.isfinite().all()
