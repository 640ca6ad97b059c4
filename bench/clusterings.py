"""Ways from one run's features to n classes: what each scores, and whether stability would have picked it.

    python -m bench.clusterings RUN --classes 5 --seeds 5

All methods see the same thing: the sample that the run's codebook keeps, in its metric, each seed another
half of it. Scores are those of every embedding of the labelled scenes against the label at its centre.
Stability, the mean adjusted Rand index between the classes of two seeds, uses no label; how well it ranks the
methods is the Spearman correlation below the table.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
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

from bench.scores import Labelled
from sass.cluster.codebook import Codes, nearest
from sass.cluster.hierarchy import average_linkage, consensus, cut
from sass.config import Hierarchy
from sass.manifest import read_json
from sass.metrics import Counts, confusion, label_ids, match, merge, scores
from sass.run import Run

CODES = 128
MIXED = 20_000
"""Embeddings that mixtures are fitted on."""
COMPARED = 4000
"""Embeddings on which the classes of two seeds are compared."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Classes ``(N,)`` of embeddings ``(N, D)`` in the metric."""
Method = Callable[[np.ndarray, int, int], Predict]
"""Fits on embeddings, a number of classes and a seed."""


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


def merged(grouping: Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]) -> Method:
    """Many codes, grouped: by ``grouping(codes, sizes, pairs, n, seed)``, the class of each code."""

    def method(sample: np.ndarray, n: int, seed: int) -> Predict:
        codes = _centres(sample, CODES, seed)
        distance = cdist(sample, codes)
        first, second = distance.argpartition(1, axis=1)[:, :2].T
        pairs = np.bincount(first * CODES + second, minlength=CODES**2).reshape(CODES, CODES)
        sizes = np.bincount(first, minlength=CODES)
        classes = grouping(codes, sizes, pairs + pairs.T, n, seed)
        return lambda x: classes[nearest(x, codes)[0]]

    return method


def _scipy(kind: str, weighted: bool = False):
    def grouping(codes, sizes, pairs, n, seed):
        if weighted:  # each code as often as it has pixels, in twentieths of a per cent
            times = np.maximum(np.rint(2000 * sizes / sizes.sum()).astype(int), 1)
            tree = fcluster(linkage(np.repeat(codes, times, 0), kind), n, "maxclust") - 1
            return tree[np.cumsum(times) - 1]
        return fcluster(linkage(codes, kind), n, "maxclust") - 1

    return grouping


def _average(smallest: float):
    def grouping(codes, sizes, pairs, n, seed):
        return cut(average_linkage(cdist(codes, codes), sizes), sizes.tolist(), n, smallest)

    return grouping


def _between(pairs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    weight = np.maximum(sizes, 1)
    return pairs / np.sqrt(np.outer(weight, weight))


def _graph(smallest: float):
    def grouping(codes, sizes, pairs, n, seed):
        return cut(average_linkage(-_between(pairs, sizes), sizes), sizes.tolist(), n, smallest)

    return grouping


def _spectral(codes, sizes, pairs, n, seed):
    model = SpectralClustering(n, affinity="precomputed", random_state=seed, assign_labels="cluster_qr")
    return model.fit_predict(_between(pairs, sizes) + 1e-6)


def many_trees(fitted: Codes, smallest: float) -> Method:
    """What SASS does: codes merged by how often many trees hold them together."""

    def method(sample: np.ndarray, n: int, seed: int) -> Predict:
        codes = _centres(sample, CODES, seed)
        sizes = np.bincount(nearest(sample, codes)[0], minlength=CODES)
        own = replace(fitted, codes=codes, sizes=sizes, sample=sample)
        merges, _ = consensus(own, Hierarchy(seed=seed, smallest=smallest))
        classes = cut(merges, sizes.tolist(), n, smallest)
        return lambda x: classes[nearest(x, codes)[0]]

    return method


def _centres(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    model = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=8192, max_iter=30)
    return model.fit(sample).cluster_centers_.astype(np.float32)


def compare(run: Run, n: int, seeds: int, ignore: list[int]) -> list[dict]:
    """Return a row for each method: scores by seed and stability."""
    fitted = Codes.load(run.codebook)
    labelled, smallest = Labelled(run, ignore), read_json(run.hierarchy)["smallest"]
    methods: dict[str, Method] = {
        "k-means": k_means,
        "k-means, whitened": whitened_k_means,
        "mixture, diagonal": mixture("diag"),
        "mixture, full": mixture("full"),
        f"{CODES} codes, average": merged(_scipy("average")),
        f"{CODES} codes, average by size, small branches wait": merged(_average(smallest)),
        f"{CODES} codes, Ward": merged(_scipy("ward")),
        f"{CODES} codes, Ward by size": merged(_scipy("ward", weighted=True)),
        f"{CODES} codes, graph": merged(_graph(smallest)),
        f"{CODES} codes, spectral": merged(_spectral),
        "many trees (SASS)": many_trees(fitted, smallest),
    }
    rows = []
    for name, method in methods.items():
        found = []
        for seed in range(seeds):
            half = np.random.default_rng(seed).permutation(len(fitted.sample))[: len(fitted.sample) // 2]
            found.append(method(fitted.sample[np.sort(half)], n, seed))
        told = [predict(fitted.sample[:COMPARED]) for predict in found]
        stability = np.mean([adjusted_rand_score(a, b) for a, b in combinations(told, 2)])
        results = _scored(labelled, fitted, found)
        rows.append({"name": name, "stability": round(float(stability), 4), "scores": results})
        print(_line(rows[-1]), flush=True)
    return rows


def _scored(labelled: Labelled, fitted: Codes, found: list[Predict]) -> list[dict[str, float]]:
    totals: list[Counts] = [{} for _ in found]
    for scene in labelled.scenes:
        for vectors, labels in labelled.read(scene):
            if len(vectors):
                x = fitted.metric.apply(vectors)
                totals = [merge(t, confusion(labels, predict(x))) for t, predict in zip(totals, found)]
    results = []
    for total in totals:
        ids = label_ids(total, {})
        result = scores(total, match(total, ids), ids)
        results.append({key: round(result[key], 4) for key in ("accuracy", "miou")})
    return results


def _line(row: dict) -> str:
    accuracy, miou = (np.array([s[key] for s in row["scores"]]) * 100 for key in ("accuracy", "miou"))
    spread = [values.std(ddof=1) if len(values) > 1 else 0 for values in (accuracy, miou)]
    return (
        f"| {row['name']} | {accuracy.mean():.1f} +- {spread[0]:.1f} | {miou.mean():.1f} +- {spread[1]:.1f} "
        f"| {row['stability']:.2f} |"
    )


def main() -> int:
    """Compare, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run with labels")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ignore", type=int, nargs="*", default=[255])
    parser.add_argument("--json", type=Path, help="where the numbers go, too")
    args = parser.parse_args()
    print("| from features to classes | accuracy | mean IoU | stability |\n|---|---|---|---|")
    with threadpool_limits(1):  # several threads add in an order of their own
        rows = compare(Run(args.run), args.classes, args.seeds, args.ignore)
    miou = [np.mean([s["miou"] for s in row["scores"]]) for row in rows]
    ranked = spearmanr([row["stability"] for row in rows], miou).statistic
    print(f"\nSpearman correlation of stability and mean IoU: {ranked:.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
