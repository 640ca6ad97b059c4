"""Builds the report: pages, pictures, figures and tables in one folder that needs nothing else to be read."""

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml

from sass.cluster.classes import load_classes
from sass.collection import write_collection
from sass.config import Config
from sass.files import remove, replacing
from sass.manifest import record_archive
from sass.report import figures, pages, tree_figures
from sass.report.changes import change_picture, change_table, changes_of, transition_figure
from sass.report.choice import rows_by_number, scores_by_number, script, small_map, tree_of
from sass.report.collect import Archive, Klass, Scene, gather
from sass.report.confidence import confidence_by_class, confidence_figure
from sass.report.drift import BandDrift, drift_figure, drift_of, farthest
from sass.report.examples import Chip, chips, signatures, unsure
from sass.report.footprints import archive_map, footprints, places
from sass.report.images import (
    PIXELATED_BELOW,
    Rgba,
    Stretch,
    encode,
    paint_classes,
    paint_confidence,
    read_map,
    thumbnail,
)
from sass.report.provenance import PACKAGES
from sass.run import REPORT_FOLDERS, Run
from sass.store import SceneStore

GALLERY = 24
"""Scenes shown with their pictures on the first page."""
CLASS_GALLERY = 48
"""Classes shown with chips, largest first."""
LEAST = 8
"""Scenes named as the least sure."""
ON_THE_MAP = 60
"""Scenes whose pictures are laid on the map of the archive."""
ROWS = 1000
"""Rows of the longest table on a page; the CSV beside it has all."""


class Site:
    """The report's folder, which remembers what was written."""

    def __init__(self, root: Path):
        self.root = root
        self.written: set[Path] = set()

    def write(self, name: str, data: bytes | str) -> str:
        """Write a file and return its address, relative to the report's folder."""
        path = self.root / name
        with replacing(path) as temporary:
            temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        self.written.add(path)
        return quote(name)

    def prune(self) -> None:
        """Remove what an earlier build left in the report's own folders."""
        for folder in REPORT_FOLDERS:
            for path in sorted((self.root / folder).glob("*")):
                if path not in self.written:
                    remove(path)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Addresses of a scene's pictures, relative to the report's folder."""

    quicklook: str
    segments: str
    confidence: str
    width: int
    height: int
    pixelated: bool
    """Small pictures are enlarged with sharp pixels."""
    photo: Rgba
    """The quicklook itself."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Addresses of a figure, relative to the report's folder, and its size on a page."""

    light: str
    dark: str
    csv: str
    width: int
    height: int


def build_report(run: Run, settings: Config, *, archive: list[str], fit: list[str]) -> Path:
    """Write ``RUN/report`` and return its first page.

    Parameters
    ----------
    archive
        Names of all shards.
    fit
        Names of the shards that statistics, encoder and codebook were fitted on.

    Raises
    ------
    SassError
        A file of an earlier stage is missing, or no scene has a map.
    """
    found = gather(run, archive, fit)
    if settings.model.frozen or settings.features.source:
        found = replace(found, training=[])  # what an earlier training left says nothing of these maps
    site = Site(run.report)
    for asset in sorted(resources.files("sass.report").joinpath("static").iterdir(), key=lambda a: a.name):
        site.write(f"static/{asset.name}", asset.read_bytes())
    site.write("static/classes.css", pages.class_css(found.classes))

    stretch = Stretch.of(found.statistics, settings.report.rgb)
    paged = found.scenes[: settings.report.pages]
    pictures = {
        scene.id: _pictures(run, site, scene, found, stretch, settings.report.quicklook) for scene in paged
    }
    scored = pages.scores(found)
    outlines = footprints(found.scenes)
    drifts = {scene.id: drift_of(run, scene.id, found.statistics) for scene in paged}
    choices = rows_by_number(
        found.hierarchy["diagnostics"],
        scores_by_number(run, archive, found.hierarchy, settings.evaluate.class_names),
    )
    plans = _plans(run, found, scored, drifts, choices)
    following = [s for s in archive if settings.change.maps and run.manifest("change", s).exists()]
    changes = changes_of(run, following)
    if changes:
        plans["transitions"] = transition_figure(changes, found.classes)
        site.write("tables/changes.csv", figures.csv_text(change_table(changes)))
    if outlines:
        laid = {s.id: pictures[s.id].photo for s in paged[:ON_THE_MAP] if s.id in outlines}
        plans["archive"] = archive_map(outlines, laid)
    drawn = {name: _drawn(site, name, plan) for name, plan in plans.items()}
    known = [scene for scene in found.scenes if scene.confidence is not None]
    context = {
        "archive": found,
        "settings": settings,
        "paged": paged,
        "gallery": paged[:GALLERY],
        "pictures": pictures,
        "examples": _examples(run, site, found, stretch, settings.report.chips),
        "figures": drawn,
        "outlines": outlines,
        "places": places(plans["archive"][0](figures.LIGHT), outlines, pictures) if outlines else [],
        "tree": _tree(site, found, choices),
        "lines": [panel for panel in tree_figures.PANELS.items() if any(panel[0] in row for row in choices)],
        "maps": {
            s.id: site.write(f"choice/{s.id}.codes.js", script("sassMaps", s.id, small_map(run, s.id)))
            for s in paged
        },
        "sure": np.average([s.confidence for s in known], weights=[max(s.mapped, 1) for s in known]),
        "least": sorted(known, key=lambda s: (s.confidence, s.id))[:LEAST],
        "doubts": _doubts(run, site, found, stretch),
        "changes": changes,
        "change_of": {
            c.scene: (c, _change(run, site, c.scene, found, pictures[c.scene]))
            for c in changes
            if c.scene in pictures
        },
        "drifts": drifts,
        "far": farthest(drifts),
        "scores": scored,
        "tables": _tables(site, found, settings),
        "rows": ROWS,
        "bands": [found.statistics["bands"][b]["name"] for b in stretch.bands],
        "config": as_yaml(settings),
    }
    templates = pages.environment()
    template = templates.get_template("scene.html")
    for i, scene in enumerate(paged):
        around = {
            "previous": paged[i - 1] if i else None,
            "next": paged[i + 1] if i + 1 < len(paged) else None,
        }
        site.write(f"scenes/{scene.id}.html", template.render(context, root="../", scene=scene, **around))
    site.write("index.html", templates.get_template("index.html").render(context, root=""))
    site.prune()
    write_collection(run, archive, settings.report.title, following)
    record_archive(run, "report")
    return run.report / "index.html"


def _pictures(run: Run, site: Site, scene: Scene, found: Archive, stretch: Stretch, side: int) -> Pictures:
    photo = stretch.apply(*thumbnail(SceneStore(run.scene(scene.id)), stretch.bands, side))
    classes = paint_classes(read_map(run, scene, "segments", side), {k.id: k.colour for k in found.classes})
    confidence = paint_confidence(read_map(run, scene, "confidence", side))
    suffix, data = encode(photo, flat=False)
    height, width = photo.shape[:2]
    return Pictures(
        quicklook=site.write(f"quicklooks/{scene.id}.scene.{suffix}", data),
        segments=site.write(f"quicklooks/{scene.id}.segments.png", encode(classes, flat=True)[1]),
        confidence=site.write(f"quicklooks/{scene.id}.confidence.png", encode(confidence, flat=True)[1]),
        width=width,
        height=height,
        pixelated=max(height, width) < PIXELATED_BELOW,
        photo=photo,
    )


def _examples(
    run: Run, site: Site, found: Archive, stretch: Stretch, count: int
) -> list[tuple[Klass, list[tuple[str, Chip]]]]:
    """Return each class of the gallery with the addresses of its chips."""
    ranked = sorted(found.classes, key=lambda k: (-k.pixels, k.id))[:CLASS_GALLERY]
    by_id = {k.id: k for k in ranked}
    examples = []
    for k, cut in chips(run, found.scenes, list(by_id), count, stretch):
        names = [f"chips/{k}-{i}.png" for i in range(1, len(cut) + 1)]
        written = [site.write(name, encode(chip.picture, flat=True)[1]) for name, chip in zip(names, cut)]
        examples.append((by_id[k], list(zip(written, cut))))
    return examples


def _change(run: Run, site: Site, scene: str, found: Archive, like: Pictures) -> str:
    """Write the picture of a change map, as large as those of its scene; return its address."""
    picture = change_picture(run, scene, found.classes, (like.height, like.width))
    return site.write(f"quicklooks/{scene}.change.png", encode(picture, flat=True)[1])


def _doubts(run: Run, site: Site, found: Archive, stretch: Stretch) -> list[tuple[str, Chip]]:
    """Return the least sure places with the addresses of their pictures."""
    cut = unsure(run, found.scenes, LEAST, stretch, {k.id: k.colour for k in found.classes})
    return [
        (site.write(f"chips/unsure-{i}.png", encode(chip.picture, flat=True)[1]), chip)
        for i, chip in enumerate(cut, 1)
    ]


def _plans(
    run: Run,
    found: Archive,
    scored: pages.Scores | None,
    drifts: dict[str, list[BandDrift]],
    choices: list[dict[str, Any]],
) -> dict[str, tuple[figures.Draw, figures.Table]]:
    """Return how each figure is drawn, and its table."""
    n = len(found.classes)
    plans = {
        "areas": figures.areas(found.classes),
        "signatures": figures.signature_lines(
            signatures(run, found.scenes, n, found.statistics), found.classes, found.statistics
        ),
        "tree": tree_figures.tree(found.hierarchy, found.classes, load_classes(run, n).of_code),
        "confidence": confidence_figure(confidence_by_class(run, found.scenes, n), found.classes),
        "drift": drift_figure(drifts, {scene.id for scene in found.scenes if scene.fitted}),
    }
    if choices:
        plans["choice"] = tree_figures.class_choice(choices, n)
    if found.training:
        plans["training"] = figures.training_curves(found.training)
    if scored:
        names = [row.name for row in scored.labels]
        plans["confusion"] = figures.confusion(names, scored.matrix_classes, scored.matrix)
    return plans


def _drawn(site: Site, name: str, plan: tuple[figures.Draw, figures.Table]) -> Drawn:
    """Draw a figure for light and dark pages."""
    draw, table = plan
    light = draw(figures.LIGHT)
    return Drawn(
        light=site.write(f"figures/{name}.png", figures.png(light)),
        dark=site.write(f"figures/{name}-dark.png", figures.png(draw(figures.DARK))),
        csv=site.write(f"figures/{name}.csv", figures.csv_text(table)),
        **dict(zip(("width", "height"), figures.size(light))),
    )


def _tree(site: Site, found: Archive, choices: list[dict[str, Any]]) -> dict[str, int]:
    """Write what the slider needs of the merge tree; return its ends."""
    of_page = tree_of(found, choices)
    site.write("choice/tree.js", script("sassChoice", "tree", of_page))
    return {"codes": found.hierarchy["codes"], "chosen": of_page["chosen"]}


def as_yaml(settings: Config) -> str:
    """Write the configuration in full."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _tables(site: Site, found: Archive, settings: Config) -> dict[str, str]:
    """Write what can be longer than a page, and what a run is made again with; return addresses."""
    scene_scores = found.metrics.get("scenes") or {}
    scenes = [
        [s.id, *s.shape, s.bands, s.dtype, s.crs, int(s.fitted), s.valid, s.mapped, s.confidence,
         *(scene_scores.get(s.id, {}).get(key) for key in ("accuracy", "miou")), s.digest,
         *(s.counts.get(k.id, 0) for k in found.classes)]
        for s in found.scenes
    ]  # fmt: skip
    header = ["scene", "height", "width", "bands", "dtype", "crs", "fitted", "valid", "mapped", "confidence",
              "accuracy", "miou", "digest", *(f"class_{k.id}" for k in found.classes)]  # fmt: skip
    aside = [[a.name, a.stage, a.reason] for a in found.set_aside]
    packages = [f"{name}=={version}\n" for name, version in found.versions.items() if name in PACKAGES]
    return {
        "config": site.write("tables/config.yaml", as_yaml(settings)),
        "requirements": site.write("tables/requirements.txt", "".join(packages)),
        "scenes": site.write("tables/scenes.csv", figures.csv_text((header, scenes))),
        "set_aside": site.write(
            "tables/set-aside.csv", figures.csv_text((["name", "stage", "reason"], aside))
        ),
    }
