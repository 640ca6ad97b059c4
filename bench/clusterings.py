"""Ways from one run's features to n classes: what each scores, and whether stability would have picked it.

    python -m bench.clusterings RUN --classes 5 --seeds 5

All methods see the same thing: the sample that the run's codebook keeps, in its metric, each seed another
half of it; the one that merges by borders sees pairs of neighbours besides. ``--parts embedding`` leaves the
other parts of the features out. Scores are those of every embedding of the labelled scenes against the label
at its centre.
Stability, the mean adjusted Rand index between the classes of two seeds, uses no label; how well it ranks the
methods is the Spearman correlation below the table.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from bench.scores import SIDE, Labelled
from sass.catalog import load_index
from sass.cluster.codebook import Codes
from sass.cluster.hierarchy import average_linkage, consensus, cut
from sass.cluster.kmeans import nearest
from sass.cluster.metric import Metric
from sass.config import Hierarchy
from sass.errors import SassError
from sass.files import read_json
from sass.grid import tiles
from sass.manifest import scenes_of
from sass.metrics import Counts, confusion, label_ids, match, merge, scores
from sass.run import Run
from sass.store import FeatureStore

CODES = 128
MIXED = 20_000
"""Embeddings that mixtures are fitted on."""
COMPARED = 4000
"""Embeddings on which the classes of two seeds are compared."""
PAIRS = 100_000
"""Neighbours that borders are counted on, over all scenes."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Classes ``(N,)`` of embeddings ``(N, D)`` in the metric."""
Method = Callable[[np.ndarray, int, int], Predict]
"""Fits on embeddings, a number of classes and a seed."""


@dataclass(frozen=True)
class Fine:
    """Many codes of one seed, to be grouped: what all ways of merging have in common.

    ``sample (S, D)``, that they were fitted on, and ``codes (K, D)``, both in the metric; ``sizes (K)``, how
    many embeddings are nearest to each; ``between (K, K)``, how many have these two as their nearest codes.
    """

    seed: int
    sample: np.ndarray
    codes: np.ndarray
    sizes: np.ndarray
    between: np.ndarray

    @classmethod
    def fit(cls, sample: np.ndarray, seed: int) -> "Fine":
        """Fit the codes."""
        codes = _centres(sample, CODES, seed)
        first, second = cdist(sample, codes).argpartition(1, axis=1)[:, :2].T
        return cls(seed, sample, codes, np.bincount(first, minlength=CODES), _counted(first, second))

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """Return the nearest code of embeddings ``(N, D)``."""
        return nearest(vectors, self.codes)[0]


Grouping = Callable[[Fine, int], np.ndarray]
"""Gives each code one of a number of classes, ``(K)``."""


def _counted(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Count how often two codes meet, ``(K, K)``, symmetric."""
    met = np.bincount(one * CODES + other, minlength=CODES**2).reshape(CODES, CODES)
    return met + met.T


def k_means(sample: np.ndarray, n: int, seed: int) -> Predict:
    """Lloyd's algorithm with as many clusters as classes."""
    centres = _centres(sample, n, seed)
    return lambda x: nearest(x, centres)[0]


def whitened_k_means(sample: np.ndarray, n: int, seed: int) -> Predict:
    """The same after all principal components have been brought to one variance."""
    mean = sample.mean(0)
    variance, axes = np.linalg.eigh(np.cov((sample - mean).T))
    whiten = (axes / np.sqrt(np.maximum(variance, 1e-6))).astype(np.float32)
    centres = _centres((sample - mean) @ whiten, n, seed)
    return lambda x: nearest((x - mean) @ whiten, centres)[0]


def mixture(covariance: str) -> Method:
    """Gaussian mixture, weights learned."""

    def method(sample: np.ndarray, n: int, seed: int) -> Predict:
        fitted = GaussianMixture(n, covariance_type=covariance, random_state=seed, reg_covar=1e-3)
        return fitted.fit(sample[:MIXED]).predict

    return method


def linked(kind: str, weighted: bool = False) -> Grouping:
    """Merge by a linkage of scipy, with or without regard to sizes."""

    def grouping(fine: Fine, n: int) -> np.ndarray:
        if weighted:  # each code as often as it has pixels, in twentieths of a per cent
            times = np.maximum(np.rint(2000 * fine.sizes / fine.sizes.sum()).astype(int), 1)
            tree = fcluster(linkage(np.repeat(fine.codes, times, 0), kind), n, "maxclust") - 1
            return tree[np.cumsum(times) - 1]
        return fcluster(linkage(fine.codes, kind), n, "maxclust") - 1

    return grouping


def averaged(smallest: float) -> Grouping:
    """Merge by average linkage over all pixels; small branches wait."""

    def grouping(fine: Fine, n: int) -> np.ndarray:
        tree = average_linkage(cdist(fine.codes, fine.codes), fine.sizes)
        return cut(tree, fine.sizes.tolist(), n, smallest)

    return grouping


def graph(smallest: float) -> Grouping:
    """Merge codes that many embeddings lie between."""

    def grouping(fine: Fine, n: int) -> np.ndarray:
        return cut(average_linkage(-_affinity(fine), fine.sizes), fine.sizes.tolist(), n, smallest)

    return grouping


def spectral(fine: Fine, n: int) -> np.ndarray:
    """Cut that graph by its spectrum."""
    model = SpectralClustering(n, affinity="precomputed", random_state=fine.seed, assign_labels="cluster_qr")
    return model.fit_predict(_affinity(fine) + 1e-6)


def _affinity(fine: Fine) -> np.ndarray:
    weight = np.maximum(fine.sizes, 1)
    return fine.between / np.sqrt(np.outer(weight, weight))


def bordering(pairs: np.ndarray, smallest: float) -> Grouping:
    """Merge codes by how much more border they share in the scenes than chance would have it.

    ``pairs (2, P, D)`` are neighbours in space, in the metric. Were borders drawn at random, codes with
    borders of a and b out of t would share a b / t. Average linkage over the ratio to that, codes weighted by
    their borders, has at every step the ratio of the groups as they stand.
    """

    def grouping(fine: Fine, n: int) -> np.ndarray:
        half = np.random.default_rng(fine.seed).permutation(pairs.shape[1])[: pairs.shape[1] // 2]
        shared = _counted(*(fine.nearest(side[half]) for side in pairs)).astype(float)
        np.fill_diagonal(shared, 0)
        borders = shared.sum(1)
        weight = np.maximum(borders, 1)
        tree = average_linkage(-shared * weight.sum() / np.outer(weight, weight), borders)
        return cut(tree, fine.sizes.tolist(), n, smallest)

    return grouping


def many_trees(fitted: Codes, smallest: float) -> Grouping:
    """Merge codes by how often many trees hold them together: what SASS does."""

    def grouping(fine: Fine, n: int) -> np.ndarray:
        own = replace(fitted, codes=fine.codes, sizes=fine.sizes, sample=fine.sample)
        merges, _ = consensus(own, Hierarchy(seed=fine.seed, smallest=smallest))
        return cut(merges, fine.sizes.tolist(), n, smallest)

    return grouping


def neighbours(run: Run, metric: Metric) -> np.ndarray:
    """Draw pairs of embeddings side by side or one above the other, float32 ``(2, P, D)`` in the metric."""
    names = [name for shard in load_index(run) for name in scenes_of(run, "features", shard)]
    random, found = np.random.default_rng(0), []
    for name in sorted(names):
        store = FeatureStore(run.features(name))
        share = min(PAIRS / len(names) / (2 * store.shape[0] * store.shape[1]), 1)
        for window in tiles(store.shape, SIDE):
            vectors, valid = store.read(window)
            for axis in (1, 2):
                held, moved = np.moveaxis(vectors, axis, 1), np.moveaxis(valid, axis - 1, 0)
                both = moved[:-1] & moved[1:]
                both &= random.random(both.shape) < share
                found.append(np.stack([held[:, :-1][:, both].T, held[:, 1:][:, both].T]))
    drawn = np.concatenate(found, 1)
    return np.stack([metric.apply(side) for side in drawn])


def of_parts(fitted: Codes, lengths: dict[str, int], kept: Sequence[str]) -> Codes:
    """Return a codebook in the space of some parts of the features alone; the metric mixes no two parts."""
    if unknown := sorted(set(kept) - set(lengths)):
        raise SassError(f"the features have no part {', '.join(unknown)}, only {', '.join(lengths)}")
    own = np.repeat([name in kept for name in lengths], list(lengths.values()))
    metric = Metric(fitted.metric.offset, np.ascontiguousarray(fitted.metric.matrix[:, own]))
    return replace(fitted, metric=metric, codes=fitted.codes[:, own], sample=fitted.sample[:, own].copy())


def _centres(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    model = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=8192, max_iter=30)
    return model.fit(sample).cluster_centers_.astype(np.float32)


def compare(run: Run, n: int, seeds: int, ignore: list[int], parts: Sequence[str] = ()) -> list[dict]:
    """Return a row for each method: scores by seed and stability. Without ``parts``, all of them count."""
    labelled, smallest = Labelled(run, ignore), read_json(run.hierarchy)["smallest"]
    fitted = Codes.load(run.codebook)
    if parts:
        lengths = FeatureStore(run.features(next(iter(labelled.scenes)))).parts
        fitted = of_parts(fitted, lengths, parts)
    methods: dict[str, Method] = {
        "k-means": k_means,
        "k-means, whitened": whitened_k_means,
        "mixture, diagonal": mixture("diag"),
        "mixture, full": mixture("full"),
    }
    groupings: dict[str, Grouping] = {
        f"{CODES} codes, average": linked("average"),
        f"{CODES} codes, average by size, small branches wait": averaged(smallest),
        f"{CODES} codes, Ward": linked("ward"),
        f"{CODES} codes, Ward by size": linked("ward", weighted=True),
        f"{CODES} codes, graph": graph(smallest),
        f"{CODES} codes, spectral": spectral,
        f"{CODES} codes, borders": bordering(neighbours(run, fitted.metric), smallest),
        "many trees (SASS)": many_trees(fitted, smallest),
    }
    drawn = [np.random.default_rng(seed).permutation(len(fitted.sample)) for seed in range(seeds)]
    halves = [fitted.sample[np.sort(order[: len(order) // 2])] for order in drawn]
    told, rows = fitted.sample[:COMPARED], []

    def take(name: str, classes: list[np.ndarray], totals: list[Counts]) -> None:
        """Add the row of a method, from the classes it gives ``told`` and its counts, by seed."""
        stability = np.mean([adjusted_rand_score(a, b) for a, b in combinations(classes, 2)])
        results = [_scored(total) for total in totals]
        rows.append({"name": name, "stability": round(float(stability), 4), "scores": results})
        print(_line(rows[-1]), flush=True)

    for name, method in methods.items():
        found = [method(half, n, seed) for seed, half in enumerate(halves)]
        take(name, [predict(told) for predict in found], _counts(labelled, fitted, found))
    fines = [Fine.fit(half, seed) for seed, half in enumerate(halves)]
    by_code = _counts(labelled, fitted, [fine.nearest for fine in fines])
    for name, grouping in groupings.items():
        grouped = [grouping(fine, n) for fine in fines]
        take(
            name,
            [classes[fine.nearest(told)] for classes, fine in zip(grouped, fines)],
            [_grouped(counts, classes) for counts, classes in zip(by_code, grouped)],
        )
    return rows


def _counts(labelled: Labelled, fitted: Codes, found: list[Predict]) -> list[Counts]:
    """Count labels and classes over all labelled embeddings, for each way to classes."""
    totals: list[Counts] = [{} for _ in found]
    for scene in labelled.scenes:
        for vectors, labels in labelled.read(scene):
            if len(vectors):
                x = fitted.metric.apply(vectors)
                totals = [merge(t, confusion(labels, predict(x))) for t, predict in zip(totals, found)]
    return totals


def _grouped(by_code: Counts, classes: np.ndarray) -> Counts:
    counts: Counts = {}
    for (label, code), pixels in by_code.items():
        counts = merge(counts, {(label, int(classes[code])): pixels})
    return counts


def _scored(counts: Counts) -> dict[str, float]:
    ids = label_ids(counts, {})
    result = scores(counts, match(counts, ids), ids)
    return {key: round(result[key], 4) for key in ("accuracy", "miou")}


def _line(row: dict) -> str:
    accuracy, miou = (np.array([s[key] for s in row["scores"]]) * 100 for key in ("accuracy", "miou"))
    spread = [values.std(ddof=1) if len(values) > 1 else 0 for values in (accuracy, miou)]
    return (
        f"| {row['name']} | {accuracy.mean():.1f} +- {spread[0]:.1f} | {miou.mean():.1f} +- {spread[1]:.1f} "
        f"| {row['stability']:.2f} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """Compare, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run with labels")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ignore", type=int, nargs="*", default=[255])
    parser.add_argument("--parts", nargs="*", default=[], help="of the features that count (all of them)")
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    args = parser.parse_args(arguments)
    print("| from features to classes | accuracy | mean IoU | stability |\n|---|---|---|---|")
    try:
        with threadpool_limits(1):  # several threads add in an order of their own
            rows = compare(Run(args.run), args.classes, args.seeds, args.ignore, args.parts)
    except SassError as error:
        print(f"bench.clusterings: {error}", file=sys.stderr)
        return 1
    miou = [np.mean([s["miou"] for s in row["scores"]]) for row in rows]
    ranked = spearmanr([row["stability"] for row in rows], miou).statistic
    print(f"\nSpearman correlation of stability and mean IoU: {ranked:.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
