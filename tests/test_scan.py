"""What a scan makes of files: rows, ids, shards, labels, and what it sets aside."""

import json
import os
import random
import re
import shutil
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from scenes import make_geotiff

from sass.catalog import Scene, load_broken, load_index, load_labels, load_shard
from sass.config import Catalog
from sass.errors import ConfigError, SassError
from sass.headers import time_in_name
from sass.run import Run
from sass.scan import ScanResult, scan
from sass.shards import safe_id, unique_ids

SMALL = {"shape": (1, 8, 8)}


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "run")


@pytest.fixture
def archive(tmp_path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


def scanned(run: Run, *patterns, **options) -> ScanResult:
    settings = Catalog(**{key: options.pop(key) for key in [*options] if key in Catalog.model_fields})
    return scan(run, [str(pattern) for pattern in patterns], settings=settings, **options)


def scenes(run: Run) -> dict[str, Scene]:
    return {scene: row for shard in load_index(run) for scene, row in load_shard(run, shard).items()}


def shards(run: Run) -> dict[str, list[str]]:
    return {shard: list(load_shard(run, shard)) for shard in load_index(run)}


def labels(run: Run) -> dict[str, str]:
    return {
        scene: Path(label.path).name
        for shard in load_index(run)
        for scene, label in load_labels(run, shard).items()
    }


def content(run: Run) -> dict[str, bytes]:
    return {
        str(path.relative_to(run.root)): path.read_bytes() for path in run.root.rglob("*") if path.is_file()
    }


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


# ------------------------------------------------------------------------------------------------------- rows


def test_a_row_says_what_the_header_says(run, archive):
    path = make_geotiff(
        archive / "m_44_20190504.tif",
        (2, 30, 20),
        dtype="uint16",
        nodata=7,
        res=2.5,
        band_names=["red", ""],
        tags={"TIFFTAG_SOFTWARE": "made"},
    )
    result = scanned(run, path)
    assert result.added == ["m_44_20190504"]
    row = scenes(run)["m_44_20190504"]
    assert row.paths == (str(path),)
    assert (row.driver, row.bands, row.dtype, row.shape) == ("GTiff", 2, "uint16", (30, 20))
    assert row.band_names == ("red", "band_2")
    assert row.nodata == (7.0, 7.0)
    assert CRS.from_wkt(row.crs) == CRS.from_epsg(32633)
    assert row.transform == (2.5, 0.0, 500_000.0, 0.0, -2.5, 5_400_000.0)
    assert row.resolution == (2.5, 2.5)
    assert row.time == "2019-05-04"
    assert (row.size, row.modified) == (path.stat().st_size, path.stat().st_mtime_ns)
    entry = load_index(run)["s00000"]
    assert (entry.fit, entry.scenes, entry.labels, entry.pixels) == (True, 1, 0, 600)


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.tif", {}),
        ("cog.tif", {"driver": "COG"}),
        ("a.jp2", {"driver": "JP2OpenJPEG", "shape": (3, 64, 64)}),
        ("a.png", {"driver": "PNG"}),
        ("a.JPG", {"driver": "JPEG", "nodata": None}),
    ],
)
def test_every_promised_format_is_found_in_a_folder(run, archive, name, options):
    make_geotiff(archive / "deep" / name, **options)
    (archive / "deep" / "notes.txt").write_text("not a raster")
    (archive / ".hidden").mkdir()
    shutil.copy(archive / "deep" / name, archive / ".hidden" / name)
    result = scanned(run, archive)
    assert result.added == [Path(name).stem]
    assert result.broken == {}


@pytest.mark.parametrize("name, driver", [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.tif", "GTiff")])
def test_a_picture_without_georeference_is_a_scene(run, archive, name, driver):
    make_geotiff(archive / name, crs=None, driver=driver, nodata=None)
    scanned(run, archive / name)
    row = scenes(run)["a"]
    assert (row.crs, row.resolution, row.transform) == (None, None, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


def test_the_identity_is_no_georeference_even_with_a_crs(run, archive):
    make_geotiff(archive / "a.tif", transform=None)
    scanned(run, archive)
    assert scenes(run)["a"].crs is None


def test_ground_control_points_alone_are_no_georeference(run, archive):
    points = [GroundControlPoint(y, x, 500_000 + x, 5_400_000 - y) for y in (0, 8) for x in (0, 8)]
    make_geotiff(archive / "a.tif", (1, 8, 8), transform=None, gcps=points)
    scanned(run, archive)
    assert scenes(run)["a"].crs is None


def test_nodata_that_json_cannot_hold_is_written_as_text(run, archive):
    make_geotiff(archive / "a.tif", dtype="float32", nodata=float("nan"))
    scanned(run, archive)
    assert scenes(run)["a"].nodata == ("nan", "nan", "nan")


def test_texts_in_an_old_encoding_do_not_cost_the_scene(run, archive):
    path = make_geotiff(archive / "a.tif", (1, 8, 8), band_names=["rXX"])
    path.write_bytes(path.read_bytes().replace(b"rXX", b"r\xe9\xe8"))
    scanned(run, archive)
    assert scenes(run)["a"].band_names == ("band_1",)


def write_vrt(path: Path, *sources: str) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{int(not source.startswith("/"))}">{source}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, source in enumerate(sources, start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8">{bands}</VRTDataset>')
    return path


def test_a_vrt_changes_when_its_sources_do(run, archive):
    source = make_geotiff(archive / "a.tif", **SMALL)
    vrt = write_vrt(archive / "v.vrt", "a.tif")
    scanned(run, vrt)
    assert scenes(run)["v"].size == vrt.stat().st_size + source.stat().st_size
    assert scanned(run, vrt).unchanged == ["v"]
    touch(source)
    assert scanned(run, vrt).changed == ["v"]


@pytest.mark.parametrize(
    "tags, name, time",
    [
        ({"TIFFTAG_DATETIME": "2019:05:04 10:30:00"}, "x_2001", "2019-05-04T10:30:00"),
        (
            {"ACQUISITIONDATETIME": "2018-01-02 03:04:05", "TIFFTAG_DATETIME": "2019:05:04 10:30:00"},
            "x",
            "2018-01-02T03:04:05",
        ),
        ({"TIFFTAG_DATETIME": "yesterday"}, "x_2001", "2001"),
        ({}, "x", None),
    ],
)
def test_time_of_tags_comes_before_that_of_the_name(run, archive, tags, name, time):
    make_geotiff(archive / f"{name}.tif", **SMALL, tags=tags)
    scanned(run, archive)
    assert scenes(run)[name].time == time


@pytest.mark.parametrize(
    "name, time",
    [
        ("S2_20190504T103000", "2019-05-04"),
        ("a_2019-05-04_b", "2019-05-04"),
        ("lsat7_2000_10", "2000"),
        ("1950", "1950"),
        ("2049", "2049"),
        ("x1949_2050", None),
        ("m_4709963_14", None),
        ("20191301", None),  # there is no month 13, and a year stands alone
        ("20191301_2001", "2001"),
    ],
)
def test_time_in_name(name, time):
    assert time_in_name(name) == time


# --------------------------------------------------------------------------------------------- several files


def test_single_band_files_make_one_scene_in_natural_order(run, archive):
    for band, dtype, nodata in ((10, "uint8", 0), (20, "int16", -9999), (100, "uint8", None)):
        make_geotiff(archive / "north" / f"l7_2000_{band}.tif", (1, 8, 8), dtype=dtype, nodata=nodata)
    scanned(run, archive / "{scene}" / "l7_2000_{band}.tif")
    row = scenes(run)["north"]
    assert [Path(path).name for path in row.paths] == ["l7_2000_10.tif", "l7_2000_20.tif", "l7_2000_100.tif"]
    assert (row.bands, row.band_names, row.dtype) == (3, ("10", "20", "100"), "int16")
    assert row.nodata == (0.0, -9999.0, None)
    assert row.time == "2000"
    assert row.size == sum(os.stat(path).st_size for path in row.paths)
    assert row.source_identity == [row.size, row.modified, 3]


def test_the_scene_takes_as_much_of_a_name_as_it_can(run, archive):
    for name in ("a_b_1", "a_b_2", "a_c_1"):
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive / "{scene}_{band}.tif")
    assert {scene: row.bands for scene, row in scenes(run).items()} == {"a_b": 2, "a_c": 1}


@pytest.mark.parametrize(
    "other, reason",
    [
        ({"shape": (1, 8, 9)}, "8 x 9 pixels has not the same shape as .*1.tif"),
        ({"crs": "EPSG:32632"}, "has not the same CRS as .*1.tif"),
        ({"origin": (500_005.0, 5_400_000.0)}, "lies 0.5 pixels off"),
        ({"shape": (3, 8, 8)}, "has 3 bands, but scene 's' joins files of one band"),
    ],
)
def test_files_of_one_scene_share_a_grid_and_have_one_band(run, archive, other, reason):
    make_geotiff(archive / "s_1.tif", **SMALL)
    bad = make_geotiff(archive / "s_2.tif", **{**SMALL, **other})
    make_geotiff(archive / "t_1.tif", **SMALL)
    result = scanned(run, archive / "{scene}_{band}.tif")
    assert result.added == ["t"]
    assert re.search(reason, result.broken[str(bad)])


def test_rounded_coordinates_are_the_same_grid(run, archive):
    make_geotiff(archive / "s_1.tif", **SMALL)
    make_geotiff(archive / "s_2.tif", **SMALL, origin=(500_000.0004, 5_400_000.0))
    assert scanned(run, archive / "{scene}_{band}.tif").added == ["s"]


def test_two_files_for_one_band_are_refused(run, archive):
    for day in ("monday", "tuesday"):
        make_geotiff(archive / day / "s_1.tif", **SMALL)
    result = scanned(run, archive / "*" / "{scene}_{band}.tif")
    assert result.added == []
    assert "several files for band '1'" in result.broken[str(archive / "monday" / "s_1.tif")]


def test_a_band_that_comes_later_changes_its_scene(run, archive):
    pattern = archive / "{scene}_{band}.tif"
    make_geotiff(archive / "s_1.tif", **SMALL)
    make_geotiff(archive / "s_2.tif", **SMALL)
    scanned(run, pattern)
    make_geotiff(archive / "s_3.tif", **SMALL)
    result = scanned(run, pattern)
    assert (result.added, result.changed, result.removed) == ([], ["s"], [])
    assert scenes(run)["s"].band_names == ("1", "2", "3")


def test_a_band_without_a_scene_is_an_error(run, archive):
    make_geotiff(archive / "a_1.tif", **SMALL)
    with pytest.raises(SassError, match="which part of the path names the scene"):
        scanned(run, archive / "a_{band}.tif")


# --------------------------------------------------------------------------------------------------- patterns


def test_patterns_and_what_they_match(run, archive, monkeypatch):
    for name in ("a1.tif", "a2.tif", "b1.png", "sub/c1.tif", "sub/deep/d1.tif"):
        make_geotiff(archive / name, **SMALL, driver="PNG" if name.endswith("png") else "GTiff")
    (archive / "a1.tif.aux.xml").write_text("<PAMDataset/>")
    monkeypatch.chdir(archive)
    for pattern, found in {
        "a1.tif": ["a1"],
        "a*.tif": ["a1", "a2"],
        "a[!1].tif": ["a2"],
        "a?.*": ["a1", "a2"],
        "*/c*": ["c1"],
        "sub": ["c1", "d1"],
        "s*": ["c1", "d1"],
        "**/*.tif": ["a1", "a2", "c1", "d1"],
        "**": ["a1", "a2", "b1", "c1", "d1"],
        ".": ["a1", "a2", "b1", "c1", "d1"],
        "sub/**/{scene}.tif": ["c1", "d1"],
        "../archive/{scene}1.png": ["b"],
    }.items():
        assert scanned(run, pattern, dry_run=True).added == found, pattern


def test_brackets_in_folder_and_file_names_are_taken_as_they_are(run, tmp_path, monkeypatch):
    folder = tmp_path / "old [1]"
    make_geotiff(folder / "a[2].tif", **SMALL)
    make_geotiff(folder / "b.tif", **SMALL)
    monkeypatch.chdir(folder)
    assert scanned(run, "*.tif", dry_run=True).added == ["a-2-", "b"]
    assert scanned(run, "a[2].tif", dry_run=True).added == ["a-2-"]


def test_matching_nothing_is_an_error_that_names_the_patterns(run, archive):
    with pytest.raises(SassError, match=r"no raster matches '.*none\*\.tif', '.*missing\.tif'"):
        scanned(run, archive / "none*.tif", archive / "missing.tif")
    assert not run.root.exists()


def test_one_pattern_that_matches_nothing_is_named(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    result = scanned(run, archive / "*.tif", archive / "*.jp2")
    assert result.added == ["a"]
    assert "matches no raster" in result.broken[str(archive / "*.jp2")]
    assert "matches no raster" in str(result)


def test_the_maps_of_a_run_inside_the_archive_are_no_scenes(archive):
    make_geotiff(archive / "a.tif", **SMALL)
    run = Run(archive / "run")
    make_geotiff(run.segments("a") / "segments.tif", **SMALL)
    make_geotiff(run.report / "a.png", **SMALL, driver="PNG")
    assert scanned(run, archive).added == ["a"]


# ------------------------------------------------------------------------------------------------------ lists


def test_a_csv_list(run, archive):
    make_geotiff(archive / "data" / "a.tif", **SMALL)
    make_geotiff(archive / "data" / "b.tif", **SMALL)
    make_geotiff(archive / "truth.tif", **SMALL)
    table = archive / "list.csv"
    table.write_text(
        "path,id,time,sensor,label\n"
        "data/a.tif,first,2019-05-04T10:30:00Z,landsat-7,truth.tif\n"
        f"{archive}/data/b.tif,,1999,,\n"
        "data/none.tif,,,,\n"
        "s3://bucket/c.tif,,,,\n"
    )
    result = scanned(run, table)
    rows = scenes(run)
    assert (rows["first"].time, rows["first"].sensor) == ("2019-05-04T10:30:00+00:00", "landsat-7")
    assert (rows["b"].time, rows["b"].sensor) == ("1999", None)
    assert labels(run) == {"first": "truth.tif"}
    assert "no such file" in result.broken[str(archive / "data" / "none.tif")]
    assert "another machine" in result.broken["s3://bucket/c.tif"]
    touch(archive / "data" / "a.tif")
    assert scanned(run, archive / "data").changed == ["first"]
    assert scenes(run)["first"].sensor == "landsat-7", "what a list said stays"


def test_a_parquet_list_says_the_same_as_a_csv_list(run, archive, tmp_path):
    make_geotiff(archive / "a.tif", **SMALL)
    (archive / "list.csv").write_text("path,id,time\na.tif,x,2019-05-04\n")
    table = pyarrow.table({"path": ["a.tif"], "id": ["x"], "time": ["2019-05-04"], "sensor": [None]})
    pyarrow.parquet.write_table(table, archive / "list.parquet")
    scanned(run, archive / "list.csv")
    other = Run(tmp_path / "other")
    scanned(other, archive / "list.parquet")
    assert content(run) == content(other)


def test_lists_that_make_no_sense_are_named(run, archive):
    bad = archive / "bad.csv"
    bad.write_text("file\na.tif\n")
    with pytest.raises(SassError, match=r"bad\.csv: row 1 has no path"):
        scanned(run, bad)
    for name in ("bad.parquet", "bad.json"):
        (archive / name).write_bytes(b"\xff\xfe nothing")
        with pytest.raises(SassError, match=name):
            scanned(run, archive / name)
    (archive / "collection.json").write_text(json.dumps({"type": "Collection", "links": []}))
    with pytest.raises(SassError, match="neither a STAC item nor a collection of items"):
        scanned(run, archive / "collection.json")


def test_a_time_that_is_none_sets_its_scene_aside(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    (archive / "list.csv").write_text("path,time\na.tif,last summer\n")
    assert (
        "'last summer' is not an ISO date"
        in scanned(run, archive / "list.csv").broken[str(archive / "a.tif")]
    )


def item(name: str, assets: dict, **properties) -> dict:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "properties": properties,
        "assets": assets,
    }


def test_a_stac_item_collection(run, archive):
    for name in ("B2", "B10", "thumb"):
        make_geotiff(archive / "my files" / f"{name}.tif", **SMALL)
    make_geotiff(archive / "rgb.tif", (3, 8, 8))
    quoted = (archive / "my files" / "B10.tif").as_uri()
    items = [
        item(
            "scene one",
            {
                "B10": {"href": quoted, "roles": ["data"]},
                "B2": {"href": "./my files/B2.tif", "roles": ["data", "x"]},
                "thumb": {"href": "my files/thumb.tif", "roles": ["thumbnail"]},
                "meta": {"href": "meta.xml", "roles": ["metadata"]},
            },
            datetime="2020-01-02T03:04:05Z",
            platform="landsat-8",
            constellation="landsat",
        ),
        item("two", {"rgb": {"href": "rgb.tif"}}, datetime=None, constellation="sentinel-2"),
        item("far", {"rgb": {"href": "https://example.com/rgb.tif"}}),
        item("empty", {"meta": {"href": "meta.xml"}}),
    ]
    path = archive / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    result = scanned(run, path)
    rows = scenes(run)
    assert result.added == ["scene-one", "two"]
    assert rows["scene-one"].band_names == ("B2", "B10")
    assert (rows["scene-one"].time, rows["scene-one"].sensor) == ("2020-01-02T03:04:05+00:00", "landsat-8")
    assert (rows["two"].bands, rows["two"].time, rows["two"].sensor) == (3, None, "sentinel-2")
    assert "another machine" in result.broken["https://example.com/rgb.tif"]
    assert "no raster among its assets" in result.broken[f"{path}#empty"]


def test_a_single_stac_item(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    (archive / "a.json").write_text(json.dumps(item("only", {"x": {"href": "a.tif"}})))
    assert scanned(run, archive / "a.json").added == ["only"]


# ----------------------------------------------------------------------------------------------- broken files


def test_broken_files_are_named_and_stop_nothing(run, archive):
    make_geotiff(archive / "good.tif", **SMALL)
    (archive / "empty.tif").touch()
    (archive / "text.tif").write_text("I am not a raster")
    (archive / "numbers.tif").write_text("1 2 3\n2 2 3\n1 3 3\n2 3 4\n")
    make_geotiff(archive / "complex.tif", (1, 8, 8), dtype="complex64", nodata=None)
    header = make_geotiff(archive / "header.tif", **SMALL)
    header.write_bytes(header.read_bytes()[:6])
    write_vrt(archive / "remote.vrt", "/vsicurl/http://127.0.0.1:9/x.tif")
    result = scanned(run, archive, "/vsicurl/http://127.0.0.1:9/x.tif", "https://example.com/y.tif")
    assert result.added == ["good"]
    reasons = {
        "empty.tif": "cannot be read as a raster",
        "text.tif": "cannot be read as a raster",
        "numbers.tif": "it does not begin as TIFF, JPEG 2000, JPEG, PNG or VRT does",
        "complex.tif": "complex64",
        "header.tif": "cannot be read as a raster",
        "remote.vrt": "draws on /vsicurl/",
        "/vsicurl/http://127.0.0.1:9/x.tif": "another machine",
        "https://example.com/y.tif": "another machine",
    }
    assert result.broken == load_broken(run)
    assert {Path(path).name if path.startswith(str(archive)) else path for path in result.broken} == set(
        reasons
    )
    for name, reason in reasons.items():
        path = name if "://" in name or name.startswith("/") else str(archive / name)
        assert reason in result.broken[path]
    assert "empty.tif" in str(result)


def test_pixels_cut_off_behind_a_good_header_pass(run, archive):
    path = make_geotiff(archive / "a.tif", (1, 200, 200))
    path.write_bytes(path.read_bytes()[:-20_000])
    assert scanned(run, archive).added == ["a"]


def test_a_name_that_is_not_utf8_is_spelt_out(run, archive):
    make_geotiff(archive / "good.tif", **SMALL)
    bad = os.fsencode(archive) + b"/caf\xe9.tif"
    shutil.copy(os.fsencode(archive / "good.tif"), bad)
    assert "not UTF-8" in scanned(run, archive).broken[str(archive / r"caf\xe9.tif")]


def test_broken_files_are_remembered_until_they_are_mended_or_gone(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    (archive / "b.tif").touch()
    (archive / "c.tif").touch()
    scanned(run, archive)
    make_geotiff(archive / "d.tif", **SMALL)
    assert len(scanned(run, archive / "d.tif").broken) == 2
    make_geotiff(archive / "b.tif", **SMALL)
    (archive / "c.tif").unlink()
    result = scanned(run, archive)
    assert (result.added, result.broken) == (["b"], {})


def test_a_scene_damaged_later_keeps_its_place(run, archive):
    path = make_geotiff(archive / "a.tif", **SMALL)
    whole = path.read_bytes()
    make_geotiff(archive / "b.tif", **SMALL)
    scanned(run, archive)
    path.write_bytes(b"")
    result = scanned(run, archive)
    assert (result.changed, result.removed, list(result.broken)) == (["a"], [], [str(path)])
    again = scanned(run, archive)
    assert (again.changed, list(again.broken)) == ([], [str(path)])
    assert shards(run) == {"s00000": ["a", "b"]}
    path.write_bytes(whole)
    result = scanned(run, archive / "b.tif")
    assert (result.changed, result.broken) == (["a"], {})


# -------------------------------------------------------------------------------------------------------- ids


@given(st.dictionaries(st.tuples(st.text(min_size=1)), st.text(max_size=130), max_size=12), st.data())
def test_ids_are_safe_and_unique_and_do_not_depend_on_order(names, data):
    names = {(paths[0].encode("utf-8", "replace").decode(),): name for paths, name in names.items()}
    taken = data.draw(st.sets(st.sampled_from([safe_id(name) for name in names.values()] or ["x"])))
    ids = unique_ids(names, taken)
    assert ids.keys() == names.keys()
    for scene in ids.values():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", scene)
    folded = [scene.casefold() for scene in [*ids.values(), *{t.casefold() for t in taken}]]
    assert len(set(folded)) == len(folded)
    assert ids == unique_ids(dict(reversed(names.items())), taken)


@pytest.mark.parametrize(
    "text, scene",
    [
        ("a b/c", "a-b-c"),
        ("..hidden", "hidden"),
        ("été", "ete"),
        ("東京", "scene"),
        ("", "scene"),
        ("x" * 200, "x" * 100),
    ],
)
def test_safe_id(text, scene):
    assert safe_id(text) == scene


def test_equal_stems_get_ids_that_tell_them_apart_and_keep_them(run, archive):
    for folder in ("north", "south"):
        make_geotiff(archive / folder / "a.tif", **SMALL)
    scanned(run, archive)
    first = {row.paths[0]: scene for scene, row in scenes(run).items()}
    assert all(re.fullmatch("a-[0-9a-f]{8}", scene) for scene in first.values())
    make_geotiff(archive / "west" / "a.tif", **SMALL)
    make_geotiff(archive / "A.tif", **SMALL)
    scanned(run, archive)
    second = {row.paths[0]: scene for scene, row in scenes(run).items()}
    assert len(set(second.values())) == 4
    assert first.items() <= second.items()


# ----------------------------------------------------------------------------------------------------- shards


def test_the_first_scan_fills_fit_shards_then_the_others(run, archive):
    for name in "abcdefg":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive, shard_size=2, hold_out=["b", "[fg]"])
    assert shards(run) == {"s00000": ["a", "c"], "s00001": ["d", "e"], "s00002": ["b", "f"], "s00003": ["g"]}
    assert [entry.fit for entry in load_index(run).values()] == [True, True, False, False]


def test_fit_fraction_draws_by_seed(run, archive, tmp_path):
    for number in range(12):
        make_geotiff(archive / f"x{number:02}.tif", **SMALL)

    def fitted(name, **settings):
        other = Run(tmp_path / name)
        scanned(other, archive, shard_size=5, **settings)
        index = load_index(other)
        return [s for shard, inside in shards(other).items() if index[shard].fit for s in inside]

    assert len(fitted("half", fit_fraction=0.5)) == 6
    assert fitted("half again", fit_fraction=0.5) == fitted("half", fit_fraction=0.5)
    assert fitted("seed", fit_fraction=0.5, seed=1) != fitted("half", fit_fraction=0.5)
    assert len(fitted("one", fit_fraction=0.001)) == 1


def test_holding_out_everything_is_an_error(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    with pytest.raises(ConfigError, match=r"hold_out \['\*'\] matches all 1 scenes"):
        scanned(run, archive, hold_out=["*"])


def test_later_scenes_go_to_shards_that_are_not_fitted_on(run, archive):
    for name in "mno":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive, shard_size=2)
    assert shards(run) == {"s00000": ["m", "n"], "s00001": ["o"]}
    before = content(run)
    for name in "abc":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    result = scanned(run, archive, shard_size=2)
    assert (result.added, result.unchanged) == (["a", "b", "c"], ["m", "n", "o"])
    assert shards(run) == {"s00000": ["m", "n"], "s00001": ["o"], "s00002": ["a", "b"], "s00003": ["c"]}
    assert [entry.fit for entry in load_index(run).values()] == [True, True, False, False]
    make_geotiff(archive / "aa.tif", **SMALL)
    scanned(run, archive / "aa.tif", shard_size=2)
    assert shards(run)["s00003"] == ["aa", "c"]
    after = content(run)
    assert all(
        after[f"catalog/shards/{s}.json"] == before[f"catalog/shards/{s}.json"] for s in ("s00000", "s00001")
    )


def test_an_equal_scan_touches_no_file(run, archive):
    for name in "abc":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive)
    stamps = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    assert scanned(run, archive / "b.tif").unchanged == ["a", "b", "c"]
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*")} == stamps


def test_the_order_of_patterns_changes_no_byte(run, archive, tmp_path):
    for number in range(9):
        make_geotiff(archive / f"d{number % 3}" / f"x{number // 2}.tif", **SMALL)
        make_geotiff(archive / "labels" / f"x{number}.tif", **SMALL)
    (archive / "list.csv").write_text("path,id,sensor\nd0/x0.tif,zero,lidar\n")
    patterns = [archive / "list.csv", *(archive / f"d{i}" for i in range(3)), archive / "d0" / "*.tif"]
    scanned(run, *patterns, labels=[str(archive / "labels")], shard_size=2)
    expected = content(run)
    for seed in range(3):
        random.Random(seed).shuffle(patterns)
        other = Run(tmp_path / f"other{seed}")
        scanned(other, *patterns, labels=[str(archive / "labels" / "*.tif")], shard_size=2)
        assert content(other) == expected
    assert scenes(run)["zero"].sensor == "lidar"


def test_a_changed_file_rewrites_its_row_only(run, archive):
    for name in "ab":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive)
    before = scenes(run)
    touch(archive / "a.tif")
    make_geotiff(archive / "c.tif", **SMALL)
    result = scanned(run, archive / "c.tif")
    assert (result.added, result.changed, result.unchanged) == (["c"], ["a"], ["b"])
    assert scenes(run)["a"].modified == before["a"].modified + 1_000_000_000
    assert scenes(run)["b"] == before["b"]


def test_gone_scenes_leave_and_their_shard_stays(run, archive):
    for name in "abcd":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive, shard_size=1)
    (archive / "b.tif").unlink()
    make_geotiff(archive / "e.tif", **SMALL)
    result = scanned(run, archive, shard_size=1)
    assert (result.removed, result.added) == (["b"], ["e"])
    assert shards(run) == {"s00000": ["a"], "s00001": [], "s00002": ["c"], "s00003": ["d"], "s00004": ["e"]}


def test_a_scene_that_comes_back_has_its_shard_for_good(run, archive):
    for name in "abcd":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive, shard_size=2)
    before = content(run)
    paths = [archive / f"{name}.tif" for name in "acd"]
    for path in paths:
        path.rename(path.with_suffix(".away"))
    assert scanned(run, archive, shard_size=2).removed == ["a", "c", "d"]
    assert shards(run) == {"s00000": ["b"], "s00001": []}
    for path in paths:
        path.with_suffix(".away").rename(path)
    assert scanned(run, archive, shard_size=2).added == ["a", "c", "d"]
    after = content(run)
    assert after.pop("catalog/left.json") == b"{}\n"
    assert after == before


def test_scenes_not_matched_stay_unless_pruned(run, archive):
    for name in "ab":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    (archive / "broken.tif").touch()
    scanned(run, archive)
    assert scanned(run, archive / "a.tif").removed == []
    result = scanned(run, archive / "a.tif", prune=True)
    assert (result.removed, result.unchanged, result.broken) == (["b"], ["a"], {})
    assert list(scenes(run)) == ["a"]


def test_an_archive_that_moved_is_the_same_archive(run, archive, tmp_path):
    for name in "abc":
        make_geotiff(archive / f"{name}.tif", **SMALL)
    scanned(run, archive, shard_size=2)
    before = scenes(run)
    place = shards(run)
    moved = archive.rename(tmp_path / "moved")
    result = scanned(run, moved, shard_size=2)
    assert (result.added, result.changed, result.removed) == ([], ["a", "b", "c"], [])
    assert shards(run) == place
    for scene, row in scenes(run).items():
        assert row.paths == (str(moved / f"{scene}.tif"),)
        assert row.source_identity == before[scene].source_identity


def test_a_dry_run_tells_and_writes_nothing(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    told = scanned(run, archive, dry_run=True)
    assert not run.root.exists()
    done = scanned(run, archive)
    assert (told.added, told.shards) == (done.added, done.shards)
    assert "would have 1 scenes" in str(told)
    before = content(run)
    make_geotiff(archive / "b.tif", **SMALL)
    assert scanned(run, archive, dry_run=True).added == ["b"]
    assert content(run) == before


# ----------------------------------------------------------------------------------------------------- labels


def test_labels_are_matched_by_stem_and_are_no_scenes(run, archive):
    for name in ("a", "b", "c 1"):
        make_geotiff(archive / f"{name}.tif", **SMALL)
    for name in ("a", "c 1", "z"):
        make_geotiff(archive / "labels" / f"{name}.png", **SMALL, driver="PNG")
    result = scanned(run, archive, labels=[str(archive / "labels" / "*.png")])
    assert result.added == ["a", "b", "c-1"]
    assert labels(run) == {"a": "a.png", "c-1": "c 1.png"}
    assert load_index(run)["s00000"].labels == 2
    assert result.relabelled == ["a", "c-1"]
    assert "no scene 'z'" in result.unused_labels[str(archive / "labels" / "z.png")]
    shard = run.catalog_shard("s00000").read_bytes()
    make_geotiff(archive / "labels" / "b.png", **SMALL, driver="PNG")
    result = scanned(run, archive / "a.tif", labels=[str(archive / "labels")])
    assert (result.relabelled, result.unchanged) == (["b"], ["a", "b", "c-1"])
    assert run.catalog_shard("s00000").read_bytes() == shard, "a label makes no row stale"


def test_labels_stay_until_gone_or_pruned(run, archive):
    make_geotiff(archive / "a.tif", **SMALL)
    make_geotiff(archive / "b.tif", **SMALL)
    for name in "ab":
        make_geotiff(archive / f"{name}_truth.tif", **SMALL)
    scanned(run, archive, labels=[str(archive / "{scene}_truth.tif")])
    assert labels(run) == {"a": "a_truth.tif", "b": "b_truth.tif"}
    assert scanned(run, archive).added == [], "a label of an earlier scan is no scene either"
    (archive / "a_truth.tif").unlink()
    result = scanned(run, archive)
    assert (result.relabelled, labels(run)) == (["a"], {"b": "b_truth.tif"})
    scanned(run, archive / "[ab].tif", prune=True)
    assert labels(run) == {}


def test_labels_that_could_mean_several_scenes_are_not_used(run, archive):
    for folder in ("north", "south"):
        make_geotiff(archive / folder / "a.tif", **SMALL)
    make_geotiff(archive / "b.tif", **SMALL)
    for name in ("a.tif", "b.tif", "b.png"):
        make_geotiff(archive / "labels" / name, **SMALL, driver="PNG" if name == "b.png" else "GTiff")
    result = scanned(run, archive, labels=[str(archive / "labels")])
    assert labels(run) == {"b": "b.png"}
    assert "several scenes are called 'a'" in result.unused_labels[str(archive / "labels" / "a.tif")]
    assert "has the label" in result.unused_labels[str(archive / "labels" / "b.tif")]


def test_labels_of_scenes_of_several_files(run, archive):
    for scene in ("north", "south"):
        for band in (1, 2):
            make_geotiff(archive / scene / f"l7_{band}.tif", **SMALL)
        make_geotiff(archive / scene / "strata.tif", **SMALL)
    pattern = archive / "{scene}" / "l7_{band}.tif"
    scanned(run, pattern, labels=[str(archive / "{scene}" / "strata.tif")])
    assert labels(run) == {"north": "strata.tif", "south": "strata.tif"}
    entry = load_labels(run, "s00000")["north"]
    assert entry.size == (archive / "north" / "strata.tif").stat().st_size
    result = scanned(run, pattern, labels=[str(archive / "none*")])
    assert "matches no label raster" in next(iter(result.broken.values()))


# ------------------------------------------------------------------------------------------------------ speed


def test_a_thousand_headers_take_seconds(run, archive):
    # 1,000 take 2 s on one core; the limit leaves room for a busy machine
    first = make_geotiff(archive / "x0000.tif", **SMALL)
    for number in range(1, 1000):
        os.link(first, archive / f"x{number:04}.tif")
    start = time.perf_counter()
    assert len(scanned(run, archive).added) == 1000
    assert time.perf_counter() - start < 20
