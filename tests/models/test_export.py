"""Export of `encode` of fitted models with free batch and length, which must give the same queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import segue
from segue.data.histories import Histories
from segue.data.tables.table import Table
from segue.inference.scorer import Scorer
from segue.models.base import Model, ModelConfig
from segue.models.parsrec.inputs import BasketInputs
from tests.helpers import make_dataset

HISTORIES = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]]
TIMES = [[10 * position + row for position in range(len(history))] for row, history in enumerate(HISTORIES)]
SMALL: dict[str, Any] = {"blocks": 1, "max_length": 7}
STACKED = {**SMALL, "blocks": 2}
"""Two blocks, once for each class of blocks: the time of an export grows with their number."""
MODELS: dict[str, ModelConfig] = {
    "sasrec": segue.SASRec(width=8, **STACKED),
    "sasrec-ligr-times": segue.SASRec(
        width=8, heads=2, norm="ligr", feed_forward="swiglu", positions="both", time_bias=True, **SMALL
    ),
    "sasrec-published": segue.SASRec.as_published(width=8, max_length=7),
    "ssept": segue.SSEPT(item_width=6, user_width=4, **SMALL),
    "gru4rec": segue.GRU4Rec(width=8, layers=2, max_length=7),
    "sasrec-frequency": segue.SASRec(width=8, frequency=0.7, repeats=False, **SMALL),
    "sasrec-repeats": segue.SASRec(width=8, repeats=True, **SMALL),
    "ssept-repeats": segue.SSEPT(item_width=6, user_width=4, loss="softmax", repeats=True, **SMALL),
    "gru4rec-repeats": segue.GRU4Rec(width=8, max_length=7, repeats=True),
    "sasrec-features": segue.SASRec(width=8, features="auto", repeats=False, **SMALL),
    "ssept-features": segue.SSEPT(item_width=6, user_width=4, features="auto", repeats=False, **SMALL),
    "gru4rec-features": segue.GRU4Rec(width=8, features="auto", repeats=False, max_length=7),
    "bert4rec": segue.BERT4Rec(width=8, repeats=False, **SMALL),
    "lrurec": segue.LRURec(width=8, repeats=True, **STACKED),
    "hstu": segue.HSTU(width=8, heads=2, **STACKED),
    "hstu-features": segue.HSTU(width=8, features="auto", repeats=False, positions="relative", **SMALL),
    "ssept-times": segue.SSEPT(item_width=6, user_width=4, time_bias=True, **SMALL),
}


class Encode(nn.Module):
    """Module with `encode` as its forward pass, which `torch.export` needs."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Tensor:
        return self.model.encode(inputs)


def table_of_items() -> Table:
    frame = pl.DataFrame({"kind": list("ababababc"), "tags": [["x", "y"]] * 9})
    vectors = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    kinds: dict[str, Any] = {"kind": "category", "tags": "categories", "vector": "vector"}
    return Table(frame, kinds, "item", None, {"vector": vectors})


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_encode_is_exported_with_free_batch_and_length(name: str) -> None:
    data = make_dataset(HISTORIES, TIMES, catalogue=range(1, 10))
    data = replace(data, item_table=table_of_items())
    fitted = segue.fit(MODELS[name], data, training=segue.Training(epochs=1, cpu=True), quiet=True)
    model = Scorer.of(fitted.model).model
    example = model.inputs(data.histories())
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=7)
    repeated = torch.export.Dim("repeated", min=2)
    free = type(example)(
        *({0: batch, 1: length} if tensor.ndim == 2 and tensor.shape[1] > 1 else {0: batch} for tensor in example)
    )
    if model.config.to_dict()["repeats"] or model.config.to_dict().get("transitions"):
        free = free._replace(repeated={0: batch, 1: repeated}, features={0: batch, 1: repeated})
    program = torch.export.export(Encode(model), (example,), dynamic_shapes={"inputs": free}).module()
    for histories in (
        data.histories(),
        Histories.from_lists([[4, 2, 9], [1, 1]]),
        data.histories().select(slice(1, 2)),
        Histories.from_lists([[position % 9 + 1 for position in range(30)]] * 11),
    ):
        inputs = model.inputs(histories)
        assert torch.allclose(program(inputs), model.encode(inputs), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("repeats", "features"), [(False, None), (True, None), (False, "auto")])
def test_the_steps_of_parsrec_are_exported_with_free_batch_baskets_and_histories(repeats: bool, features: Any) -> None:
    data = make_dataset(HISTORIES, catalogue=range(1, 10))
    sessions = np.union1d(data.offsets, np.arange(0, len(data.items), 2))
    data = replace(data, session_offsets=sessions, item_table=table_of_items())
    config = segue.PARSRec(user_width=4, item_width=6, blocks=2, repeats=repeats, features=features)
    fitted = segue.fit(config, data, training=segue.Training(epochs=1, cpu=True), quiet=True)
    model = Scorer.of(fitted.model).model
    known = np.array([1, 2, 3, 4, 5])

    def asked(first_of_basket: list[int]) -> BasketInputs:
        histories = Histories.from_lists(HISTORIES[: len(first_of_basket)], known[: len(first_of_basket)])
        begins = histories.starts + np.array(first_of_basket)
        inputs: BasketInputs = model.inputs(replace(histories, baskets=begins))
        return inputs

    example = asked([3, 0, 2, 1, 5])
    batch, length, entries = (torch.export.Dim(name) for name in ("batch", "length", "entries"))
    repeated = torch.export.Dim("repeated", min=2)
    free = BasketInputs(
        users={0: batch},
        items={0: batch, 1: length},
        lengths={0: batch},
        sizes={0: batch},
        offsets={0: batch + 1},
        columns={0: entries},
        values={0: entries},
        back={0: batch},
        repeated={0: batch, 1: repeated} if repeats else {0: batch},
        features={0: batch, 1: repeated} if repeats else {0: batch},
    )
    program = torch.export.export(Encode(model), (example,), dynamic_shapes={"inputs": free}).module()
    for first_of_basket in ([3, 0, 2, 1, 5], [0, 2, 5], [6, 3, 4, 2, 3], [1]):
        inputs = asked(first_of_basket)
        assert torch.allclose(program(inputs), model.encode(inputs), atol=1e-5)
