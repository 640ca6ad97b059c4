"""Running the workflow on small runs: a catalog by hand to plan with, and Snakemake as users call it."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sass.manifest import write_json
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
        pattern = r"^    output: (\S+)$(?:.*\n)+?Shell command: sass (.*) > \S+ 2>&1$"
        return [(Path(o), shlex.split(words)) for o, words in re.findall(pattern, self.text, re.MULTILINE)]


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
