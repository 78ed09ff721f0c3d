"""GRU4Rec: a recurrent network over the items of a user, with ranking losses over shared negatives.

Hidasi & Karatzoglou, *Recurrent Neural Networks with Top-k Gains for Session-based Recommendations* (CIKM 2018); Hidasi
et al., *Session-based Recommendations with Recurrent Neural Networks* (ICLR 2016). The items have one
table for input and output vectors ("constrained embedding" in the authors' program). Here a batch has whole windows of
histories, and the gradient flows through all of their steps; the authors run sessions in parallel, step by step, and
cut the gradient after each step. The batch shares its negatives, as in `SharedNegatives`: uniform ones, and targets of
the batch. The authors draw by a power of the popularity instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.models.base import ModelConfig, Side, TrainableModel
from segue.models.features import FeatureNames
from segue.models.features import resolved as with_features
from segue.models.item_table import DividedItemTable, item_table
from segue.models.next_item import (
    HistoryInputs,
    NextItemBatch,
    NextItemExamples,
    NextItemLoss,
    Targets,
    Windows,
    history_inputs,
    why_whole,
)
from segue.models.repeats import PAIRS, Repeats, check_repeats
from segue.models.repeats import resolved as with_repeats
from segue.models.scores import AddedScores, ItemScores
from segue.models.sequence_model import at_newest
from segue.models.similarity import Similarity
from segue.nn import losses
from segue.nn.dropout import Dropout
from segue.nn.recurrence import GRU
from segue.settings import Count, Negatives, Penalty, Share, ShareBelowOne

TopKLoss = Literal["cross-entropy", "bpr-max", "top1-max", "bpr", "top1"]

_RANKING: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "top1-max": losses.top1_max,
    "bpr": losses.bpr,
    "top1": losses.top1,
}


@dataclass(frozen=True)
class GRU4Rec(ModelConfig):
    """Gated recurrent network over the items of a user; the same item table scores the next item.

    Examples
    --------
    >>> config = segue.GRU4Rec(width=48, loss="bpr-max")
    >>> config.layers
    1
    """

    name: ClassVar[str] = "gru4rec"
    formerly: ClassVar[Mapping[str, Any]] = {"targets": "item", "repeats": False}
    may_change_on_start: ClassVar[frozenset[str]] = ModelConfig.may_change_on_start | {
        "dropout_input",
        "dropout_hidden",
        "bpr_penalty",
        "elu",
    }
    published_training: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adagrad",
        "learning_rate": 0.2,
        "batch_size": 32,
        "averaging": 0.0,
    }

    width: Count = 64
    """Width of the item vectors and of the hidden states."""
    layers: Count = 1
    """Number of recurrent layers."""
    max_length: Count = 50
    """Number of a user's newest items that are read."""
    windows: Windows = "all"
    """Windows of a longer history to learn from: the "newest" alone, or "all"."""
    dropout_input: ShareBelowOne = 0.2
    """Dropout of the item vectors that are read."""
    dropout_hidden: ShareBelowOne = 0.2
    """Dropout of the hidden states before scoring and between layers."""
    loss: TopKLoss = "cross-entropy"
    """Loss of the next item: cross-entropy, bpr-max, top1-max, bpr or top1."""
    negatives: Negatives = 512
    """Number of negatives, which all positions of a batch share."""
    in_batch: Share = 0.5
    """Share of the negatives drawn from the batch's targets; the others are uniform."""
    logq: bool = True
    """Correct cross-entropy for how often each negative is drawn."""
    bpr_penalty: Penalty = 1.0
    """Penalty of bpr-max on the squared scores of the negatives."""
    elu: Penalty = 0.0
    """Slope of the exponential linear unit on the scores of bpr-max; 0 leaves it out."""
    targets: Targets = "item"
    """Targets: the next "item" of each input, or every item of the next "session" of the last input of each one."""
    repeats: bool | None = None
    """Add to the scores of items that the user took before: how often, how long ago and at which pace. When not given,
    true with cross-entropy if a tenth of the training interactions are repeats."""
    features: FeatureNames = None
    """Columns of the item table whose content is part of the item vectors: names, or "auto" for all but texts. Items
    that nobody has taken are then recommended by their content."""
    own_dropout: ShareBelowOne = 0.2
    """With features: share of the items whose own vector a step leaves out, so that their content stands alone."""

    def check(self) -> None:
        """Raise a ConfigError if repeats are set with another loss than cross-entropy."""
        check_repeats(self.repeats, self.loss, ("cross-entropy",))

    @classmethod
    def as_published(cls, width: int = 100, dropout: float = 0.0, max_length: int = 50) -> Self:
        """Return the authors' settings of bpr-max with constrained embedding: ELU(0.5) and 2,048 negatives.

        They and `published_training` are those of the authors' program for RSC15
        (`param_samples/rsc15_bpr-max_constrained.py`). Its momentum of 0.1 is left out, since Adagrad here has none.
        """
        return cls(
            width=width,
            max_length=max_length,
            dropout_input=dropout,
            dropout_hidden=dropout,
            loss="bpr-max",
            negatives=2048,
            bpr_penalty=0.5,
            elu=0.5,
            repeats=False,
        )

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with repeats chosen by their share."""
        repeats = with_repeats(self.repeats, dataset, self.loss == "cross-entropy")
        return replace(self, repeats=repeats, features=with_features(self.features, dataset))

    def why_whole(self) -> str | None:
        """Return the setting because of which the item table cannot be divided; None if it can be."""
        return why_whole(None, self.features, self.repeats, 0.0)

    def build(self, n_users: int, n_items: int) -> GRU4RecModel:
        """Return a new module with random weights."""
        return GRU4RecModel(self, n_users, n_items)


class GRU4RecModel(TrainableModel):
    """Module of `GRU4Rec`.

    hₜ = GRU(E[itemₜ], hₜ₋₁); score(i) = ⟨hₜ, E[i]⟩ + b[i], through an ELU if the loss has one.
    """

    config: GRU4Rec
    code_tables: ClassVar[Mapping[str, Side]] = {**TrainableModel.code_tables, "biases": "items"}

    def __init__(self, config: GRU4Rec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.max_history = None if config.repeats else config.max_length
        self.repeats_together = bool(config.repeats)
        self.items = item_table(n_items, config.width, config.features, config.own_dropout)
        self.reads_content = bool(config.features)
        self.biases = nn.Embedding(n_items + 1, 1)
        self.recurrent = nn.ModuleList(GRU(config.width, config.width) for _ in range(config.layers))
        self.dropout_input = Dropout(config.dropout_input)
        self.dropout_hidden = Dropout(config.dropout_hidden)
        self.negatives = NextItemLoss(
            "sampled-softmax",
            config.negatives,
            0.0,
            n_items,
            Similarity("dot"),
            config.logq or bool(config.repeats),
            config.in_batch,
        )
        self.reset_parameters()
        self.repeats = Repeats(n_items) if config.repeats else None

    def reset_parameters(self) -> None:
        """Draw weights uniform in ±√(6 / (inputs + outputs)), as in the authors' program; biases are 0."""
        bound = math.sqrt(3) * math.sqrt(2 / (self.items.num_embeddings + self.items.embedding_dim))
        self.items.draw(lambda weight: nn.init.uniform_(weight, -bound, bound))
        nn.init.zeros_(self.biases.weight)
        for name, parameter in self.recurrent.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.chunk(3):
                    nn.init.xavier_uniform_(gate)

    # ---- training ---------------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Store the content of the items, and begin the repeats, if the model has them."""
        self.items.prepare(dataset)
        if self.repeats is not None:
            self.repeats.prepare(dataset)

    def examples(self, dataset: Dataset) -> NextItemExamples:
        """Return windows of the histories according to the settings."""
        config = self.config
        return NextItemExamples(
            dataset,
            config.max_length,
            self.negatives,
            windows=config.windows,
            targets=config.targets,
            repeats=self.repeats is not None,
            candidates=self.items.candidates(),
        )

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Rows of the item table (inputs, targets and negatives) and of the biases (targets and negatives)."""
        scored = terms + self.config.negatives + (0 if self.repeats is None else PAIRS)
        return {self.items: scored + terms, self.biases: scored}

    def forward(self, batch: NextItemBatch) -> Tensor:
        """Summed loss over all targets of the batch."""
        inputs, scored, _ = self.negatives.look_up(self.items, batch)
        states = self.hidden_states(inputs).flatten(0, 1).index_select(0, batch.positions)
        states = self.dropout_hidden(states)
        n = len(batch.targets)
        k, own = len(batch.negatives), batch.repeats.items
        targets, negatives, histories = torch.split(scored, [n, k, own.numel()])
        codes = [batch.targets, batch.negatives, *([] if self.repeats is None else [own.flatten()])]
        biases = self.biases(torch.cat(codes))[:, 0]
        of_targets, of_negatives, of_histories = torch.split(biases, [n, k, own.numel()])
        if self.repeats is not None:
            own_scores = batch.repeats.products(states, histories) + of_histories.view_as(own)[batch.repeats.rows]
            scores = (states * targets).sum(-1) + of_targets, torch.addmm(of_negatives, states, negatives.T), own_scores
            return self.repeats.loss(*scores, batch.targets, batch.negatives, batch.log_counts, batch.repeats)
        return self.loss((states * targets).sum(-1) + of_targets, torch.addmm(of_negatives, states, negatives.T), batch)

    def loss(self, targets: Tensor, negatives: Tensor, batch: NextItemBatch) -> Tensor:
        """Summed loss of the scores of targets (n,) and shared negatives (n, k)."""
        config = self.config
        hits = losses.shared_hits(batch.targets, batch.negatives)
        if config.loss == "cross-entropy":
            return losses.sampled_softmax(targets, negatives, hits, batch.log_counts if config.logq else None)
        counted = torch.ones_like(negatives, dtype=torch.bool)
        counted[hits] = False
        if config.loss == "bpr-max":
            if config.elu:
                targets, negatives = F.elu(targets, config.elu), F.elu(negatives, config.elu)
            return losses.bpr_max(targets, negatives, counted, config.bpr_penalty)
        return _RANKING[config.loss](targets, negatives, counted)

    def hidden_states(self, vectors: Tensor) -> Tensor:
        """Hidden states (b, length, width) after each of the item vectors (b, length, width)."""
        states: Tensor = self.dropout_input(vectors)
        for number, layer in enumerate(self.recurrent):
            states = layer(self.dropout_hidden(states) if number else states)
        return states

    # ---- scoring ----------------------------------------------------------------------------------------------------

    def inputs(self, histories: Histories) -> HistoryInputs:
        """Return the newest items of each history."""
        return history_inputs(histories, self.config.max_length, repeats=self.repeats is not None)

    def encode(self, inputs: HistoryInputs) -> Tensor:
        """Hidden state (n, width) after the newest item of each history, and the factor 1 of the biases."""
        states = self.hidden_states(self.items(inputs.items))
        queries = F.pad(at_newest(states, inputs.lengths), (0, 1), value=1.0)
        return queries if self.repeats is None else self.repeats.queries(queries, inputs.repeated, inputs.features)

    def scores(self) -> ItemScores:
        """Products with the item vectors, plus the biases and the additions of repeats.

        The ELU is left out, as it does not change the order.
        """
        vectors, biases = self.items.all(), self._biases()
        if isinstance(self.items, DividedItemTable):
            biases = biases[self.items.codes.start : self.items.codes.stop]
        products = self.items.products(torch.cat([vectors, biases], dim=1))
        return products if self.repeats is None else AddedScores(products, self.config.width + 1)

    def _biases(self) -> Tensor:
        """Biases (n_items + 1, 1); items that do not occur in training have the mean of the others."""
        biases, candidates = self.biases.weight, self.items.candidates()
        if candidates is None:
            return biases
        trained = torch.zeros_like(biases, dtype=torch.bool)
        trained[torch.from_numpy(candidates).to(biases.device)] = True
        return torch.where(trained, biases, biases[trained].mean())

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width)."""
        return self.items.all()
