from __future__ import annotations

import pytest
import torch

from segue.errors import ConfigError
from segue.models.sasrec import SASRec
from segue.models.similarity import Similarity


def temperature_of(similarity: Similarity) -> float:
    return float(torch.as_tensor(similarity.temperature).detach())


@pytest.mark.parametrize("start", [0.011, 0.07, 0.5, 0.99])
def test_a_learnt_temperature_starts_at_the_given_value(start: float) -> None:
    similarity = Similarity("cosine", start, learn=True)
    assert temperature_of(similarity) == pytest.approx(start, rel=1e-4)
    vectors = torch.randn(5, 3)
    fixed = Similarity("cosine", start)
    assert torch.allclose(similarity.query(vectors), fixed.query(vectors), rtol=1e-4)
    assert not list(fixed.parameters())


def test_it_stays_within_its_bounds_and_recovers() -> None:
    similarity = Similarity("cosine", 0.07, learn=True)
    assert similarity.warmth is not None
    for far, bound in ((-50.0, 0.01), (50.0, 1.0)):
        torch.nn.init.constant_(similarity.warmth, far)
        assert temperature_of(similarity) == pytest.approx(bound)
    torch.nn.init.constant_(similarity.warmth, -5.0)
    similarity.temperature.backward()  # type: ignore[union-attr]
    assert similarity.warmth.grad is not None and similarity.warmth.grad > 0


def test_it_is_learnt_from_the_data() -> None:
    """Learn from cosines of 1 and 0 that are right nine times of ten; the best temperature is 1 / log 9."""
    similarity = Similarity("cosine", 0.07, learn=True)
    optimizer = torch.optim.Adam(similarity.parameters(), lr=0.05)
    hidden, items = torch.eye(2)[:1].expand(10, -1), torch.eye(2)
    targets = torch.tensor([0] * 9 + [1])
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(similarity.query(hidden) @ similarity.item(items).T, targets).backward()
        optimizer.step()
    assert temperature_of(similarity) == pytest.approx(1 / torch.tensor(9.0).log().item(), rel=1e-2)


def test_dot_products_have_none() -> None:
    assert not list(Similarity("dot", 5.0, learn=True).parameters())


def test_a_start_outside_the_bounds_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"temperature=1\.5.*between 0\.01 and 1\.0"):
        SASRec(width=8, temperature=1.5, learn_temperature=True).build(2, 3)
