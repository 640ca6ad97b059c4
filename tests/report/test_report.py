"""The report of a finished run: complete, self-contained, safe to open, honest."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import rasterio
from finished_run import BANDS, LABELS, NO_PLACE, make_run
from PIL import Image
from safetensors.numpy import save_file

from sass.errors import ConfigError, SassError
from sass.files import file_digest, read_json, write_json
from sass.grid import Window
from sass.report.build import build_report
from sass.report.collect import gather
from sass.report.examples import signatures
from sass.report.images import Stretch, thumbnail
from sass.settings import load
from sass.store import SceneStore, create_scene

SCENES = {"east": (96, 120), "north": (150, 90), "west": (200, 230)}
HOSTILE = "<script>alert('x')<%2e&\"#?"
TITLE = "</title><script>alert(1)</script> {{ 7 * 7 }}"
SCRIPTS = {"static/swipe.js", "static/filter.js", "static/choice.js", "choice/tree.js"}


class Page(HTMLParser):
    """What a page loads, links to, names and says."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.addresses, self.ids, self.text, self.tags = path, [], set(), "", []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.addresses += [values[key] for key in ("href", "src", "srcset") if values.get(key)]
        self.ids |= {values["id"]} if "id" in values else set()

    def handle_data(self, data):
        self.text += data


def pages_of(folder: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def check_links(folder: Path) -> None:
    """Every address is relative and leads to something in the folder."""
    pages = pages_of(folder)
    for path, page in pages.items():
        for address in page.addresses:
            if address == "data:,":
                continue
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc and not address.startswith("/"), f"{path}: {address}"
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and target.is_relative_to(folder.resolve()), f"{path}: {address}"
            if parts.fragment:
                assert parts.fragment in pages[target].ids, f"{path}: {address}"
    for sheet in folder.rglob("*.css"):
        assert not re.search(r"url\(|@import|//[a-z]", sheet.read_text())
    for script in folder.rglob("static/*.js"):
        code = re.sub(r"// .*", "", script.read_text()).replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"//|fetch|XMLHttp|import\b|innerHTML|eval", code), script


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A report with a held-out scene, a failed one and a broken file."""
    run, shards, fit = make_run(
        tmp_path_factory.mktemp("run"),
        SCENES,
        held_out=("west",),
        failed={"south": "every pixel is nodata"},
        broken={"/data/cut.tif": "ends at row 512"},
    )
    build_report(run, load({"report": {"title": "Three scenes"}}), archive=shards, fit=fit)
    return run, shards, fit


def test_everything_linked_is_there_and_nothing_is_remote(built):
    check_links(built[0].report)


def test_pages_forbid_remote_content(built):
    for page in pages_of(built[0].report).values():
        policy = next(v["content"] for t, v in page.tags if v.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


def test_pages_can_be_read_by_everybody(built):
    for page in pages_of(built[0].report).values():
        names = {tag for tag, _ in page.tags}
        assert {"main", "nav", "header", "footer", "h1"} <= names
        assert ("html", {"lang": "en"}) in page.tags
        assert all(values.get("alt") for tag, values in page.tags if tag == "img")
        assert not any(
            "style" in values or any(k.startswith("on") for k in values) for _, values in page.tags
        )


def test_headlines(built):
    text = re.sub(r"\s+", " ", Page(built[0].report / "index.html").text)
    metrics = read_json(built[0].metrics)
    assert "3 scenes" in text and "one set of 7 classes" in text
    assert f"{metrics['accuracy'] * 100:.1f} % of the labelled pixels are right" in text
    assert f"mean IoU is {metrics['miou'] * 100:.1f} %" in text
    assert "those of 2 scenes; one more was mapped" in text


def test_scenes_set_aside_are_named_with_stage_and_reason(built):
    run = built[0]
    html = (run.report / "index.html").read_text()
    section = html[html.index('<section id="set-aside"') :].split("</section>")[0]
    for word in ("south", "ingest", "every pixel is nodata", "/data/cut.tif", "scan", "ends at row 512"):
        assert word in section
    rows = list(csv.reader((run.report / "tables/set-aside.csv").read_text().splitlines()))
    assert rows[1:] == [
        ["/data/cut.tif", "scan", "ends at row 512"],
        ["south", "ingest", "every pixel is nodata"],
    ]


def test_metrics_are_kept_and_a_second_build_gives_the_same_bytes(built):
    run, shards, fit = built
    metrics, before = run.metrics.read_bytes(), file_digest(run.report)
    build_report(run, load({"report": {"title": "Three scenes"}}), archive=shards, fit=fit)
    assert run.metrics.read_bytes() == metrics
    assert file_digest(run.report) == before


def test_colours_are_those_of_the_maps(built):
    run = built[0]
    with rasterio.open(run.segments("east") / "segments.tif") as source:
        table, pixels = source.colormap(1), source.read(1)
    sheet = (run.report / "static/classes.css").read_text()
    for k in range(len(LABELS)):
        assert ".c{} {{ --class: #{:02x}{:02x}{:02x}; }}".format(k, *table[k][:3]) in sheet
    picture = pixels_of(run.report / "quicklooks/east.segments.png")
    assert picture.shape == (*SCENES["east"], 4)
    assert (
        picture[pixels != 255, :3] == np.array([table[k][:3] for k in range(256)])[pixels[pixels != 255]]
    ).all()
    assert (picture[..., 3] == np.where(pixels == 255, 0, 255)).all()


def test_figures_have_their_numbers_beside_them(built):
    report = built[0].report
    for name in (
        "areas",
        "signatures",
        "choice",
        "tree",
        "training",
        "confusion",
        "archive",
        "confidence",
        "drift",
    ):
        sizes = {pixels_of(report / f"figures/{name}{theme}.png").shape for theme in ("", "-dark")}
        assert len(sizes) == 1 and min(sizes.pop()[:2]) >= 400
        assert len((report / f"figures/{name}.csv").read_text().splitlines()) > 1
    areas = list(csv.DictReader((report / "figures/areas.csv").read_text().splitlines()))
    pixels = sum(int(row["pixels"]) for row in areas)
    assert sum(float(row["share"]) for row in areas) == pytest.approx(1)
    assert sum(float(row["km2"]) for row in areas) == pytest.approx(pixels * 28.5**2 / 1e6)


def test_chips_show_their_class_and_have_the_number_asked_for(built):
    report = built[0].report
    for k in range(len(LABELS)):
        assert len(list((report / "chips").glob(f"{k}-*.png"))) == 6


def test_time_and_memory_are_summed_by_stage(built):
    costs = {cost.stage: cost for cost in gather(*built).costs}
    assert (costs["ingest"].jobs, costs["ingest"].seconds, costs["ingest"].max_rss) == (2, 15.5, 210.5)
    assert costs["report"].max_rss is None
    assert list(costs) == ["ingest", "train", "report"]


def test_better_baselines_are_named(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"one": (64, 64)})
    metrics = read_json(run.metrics)
    metrics["baselines"]["raw"] |= {"accuracy": 0.99, "miou": 0.98}
    write_json(run.metrics, metrics)
    text = Page(build_report(run, load(), archive=shards, fit=fit)).text
    assert "A baseline does better here in mean IoU:" in text and "k-means on raw pixels (98.0 %)" in text
    assert re.search(r"k-means on raw pixels\s+best mean IoU", text)


def test_names_cannot_break_out(tmp_path):
    names = ["<img src=x onerror=alert(2)>", "$\\frac{", "a, b"]
    run, shards, fit = make_run(
        tmp_path / "run",
        {HOSTILE: (60, 64), "javascript:alert(3)": (48, 48)},
        failed={"<b>bold</b>": "<i>why</i>"},
        band_names=names,
        class_names=["<u>one</u>", "$two", *LABELS[2:]],
    )
    settings = load({"report": {"title": TITLE}})
    build_report(run, settings, archive=shards, fit=fit)
    check_links(run.report)
    pages = pages_of(run.report)
    assert len(pages) == 3
    for page in pages.values():
        scripts = [values for tag, values in page.tags if tag == "script"]
        assert {s["src"].removeprefix("../") for s in scripts} == SCRIPTS
        assert not {tag for tag, _ in page.tags} & {"b", "i", "u"}
        assert not any(tag == "img" and values["src"] == "x" for tag, values in page.tags)
        assert TITLE in page.text
    assert HOSTILE in pages[run.report / "index.html"].text


def test_without_labels(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"one": (64, 80)}, labelled=False, place=NO_PLACE)
    page = Page(build_report(run, load(), archive=shards, fit=fit))
    text = page.text
    check_links(run.report)
    assert "map" not in page.ids and not (run.report / "figures/archive.png").exists()
    assert "No scene came with a label raster" in text
    assert "No scene has a CRS in metres" in text
    assert "Mean IoU" not in text and "Class 0 ·" not in text and "Set aside" in text
    assert not (run.report / "figures/confusion.png").exists()


def test_one_band_is_shown_as_grey(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"one": (64, 80)}, band_names=["pan"])
    build_report(run, load(), archive=shards, fit=fit)
    picture = pixels_of(run.report / "quicklooks/one.scene.png")
    assert (picture[..., 0] == picture[..., 1]).all() and np.ptp(picture[..., 0]) > 100


def test_many_scenes_and_few_pages(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"s000": (20, 24)}, classes=3)
    for stage in ("ingest", "segment", "evaluate"):
        manifest = read_json(run.manifest(stage, "s00000"))
        manifest["scenes"] = {f"s{i:03d}": manifest["scenes"]["s000"] for i in range(300)}
        write_json(run.manifest(stage, "s00000"), manifest)
    for i in range(1, 300):
        run.scene(f"s{i:03d}").symlink_to(run.scene("s000"))
        run.segments(f"s{i:03d}").symlink_to(run.segments("s000"))
    settings = load({"report": {"pages": 4, "chips": 2}})
    index = build_report(run, settings, archive=shards, fit=fit)
    check_links(run.report)
    assert [p.stem for p in sorted((run.report / "scenes").iterdir())] == ["s000", "s001", "s002", "s003"]
    assert len(list(csv.reader((run.report / "tables/scenes.csv").read_text().splitlines()))) == 301
    table = index.read_text().split('id="scene-table"')[1].split("</table>")[0]
    assert table.count("<tr>") == 301 and "s299" in table

    fewer = load({"report": {"pages": 1, "chips": 1}})
    build_report(run, fewer, archive=shards, fit=fit)
    assert [p.name for p in (run.report / "scenes").iterdir()] == ["s000.html"]
    assert {p.name.split(".")[0] for p in (run.report / "quicklooks").iterdir()} == {"s000"}
    assert {p.name for p in (run.report / "choice").iterdir()} == {"s000.codes.js", "tree.js"}
    assert len(list((run.report / "chips").glob("[0-9]*.png"))) == 3


def test_more_classes_than_a_colour_table_holds(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"one": (120, 120)}, classes=300)
    build_report(run, load({"report": {"chips": 1}}), archive=shards, fit=fit)
    check_links(run.report)
    assert (run.report / "static/classes.css").read_text().count("--class") == 300


def test_errors_say_what_to_do(tmp_path):
    run, shards, fit = make_run(tmp_path / "run", {"one": (32, 32)}, failed={"two": "is empty"})
    with pytest.raises(ConfigError, match=r"report.rgb is \[7, 1, 2\]: expected one or three of 6 bands"):
        build_report(run, load({"report": {"rgb": [7, 1, 2]}}), archive=shards, fit=fit)
    run.metrics.unlink()
    with pytest.raises(SassError, match=r"metrics.json is missing.*run sass evaluate first"):
        build_report(run, load(), archive=shards, fit=fit)
    run.manifest("segment", "s00000").unlink()
    with pytest.raises(SassError, match=r"no scene has a map.*two: is empty"):
        build_report(run, load(), archive=shards, fit=fit)


@pytest.mark.parametrize("shape", [(40, 30), (130, 257), (1100, 2050)])
def test_a_thumbnail_fits_and_leaves_no_data_out(tmp_path, shape):
    group = create_scene(tmp_path / "s.zarr", (2, *shape), "uint16", ["a", "b"], NO_PLACE, 64, 256, 16)
    valid = np.zeros(shape, np.uint8)
    valid[:, shape[1] // 2 :] = 1
    group["bands"][:] = np.stack([np.where(valid, 500, 60_000), np.where(valid, 7, 60_000)]).astype(np.uint16)
    group["valid"][:] = valid
    values, shown = thumbnail(SceneStore(tmp_path / "s.zarr"), (1, 0), 64)
    assert max(shown.shape) <= 64 and shown.shape[0] / shown.shape[1] == pytest.approx(
        shape[0] / shape[1], rel=0.1
    )
    assert (values[0][shown] == 7).all() and (values[1][shown] == 500).all()
    assert shown.mean() == pytest.approx(0.5, abs=0.03)


def test_stretch_is_the_same_for_every_scene():
    statistics = {"bands": [{"low": 10.0, "high": 110.0}] * 3}
    picture = Stretch.of(statistics, None).apply(
        np.full((3, 1, 4), [[0, 10, 60, 200]], np.float32), np.ones((1, 4), bool)
    )
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255]


def test_signatures_are_mean_and_spread_of_the_pixels(built):
    run = built[0]
    found = gather(*built)
    result = signatures(run, found.scenes, len(found.classes), found.statistics)
    pixels, maps = [], []
    for scene, shape in SCENES.items():
        values, valid = SceneStore(run.scene(scene)).read(Window(0, 0, *shape))
        with rasterio.open(run.segments(scene) / "segments.tif") as source:
            maps.append(source.read(1)[valid])
        pixels.append(values[:, valid].astype(float))
    pixels, maps = np.concatenate(pixels, axis=1), np.concatenate(maps)
    for k in range(len(LABELS)):
        assert result.pixels[k] == (maps == k).sum()
        assert result.mean[k] == pytest.approx(pixels[:, maps == k].mean(axis=1))
        assert result.spread[k] == pytest.approx(pixels[:, maps == k].std(axis=1))
    # in the unit of the rasters, whatever the encoder is given: the median is 100 and the spread 25
    mean, spread = result.normalised(found.statistics)
    np.testing.assert_allclose(mean, (result.mean - 100) / 25)
    np.testing.assert_allclose(spread, result.spread / 25)


def test_the_record_of_the_run_is_shown(built):
    text = Page(built[0].report / "index.html").text
    assert "rasterio" in text and "codebook.seed" in text and "statistics.json" in text
    assert json.dumps(load().segment.classes) in text and "min_area: 0" in text


def test_an_encoder_taken_as_it_is_and_one_that_sees_whole_windows_are_named(tmp_path):
    run, shards, fit = make_run(tmp_path, {"a": (90, 80)})
    run.encoder.parent.mkdir(exist_ok=True)
    own = {"dim": 8, "stride": 4, "alignment": 4, "halo": 0, "normalisation": "scaled", "bands": len(BANDS)}
    statistics = json.loads(run.statistics.read_text()) | {"from": {"shards": fit, "scenes": {}}}
    about = json.dumps(own | {"exact": False, "statistics": statistics, "model": {"encoder": "mine:dino"}})
    save_file({"w": np.zeros(1, np.float32)}, run.encoder, metadata={"sass": about})
    settings = load({"model": {"encoder": "mine:dino", "frozen": True}, "features": {"window": 512}})
    build_report(run, settings, archive=shards, fit=fit)
    text = re.sub(r"\s+", " ", Page(run.report / "index.html").text)
    assert "what the encoder mine:dino , taken as it is" in text.replace("dino,", "dino ,")
    assert "the maps depend on features.window , 512 pixels here" in text.replace("window,", "window ,")
    assert "Training of the encoder" not in text
