"""What was fitted, scored and shown for the whole archive, and the last word on it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from safetensors import safe_open

from sass.files import file_digest, members
from sass.manifest import completion, record_archive
from sass.run import ARCHIVE, ARCHIVE_STAGES, REPORT_FOLDERS
from sass.verify.finding import AGAIN, REMOVED, Finding, Look
from sass.verify.soundness import difference, half_written, header_of, read_sealed, read_sound, readable


def archive_faults(look: Look) -> Iterator[Finding]:
    """Yield what is wrong with what stages have left for the whole archive."""
    damaged = False
    for stage in ARCHIVE_STAGES:
        for finding in _stage_faults(look, stage):
            damaged = True
            yield finding
    if not damaged:
        yield from _mismatches(look)


def _stage_faults(look: Look, stage: str) -> Iterator[Finding]:
    run = look.run
    watched, *_ = run.outputs(stage)
    path = run.archive_record(stage)
    again = (run.manifest(stage, ARCHIVE), path, watched)
    record, wrong = read_sealed(path)
    if record is None:
        if watched.exists() or path.exists():
            yield _unrecorded(look, stage, again, wrong)
        return
    files = {name: run.root / name for name in record["files"]}
    there = {name: file for name, file in files.items() if file.exists()}
    found = look.measure({stage: there}, () if look.quick else (stage,))[stage]
    for name, said in record["files"].items():
        wrong, file = difference(said, found.get(name)), files[name]
        if not wrong or (file == run.checkpoint and not file.exists()):
            continue  # a training that is finished needs its checkpoint no more
        if file == run.checkpoint:
            effect = "a training that takes it up goes astray"
            yield look.finding(stage, file, wrong, effect, REMOVED, (file,))
        elif file == run.training_log:
            effect = "the report shows another training"
            remedy = "no repair makes it, for that takes a new training: remove the folder model/ to have one"
            yield look.finding(stage, file, wrong, effect, remedy)
        else:
            effect = "what was made with it, or shows it, was of something else"
            yield look.finding(stage, file, wrong, effect, AGAIN, (*again, file))
    if stage == "report":
        folders = (*(run.report / name for name in REPORT_FOLDERS), run.stac)
        inside = [p for folder in folders for p in members(folder).values()]
        for stray in (p for p in inside if look.name(p) not in files and not half_written(p.name)):
            effect = "nobody can say what it shows"
            yield look.finding(stage, stray, "belongs to no stage", effect, REMOVED, (stray,))


def _unrecorded(look: Look, stage: str, again: tuple[Path, ...], wrong: str) -> Finding:
    """Say that a record is lost. What can be read is taken as it stands, for to fit it takes long."""
    _, path, watched = again
    if not readable(watched):
        effect = "what comes after it cannot be made"
        return look.finding(stage, watched, "cannot be read", effect, AGAIN, again)
    effect = f"nobody can say whether {look.name(watched)} is as it was made"
    remedy = "a repair takes that as it stands; if you doubt it, remove both"
    return look.finding(stage, path, wrong, effect, remedy, mends=partial(record_archive, look.run, stage))


def _mismatches(look: Look) -> Iterator[Finding]:
    """Hold what was fitted against what it was fitted with, as far as it says so itself."""
    run = look.run
    statistics, tree = read_sound(run.statistics)[0], read_sound(run.hierarchy)[0]
    encoder, baselines = (header_of(path) or {} for path in (run.encoder, run.baselines))
    matches = {
        "train": statistics is None or encoder.get("statistics", statistics) == statistics,
        "baselines": statistics is None or baselines.get("statistics") in (None, file_digest(run.statistics)),
        "hierarchy": tree is None or not run.codebook.exists() or tree["sizes"] == _sizes(run.codebook),
    }
    for stage in (stage for stage, same in matches.items() if not same):
        wrong, effect = "was fitted with other files than stand before it", "maps and scores are of both"
        remedy = f"put back the file that it belongs to, or fit it anew: snakemake --forcerun {stage}"
        yield look.finding(stage, run.outputs(stage)[0], wrong, effect, remedy)


def _sizes(codebook: Path) -> list[int]:
    with safe_open(codebook, framework="numpy") as file:
        return file.get_tensor("sizes").tolist()


def last_word(look: Look, shards: list[str]) -> Iterator[Finding]:
    """Yield what is wrong with the word that all stands; a note if a scan or a stage has come after it."""
    path = look.run.complete
    if not path.exists():
        return
    tree, wrong = read_sealed(path)
    if wrong:
        effect = "it says nothing of the run"
        yield look.finding("complete", path, wrong, effect, "the next run says it anew", (path,))
    elif tree != completion(look.run, shards):
        wrong, effect = "is of other manifests than stand here", "scores and report may be of other maps"
        yield look.finding("complete", path, wrong, effect, "run the workflow once more", fault=False)
