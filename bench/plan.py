"""What Snakemake takes to find that nothing is to be done."""

import shutil
import statistics

from bench.dag import finish, write_archive, write_manifests
from bench.dag import plan as words
from bench.machine import command
from bench.ratio import Row
from bench.stages import Subject
from sass.config import Catalog
from sass.run import Run

SCENES, SHARD_SIZE = 6, 3
"""Of an archive like the demo's."""


def plan(subject: Subject) -> list[Row]:
    """Plan an archive where all stands, and only start Python and import Snakemake, in turn."""
    folder = subject.folder / "plan"
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder / "run")
    write_manifests(run, write_archive(run, SCENES, Catalog(shard_size=SHARD_SIZE)))
    finish(run, folder)
    pairs = []
    for _ in range(subject.times + 1):
        planned, text = command(*words(folder), "-n")
        assert "Nothing to be done" in text, text[-2000:]
        pairs.append((planned, command("-c", "import snakemake.cli")[0]))
    rows = []
    for key, name in (("wall_s", "wall clock"), ("cpu_s", "CPU")):
        more = [planned[key] - bare[key] for planned, bare in pairs[1:]]  # the first warms the disk's cache
        ours, bare = (statistics.median(pair[i][key] for pair in pairs[1:]) for i in (0, 1))
        rows.append(
            Row(
                "plan",
                f"seconds beyond the import, {name}",
                statistics.median(more),
                "import snakemake.cli",
                1.0,
                "<=",
                ours=ours,
                bare=bare,
                unit="s",
                spread=(min(more), max(more), len(more)),
            )
        )
    return rows
