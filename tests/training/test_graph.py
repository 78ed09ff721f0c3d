"""Compute graph of a loss."""

from __future__ import annotations

import re
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.simulation.simulate import simulate
from segue.errors import ConfigError
from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig, TrainableModel
from segue.models.parsrec.parsrec import PARSRec
from segue.models.popularity import Popularity
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from segue.training.graph import draw_graph
from tests.helpers import make_dataset

CONFIGS: list[ModelConfig] = [
    SASRec(width=8, blocks=1),
    SSEPT(item_width=8, user_width=4, blocks=1),
    PARSRec(user_width=8, item_width=8),
]


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return simulate(20, 5, categories=6, products=4, longest=5).dataset()


def untrained(config: ModelConfig, dataset: Dataset) -> Recommender:
    return Recommender(config.build(dataset.n_users, dataset.n_items), dataset)


def parsed(source: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Label of each node, and the nodes that each node leads to."""
    labels = dict(re.findall(r'^\t(n\d+) \[label="?([^"\]]+?)"?(?: fillcolor.*)?\]$', source, re.M))
    leads: dict[str, set[str]] = {}
    for start, end in re.findall(r"^\t(n\d+) -> (n\d+)", source, re.M):
        leads.setdefault(start, set()).add(end)
    return labels, leads


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_parameter_is_named_and_leads_to_the_loss(config: ModelConfig, shop: Dataset, tmp_path: Path) -> None:
    recommender = untrained(config, shop)
    before = {name: tensor.clone() for name, tensor in recommender.model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    source = draw_graph(recommender, tmp_path / "graph.dot").read_text()
    assert torch.equal(torch.rand(1), expected), "the caller's generator is left alone"
    labels, leads = parsed(source)
    named = {label.partition("\n")[0]: node for node, label in labels.items() if "\n" in label}
    assert isinstance(recommender.model, TrainableModel)
    shapes = {name: f"({', '.join(map(str, one.shape))})" for name, one in recommender.model.named_parameters()}
    assert {name: labels[node].partition("\n")[2].strip() for name, node in named.items() if name in shapes} == shapes
    for name in shapes:
        reached, left = set(), [named[name]]
        while left:
            node = left.pop()
            reached.add(node)
            left += leads.get(node, set()) - reached
        assert named["loss"] in reached, name
    for name, tensor in recommender.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert draw_graph(recommender, tmp_path / "again.dot").read_text() == source


def test_the_steps_of_a_session_are_drawn(shop: Dataset, tmp_path: Path) -> None:
    source = draw_graph(untrained(CONFIGS[2], shop), tmp_path / "graph.dot").read_text()
    assert "parsrec: the loss of 4 training examples of length 3" in source
    assert source.count("ReluBackward") == 2


def test_a_graph_may_be_deeper_than_calls_may_usually_be(tmp_path: Path) -> None:
    long = make_dataset([list(range(1, 201))])
    sessions = replace(long, session_offsets=np.array([0, 200]))
    limit = sys.getrecursionlimit()
    source = draw_graph(untrained(CONFIGS[2], sessions), tmp_path / "graph.dot").read_text()
    assert source.count("ReluBackward") == 199
    assert sys.getrecursionlimit() == limit


def test_pictures_are_made_by_the_program_of_graphviz(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = untrained(CONFIGS[0], shop)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"graph\.svg needs Graphviz, and its program `dot` was not found"):
        draw_graph(recommender, tmp_path / "graph.svg")
    assert list(tmp_path.iterdir()) == []
    program(tmp_path / "dot", "sys.stdout.write(' '.join(sys.argv[1:]) + sys.stdin.read())")
    for suffix in ("svg", "pdf", "png"):
        drawn = draw_graph(recommender, tmp_path / f"graph.{suffix}").read_text()
        assert drawn.startswith(f"-Kdot -T{suffix}digraph {{")
    program(tmp_path / "dot", "sys.exit('no fonts')")
    with pytest.raises(ConfigError, match="Graphviz could not draw it: no fonts"):
        draw_graph(recommender, tmp_path / "other.svg")
    assert not (tmp_path / "other.svg").exists()


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_understands_it(shop: Dataset, tmp_path: Path) -> None:
    drawn = draw_graph(untrained(CONFIGS[2], shop), tmp_path / "graph.svg").read_text()
    assert "users.weight" in drawn
    assert "</svg>" in drawn


def test_impossible_requests(shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"graph\.gif: the file of a graph ends in \.svg, \.pdf, \.png, \.dot"):
        draw_graph(untrained(CONFIGS[0], shop), tmp_path / "graph.gif")
    with pytest.raises(ConfigError, match="popularity only counts: it has no loss"):
        draw_graph(untrained(Popularity(), shop), tmp_path / "graph.dot")
    monkeypatch.setitem(sys.modules, "torchviz", None)
    with pytest.raises(ConfigError, match=r"needs torchviz, which is not installed.*pip install torchviz"):
        draw_graph(untrained(CONFIGS[0], shop), tmp_path / "graph.dot")


def program(path: Path, body: str) -> None:
    """Write a program that replaces another of the same name."""
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
