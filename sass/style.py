"""What a GIS shows of a class raster beside its numbers: names of the classes, and a style for QGIS.

Both stand in files of their own, for a GeoTIFF has no place for them that readers agree on. GDAL, and all
that read by it, take names from ``.aux.xml``; QGIS takes colours and names from ``.qml`` of the same stem,
which rasters of 16 bits need, for they have no colour table.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from sass.colours import Colour
from sass.files import replacing


def write_styles(path: Path, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Write both files of a raster whose values 0, 1, ... have these names and colours."""
    root = Xml.Element("PAMDataset")
    listed = Xml.SubElement(Xml.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in names:
        Xml.SubElement(listed, "Category").text = _written(name)
    _write(path.with_name(f"{path.name}.aux.xml"), root)

    root = Xml.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = Xml.SubElement(
        Xml.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""},
    )
    palette = Xml.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, colours, strict=True)):
        Xml.SubElement(
            palette,
            "paletteEntry",
            {
                "value": str(value),
                "color": f"#{bytes(colour).hex()}",
                "alpha": "255",
                "label": _written(name),
            },
        )
    _write(path.with_suffix(".qml"), root, "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n")


def _written(name: str) -> str:
    """Return a name without the control characters that no XML can hold."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _write(path: Path, root: Xml.Element, head: str = "") -> None:
    Xml.indent(root)
    with replacing(path) as temporary:
        temporary.write_text(head + Xml.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
