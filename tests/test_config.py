"""The configuration: the files made from it, its layers, and what it says of a wrong key, type or value."""

import json
import math
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from sass.cli import main
from sass.config import STAGE_SECTIONS, Config
from sass.errors import ConfigError
from sass.run import Run
from sass.settings import assignment, check_whole, default_yaml, load, schema, stage_arguments, stage_settings

FOLDER = Path(__file__).parents[1] / "config"
FILES = sorted(FOLDER.rglob("*.yaml"))


# ------------------------------------------------------------------------------------- the files made from it


@pytest.mark.parametrize(
    "name, text, command",
    [
        ("config.yaml", default_yaml(), "python -m sass config > config/config.yaml"),
        (
            "schema.json",
            json.dumps(schema(), indent=1) + "\n",
            "python -m sass config --schema > config/schema.json",
        ),
    ],
)
def test_the_files_are_what_the_code_makes(name, text, command):
    assert (FOLDER / name).read_text() == text, f"sass/config.py has changed: run `{command}`"


@pytest.mark.parametrize("arguments, name", [([], "config.yaml"), (["--schema"], "schema.json")])
def test_the_command_line_prints_the_files(arguments, name, capsys):
    assert main(["config", *arguments]) == 0
    assert capsys.readouterr().out == (FOLDER / name).read_text()


def test_the_default_file_changes_nothing():
    assert load(FOLDER / "config.yaml") == Config() == load()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_valid_by_schema_and_by_code(path):
    tree = yaml.safe_load(path.read_text())
    # JSON has no keys but text
    jsonschema.validate(json.loads(json.dumps(tree)), schema())
    load(path)


def test_the_schema_refuses_what_the_code_refuses():
    for wrong in ({"segmnt": {}}, {"segment": {"classes": 1}}, {"ingest": {"resampling": "magic"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema())
        with pytest.raises(ConfigError):
            load(wrong)


def leaves(node: dict, definitions: dict, path: str = ""):
    for name, entry in node["properties"].items():
        reference = entry.get("$ref")
        if reference:
            yield from leaves(definitions[reference.rsplit("/", 1)[1]], definitions, f"{path}{name}.")
        else:
            yield f"{path}{name}", entry


def test_every_key_is_described_in_schema_and_file():
    tree = schema()
    found = dict(leaves(tree, tree["$defs"]))
    assert {"run", "segment.classes", "train.views.gain"} <= set(found)
    # a comment is wrapped, so compare the words
    words = " ".join(line.strip().removeprefix("# ") for line in default_yaml().splitlines())
    for path, entry in found.items():
        description = entry.get("description", "")
        assert len(description) > 10 and description.endswith("."), f"{path} says nothing of itself"
        assert description in words, f"{path} is not explained in config.yaml"


def test_lines_of_the_file_fit_on_a_screen():
    assert max(map(len, default_yaml().splitlines())) <= 110


# ----------------------------------------------------------------------------------------------------- layers


def test_later_layers_win_key_by_key(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("segment: {classes: 5, smooth: 2}\ntrain: {views: {gain: 0.3}}\n")
    second.write_text("segment: {classes: 6}\ntrain: {views: {blur: 0.1}}\n")
    config = load(first, None, second, assignment("segment.smooth=3"))
    assert (config.segment.classes, config.segment.smooth) == (6, 3)
    assert (config.train.views.gain, config.train.views.blur) == (0.3, 0.1)
    assert config.codebook == Config().codebook


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing differs\n")
    assert load(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize(
    "text, value",
    [
        ("segment.classes=12", {"segment": {"classes": 12}}),
        ("ingest.bands=[3, 2, 1]", {"ingest": {"bands": [3, 2, 1]}}),
        ("ingest.crs=EPSG:32633", {"ingest": {"crs": "EPSG:32633"}}),
        ("ingest.nodata=null", {"ingest": {"nodata": None}}),
        ('segment={"classes": 3}', {"segment": {"classes": 3}}),
        ("report.title=a=b", {"report": {"title": "a=b"}}),
    ],
)
def test_single_keys(text, value):
    assert assignment(text) == value
    load(value)


def test_the_layers_of_a_command(tmp_path, monkeypatch):
    """One file, --config before RUN/config.yaml, then --set."""
    run = Run(tmp_path)
    run.config.write_text("normalize: {clip: 1.0, quantiles: [0.1, 0.9]}\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("normalize: {clip: 2.0}\n")
    seen = []
    run.statistics.write_text('{"bands": []}')
    monkeypatch.setattr("sass.commands.load_index", lambda run: {})
    monkeypatch.setattr("sass.commands.fit_shards", lambda index, settings: ["s00000"])
    monkeypatch.setattr(
        "sass.statistics.normalize_archive",
        lambda run, fit, settings: seen.append((settings.clip, settings.quantiles)),
    )
    assert main(["normalize", str(tmp_path)]) == 0
    assert main(["normalize", str(tmp_path), "--config", str(mine)]) == 0
    assert main(["normalize", str(tmp_path), "--config", str(mine), "--set", "normalize.clip=3"]) == 0
    assert seen == [(1.0, (0.1, 0.9)), (2.0, (0.16, 0.84)), (3.0, (0.16, 0.84))]


@pytest.mark.parametrize("stage", STAGE_SECTIONS)
def test_settings_reach_a_stage_unchanged_through_its_arguments(stage):
    config = load(
        {
            "ingest": {"resolution": {"a b": 0.5}, "nodata": -9999, "bands": [2, 1]},
            "evaluate": {"class_names": {1: "it's", 2: "b"}},
            "model": {"encoder": "a b.py:make", "options": {"rgb": [3, 2, 1], "deep": {"er": None}}},
            "features": {"source": "it's/{scene}.zarr"},
            "report": {"title": 'Wälder "& Seen" $HOME'},
        }
    )
    words = shlex.split(stage_arguments(config, stage))
    assert words[::2] == ["--set"] * len(STAGE_SECTIONS[stage])
    again = load(*(assignment(text) for text in words[1::2]))
    assert stage_settings(again, stage) == stage_settings(config, stage)


def test_a_stage_sees_its_own_sections_only():
    one, other = load({"segment": {"classes": 5}}), load({"segment": {"classes": 6}})
    changed = [
        stage for stage in STAGE_SECTIONS if stage_arguments(one, stage) != stage_arguments(other, stage)
    ]
    assert changed == ["segment", "baselines", "report"]


# ---------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    "wrong, path, message",
    [
        ({"segmnt": {}}, "segmnt", r"no such key; allowed here: .*\bsegment\b"),
        ({"segment": {"clases": 4}}, "segment.clases", r"allowed here: classes, min_area, smooth, window"),
        ({"train": {"views": {"rotat": True}}}, "train.views.rotat", r"allowed here: .*\brotate\b"),
        ({"segment": {"classes": "many"}}, "segment.classes", r"valid integer.* \(is 'many'\)"),
        ({"segment": {"classes": 1}}, "segment.classes", r"greater than or equal to 2 \(is 1\)"),
        ({"ingest": {"bands": [1, 0]}}, "ingest.bands.1", r"greater than or equal to 1 \(is 0\)"),
        (
            {"ingest": {"resampling": "magic"}},
            "ingest.resampling",
            r"'nearest', 'bilinear', .* \(is 'magic'\)",
        ),
        ({"ingest": {"shard": 384}}, "ingest", r"shard 384 is not a multiple of chunk 256"),
        ({"ingest": {"resolution": "fine"}}, "ingest.resolution", r"valid number.* \(is 'fine'\)"),
        ({"ingest": {"resolution": -10}}, "ingest.resolution", r"greater than 0 \(is -10\)"),
        ({"ingest": {"resolution": {"l8": 0}}}, "ingest.resolution.l8", r"greater than 0 \(is 0\)"),
        ({"ingest": {"nodata": math.nan}}, "ingest.nodata", r"finite number \(is nan\)"),
        ({"ingest": None}, "ingest", r"expected keys of its own \(is None\); allowed here: band_names, "),
        ({"segment": [4]}, "segment", r"expected keys of its own \(is \[4\]\)"),
        ({"normalize": {"quantiles": [0.9, 0.1]}}, "normalize", r"quantiles \[0.9, 0.1\] must rise"),
        ({"train": {"views": {"scale": [2, 0.5]}}}, "train.views", r"scale \[2.0, 0.5\] must not fall"),
        ({"model": {"encoder": "resnet"}}, "model", r"encoder 'resnet' is neither sass, nor package.module:"),
        ({"model": {"options": {"a": 1}}}, "model", r"options .* are for an encoder of your own"),
        ({"features": {"source": "all.zarr"}}, "features", r"put \{scene\} where the scene's id stands"),
        ({"evaluate": {"class_names": {"a": "b"}}}, "evaluate.class_names.a", r"valid integer.* \(is 'a'\)"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_allowed(wrong, path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(wrong)
    assert any(line.startswith(f"  {path}: ") for line in str(caught.value).splitlines()), caught.value


def test_more_classes_than_codes_are_refused_for_a_run_but_not_for_a_stage():
    config = load({"segment": {"classes": 129}})
    with pytest.raises(ConfigError, match=r"segment.classes 129 is more than codebook.codes 128"):
        check_whole(config)


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        load({"segment": {"classes": 1, "colour": "red"}, "run": 5})
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "run",
        "segment.classes",
        "segment.colour",
    ]


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [1", r"mine\.yaml: not YAML"),
        ("- a\n- b\n", r"mine\.yaml: holds a list; expected sections, as in config/config\.yaml"),
        (None, r"mine\.yaml: cannot be read \(No such file or directory\)"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("segment.classes", r"expected section\.key=value, such as segment\.classes=12"),
        ("segment.classes=[1", r"the value is not YAML"),
    ],
)
def test_an_assignment_that_is_none(text, message):
    with pytest.raises(ConfigError, match=message):
        assignment(text)


def test_the_command_line_ends_with_the_message_and_1(tmp_path, capsys):
    assert main(["ingest", str(tmp_path), "--set", "ingest.shards=512"]) == 1
    out = capsys.readouterr()
    assert "ingest.shards: no such key; allowed here: " in out.err and not out.out
