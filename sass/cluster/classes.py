"""Classes: which codes make up each class of the maps, and what it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sass.cluster.hierarchy import cut
from sass.errors import SassError
from sass.files import file_digest, read_json
from sass.run import Run

UNNAMED = "unnamed"
"""The last class of named maps: codes that nobody has said enough about."""


@dataclass(frozen=True)
class Classes:
    """The classes of the maps.

    ``of_code``, the class of each code, int64 ``(K)``; ``names``, those of the classes, empty where they are
    mere numbers.
    """

    of_code: np.ndarray
    count: int
    names: tuple[str, ...] = ()

    @classmethod
    def of_tree(cls, tree: dict[str, Any], n: int) -> "Classes":
        """Cut the merge tree (``hierarchy.json``) into ``n`` classes without names."""
        if n > tree["codes"]:
            raise SassError(f"{n} classes cannot be made of {tree['codes']} codes; lower segment.classes")
        return cls(cut(tree["merges"], tree["sizes"], n, tree["smallest"]), n)

    @classmethod
    def of_names(cls, chosen: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> "Classes":
        """Make a class of each name that some code has, largest first, and one of all codes without.

        Parameters
        ----------
        chosen
            Index of each code's name, ``(K)``; -1 without one.
        """
        area = np.bincount(chosen + 1, sizes, minlength=len(names) + 1)[1:]
        met = sorted(set(chosen[chosen >= 0].tolist()), key=lambda i: (-area[i], names[i]))
        number = {name: label for label, name in enumerate(met)} | {-1: len(met)}
        of_code = np.array([number[i] for i in chosen.tolist()], np.int64)
        called = [names[i] for i in met] + [UNNAMED] * bool((chosen < 0).any())
        return cls(of_code, len(called), tuple(called))


def load_classes(run: Run, n: int) -> Classes:
    """Return the classes of a run: those that `sass name` has given names, else ``n`` cut from the tree.

    Raises
    ------
    SassError
        The names were given to the codes of another codebook.
    """
    if not run.names.exists():
        return Classes.of_tree(read_json(run.hierarchy), n)
    held = read_json(run.names)
    if held["codebook"] != file_digest(run.codebook):
        raise SassError(
            f"{run.names} names the codes of another codebook, so its names mean nothing now: run `sass name "
            f"{run.root}` to name these codes by the same places, or `sass name {run.root} --forget`"
        )
    return Classes(np.array(held["of_code"], np.int64), len(held["names"]), tuple(held["names"]))
