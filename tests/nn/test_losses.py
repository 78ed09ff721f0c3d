from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from segue.nn import losses


@pytest.mark.parametrize(("positions", "items", "width"), [(1, 2, 3), (50, 17, 8), (120, 300, 4)])
def test_full_softmax_is_a_log_softmax_with_its_gradients(positions: int, items: int, width: int) -> None:
    """The last shape is worked on in many pieces: far more items than the vectors are wide."""
    generator = torch.Generator().manual_seed(positions)
    vectors = torch.randn(positions, width, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(items, width, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, items + 1, (positions,), generator=generator)
    loss = losses.full_softmax(vectors, table, targets)
    gradients = torch.autograd.grad(loss, [vectors, table])
    naive = -(vectors @ table.T).log_softmax(1)[torch.arange(positions), targets - 1].sum()
    expected = torch.autograd.grad(naive, [vectors, table])
    assert loss.item() == pytest.approx(naive.item(), rel=1e-12)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_gbce_is_exact_at_both_ends_of_calibration() -> None:
    """t = 0 is plain BCE; at t = 1 β = α = k / (n_items - 1): 4 negatives of 100 others weigh the target by 0.04."""
    targets, negatives = torch.randn(6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    plain = losses.bce(targets, negatives)
    torch.testing.assert_close(losses.gbce(targets, negatives, 101, 0.0), plain)
    calibrated = plain + 0.96 * F.logsigmoid(targets).sum()
    torch.testing.assert_close(losses.gbce(targets, negatives, 101, 1.0), calibrated)


def test_losses_stay_finite_where_a_sigmoid_would_not() -> None:
    targets, negatives = torch.tensor([-200.0, 200.0]), torch.tensor([[200.0], [-200.0]])
    assert losses.bce(targets, negatives).item() == pytest.approx(400.0)
    assert losses.sampled_softmax(targets, negatives, torch.zeros(2, 1, dtype=torch.bool)).item() == pytest.approx(
        400.0
    )


def test_a_negative_that_is_the_target_counts_for_nothing() -> None:
    targets = torch.tensor([1.0], requires_grad=True)
    hit = torch.tensor([[True, True]])
    loss = losses.sampled_softmax(targets, torch.tensor([[1.0, 1.0]]), hit)
    loss.backward()
    assert loss.item() == 0 and targets.grad is not None and targets.grad.item() == 0
    one = losses.sampled_softmax(torch.tensor([1.0]), torch.tensor([[1.0, 1.0]]), torch.tensor([[True, False]]))
    assert one.item() == pytest.approx(math.log(2))
