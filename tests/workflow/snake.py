"""Running the workflow on small runs: a catalog by hand to plan with, and Snakemake as users call it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sass.files import write_json
from sass.run import Run

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    text: str

    @property
    def jobs(self) -> dict[str, int]:
        """Rule to number of jobs, from the table that Snakemake prints before anything runs."""
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total ", self.text, re.MULTILINE | re.DOTALL)
        rows = (line.split() for line in table.group(1).splitlines()) if table else ()
        return {rule: int(count) for rule, count in rows if rule != "all"}

    @property
    def steps(self) -> list[tuple[Path, list[str]]]:
        """The output of each planned job and the words of its command, to be had with ``-p``."""
        pattern = r"^    output: (\S+)$(?:.*\n)+?Shell command: (sass|python -m sass.launch) (.*) > \S+ 2>&1$"
        return [
            (Path(output), _alone(shlex.split(words)) if "launch" in how else shlex.split(words))
            for output, how, words in re.findall(pattern, self.text, re.MULTILINE)
        ]


def _alone(words: list[str]) -> list[str]:
    """Return what `sass.launch` calls for a single process: ``--nodes 1 --gpus 0 --threads N train ...``."""
    assert words[:5] == ["--nodes", "1", "--gpus", "0", "--threads"]
    return [*words[6:], "--threads", words[5]]


def command(*arguments: str | Path, inside: Path = CHECKOUT, checkout: Path = CHECKOUT) -> Done:
    """Run a module of this interpreter as a user does, one thread for each numerical library."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(words, cwd=inside, env=environment, capture_output=True, text=True)
    return Done(done.returncode, done.stdout + done.stderr)


def sass(folder: Path, *arguments: str | Path) -> Done:
    """Call the command line inside a folder."""
    return command("sass", *arguments, inside=folder)


def snakemake(folder: Path, *arguments: str | Path, checkout: Path = CHECKOUT) -> Done:
    """Call Snakemake in the checkout, as users do, on ``run`` in a folder, where its own notes go too."""
    words = ["--directory", folder, "--config", "run=run", *arguments]
    return command("snakemake", *words, inside=checkout, checkout=checkout)


def started(folder: Path, *arguments: str | Path) -> subprocess.Popen:
    """Start Snakemake on ``run`` in a folder, silently; it and its jobs are a group that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--directory", folder, *arguments, "--config", "run=run"],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def write_catalog(folder: Path, shards: dict[str, tuple[bool, int, int]]) -> Run:
    """Write a catalog of scenes that are not there: shard to (fit, scenes, labels)."""
    run = Run(folder / "run")
    index = {}
    for shard, (fit, scenes, labels) in shards.items():
        index[shard] = {"fit": fit, "scenes": scenes, "labels": labels, "pixels": 10_000 * scenes}
        write_json(run.catalog_shard(shard), {"shard": shard, "scenes": []})
        write_json(run.catalog_labels(shard), {"shard": shard, "scenes": {}})
    write_json(run.catalog, {"shards": index})
    return run


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, in which commands are given word for word as the documentation has them."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def copy_into(cls, folder: Path, environment: Mapping[str, str]) -> "Checkout":
        """Copy what a run needs of this checkout, its link `slurm` too."""
        left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "results", "tests", "bench")
        shutil.copytree(CHECKOUT, folder / "checkout", symlinks=True, ignore=left_out)
        own = {"PYTHONPATH": str(folder / "checkout"), "OMP_NUM_THREADS": "1"}
        return cls(folder / "checkout", {**environment, **own})

    def edit_profile(
        self, name: str, resources: dict[str, dict[str, int | str]], threads: dict[str, int] | None = None
    ) -> None:
        """Give rules other resources and threads in a profile; a command line would replace all it says."""
        path = self.folder / "profiles" / name / "profile.yaml"
        profile = yaml.safe_load(path.read_text())
        for rule, own in resources.items():
            profile["set-resources"].setdefault(rule, {}).update(own)
        if threads:
            profile["set-threads"] = threads
        path.write_text(yaml.safe_dump(profile))

    def give(self, *words: str | Path) -> Done:
        """Give a command of this interpreter's packages."""
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return Done(done.returncode, done.stdout + done.stderr)
