"""Attention at the newest item alone, which must equal the full computation at that position, and its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data.histories import Histories
from segue.models.base import ModelConfig
from segue.nn.relative import Positions
from segue.nn.transformer import CausalAttention, Encoder, Norm


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(1, 4), st.booleans(), st.sampled_from([None, 1, 5]), st.integers(0, 1000))
def test_one_position_equals_the_full_computation(
    length: int, heads: int, output: bool, biases: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    width, batch = 4 * heads, 5
    layer = CausalAttention(width, heads, 0.0, output).eval()
    torch.nn.init.normal_(layer.key_value.bias)
    queries, context = torch.randn(batch, length, width), torch.randn(batch, length, width)
    newest, rows = torch.randint(length, (batch,)), torch.arange(batch)
    bias = None if biases is None else torch.randn(biases, heads, length, length)
    mixed, weights = layer.newest(queries[rows, newest], context, newest, bias)
    assert torch.allclose(mixed, layer(queries, context, bias)[rows, newest], atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(batch, heads), atol=1e-6)
    values = layer.key_value(context)[..., width:].view(batch, length, heads, 4)
    from_weights = layer.output(torch.einsum("bhl,blhd->bhd", weights, values).reshape(batch, width))
    assert torch.allclose(from_weights, mixed, atol=1e-5)
    for row, position in enumerate(newest.tolist()):
        assert not weights[row, :, position + 1 :].any()


@pytest.mark.parametrize("positions", ["absolute", "both"])
@pytest.mark.parametrize("norm", ["paper", "pre", "ligr"])
def test_the_last_block_computes_only_the_newest_positions(norm: Norm, positions: Positions) -> None:
    torch.manual_seed(0)
    encoder = Encoder(8, 6, 3, 2, 8, 0.0, norm, "relu", positions, time_bias=positions == "both").eval()
    for name, parameter in encoder.named_parameters():
        if ".bias.positions" in name or ".bias.times" in name:
            torch.nn.init.normal_(parameter)
    x, position_rows = torch.randn(4, 6, 8), torch.arange(6).expand(4, -1)
    ages = torch.randint(0, 9, (4, 6)).cumsum(1).flip(1)
    newest, rows = torch.tensor([5, 0, 3, 2]), torch.arange(4)
    recorded: list[torch.Tensor] = []
    for block in encoder.blocks:
        block.attention.register_forward_hook(
            lambda layer, args, out: recorded.append(layer.newest(args[0][rows, newest], args[1], newest, args[2])[1])
        )
    states = encoder(x, position_rows, ages)
    weights = encoder.weights(x, position_rows, newest, ages)
    assert weights.shape == (4, 3, 2, 6)
    assert torch.allclose(weights, torch.stack(recorded[:3], dim=1), atol=1e-6)
    assert torch.allclose(encoder.newest(x, position_rows, newest, ages), states[rows, newest], atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        segue.SASRec(width=8, heads=2, max_length=4),
        segue.SASRec.as_published(width=8, max_length=4),
        segue.SSEPT(item_width=4, user_width=4, heads=2, max_length=4),
    ],
    ids=["sasrec", "sasrec-published", "ssept"],
)
def test_models_return_their_attention(config: ModelConfig) -> None:
    torch.manual_seed(1)
    model = config.build(3, 20).eval()
    histories = Histories.from_lists([[3, 1, 4, 1, 5, 9], [2], [6, 5, 3]], np.array([1, 0, 3]))
    with torch.inference_mode():
        attention = model.attention(histories)
        alone = model.attention(histories.select(np.array([2])))
    assert attention is not None
    assert alone is not None
    assert attention.places.tolist() == [[2, 3, 4, 5], [6, -1, -1, -1], [7, 8, 9, -1]]
    assert attention.weights.shape == (3, config.to_dict()["blocks"], config.to_dict()["heads"], 4)
    assert torch.allclose(attention.weights.sum(-1), torch.ones(attention.weights.shape[:3]), atol=1e-6)
    assert not attention.weights[
        torch.from_numpy(attention.places < 0)[:, None, None].expand_as(attention.weights)
    ].any()
    assert torch.allclose(attention.weights[2, :, :, :3], alone.weights[0], atol=1e-5)


def test_models_without_attention_return_none() -> None:
    assert segue.Popularity().build(2, 3).attention(Histories.from_lists([[1]])) is None


@pytest.mark.parametrize("setting", ["norm", "feed_forward", "positions"])
@pytest.mark.parametrize("config", [segue.SASRec, segue.SSEPT])
def test_an_unknown_encoder_option_is_refused(config: type[ModelConfig], setting: str) -> None:
    with pytest.raises(segue.errors.ConfigError, match=f"{setting}='absolut'"):
        config(**{setting: "absolut"})
