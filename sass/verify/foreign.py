"""What lies in a run's folders and belongs to nothing."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sass.run import ARCHIVE, ARCHIVE_STAGES, REPORT_FOLDERS, SHARD_STAGES
from sass.verify.finding import LEFT, REMOVED, Finding, Look
from sass.verify.soundness import half_written

GONE_SHARD = "is of a shard that is not in the catalog"
GONE_SCENE = "is of a scene that is not in the catalog"


def foreign(look: Look, shards: Collection[str], scenes: Collection[str] | None) -> Iterator[Finding]:
    """Yield what belongs to nothing and what was left half-written.

    What looks like a stage's own, of a shard or scene that is gone, goes with a repair; all else is left to
    whoever put it there.

    Parameters
    ----------
    shards
        All shards of the catalog.
    scenes
        All scenes of the catalog; None if it is damaged, and nothing must be taken for foreign.
    """
    run = look.run
    for folder in (run.root, run.catalog.parent, run.report, *(run.report / name for name in REPORT_FOLDERS)):
        yield from _stray(look, folder, lambda name: True)
    own = {"manifests": {*SHARD_STAGES, *ARCHIVE_STAGES, "complete.json"}}
    outputs = [path for stage in ARCHIVE_STAGES for path in run.outputs(stage)]
    for folder in ("model", "codebook", "names", "baselines"):
        own[folder] = {path.name for path in (*outputs, run.places) if path.parent.name == folder}
    for stage in ARCHIVE_STAGES:
        own[f"manifests/{stage}"] = {ARCHIVE, f"{ARCHIVE}.json"}
        own[f"manifests/{stage}/{ARCHIVE}"] = {run.archive_record(stage).name}
    for folder, names in own.items():
        yield from _stray(look, run.root / folder, names.__contains__)

    tables = {f"{shard}.json" for shard in shards}
    for folder in ("catalog/shards", "catalog/labels", "catalog/earlier"):
        yield from _stray(look, run.root / folder, tables.__contains__, GONE_SHARD, _like_a_shard)
    for stage in SHARD_STAGES:
        folder = run.root / "manifests" / stage
        yield from _stray(look, folder, {*tables, *shards}.__contains__, GONE_SHARD, _like_a_shard)
        for shard in shards:
            yield from _stray(look, folder / shard, lambda name: name.endswith(".json"))
        place, suffix = run.payload(stage, "x").parent, run.payload(stage, "x").suffix
        if scenes is None:
            yield from _stray(look, place, lambda name: True)
            continue

        def belongs(name: str, suffix: str = suffix) -> bool:
            return name.endswith(suffix) and name.removesuffix(suffix) in scenes

        def like_a_scene(path: Path, suffix: str = suffix) -> bool:
            return path.suffix == suffix if suffix else path.is_dir()

        yield from _stray(look, place, belongs, GONE_SCENE, like_a_scene)


def _like_a_shard(path: Path) -> bool:
    return re.fullmatch(r"s\d+(\.json)?", path.name) is not None


def _stray(
    look: Look,
    folder: Path,
    belongs: Callable[[str], bool],
    gone: str = "",
    ours: Callable[[Path], bool] = lambda path: False,
) -> Iterator[Finding]:
    """Yield what does not belong in a folder; ``gone`` says what that is of which looks like ``ours``."""
    about = look.name(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if half_written(path.name):
            effect = "it takes room and nobody finishes it"
            yield look.finding(about, path, "was left half-written", effect, REMOVED, (path,))
        elif not belongs(path.name):
            effect = "it takes room and no stage counts with it"
            if ours(path):
                yield look.finding(about, path, gone, effect, REMOVED, (path,))
            else:
                yield look.finding(about, path, "belongs to no stage", effect, LEFT)
