"""The hierarchy: a merge tree over codes, from which classes for any n are read in no time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, silhouette_score

from sass.cluster.codebook import Codes, nearest_two
from sass.config import Hierarchy
from sass.manifest import write_json
from sass.run import Run

MOST_DIAGNOSED = 30
"""Largest n the diagnostics are computed for."""
SILHOUETTE_SAMPLE = 1500
"""Embeddings of the silhouette; its cost grows with their square."""

Merge = tuple[int, int, float]
"""Two nodes that become one, and the height at which they do."""


def merge_tree(codes: np.ndarray, sizes: np.ndarray, pairs: np.ndarray, linkage: str) -> list[Merge]:
    """Merge codes, nearest first, until one node is left.

    Parameters
    ----------
    codes, sizes, pairs
        As in `sass.cluster.codebook.Codes`.
    linkage
        ``average``: mean distance between the codes of any two pixels (Sokal and Michener 1958); ``ward``:
        growth of the within-cluster sum of squares of the pixels (Ward 1963); ``graph``: share of pixels that
        lie between the two, ``pairs / sqrt(size * size)``.

    Returns
    -------
    list
        K - 1 merges. Leaves are 0..K-1, the i-th merge makes node K + i. Heights never fall.
    """
    k = len(codes)
    weight = np.maximum(sizes, 1).astype(np.float64)
    shared = pairs.astype(np.float64)
    if linkage == "graph":
        distance = 1 - shared / np.sqrt(np.outer(weight, weight))
    else:
        distance = cdist(codes.astype(np.float64), codes.astype(np.float64))
        if linkage == "ward":
            distance = distance**2 * np.outer(weight, weight) / np.add.outer(weight, weight)
    np.fill_diagonal(distance, np.inf)
    node = np.arange(k)
    merges: list[Merge] = []
    height = -np.inf
    for made in range(k, 2 * k - 1):
        i, j = sorted(divmod(int(distance.argmin()), k))
        gap = distance[i, j]
        height = max(height, float(gap))
        merges.append((int(min(node[i], node[j])), int(max(node[i], node[j])), height))
        if linkage == "graph":
            shared[i] += shared[j]
            shared[:, i] += shared[:, j]
            row = 1 - shared[i] / np.sqrt((weight[i] + weight[j]) * weight)
        elif linkage == "ward":  # Lance and Williams 1967
            total = weight + weight[i] + weight[j]
            row = (
                (weight + weight[i]) * distance[i] + (weight + weight[j]) * distance[j] - weight * gap
            ) / total
        else:
            row = (weight[i] * distance[i] + weight[j] * distance[j]) / (weight[i] + weight[j])
        gone = ~np.isfinite(distance[i])  # merged before, or i itself
        row[gone] = np.inf
        row[j] = np.inf
        distance[i], distance[:, i] = row, row
        distance[j], distance[:, j] = np.inf, np.inf
        weight[i] += weight[j]
        node[i] = made
    return merges


def cut(merges: Sequence[Sequence[float]], sizes: Sequence[int], n: int) -> np.ndarray:
    """Return the class of each code for ``n`` classes, int64 ``(K)``; class 0 is the largest."""
    k = len(sizes)
    if not 1 <= n <= k:
        raise ValueError(f"{k} codes cannot make {n} classes")
    members: dict[int, list[int]] = {leaf: [leaf] for leaf in range(k)}
    for i, (a, b, _) in enumerate(merges[: k - n]):
        members[k + i] = members.pop(int(a)) + members.pop(int(b))
    ordered = sorted(members.values(), key=lambda leaves: (-sum(sizes[c] for c in leaves), min(leaves)))
    classes = np.empty(k, np.int64)
    for label, leaves in enumerate(ordered):
        classes[leaves] = label
    return classes


def build_hierarchy(run: Run, settings: Hierarchy) -> dict[str, Any]:
    """Read the codebook, merge its codes, diagnose every n and write ``codebook/hierarchy.json``."""
    codes = Codes.load(run.codebook)
    merges = merge_tree(codes.codes, codes.sizes, codes.pairs, settings.linkage)
    tree = {
        "codes": len(codes.codes),
        "linkage": settings.linkage,
        "sizes": codes.sizes.tolist(),
        "merges": [[a, b, round(height, 6)] for a, b, height in merges],
        "diagnostics": diagnose(codes, merges, settings),
    }
    write_json(run.hierarchy, tree)
    return tree


def diagnose(codes: Codes, merges: list[Merge], settings: Hierarchy) -> list[dict[str, float | int | None]]:
    """Say how good each number of classes looks, without labels, on the sample kept with the codebook.

    Silhouette (Rousseeuw 1987), Davies-Bouldin index (1979) and stability: the mean adjusted Rand index
    between the classes and those of trees grown on bootstrap samples of the embeddings.
    """
    vectors, k = codes.sample, len(codes.codes)
    of_code = nearest_two(vectors, codes.codes)[0]
    random = np.random.default_rng(settings.seed)
    few = np.sort(random.permutation(len(vectors))[:SILHOUETTE_SAMPLE])
    distances = cdist(vectors[few], vectors[few])
    np.fill_diagonal(distances, 0)
    trees = [_resampled(codes, vectors, of_code, random, settings.linkage) for _ in range(settings.bootstrap)]
    rows = []
    for n in range(2, min(k, MOST_DIAGNOSED) + 1):
        classes = cut(merges, codes.sizes, n)[of_code]
        scored = 2 <= len(np.unique(classes)) < len(classes)
        some = 2 <= len(np.unique(classes[few])) < len(few)
        stability = [adjusted_rand_score(classes, cut(tree, sizes, n)[of_code]) for tree, sizes in trees]
        rows.append(
            {
                "n": n,
                "silhouette": _rounded(silhouette_score(distances, classes[few], metric="precomputed"))
                if some
                else None,
                "davies_bouldin": _rounded(davies_bouldin_score(vectors, classes)) if scored else None,
                "stability": _rounded(np.mean(stability)),
            }
        )
    return rows


def _resampled(
    codes: Codes, vectors: np.ndarray, of_code: np.ndarray, random: np.random.Generator, linkage: str
) -> tuple[list[Merge], np.ndarray]:
    """Grow the tree again from a bootstrap sample, with its own centroids, sizes and neighbours."""
    drawn = random.integers(0, len(vectors), len(vectors))
    k = len(codes.codes)
    sizes = np.bincount(of_code[drawn], minlength=k)
    sums = np.zeros(codes.codes.shape)
    np.add.at(sums, of_code[drawn], vectors[drawn])
    centroids = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], codes.codes)
    first, second, _ = nearest_two(vectors[drawn], codes.codes)
    pairs = np.bincount(first * k + second, minlength=k * k).reshape(k, k)
    return merge_tree(centroids, sizes, pairs + pairs.T, linkage), sizes


def _rounded(value: float) -> float:
    return round(float(value), 4)
