from __future__ import annotations

import pytest
import torch

from segue.nn.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_the_share_is_dropped_and_the_mean_kept(rate: float) -> None:
    torch.manual_seed(0)
    out = Dropout(rate)(torch.ones(401, 503))  # not a multiple of four
    kept = out != 0
    deviation = (rate * (1 - rate) / out.numel()) ** 0.5
    assert (~kept).float().mean().item() == pytest.approx(rate, abs=5 * deviation)
    assert out.mean().item() == pytest.approx(1.0, abs=5 * deviation / (1 - rate))
    assert out[kept].unique().tolist() == [pytest.approx(1 / (1 - rate), rel=1e-3)]


def test_neighbours_that_share_random_bits_are_dropped_independently() -> None:
    """Four neighbouring elements share one random number, but all 16 patterns are equally frequent at rate 1/2."""
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(40_000, 4)) != 0).long()
    counts = torch.bincount(kept @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert ((counts - 2500) / 2500**0.5).abs().max() < 4.5


def test_the_seed_decides_and_every_call_differs() -> None:
    x, dropout = torch.randn(50, 7), Dropout(0.5)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    again = dropout(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_nothing_happens_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_gradients_pass_only_through_kept_elements() -> None:
    x = torch.ones(64, 8, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, out)
