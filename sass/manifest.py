"""Deterministic records of what was made: what Snakemake sees, and what a rerun trusts.

A shard's job does its scenes one after the other. Each finished scene leaves a record with the
fingerprint of all that determines its output; a rerun skips the scenes whose fingerprint stands. When
all are done, the records are gathered into the shard's manifest, the file that Snakemake watches. It
holds no clock, no host and no path, so equal work gives equal bytes. What is fitted on the archive has a
record and a manifest in the same way.

A record also names every file of what was made, with its size and digest; the manifest leaves that out, to
stay small. So `sass.verify` can say which file is not as it was written.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sass.errors import SassError, SceneError
from sass.files import Files, contents, digest, file_digest, read_json, remove, sealed, write_json
from sass.lock import alone
from sass.progress import progress, say
from sass.run import ARCHIVE, SHARD_STAGES, Run

Record = dict[str, Any]
UNHASHED = {"segment": ("item.json",)}
"""Files that no digest of a scene counts: they name paths of the archive, and no stage reads them."""


def payload_digest(stage: str, files: Files) -> str:
    """Return what changes when the data do that a stage has made of a scene."""
    return digest({name: held for name, held in files.items() if name not in UNHASHED.get(stage, ())})


def record_archive(run: Run, stage: str, fingerprint: str | None = None) -> None:
    """Write down what a stage on the whole archive has left, once all of it stands."""
    files = {
        (path if path.is_file() else path / name).relative_to(run.root).as_posix(): held
        for path in run.outputs(stage)
        for name, held in contents(path).items()
    }
    record = {"stage": stage, "fingerprint": fingerprint, "files": files}
    write_json(run.archive_record(stage), sealed(record))


@dataclass
class Outcome:
    """What a stage did with the scenes of one shard."""

    stage: str
    shard: str
    computed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.stage} {self.shard}: {len(self.computed)} computed, {len(self.kept)} up to date, "
            f"{len(self.failed)} set aside"
        )


def run_shard(
    run: Run,
    stage: str,
    shard: str,
    scenes: dict[str, str],
    payload: Callable[[str], Path],
    work: Callable[[str], Record],
    threads: int = 1,
) -> Outcome:
    """Bring the scenes of a shard up to date and write the shard's manifest.

    Parameters
    ----------
    scenes
        Scene id to fingerprint: a hash of everything that determines the scene's output.
    payload
        Where a scene's output stands; removed for scenes that have left the shard or have failed.
    work
        Makes the payload of one scene and returns what the manifest shall say of it; its digest is added
        here. It raises `SceneError` to set the scene aside.
    threads
        Threads that digest what was made.

    Raises
    ------
    SassError
        Another process is at work on the same shard.
    """
    with alone(run.manifest(stage, shard), f"{stage} {shard} of {run.root}"):
        outcome = Outcome(stage, shard)
        records: dict[str, Record] = {}
        for scene, fingerprint in progress(sorted(scenes.items()), len(scenes), f"{stage} {shard}"):
            path, made = run.record(stage, shard, scene), payload(scene)
            record = standing(path, fingerprint, made)
            if record is None:
                path.unlink(missing_ok=True)
                try:
                    record = {"fingerprint": fingerprint, **work(scene)}
                    files = contents(made, threads)
                    record |= {"digest": payload_digest(stage, files), "files": files}
                except SceneError as error:
                    remove(made)
                    outcome.failed[scene] = str(error)
                    say(f"{stage}: scene {scene} is set aside: {error}")
                    continue
                write_json(path, sealed(record))
                outcome.computed.append(scene)
            else:
                outcome.kept.append(scene)
            records[scene] = gathered(record)
        folder = run.manifest(stage, shard).with_suffix("")
        for stale in sorted(
            p for p in folder.glob("*.json") if p.stem not in records and not p.name.startswith(".")
        ):
            if stale.stem not in outcome.failed:
                remove(payload(stale.stem))
            stale.unlink()
        write_json(
            run.manifest(stage, shard),
            sealed({"stage": stage, "shard": shard, "scenes": records, "failed": outcome.failed}),
        )
        say(str(outcome))
    return outcome


def gathered(record: Record) -> Record:
    """Return what the manifest of a shard says of a scene."""
    return {key: value for key, value in record.items() if key not in ("files", "seal")}


def run_archive(
    run: Run, stage: str, fingerprint: str, work: Callable[[], object], *, writes: bool = True
) -> Outcome:
    """Bring the one output of a stage that works on the whole archive up to date, and write its manifest.

    Snakemake watches the manifest, not the output: it compares the content of small files only, and a large
    one that was merely touched would make everything after it stale.

    Parameters
    ----------
    fingerprint
        A hash of everything that determines the output.
    work
        Makes it.
    writes
        Whether this process writes; of several that work together, one does.
    """
    payload, path = run.outputs(stage)[0], run.archive_record(stage)
    outcome = Outcome(stage, ARCHIVE)
    with alone(run.manifest(stage, ARCHIVE), f"{stage} of {run.root}") if writes else nullcontext():
        if standing(path, fingerprint, payload):
            outcome.kept.append(payload.name)
        else:
            if writes:
                path.unlink(missing_ok=True)
            work()
            if writes:
                record_archive(run, stage, fingerprint)
            outcome.computed.append(payload.name)
        if writes:
            said = read_json(path)["files"][payload.relative_to(run.root).as_posix()]
            write_json(run.manifest(stage, ARCHIVE), {"stage": stage, "digest": said[1]})
            say(str(outcome))
    return outcome


def digests(run: Run, stage: str, shards: list[str]) -> list[tuple[str, str]]:
    """Return scene and digest of what stands after a stage, in the order of the shards."""
    return [
        (name, r["digest"]) for shard in shards for name, r in sorted(scenes_of(run, stage, shard).items())
    ]


def standing(path: Path, fingerprint: str, payload: Path) -> Record | None:
    """Return a record if it has the fingerprint and its payload is there."""
    try:
        record = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    return record if record.get("fingerprint") == fingerprint and payload.exists() else None


def scenes_of(run: Run, stage: str, shard: str) -> dict[str, Record]:
    """Return the records of the scenes that stand after a stage, by scene id.

    Raises
    ------
    SassError
        The stage has not been run on the shard.
    """
    return read_json(needed(run.manifest(stage, shard), f"sass {stage} {run.root} --shard {shard}"))["scenes"]


def needed(path: Path, command: str) -> Path:
    """Return a path that must be there already, or say which command makes it."""
    if not path.exists():
        raise SassError(f"{path} is not there yet: run `{command}` first")
    return path


def completion(run: Run, shards: list[str]) -> dict[str, Any]:
    """Return what ``manifests/complete.json`` says when all shards stand as they do now."""
    stages = {
        stage: {shard: file_digest(path) for shard in shards if (path := run.manifest(stage, shard)).exists()}
        for stage in SHARD_STAGES
    }
    return sealed({"manifests": digest(stages), "shards": len(shards)})


def failures(run: Run, shards: list[str], stages: tuple[str, ...]) -> dict[str, str]:
    """Return scene id to '<stage>: <reason>' of all scenes set aside."""
    out: dict[str, str] = {}
    for stage in stages:
        for shard in shards:
            path = run.manifest(stage, shard)
            if path.exists():
                out |= {scene: f"{stage}: {reason}" for scene, reason in read_json(path)["failed"].items()}
    return dict(sorted(out.items()))
