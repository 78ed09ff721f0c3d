from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segue.nn import losses

NO_HITS = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("piece", [1, 7, 10_000], ids="{}-items-at-once".format)
@pytest.mark.parametrize(("positions", "items", "width"), [(1, 2, 3), (50, 17, 8), (120, 300, 4)])
def test_full_softmax_is_a_log_softmax_with_its_gradients(
    positions: int, items: int, width: int, piece: int, normalise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.nn.full_softmax._CHUNK_BYTES", 8 * positions * piece)
    monkeypatch.setattr("segue.nn.full_softmax._FEWEST_ITEMS", 1)
    generator = torch.Generator().manual_seed(positions)
    vectors = torch.randn(positions, width, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(items + 1, width, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    loss = losses.full_softmax(vectors, table, targets, normalise)
    gradients = torch.autograd.grad(3 * loss, [vectors, table])
    scored = F.normalize(table[1:], dim=1) if normalise else table[1:]
    naive = -(vectors @ scored.T).log_softmax(1)[torch.arange(positions), targets - 1].sum()
    expected = torch.autograd.grad(3 * naive, [vectors, table])
    assert loss.item() == pytest.approx(naive.item(), rel=1e-12)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10)


def test_full_softmax_without_gradients_and_with_scores_far_apart() -> None:
    vectors, table = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[50.0], [1.0], [0.0]])
    loss = losses.full_softmax(vectors, table, torch.tensor([1, 1]))
    assert loss.item() == 1000.0
    assert not loss.requires_grad


def test_gradients_of_the_full_softmax_can_be_used_once() -> None:
    table = torch.ones(3, 2, requires_grad=True)
    loss = losses.full_softmax(torch.ones(1, 2), table, torch.tensor([1]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="before"):
        loss.backward()


def test_gbce_is_exact_at_both_ends_of_calibration() -> None:
    """Check t = 0, which is plain BCE, and t = 1 with β = α = k / (n_items - 1): here 4 / 100 = 0.04."""
    targets, negatives = torch.randn(6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    plain = losses.bce(targets, negatives)
    torch.testing.assert_close(losses.gbce(targets, negatives, 101, 0.0), plain)
    calibrated = plain + 0.96 * F.logsigmoid(targets).sum()
    torch.testing.assert_close(losses.gbce(targets, negatives, 101, 1.0), calibrated)


def test_losses_stay_finite_where_a_sigmoid_would_not() -> None:
    targets, negatives = torch.tensor([-200.0, 200.0]), torch.tensor([[200.0], [-200.0]])
    assert losses.bce(targets, negatives).item() == pytest.approx(400.0)
    assert losses.sampled_softmax(targets, negatives, NO_HITS).item() == pytest.approx(400.0)


def test_a_negative_that_is_the_target_counts_for_nothing() -> None:
    targets = torch.tensor([1.0], requires_grad=True)
    hit = torch.tensor([[True, True]])
    loss = losses.sampled_softmax(targets, torch.tensor([[1.0, 1.0]]), hit.nonzero(as_tuple=True))
    loss.backward()
    assert loss.item() == 0 and targets.grad is not None and targets.grad.item() == 0
    one = losses.sampled_softmax(
        torch.tensor([1.0]), torch.tensor([[1.0, 1.0]]), (torch.tensor([0]), torch.tensor([0]))
    )
    assert one.item() == pytest.approx(math.log(2))


# ---- the logQ correction --------------------------------------------------------------------------------------------

PROPOSAL = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
SCORES = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.5, 0.2, -0.7, 0.1]], dtype=torch.float64)
TARGETS = torch.tensor([2, 0])


def sampled(scores: torch.Tensor, drawn: torch.Tensor, log_counts: torch.Tensor | None) -> torch.Tensor:
    targets = TARGETS[: len(scores)]
    own = scores[torch.arange(len(scores)), targets]
    return losses.sampled_softmax(own, scores[:, drawn], losses.shared_hits(targets, drawn), log_counts)


def test_sampled_softmax_is_a_float32_under_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(40, 200, generator=generator).bfloat16(), torch.randn(40, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.sampled_softmax(targets, scores.clone(), NO_HITS)
    exact = losses.sampled_softmax(targets.double(), scores.double(), NO_HITS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_over_all_possible_draws_the_corrected_negatives_are_all_other_items() -> None:
    """Check the mean of exp(loss) = 1 + Σ exp(s_j) / exp(s_target) over all draws, weighted by their probabilities.

    It equals that of the full softmax, and so does its gradient. Two draws are uniform and one is from the proposal.
    """
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    distributions = [uniform, uniform, PROPOSAL]
    expected_counts = 2 * uniform + PROPOSAL
    scores = SCORES[:1].clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=3):
        drawn = torch.tensor(draws)
        probability = math.prod(float(own[item]) for own, item in zip(distributions, draws, strict=True))
        total = total + probability * sampled(scores, drawn, expected_counts[drawn].log()).exp()
    full = (scores.logsumexp(1) - scores[0, TARGETS[0]]).exp().sum()
    torch.testing.assert_close(total, full)
    corrected, reference = (torch.autograd.grad(value, scores)[0] for value in (total, full))
    torch.testing.assert_close(corrected, reference)


def test_with_many_negatives_the_corrected_loss_is_the_full_softmax() -> None:
    generator = np.random.default_rng(0)
    n = 400_000
    drawn = torch.from_numpy(generator.choice(4, n, p=PROPOSAL.numpy()))
    scores = SCORES.clone().requires_grad_()
    loss = sampled(scores, drawn, (n * PROPOSAL[drawn]).log())
    full = torch.nn.functional.cross_entropy(scores, TARGETS, reduction="sum")
    assert loss.item() == pytest.approx(full.item(), abs=5e-3)
    corrected, reference = (torch.autograd.grad(value, scores)[0] for value in (loss, full))
    torch.testing.assert_close(corrected, reference, atol=5e-3, rtol=0)
    uncorrected = sampled(SCORES, drawn, None)
    assert uncorrected.item() > full.item() + 1
