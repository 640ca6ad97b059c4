"""The terms of the objective, on cases small enough to work out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from sass.model.loss import (
    STUDENT_TEMPERATURE,
    TEACHER_TEMPERATURE,
    centred,
    instance,
    semantic,
    sinkhorn,
)


def cosines(n: int, k: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    vectors, prototypes = (F.normalize(torch.randn(m, 16, generator=draw), dim=1) for m in (n, k))
    return vectors @ prototypes.T


def unbalanced(n: int = 600, k: int = 6) -> torch.Tensor:
    """Return scores that would put nearly every point into the first cluster."""
    scores = cosines(n, k)
    scores[:, 0] += 0.5
    return scores.clamp(-1, 1)


def test_sinkhorn_rows_sum_to_one_and_more_iterations_make_sizes_more_equal():
    scores = unbalanced()
    spread = []
    for iterations in (1, 3, 20):
        q = sinkhorn(scores, iterations)
        assert q.dtype == torch.float32
        assert torch.allclose(q.sum(1), torch.ones(600), atol=1e-5)
        assert (q >= 0).all()
        sizes = q.sum(0) / 100
        spread.append((sizes - 1).abs().max().item())
    assert spread[0] > spread[1] > spread[2]
    assert spread[1] < 0.2  # three iterations: near equal
    assert spread[2] < 0.01
    assert F.softmax(scores / 0.05, 1).sum(0)[0] / 100 > 4  # what it would be without


def test_sinkhorn_keeps_the_order_within_a_cluster():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1]])
    q = sinkhorn(scores, 20)
    assert (q[:-1, 0] > q[1:, 0]).all()  # all want the first; the least willing go to the second
    assert q[:, 0].sum() == pytest.approx(2, abs=0.05)


def test_sinkhorn_survives_extreme_scores():
    q = sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), 3)
    assert torch.isfinite(q).all()
    assert torch.allclose(q.sum(1), torch.ones(3), atol=1e-5)


def test_centring_is_a_sharp_softmax_around_the_running_mean():
    scores, centre = torch.tensor([[0.5, 0.4, 0.0]]), torch.tensor([0.3, 0.1, 0.0])
    weights = [math.exp(v / TEACHER_TEMPERATURE) for v in (0.2, 0.3, 0.0)]
    expected = torch.tensor([[w / sum(weights) for w in weights]])
    assert torch.allclose(centred(scores, centre), expected, atol=1e-6)


def test_centring_lets_sizes_differ_but_lets_no_cluster_take_all():
    scores = unbalanced()
    free, held = F.softmax(scores / TEACHER_TEMPERATURE, 1).sum(0), centred(scores, scores.mean(0)).sum(0)
    assert free[0] / 600 > 0.7
    assert held[0] / 600 < 0.3
    assert held.max() / held.min() > 1.05


def test_semantic_term_is_least_where_student_and_teacher_agree():
    q = F.softmax(cosines(50, 5) / 0.1, 1)
    agreeing = STUDENT_TEMPERATURE * q.log()
    entropy = -(q * q.log()).sum(1).mean()
    assert semantic(agreeing, q).item() == pytest.approx(entropy.item(), rel=1e-5)
    for other in (agreeing.roll(1, 0), agreeing.roll(1, 1), torch.zeros(50, 5), 2 * agreeing):
        assert semantic(other, q) > entropy
    moved = agreeing.clone().requires_grad_()
    semantic(moved, q).backward()
    assert moved.grad.abs().max() < 1e-6  # no way leads further down


def test_semantic_term_by_hand():
    scores = torch.tensor([[0.1, 0.0]])  # a logit of 1 against 0
    assert semantic(scores, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_instance_term_leaves_out_negatives_of_the_same_meaning():
    # four places on the axes; 0 and 1 mean the same
    targets = torch.eye(4)
    anchors = torch.tensor([[0.6, 0.8, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.6, 0.8]])
    meaning = torch.tensor([7, 7, 2, 3])

    def row(positive: float, *negatives: float) -> float:
        return math.log(sum(math.exp(v) for v in (positive, *negatives))) - positive

    # with temperature 1: anchor 0 is nearer to place 1, but place 1 is no negative of it
    expected = [row(0.6, 0, 0), row(1, 0, 0), row(1, 0, 0, 0), row(0.8, 0, 0, 0.6)]
    value = instance(anchors, targets, meaning, temperature=1.0)
    assert value.item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert value < instance(anchors, targets, torch.arange(4), temperature=1.0)


def test_instance_term_is_zero_where_all_places_mean_the_same():
    vectors = F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert instance(vectors, vectors.roll(1, 0), torch.zeros(5, dtype=torch.long)) == 0


def test_no_shared_places_cost_nothing_and_break_nothing():
    scores = torch.zeros(0, 4, requires_grad=True)
    anchors = torch.zeros(0, 3, requires_grad=True)
    total = semantic(scores, sinkhorn(scores, 3)) + instance(
        anchors, anchors, torch.zeros(0, dtype=torch.long)
    )
    total.backward()
    assert total == 0
