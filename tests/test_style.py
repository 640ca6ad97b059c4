"""Names and colours as GDAL's own tools and QGIS's style files have them."""

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from builders import UTM

from sass.cog import new_classes
from sass.colours import class_colours

NAMES = ("water", "Gräser & <Moor>", 'a "quoted"\nname')


PLAIN = {name: value for name, value in os.environ.items() if name != "GDAL_SKIP"}
"""The environment of a user's shell: drivers that this package does without are not known to every GDAL."""


@pytest.fixture(params=[3, 300], ids=["8 bits", "16 bits"])
def raster(request, tmp_path) -> Path:
    """Write a raster of the three named classes, and of many more."""
    path = tmp_path / "segments.tif"
    names = [*NAMES, *(f"class {c}" for c in range(3, request.param))]
    with new_classes(path, (40, 50), UTM, request.param, names) as target:
        target.write(np.arange(2000).reshape(40, 50).astype(target.target.dtypes[0]) % 3)
    return path


def test_qgis_finds_colours_and_names_beside_the_raster(raster):
    style = Xml.parse(raster.with_suffix(".qml")).getroot()
    renderer = style.find("pipe/rasterrenderer")
    assert (style.tag, renderer.get("type"), renderer.get("band")) == ("qgis", "paletted", "1")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [entry.get("value") for entry in entries] == [str(value) for value in range(len(entries))]
    assert [entry.get("label") for entry in entries[:3]] == ["water", "Gräser & <Moor>", 'a "quoted" name']
    colours = class_colours(len(entries), [entry.get("label") for entry in entries])
    for entry, colour in zip(entries, colours):
        assert entry.get("color") == "#{:02x}{:02x}{:02x}".format(*colour)


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="GDAL's own tools are not installed")
def test_gdal_reads_the_names(raster):
    done = subprocess.run(["gdalinfo", raster], capture_output=True, text=True, check=True, env=PLAIN)
    said = [line.strip() for line in done.stdout.splitlines()]
    start = said.index("Categories:") + 1
    assert said[start : start + 3] == ["0: water", "1: Gräser & <Moor>", '2: a "quoted" name']
    assert "Description = class" in said
    assert done.stderr == ""


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="GDAL's own tools are not installed")
def test_statistics_that_a_gis_keeps_beside_the_raster_leave_its_names(raster):
    subprocess.run(["gdalinfo", "-stats", raster], capture_output=True, check=True)
    written = raster.with_name("segments.tif.aux.xml").read_text()
    assert "STATISTICS_MEAN" in written
    assert "water" in written
