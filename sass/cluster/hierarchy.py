"""The hierarchy: a merge tree over codes, from which classes for any n are read in no time.

One clustering says as much of its own chances as of the archive. So many trees are grown, each on codes of
its own from a part of the sample, and codes are merged by how often these trees hold their embeddings
together (evidence accumulation; Fred and Jain 2005). What many trees agree on does not hang on a seed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics import davies_bouldin_score, silhouette_score
from threadpoolctl import threadpool_limits

from sass.cluster.codebook import Codes
from sass.cluster.kmeans import lloyd, nearest, seeds
from sass.config import Hierarchy
from sass.files import digest, file_digest, write_json
from sass.fingerprint import stage_fingerprint
from sass.manifest import Outcome, run_archive
from sass.run import Run

MOST = 30
"""Largest number of classes that trees are asked about, and that diagnostics are computed for."""
FEWEST, POWER = 4, 3
"""An answer about n classes counts by 1 / n to this power: trees agree on the first divisions, and maps are
made of them. Fewer than ``FEWEST`` count like ``MOST``, and settle only what the others leave open."""
DRAWN = 10_000
"""Embeddings that each of the many trees is grown on."""
CODES = (48, 128)
"""Fewest and most codes of each of the many trees."""
PASSES = 3
"""Passes of Lloyd that fit them."""
SILHOUETTE_SAMPLE, DIAGNOSED = 1500, 4000
"""Embeddings of the silhouette, whose cost grows with their square, and of the other diagnostics."""

Merge = tuple[int, int, float]
"""Two nodes that become one, and the height at which they do."""


def average_linkage(distance: np.ndarray, sizes: np.ndarray) -> list[Merge]:
    """Merge the two groups whose pixels lie closest on average, until one is left (Sokal and Michener 1958).

    Parameters
    ----------
    distance
        Float ``(K, K)``, symmetric, between the pixels of any two leaves.
    sizes
        Pixels of each leaf, ``(K)``; a leaf without any weighs as one.

    Returns
    -------
    list
        K - 1 merges. Leaves are 0..K-1, the i-th merge makes node K + i. Heights never fall.
    """
    k = len(sizes)
    distance = distance.astype(np.float64)
    weight = np.maximum(sizes, 1).astype(np.float64)
    np.fill_diagonal(distance, np.inf)
    node = np.arange(k)
    merges: list[Merge] = []
    height = -np.inf
    for made in range(k, 2 * k - 1):
        i, j = sorted(divmod(int(distance.argmin()), k))
        height = max(height, float(distance[i, j]))
        merges.append((int(min(node[i], node[j])), int(max(node[i], node[j])), height))
        row = (weight[i] * distance[i] + weight[j] * distance[j]) / (weight[i] + weight[j])
        row[j] = np.inf
        distance[i], distance[:, i] = row, row
        distance[j], distance[:, j] = np.inf, np.inf
        weight[i] += weight[j]
        node[i] = made
    return merges


def links(merges: Sequence[Sequence[float]], sizes: Sequence[int], smallest: float) -> list[tuple[int, int]]:
    """Return K - 1 pairs of codes in the order in which they part: n classes lack the first n - 1.

    The tree is taken apart from the root down, but a branch of less than ``smallest`` of the archive stays
    with the largest code beside it until all larger branches are apart; then the threshold halves. Without
    that, most classes could be a handful of outliers. Each pair stands for a merge, by the largest codes of
    its two branches.
    """
    k = len(sizes)
    size = [*map(float, sizes), *[0.0] * len(merges)]
    heaviest = list(range(k)) + [0] * len(merges)
    rank, total = [], max(float(sum(sizes)), 1.0)
    for i, (a, b, _) in enumerate(merges):
        small, large = sorted((int(a), int(b)), key=lambda node: (size[node], -node))
        size[k + i], heaviest[k + i] = size[small] + size[large], heaviest[large]
        halvings = np.ceil(np.log2(max(smallest, 1e-12) / max(size[small] / total, 1e-12)))
        rank.append((max(halvings, 0), -i))
    order = sorted(range(len(merges)), key=rank.__getitem__)
    return [(heaviest[int(merges[i][0])], heaviest[int(merges[i][1])]) for i in order]


def cut(merges: Sequence[Sequence[float]], sizes: Sequence[int], n: int, smallest: float) -> np.ndarray:
    """Return the class of each code for ``n`` classes, int64 ``(K)``; class 0 is the largest.

    Codes are of one class if `links` still hold them together. Classes of different n are nested.
    """
    return _joined(links(merges, sizes, smallest), sizes, n)


def _joined(linked: list[tuple[int, int]], sizes: Sequence[int], n: int) -> np.ndarray:
    """Return what `cut` does, from what `links` returned."""
    k = len(sizes)
    if not 1 <= n <= k:
        raise ValueError(f"{k} codes cannot make {n} classes")
    group = np.arange(k)
    for one, other in linked[n - 1 :]:
        group[group == group[other]] = group[one]
    members: dict[int, list[int]] = {}
    for code, held in enumerate(group.tolist()):
        members.setdefault(held, []).append(code)
    ordered = sorted(members.values(), key=lambda codes: (-sum(sizes[c] for c in codes), min(codes)))
    classes = np.empty(k, np.int64)
    for label, held in enumerate(ordered):
        classes[held] = label
    return classes


def hierarchy_archive(run: Run, settings: Hierarchy) -> Outcome:
    """Bring the tree up to date with the codebook."""
    made_by = [stage_fingerprint("hierarchy"), settings.model_dump(mode="json"), file_digest(run.codebook)]
    return run_archive(run, "hierarchy", digest(made_by), lambda: build_hierarchy(run, settings))


def build_hierarchy(run: Run, settings: Hierarchy) -> dict[str, Any]:
    """Read the codebook, merge its codes, diagnose every n and write ``codebook/hierarchy.json``."""
    codes = Codes.load(run.codebook)
    with threadpool_limits(1):  # several threads add in an order of their own
        merges, trees = consensus(codes, settings)
        diagnostics = diagnose(codes, merges, trees, settings)
    tree = {
        "codes": len(codes.codes),
        "sizes": codes.sizes.tolist(),
        "smallest": settings.smallest,
        "merges": [[a, b, round(height, 6)] for a, b, height in merges],
        "diagnostics": diagnostics,
    }
    write_json(run.hierarchy, tree)
    return tree


def consensus(codes: Codes, settings: Hierarchy) -> tuple[list[Merge], np.ndarray]:
    """Merge codes by how often many trees hold their embeddings together.

    Returns
    -------
    merges
        As from `average_linkage`. The height is the share of trees and numbers of classes, these by their
        weight, that hold two embeddings of the groups apart.
    trees
        The classes that each tree gives the first `DIAGNOSED` embeddings of the sample, for each number of
        classes: uint8 ``(tree, n - 2, embedding)``.
    """
    k, sample = len(codes.codes), codes.sample
    of_code = nearest(sample, codes.codes)[0]
    numbers = range(2, min(k, MOST) + 1)
    weight = {n: (n if n >= FEWEST else MOST) ** -POWER for n in numbers}
    together, trees = np.zeros((k, k)), []
    for number in range(settings.trees):
        merges, sizes, of_own, near = _one_tree(codes, [settings.seed, number])
        # the share of each code's embeddings in each code of this tree; a code without any lies where it is
        inside = np.bincount(of_code * len(sizes) + of_own, minlength=k * len(sizes)).reshape(k, -1)
        inside[np.arange(k), near] += inside.sum(1) == 0
        share = inside / inside.sum(1, keepdims=True)
        linked, told = links(merges, sizes.tolist(), settings.smallest), []
        for n in numbers:
            classes = _joined(linked, sizes.tolist(), min(n, len(sizes)))
            held = share @ np.eye(n)[classes]
            together += weight[n] * (held @ held.T)
            told.append(classes[of_own[:DIAGNOSED]].astype(np.uint8))
        trees.append(told)
    distance = 1 - together / (settings.trees * sum(weight.values()))
    return average_linkage(distance, codes.sizes), np.array(trees)


def _one_tree(codes: Codes, seed: list[int]) -> tuple[list[Merge], np.ndarray, np.ndarray, np.ndarray]:
    """Grow a tree over codes of its own; return it, their sizes, and those nearest to sample and codes."""
    random = np.random.default_rng(seed)
    drawn = codes.sample[random.permutation(len(codes.sample))[:DRAWN]]
    most = max(min(CODES[1], len(drawn) // 4), 2)
    count = int(random.integers(min(CODES[0], most), most + 1))
    own = lloyd(drawn, seeds(drawn, count, random), PASSES)
    sizes = np.bincount(nearest(drawn, own)[0], minlength=count)
    return (
        average_linkage(cdist(own, own), sizes),
        sizes,
        nearest(codes.sample, own)[0],
        nearest(codes.codes, own)[0],
    )


def diagnose(
    codes: Codes, merges: list[Merge], trees: np.ndarray, settings: Hierarchy
) -> list[dict[str, float | int | None]]:
    """Say how good each number of classes looks, without labels, on the sample kept with the codebook.

    Silhouette (Rousseeuw 1987), Davies-Bouldin index (1979) and stability: the mean adjusted Rand index
    between the classes and those of the many trees (``trees``, as from `consensus`).
    """
    vectors, k = codes.sample[:DIAGNOSED], len(codes.codes)
    of_code = nearest(vectors, codes.codes)[0]
    few = np.sort(np.random.default_rng(settings.seed).permutation(len(vectors))[:SILHOUETTE_SAMPLE])
    distances = cdist(vectors[few], vectors[few])
    np.fill_diagonal(distances, 0)
    linked, rows = links(merges, codes.sizes.tolist(), settings.smallest), []
    for n in range(2, min(k, MOST) + 1):
        classes = _joined(linked, codes.sizes.tolist(), n)[of_code]
        scored = 2 <= len(np.unique(classes)) < len(classes)
        some = 2 <= len(np.unique(classes[few])) < len(few)
        rows.append(
            {
                "n": n,
                "silhouette": _rounded(silhouette_score(distances, classes[few], metric="precomputed"))
                if some
                else None,
                "davies_bouldin": _rounded(davies_bouldin_score(vectors, classes)) if scored else None,
                "stability": _rounded(agreement(classes, trees[:, n - 2], n).mean()),
            }
        )
    return rows


def agreement(classes: np.ndarray, others: np.ndarray, n: int) -> np.ndarray:
    """Return the adjusted Rand index (Hubert and Arabie 1985) of classes with each of several others.

    Parameters
    ----------
    classes
        ``(N,)``, from 0 to n - 1.
    others
        Likewise, ``(M, N)``.

    Returns
    -------
    numpy.ndarray
        Float64 ``(M,)``: 1 where they are alike, 0 on average where they have nothing to do with each other.
    """
    m, count = others.shape
    cells = (np.arange(m)[:, None] * n + others) * n + classes
    table = np.bincount(cells.ravel(), minlength=m * n * n).reshape(m, n, n)
    both, own, other = (
        (c * (c - 1.0)).sum(axis=-1) for c in (table.reshape(m, -1), table.sum(1), table.sum(2))
    )
    expected, most = own * other / (count * (count - 1.0)), (own + other) / 2
    alike = most == expected  # both of one class, or both of as many as there are members
    return np.where(alike, 1.0, (both - expected) / np.where(alike, 1, most - expected))


def _rounded(value: float) -> float:
    return round(float(value), 4)
