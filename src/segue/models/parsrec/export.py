"""Steps of PARSRec as one scan of equal steps, which `torch.export` takes with free lengths.

The ordinary run (`PARSRecModel.encode`) leaves out sessions without further steps, and so depends on the data.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.item_table import ItemTable
from segue.models.parsrec.attention import BasketAttention
from segue.models.parsrec.inputs import BasketInputs
from segue.models.users import UserVectors
from segue.nn.recurrence import scan


class Parts(Protocol):
    """Parts of a PARSRec model that the steps read."""

    items: ItemTable
    users: UserVectors
    attention_blocks: nn.ModuleList
    hidden: nn.Linear
    output: nn.Linear


def run_as_scan(model: Parts, inputs: BasketInputs) -> Tensor:
    """Outputs (n, item_width) after each basket, as of `PARSRecModel.encode`; baskets are padded to one item."""
    blocks = [block for block in model.attention_blocks if isinstance(block, BasketAttention)]
    composed = [block.composed() for block in blocks]
    users = model.users.of(inputs.users)
    basket = model.items(inputs.items)
    columns = torch.arange(inputs.items.shape[1], device=basket.device)

    def results(state: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Next state and output."""
        joint = torch.cat([users, state, query], dim=1)
        return model.hidden(joint).relu(), model.output(joint)

    def step(state: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        query = torch.cat([users, state], dim=1)
        inside = (columns < number).expand(basket.shape[:2])
        for block, maps in zip(blocks, composed, strict=True):
            mapped = F.linear(query, maps.query_map, maps.query_bias)
            query, _ = block(query, mapped, basket, inside, maps)
        return results(state, query)

    state = _history_sums(inputs, model.items.all()) / inputs.sizes.clamp(min=1)[:, None]
    query = torch.cat([users, state], dim=1)
    for block, maps in zip(blocks, composed, strict=True):
        query = block.alone(query, model.items.weight[0], maps)
    state, first = results(state, query)
    _, outputs = scan(step, state, columns + 1)
    outputs = torch.cat([first[None], outputs])
    last = inputs.lengths[None, :, None].expand(1, -1, outputs.shape[2])
    return outputs.gather(0, last)[0][inputs.back]


def _history_sums(inputs: BasketInputs, table: Tensor) -> Tensor:
    """Sums (n, item_width) of the vectors of each history."""
    entries = torch.arange(inputs.columns.shape[0], device=table.device)
    rows = torch.searchsorted(inputs.offsets.long(), entries, right=True) - 1
    vectors = table[inputs.columns.long()] * inputs.values.to(table.dtype)[:, None]
    return table.new_zeros(inputs.users.shape[0], table.shape[1]).index_add(0, rows, vectors)
