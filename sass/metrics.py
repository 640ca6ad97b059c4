"""The arithmetic of scores: confusion counts and one Hungarian match. Nothing here reads a file.

Counts are dictionaries ``{(label, class): pixels}``, with `NO_ANSWER` for pixels the map leaves without a
class. They are added over windows, scenes and shards, and matched once. A pixel without an answer is an
error, and so is a pixel of a class that no label is left for: abstaining never raises the accuracy.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sass.errors import ConfigError

Counts = dict[tuple[int, int], int]
"""Pixels by label id and class."""

NO_ANSWER = -1
"""The class of a pixel without one."""

NO_LABEL = -(2**62)
"""What marks a pixel without a label in an array of label ids; never scored."""


def confusion(
    labels: np.ndarray, classes: np.ndarray, *, ignore: Iterable[int] = (), nodata: float | None = None
) -> Counts:
    """Count the pixels of each pair of label and class.

    Parameters
    ----------
    labels
        Label ids, integer ``(y, x)``, below 2^31 but for `NO_LABEL`.
    classes
        Classes of the map, integer ``(y, x)``; negative ones mean no answer.
    ignore
        Label ids that are not scored.
    nodata
        The class value that means no answer.
    """
    scored = ~np.isin(labels, [NO_LABEL, *ignore])
    truth, answer = labels[scored].astype(np.int64), classes[scored].astype(np.int64)
    silent = answer < 0
    if nodata is not None:
        silent |= answer == nodata
    answer[silent] = NO_ANSWER
    span = int(answer.max(initial=NO_ANSWER)) + 2
    pairs, pixels = np.unique(truth * span + (answer - NO_ANSWER), return_counts=True)
    return {(int(p // span), int(p % span) + NO_ANSWER): int(n) for p, n in zip(pairs, pixels)}


def merge(*counts: Mapping[tuple[int, int], int]) -> Counts:
    """Add counts pair by pair; the order makes no difference."""
    total: Counts = {}
    for part in counts:
        for pair, pixels in part.items():
            total[pair] = total.get(pair, 0) + pixels
    return dict(sorted(total.items()))


def to_rows(counts: Counts) -> list[list[int]]:
    """Return counts as sorted ``[label, class, pixels]``, the form in which JSON holds them."""
    return [[label, cluster, pixels] for (label, cluster), pixels in sorted(counts.items())]


def from_rows(rows: Iterable[Iterable[int]]) -> Counts:
    """Read what `to_rows` gave."""
    return {(label, cluster): pixels for label, cluster, pixels in rows}


def label_ids(counts: Counts, names: Mapping[int, str]) -> list[int]:
    """Return the ids that take part in the match: those with pixels and those with a name, sorted."""
    return sorted({label for label, _ in counts} | set(names))


def match(counts: Counts, labels: list[int]) -> dict[int, int]:
    """Give each label its class by the Hungarian method (Kuhn 1955), most pixels in agreement.

    Returns
    -------
    dict
        Class to label. Where there are more classes than labels, the classes left over are not in it.
    """
    matrix, _, clusters = _matrix(counts, labels)
    rows, columns = linear_sum_assignment(-matrix)
    return {clusters[j]: labels[i] for i, j in zip(rows.tolist(), columns.tolist()) if j < len(clusters)}


def scores(counts: Counts, matching: Mapping[int, int], labels: list[int]) -> dict[str, Any]:
    """Score counts under a given match of classes to labels.

    Returns
    -------
    dict
        ``accuracy``, ``miou`` (mean over the labels that have pixels), ``kappa`` (Cohen 1960; None where
        chance agrees everywhere) and ``answered``, fractions, all None without pixels; ``pixels``; ``iou``
        and ``f1`` by label id, for the labels that have pixels.
    """
    matrix, silent, clusters = _matrix(counts, labels)
    total = matrix.sum(1) + silent
    pixels = int(total.sum())
    if pixels == 0:
        return {**dict.fromkeys(("accuracy", "miou", "kappa", "answered")), "pixels": 0, "iou": {}, "f1": {}}
    hits, claimed = np.zeros(len(labels), np.int64), np.zeros(len(labels), np.int64)
    row = {label: i for i, label in enumerate(labels)}
    for j, cluster in enumerate(clusters):
        if cluster in matching:
            i = row[matching[cluster]]
            hits[i] += matrix[i, j]
            claimed[i] += matrix[:, j].sum()
    union = total + claimed - hits
    iou = hits / np.maximum(union, 1)
    f1 = 2 * hits / np.maximum(total + claimed, 1)
    present = total > 0
    accuracy = float(hits.sum() / pixels)
    chance = sum(int(t) * int(c) for t, c in zip(total, claimed)) / pixels**2
    return {
        "accuracy": accuracy,
        "miou": float(iou[present].mean()),
        "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else None,
        "answered": float(1 - silent.sum() / pixels),
        "pixels": pixels,
        "iou": {labels[i]: float(iou[i]) for i in np.flatnonzero(present)},
        "f1": {labels[i]: float(f1[i]) for i in np.flatnonzero(present)},
    }


def many_to_one(counts: Counts, labels: list[int]) -> dict[str, Any]:
    """Score counts after naming each class by its commonest label: an upper bound that uses labels."""
    matrix, _, clusters = _matrix(counts, labels)
    commonest = {cluster: labels[int(matrix[:, j].argmax())] for j, cluster in enumerate(clusters)}
    result = scores(counts, commonest, labels)
    return {"accuracy": result["accuracy"], "miou": result["miou"], "uses_labels": True}


def table(counts: Counts, labels: list[int], names: Mapping[int, str]) -> dict[str, Any]:
    """Lay counts out to be read.

    ``counts`` has a row for each of ``labels`` and a column for each of ``classes``; ``unanswered`` holds the
    pixels of each label that the map leaves without a class.
    """
    matrix, silent, clusters = _matrix(counts, labels)
    return {
        "labels": list(display_names(labels, names).values()),
        "classes": clusters,
        "counts": matrix[:, : len(clusters)].tolist(),
        "unanswered": silent.tolist(),
    }


def display_names(labels: list[int], names: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each label id, the id itself where none is given.

    Raises
    ------
    ConfigError
        Two ids have one name, so that their scores could not be told apart.
    """
    out = {label: names.get(label, str(label)) for label in labels}
    twice = [name for name, times in Counter(out.values()).items() if times > 1]
    if twice:
        ids = [label for label, name in out.items() if name == twice[0]]
        raise ConfigError(
            f"evaluate.class_names: the ids {ids} share the name {twice[0]!r}, so their scores could not be "
            "told apart; give each id a name of its own"
        )
    return out


def summarise(counts: Counts, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Match classes to labels once and compute every score, in the form of ``report/metrics.json``.

    Parameters
    ----------
    counts
        Counts over the whole archive.
    names
        Names of label ids. A named label without pixels takes part in the match but has no score of its own.
    """
    names = names or {}
    labels = label_ids(counts, names)
    called = display_names(labels, names)
    matching = match(counts, labels)
    result = scores(counts, matching, labels)
    return {
        **{key: result[key] for key in ("accuracy", "miou", "kappa", "answered", "pixels")},
        "iou": {called[label]: value for label, value in result["iou"].items()},
        "f1": {called[label]: value for label, value in result["f1"].items()},
        "classes": len(labels),
        "matching": {str(cluster): called[label] for cluster, label in matching.items()},
        "confusion": table(counts, labels, names),
        "many_to_one": many_to_one(counts, labels),
    }


def _matrix(counts: Counts, labels: list[int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return pixels ``(label, class)``, the unanswered ones ``(label,)`` and the classes of the columns.

    Empty columns are added until there are as many as labels, so that each label can be matched.
    """
    clusters = sorted({cluster for _, cluster in counts if cluster != NO_ANSWER})
    row = {label: i for i, label in enumerate(labels)}
    column = {cluster: j for j, cluster in enumerate(clusters)}
    matrix = np.zeros((len(labels), max(len(clusters), len(labels))), np.int64)
    silent = np.zeros(len(labels), np.int64)
    for (label, cluster), pixels in counts.items():
        if cluster == NO_ANSWER:
            silent[row[label]] += pixels
        else:
            matrix[row[label], column[cluster]] += pixels
    return matrix, silent, clusters
