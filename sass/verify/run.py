"""Verify: holds the catalog, the manifests and the bytes of a run against each other, and names every fault.

Snakemake watches small manifests and does not see that a store was damaged. Here every file is read and
compared with what its stage wrote down when it was made. A repair removes what must be made again: the next
run of the workflow finds that missing, and all else standing.
"""

from collections.abc import Iterator

from sass.errors import SassError
from sass.verify.archive import archive_faults, last_word
from sass.verify.catalog import read_index, read_shard, sources
from sass.verify.finding import Finding, Look
from sass.verify.foreign import foreign
from sass.verify.shards import shard_faults


def verify(look: Look, only: str | None = None) -> Iterator[Finding]:
    """Yield all that is wrong with one shard, or with all shards and what stands for the whole archive.

    Raises
    ------
    SassError
        The run has no catalog, or no such shard.
    """
    index, faults = read_index(look)
    yield from faults
    if index is None:
        return
    if only is not None and only not in index:
        raise SassError(f"there is no shard {only}; the catalog has {', '.join(index) or 'none'}")
    scenes: set[str] | None = set()
    outdated = False
    for shard in [only] if only else index:
        rows, labels, faults = read_shard(look, shard, index[shard])
        yield from faults
        if rows is None:
            scenes = None  # what this shard holds must not be taken for foreign
            continue
        if scenes is not None:
            scenes |= rows.keys()
        look.scenes += len(rows)
        yield from sources(look, rows, labels or {})
        for finding in shard_faults(look, shard, rows, labels):
            outdated = True
            yield finding
    if only is None:
        yield from archive_faults(look)
        yield from foreign(look, index, scenes)
        if not outdated:  # else the last word goes with the repair, whatever it says
            yield from last_word(look, list(index))
