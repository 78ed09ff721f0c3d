"""Modules compared with the equations of the papers (`paper.py`), on random weights and histories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segue.data.histories import Histories
from segue.models.next_item import NextItemBatch
from segue.models.sasrec import SASRec, SASRecModel
from segue.models.ssept import SSEPT, SSEPTModel
from tests.helpers import make_dataset, prepared, queries_of
from tests.models import paper

N_USERS, N_ITEMS, MAX_LENGTH = 6, 11, 5
HISTORIES = [[3], [1, 2], [5, 5, 4, 9], [2, 7, 1, 8, 10], [4, 11, 6, 3, 1, 9, 9, 2], [8, 1, 6, 2, 3, 5, 7]]
TIMES = [[7], [0, 90], [5, 5, 6, 400], [0, 8, 9, 9, 10**7], [1, 2, 4, 8, 16, 32, 64, 128], [3, 3, 3, 50, 51, 99, 2000]]
SHAPES: list[dict[str, Any]] = [
    {"norm": "paper", "feed_forward": "relu", "heads": 1},
    {"norm": "paper", "feed_forward": "gelu", "heads": 3, "inner_width": 7},
    {"norm": "pre", "feed_forward": "relu", "heads": 2},
    {"norm": "pre", "feed_forward": "gelu", "heads": 1, "blocks": 3},
    {"norm": "pre", "feed_forward": "swiglu", "heads": 3, "inner_width": 10},
    {"norm": "ligr", "feed_forward": "swiglu", "heads": 2, "inner_width": 9},
    {"norm": "paper", "positions": "relative", "heads": 1},
    {"norm": "pre", "positions": "both", "heads": 3},
    {"norm": "paper", "time_bias": True, "heads": 2},
    {"norm": "ligr", "positions": "relative", "time_bias": True, "heads": 1},
]
FREQUENCIES: list[dict[str, Any]] = [
    {"norm": "pre", "frequency": 0.7},
    {"norm": "paper", "frequency": 0.3, "heads": 2},
    {"norm": "ligr", "frequency": 0.5, "positions": "both", "time_bias": True},
]
LOSSES: list[dict[str, Any]] = [
    {"loss": "bce", "negatives": 1},
    {"loss": "bce", "negatives": 4},
    {"loss": "gbce", "negatives": 1, "calibration": 0.0},
    {"loss": "gbce", "negatives": 3, "calibration": 0.75},
    {"loss": "sampled-softmax", "negatives": 9},
    {"loss": "sampled-softmax", "negatives": 9, "logq": True},
    {"loss": "sampled-softmax", "negatives": 9, "logq": True, "in_batch": 0.5},
    {"loss": "sampled-softmax", "negatives": 9, "in_batch": 1.0},
    {"loss": "softmax"},
]
PRECISIONS = [pytest.param(torch.float32, 1e-5, id="float32"), pytest.param(torch.float64, 1e-10, id="float64")]


def named(settings: dict[str, Any]) -> str:
    return "-".join(map(str, settings.values()))


def sasrec(dtype: torch.dtype, **settings: Any) -> SASRecModel:
    usual = {"width": 12, "max_length": MAX_LENGTH, "windows": "newest", "similarity": "dot", "dropout": 0.4}
    config = SASRec(**{**usual, **settings})
    return randomised(config.build(N_USERS, N_ITEMS), dtype)


def scored_users(model: SSEPTModel, users: np.ndarray) -> np.ndarray:
    """User vectors as they stand in the scores."""
    return users * np.sqrt(users.shape[1]) if model.config.scaled_user else users


def ssept(dtype: torch.dtype, **settings: Any) -> SSEPTModel:
    sizes = {"item_width": 8, "user_width": 4, "max_length": MAX_LENGTH, "dropout": 0.4}
    config = SSEPT(**{**sizes, "swap_user": 0.0, "swap_item": 0.0, "swap_target": 0.0, **settings})
    model = randomised(config.build(N_USERS, N_ITEMS), dtype)
    model.users.known[1:5] = True
    return model


def randomised(model: Any, dtype: torch.dtype) -> Any:
    """Give all parameters random values, biases and norms too, so that each of them matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    if getattr(model.config, "time_bias", False):
        model.encoder.gap.fill_(7)
    return model.to(dtype).eval()


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}


def gradients_are_the_papers(model: torch.nn.Module, loss: torch.Tensor, expected: Callable[[], float]) -> None:
    """Compare the gradient of every parameter, in a random direction, with a difference of the paper's loss."""
    generator = torch.Generator().manual_seed(11)
    loss.backward()
    for name, parameter in model.named_parameters():
        step = 1e-5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None, name
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                kept = parameter.clone()
                parameter.add_(sign * step)
                values.append(expected())
                parameter.copy_(kept)
        along = float((parameter.grad * step).sum())
        assert along == pytest.approx((values[0] - values[1]) / 2, rel=1e-5, abs=1e-12), name


def shape_of(model: SASRecModel | SSEPTModel) -> tuple[int, str, str]:
    return model.config.heads, model.config.norm, model.config.feed_forward


def paper_user_vectors(model: SSEPTModel, users: np.ndarray) -> np.ndarray:
    table, known = arrays(model)["users.weight"], np.flatnonzero(model.users.known.numpy())
    return np.stack([table[user] if user in known else table[known].mean(0) for user in users])


def paper_hidden(
    model: SASRecModel | SSEPTModel,
    histories: list[list[int]],
    user_vectors: np.ndarray,
    times: list[list[int]] | None = None,
) -> np.ndarray:
    sequences = paper.left_padded(histories, MAX_LENGTH)
    padded_times = None if times is None else paper.left_padded(times, MAX_LENGTH)
    if isinstance(model, SASRecModel):
        frequency = model.config.frequency
        return paper.sasrec(arrays(model), sequences, *shape_of(model), padded_times, frequency)
    return paper.ssept(arrays(model), sequences, user_vectors, *shape_of(model), padded_times)


def paper_scores(model: SASRecModel | SSEPTModel, hidden: np.ndarray, user_vectors: np.ndarray) -> np.ndarray:
    """Scores (n, n_items + 1) of hidden states (n, width), each with its own user vector (n, user_width)."""
    table = arrays(model)["items.weight"]
    if isinstance(model, SSEPTModel):
        own = scored_users(model, user_vectors)
        joined = [np.concatenate([table, np.repeat(user[None], N_ITEMS + 1, axis=0)], axis=1) for user in own]
        return np.stack([items @ state for items, state in zip(joined, hidden, strict=True)])
    if model.config.similarity == "dot":
        return paper.dot(hidden, table)
    return paper.cosine(
        hidden, table, float(torch.as_tensor(model.similarity.temperature, dtype=torch.float64).detach())
    )


def close(actual: torch.Tensor, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def histories_of(histories: list[list[int]], users: list[int] | None = None) -> Histories:
    return Histories.from_lists(histories, np.array(users or range(1, len(histories) + 1)))


def timed(histories: list[list[int]], times: list[list[int]]) -> Histories:
    return replace(histories_of(histories), times=np.concatenate([np.array(row, np.int64) for row in times]))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("shape", [*SHAPES, *FREQUENCIES], ids=named)
def test_sasrec_scores_are_the_papers(
    shape: dict[str, Any], similarity: str, dtype: torch.dtype, tolerance: float
) -> None:
    model = sasrec(dtype, similarity=similarity, temperature=0.3, **shape)
    queries = queries_of(model, timed(HISTORIES, TIMES))
    newest = paper_hidden(model, HISTORIES, np.empty(0), TIMES)[:, -1]
    close(model.scores().all(queries, 0, N_ITEMS + 1), paper_scores(model, newest, np.empty(0)), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", [*SHAPES, {"scaled_user": True, "heads": 2}], ids=named)
def test_ssept_scores_are_the_papers(shape: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    """Users 5 and 6 were not in training, so they get the mean vector of the others."""
    model = ssept(dtype, **shape)
    users = paper_user_vectors(model, np.arange(1, 7))
    newest = paper_hidden(model, HISTORIES, users, TIMES)[:, -1]
    scores = model.scores().all(queries_of(model, timed(HISTORIES, TIMES)), 0, N_ITEMS + 1)
    close(scores, paper_scores(model, newest, users), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("loss", LOSSES, ids=named)
@pytest.mark.parametrize("kind", ["dot", "cosine", "ssept", "ssept-scaled"])
def test_the_summed_loss_is_the_papers(kind: str, loss: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    if kind.startswith("ssept"):
        model: SASRecModel | SSEPTModel = ssept(dtype, scaled_user=kind == "ssept-scaled", **loss)
    else:
        model = sasrec(dtype, norm="paper", similarity=kind, temperature=0.3, **loss)
    batch = batch_of(model)
    if loss["loss"] == "sampled-softmax":
        assert set(batch.targets.tolist()) & set(batch.negatives.tolist()), "no hit to mask"
    close(model(batch), paper_loss(model, batch), tolerance)


def batch_of(model: SASRecModel | SSEPTModel) -> NextItemBatch:
    dataset = make_dataset(HISTORIES, TIMES, catalogue=range(1, N_ITEMS + 1))
    return prepared(model, dataset).batch(np.array([3, 0, 2, 4]), np.random.default_rng(3))


def paper_loss(model: SASRecModel | SSEPTModel, batch: NextItemBatch) -> float:
    config, users, lengths = model.config, batch.users.numpy(), batch.lengths.numpy()
    inputs = [row[:length].tolist() for row, length in zip(batch.items, lengths, strict=True)]
    times = [TIMES[user - 1][:-1][-MAX_LENGTH:] for user in users] if config.time_bias else None
    vectors = arrays(model)["users.weight"][users] if isinstance(model, SSEPTModel) else np.empty((len(users), 0))
    padded = paper_hidden(model, inputs, vectors, times)
    hidden = np.concatenate([row[-length:] for row, length in zip(padded, lengths, strict=True)])
    scores = paper_scores(model, hidden, np.repeat(vectors, lengths, axis=0))
    targets, negatives = batch.targets.numpy(), batch.negatives.numpy()
    if config.loss == "bce":
        return paper.bce(scores, targets, negatives)
    if config.loss == "gbce":
        return paper.gbce(scores, targets, negatives, config.calibration)
    if config.loss == "sampled-softmax":
        expected = np.exp(batch.log_counts.numpy().astype(np.float64)) if config.logq else None
        return paper.sampled_softmax(scores, targets, negatives, expected)
    return paper.full_softmax(scores, targets)


OPTIONS: list[dict[str, Any]] = [
    {"norm": "ligr", "feed_forward": "swiglu", "heads": 2},
    {"positions": "relative", "heads": 2},
    {"positions": "both", "time_bias": True},
    {"norm": "paper", "time_bias": True, "heads": 2},
    {"loss": "sampled-softmax", "negatives": 9, "logq": True, "in_batch": 0.5},
]


@pytest.mark.parametrize("options", [*OPTIONS, *FREQUENCIES, {"learn_temperature": True}], ids=named)
def test_the_gradients_of_sasrec_are_the_papers(options: dict[str, Any]) -> None:
    settings = {"similarity": "cosine", "temperature": 0.3, "loss": "softmax", "heads": 1, **options}
    model = sasrec(torch.float64, **settings)
    batch = batch_of(model)
    gradients_are_the_papers(model, model(batch), lambda: paper_loss(model, batch))


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_gradients_of_ssept_are_the_papers(options: dict[str, Any]) -> None:
    model = ssept(torch.float64, **{"loss": "softmax", **options})
    batch = batch_of(model)
    gradients_are_the_papers(model, model(batch), lambda: paper_loss(model, batch))


@pytest.mark.parametrize("loss", LOSSES, ids=named)
@pytest.mark.parametrize("build", [sasrec, ssept])
def test_l2_counts_the_vectors_that_a_batch_reads(build: Any, loss: dict[str, Any]) -> None:
    """Inputs, targets and negatives each time they are read; a full softmax reads every item once; users once a row."""
    plain, penalised = build(torch.float64, **loss), build(torch.float64, embedding_l2=0.1, **loss)
    batch = batch_of(plain)
    table = arrays(plain)["items.weight"]
    read = [item for row in batch.items.tolist() for item in row if item]
    if loss["loss"] == "softmax":
        read += range(1, N_ITEMS + 1)
    else:
        read += batch.targets.tolist() + batch.negatives.flatten().tolist()
    expected = sum((table[item] ** 2).sum() for item in read)
    if build is ssept:
        expected += sum((arrays(plain)["users.weight"][user] ** 2).sum() for user in batch.users.tolist())
    close(penalised(batch) - plain(batch), 0.1 * expected, 1e-10)


MODELS = [
    pytest.param(lambda **settings: sasrec(torch.float64, similarity="cosine", **settings), id="sasrec"),
    pytest.param(lambda **settings: sasrec(torch.float64, norm="paper", **settings), id="sasrec-paper"),
    pytest.param(lambda **settings: sasrec(torch.float64, norm="ligr", positions="both", **settings), id="sasrec-ligr"),
    pytest.param(lambda **settings: sasrec(torch.float64, frequency=0.6, **settings), id="sasrec-frequency"),
    pytest.param(lambda **settings: ssept(torch.float64, **settings), id="ssept"),
]


@pytest.mark.parametrize("build", MODELS)
def test_score_all_and_score_items_agree(build: Any) -> None:
    model = build()
    queries = queries_of(model, histories_of(HISTORIES))
    everything = model.scores().all(queries, 0, N_ITEMS + 1)
    items = torch.from_numpy(np.random.default_rng(0).integers(1, N_ITEMS + 1, (len(HISTORIES), 5)))
    close(model.scores().of(queries, items), everything.gather(1, items).detach(), 1e-12)
    with torch.no_grad():
        out = torch.empty(len(HISTORIES), 4, dtype=torch.float64)
        assert model.scores().all(queries, 3, 7, out) is out
    close(out, everything[:, 3:7].detach(), 1e-12)


@pytest.mark.parametrize("build", MODELS)
def test_scores_of_queries_are_those_of_the_forward_pass(build: Any) -> None:
    """Under full softmax, another last target changes the loss by the difference of the two scores."""
    model = build(loss="softmax")
    history = [5, 3, 9, 1]
    losses = []
    for target in (2, 7):
        dataset = make_dataset([[*history, target]], catalogue=range(1, N_ITEMS + 1))
        losses.append(model(prepared(model, dataset).batch(np.array([0]), np.random.default_rng(0))))
    scores = model.scores().all(queries_of(model, histories_of([history])), 0, N_ITEMS + 1)[0]
    close(losses[1] - losses[0], (scores[2] - scores[7]).detach(), 1e-10)


@pytest.mark.parametrize("build", MODELS)
def test_a_users_query_does_not_depend_on_the_rest_of_the_batch(build: Any) -> None:
    model = build()
    together = queries_of(model, histories_of(HISTORIES))
    for row, history in enumerate(HISTORIES):
        close(queries_of(model, histories_of([history], [row + 1])), together[row : row + 1].detach(), 1e-12)


@pytest.mark.parametrize("build", MODELS)
def test_only_the_newest_items_within_max_length_matter(build: Any) -> None:
    model = build()
    long, short = [9, 9, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5]
    close(queries_of(model, histories_of([long], [1])), queries_of(model, histories_of([short], [1])).detach(), 0)
    other = queries_of(model, histories_of([[9, 2, 3, 4, 5]], [1]))
    assert not torch.allclose(other, queries_of(model, histories_of([short], [1])))


def hidden_states(model: SASRecModel | SSEPTModel, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    if isinstance(model, SSEPTModel):
        return model.hidden_states(model.items(items), model.users(torch.arange(1, len(items) + 1)), lengths)
    return model.hidden_states(model.items(items), items, lengths)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("build", MODELS)
def test_a_later_item_changes_nothing_before_it(build: Any, training: bool) -> None:
    """Test training too, which has another code path of the attention; the same seed drops the same weights."""
    model = build().train(training)
    items = torch.tensor([[1, 2, 3, 4, 5]])
    changed = torch.tensor([[1, 2, 3, 9, 7]])
    states = []
    for row in (items, changed):
        torch.manual_seed(0)
        states.append(hidden_states(model, row, torch.tensor([5])))
    assert torch.equal(states[0][:, :3], states[1][:, :3])
    assert not torch.allclose(states[0][:, 3], states[1][:, 3])
    assert not torch.allclose(states[0][:, 4], states[1][:, 4])


@pytest.mark.parametrize("build", MODELS)
def test_wider_padding_and_its_content_change_nothing(build: Any) -> None:
    model = build()
    lengths = torch.tensor([2, 3])
    narrow = hidden_states(model, torch.tensor([[1, 2, 0], [4, 5, 6]]), lengths)
    wide = hidden_states(model, torch.tensor([[1, 2, 0, 0, 0], [4, 5, 6, 0, 0]]), lengths)
    other = hidden_states(model, torch.tensor([[1, 2, 8, 8, 8], [4, 5, 6, 7, 7]]), lengths)
    for padded in (wide, other):
        close(padded[0, :2], narrow[0, :2].detach(), 1e-12)
        close(padded[1, :3], narrow[1, :3].detach(), 1e-12)


@pytest.mark.parametrize("build", MODELS)
def test_the_training_path_without_dropout_is_the_evaluation_path(build: Any) -> None:
    """Only the attention weights' dropout selects the step-by-step attention; a rate of almost 0 drops nothing."""
    model = build(dropout=1e-9)
    items, lengths = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), torch.tensor([5, 3])
    evaluated = hidden_states(model, items, lengths)
    trained = hidden_states(model.train(), items, lengths)
    close(trained[0], evaluated[0].detach(), 1e-12)
    close(trained[1, :3], evaluated[1, :3].detach(), 1e-12)


def test_unknown_users_of_an_untrained_ssept_get_scores() -> None:
    model = ssept(torch.float64)
    model.users.known[:] = False
    assert queries_of(model, histories_of([[1, 2]], [0])).isfinite().all()


def test_users_with_training_examples_are_known() -> None:
    model = SSEPT(item_width=4, user_width=4).build(3, 3)
    prepared(model, make_dataset([[1, 2], [3], [2, 1]]))
    assert model.users.known.tolist() == [False, True, False, True]
