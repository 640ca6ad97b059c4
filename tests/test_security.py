"""What hostile input cannot do: have code run, reach other machines, leave the run's folder."""

import ast
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import add_codes, add_features, make_run, ramps
from scenes import make_geotiff
from scipy.io import netcdf_file

from sass.catalog import load_index, load_shard
from sass.cli import main
from sass.config import Catalog, Features
from sass.errors import ConfigError, SassError
from sass.features import features_shard
from sass.run import Run
from sass.scan import scan
from sass.settings import assignment, load

CHECKOUT = Path(__file__).parents[1]
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "marshal.loads", "shelve.open",
    "dill.loads", "joblib.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "eval", "exec",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp",
}  # fmt: skip
ALLOWED = {("sass/workers.py", "pickle.loads")}
"""Workers of a cluster unpack the function that their own run has packed, over TLS with a key of that run."""


def calls(path: Path):
    """Yield the dotted name and the keywords of each call in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_nothing_unpickles_runs_text_or_starts_a_shell():
    seen, wrong = 0, []
    for path in sorted([*CHECKOUT.glob("sass/**/*.py"), *CHECKOUT.glob("bench/**/*.py")]):
        name = path.relative_to(CHECKOUT).as_posix()
        for call, words in calls(path):
            seen += 1
            safe = call == "torch.load" and words.get("weights_only") == "True"
            if call in FORBIDDEN and not safe and (name, call) not in ALLOWED:
                wrong.append((name, call))
            if words.get("shell", "False") != "False" or words.get("allow_pickle", "False") != "False":
                wrong.append((name, call))
    assert wrong == []
    assert seen > 3000


class Harmful:
    """A pickle that leaves a trace if anybody loads it."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["encoder", "codebook"])
def test_a_pickle_in_the_place_of_weights_is_refused_and_not_run(tmp_path, capsys, name):
    run = make_run(tmp_path / "run", {"s00000": {"a": ramps((64, 64))}})
    add_features(run, ["s00000"])
    add_codes(run, ["s00000"])
    place = getattr(run, name)
    place.write_bytes(pickle.dumps(Harmful(tmp_path / "harmed")))
    stage = {"encoder": "features", "codebook": "segment"}[name]
    assert main([stage, str(run.root), "--shard", "s00000", "--threads", "1"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is damaged or is no safetensors file" in said and f"sass verify {run.root}" in said
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_embeddings_whose_codec_unpickles_are_refused_and_not_run(tmp_path, place):
    run = make_run(tmp_path / "run", {"s00000": {"a": ramps((64, 64))}})
    array = tmp_path / "a.zarr" / "embedding"
    array.mkdir(parents=True)
    codec = {"id": "pickle", "protocol": 5}
    codecs = {"filters": None, "compressor": None} | {place: [codec] if place == "filters" else codec}
    about = {"zarr_format": 2, "shape": [4, 16, 16], "chunks": [4, 16, 16], "dtype": "|u1", "fill_value": 0}
    (array.parent / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (array / ".zarray").write_text(json.dumps(about | codecs | {"order": "C"}))
    (array / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["embedding", "y", "x"]}))
    (array / "0.0.0").write_bytes(pickle.dumps(Harmful(tmp_path / "harmed")))
    outcome = features_shard(run, "s00000", Features(source=f"{tmp_path}/{{scene}}.zarr"), 1)
    assert "cannot be opened (No Zarr data type found" in outcome.failed["a"]
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [harmed]", "!!python/name:os.system"])
def test_yaml_makes_plain_data_only(tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"run: {tag}\n")
    with pytest.raises(ConfigError, match="not YAML"):
        load(Path("c.yaml"))
    with pytest.raises(ConfigError, match="not YAML"):
        assignment(f"run={tag}")
    assert not Path("harmed").exists()


LISTENER = """
import http.server, sys, threading, warnings
warnings.simplefilter("ignore")
hits = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hits.append(self.path)
        self.send_error(404)
    do_HEAD = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/x.tif"
if sys.argv[1] == "closed":
    import sass.gdal
import rasterio
options = dict(GDAL_HTTP_TIMEOUT=5, AWS_NO_SIGN_REQUEST="YES", AWS_HTTPS="NO", AWS_VIRTUAL_HOSTING="FALSE",
               AWS_S3_ENDPOINT=f"127.0.0.1:{server.server_port}")
sources = ["/vsicurl/" + url, "/vsicurl_streaming/" + url, url, "/vsis3/b/x.tif", "WMS:" + url, "WCS:" + url,
           "/vsigzip//vsicurl/" + url, "/vsisubfile/0_10,/vsicurl/" + url]
found = []
for source in sources:
    text = ('<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
            f'<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>')
    open("v.vrt", "w").write(text)
    hits.clear()
    with rasterio.Env(**options):
        try:
            with rasterio.open("v.vrt") as raster:
                raster.files, raster.read()
        except Exception:
            pass
    found.append(len(hits))
print(found)
"""


@pytest.mark.parametrize("way", ["open", "closed"])
def test_gdal_itself_reaches_no_other_machine(tmp_path, way):
    """The second wall: these VRTs are opened without being checked first."""
    done = subprocess.run(
        [sys.executable, "-c", LISTENER, way],
        cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    hits = json.loads(done.stdout)
    assert len(hits) == 8
    assert (all(hits) and way == "open") or (not any(hits) and way == "closed")


FORMATS = """
import sys, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "closed":
    import sass.gdal
import rasterio
for name in sys.argv[2:]:
    try:
        with rasterio.open(name) as raster:
            print(raster.driver)
    except rasterio.errors.RasterioIOError:
        print("none")
"""


@pytest.mark.parametrize(("way", "drivers"), [("open", ["netCDF", "GTiff"]), ("closed", ["none", "GTiff"])])
def test_gdal_knows_no_format_of_a_library_of_its_own(tmp_path, way, drivers):
    """A file that claims to be a TIFF may hold anything, and GDAL looks for itself."""
    with netcdf_file(tmp_path / "claimed.tif", "w") as file:
        file.createDimension("y", 4)
        file.createDimension("x", 4)
        file.createVariable("band", "f4", ("y", "x"))[:] = 1
    make_geotiff(tmp_path / "good.tif")
    done = subprocess.run(
        [sys.executable, "-c", FORMATS, way, "claimed.tif", "good.tif"],
        cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.split() == drivers


def test_a_scan_asks_for_nothing_over_the_network(tmp_path):
    make_geotiff(tmp_path / "good.tif")
    result = scan(
        Run(tmp_path / "run"),
        [str(tmp_path / "good.tif"), "https://example.com/a.tif", "/vsizip/a.zip/a.tif", "s3://bucket/a.tif"],
        settings=Catalog(),
    )
    assert result.added == ["good"]
    assert all("another machine or inside an archive" in reason for reason in result.broken.values())
    assert len(result.broken) == 3


@pytest.mark.parametrize("name", ["../../outside", "/etc/x", "..", "a/b", "a\nb", ""])
def test_a_catalog_that_leads_out_of_the_run_is_refused(tmp_path, name):
    make_geotiff(tmp_path / "a.tif")
    run = Run(tmp_path / "run")
    scan(run, [str(tmp_path / "a.tif")], settings=Catalog())
    shard, index = run.catalog_shard("s00000"), run.catalog
    whole = shard.read_text(), index.read_text()
    shard.write_text(re.sub('"id": "a"', f'"id": {json.dumps(name)}', whole[0]))
    with pytest.raises(SassError, match="missing or damaged"):
        load_shard(run, "s00000")
    index.write_text(whole[1].replace('"s00000"', json.dumps(name)))
    with pytest.raises(SassError, match="missing or damaged"):
        load_index(run)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "<script>", "a\nb", "$(touch x)"])
def test_an_id_of_a_list_stays_inside_the_run(tmp_path, name):
    make_geotiff(tmp_path / "a.tif")
    quoted = name.replace('"', '""')
    (tmp_path / "list.csv").write_text(f'path,id\na.tif,"{quoted}"\n')
    run = Run(tmp_path / "run")
    (scene,) = scan(run, [str(tmp_path / "list.csv")], settings=Catalog()).added
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", scene)
    for place in (
        run.scene(scene),
        run.features(scene),
        run.segments(scene),
        run.record("ingest", "s0", scene),
    ):
        assert place.resolve().is_relative_to(run.root.resolve())
