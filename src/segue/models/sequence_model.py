"""Shared parts of SASRec, HSTU, LRURec and BERT4Rec: settings and module of an encoder over a history.

The module has the item table, with or without content, the losses, and the additions of repeats. A model adds its
encoder, which maps the vectors of a history to hidden states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.gaps import usual_gap
from segue.data.histories import Histories
from segue.data.transitions import STEPS
from segue.models.base import ModelConfig, TrainableModel
from segue.models.features import FeatureNames
from segue.models.features import resolved as with_features
from segue.models.item_table import item_table
from segue.models.negatives import SOFTMAXES, softmax_for
from segue.models.next_item import (
    HistoryInputs,
    LossName,
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
from segue.models.similarity import Similarity, check_learnt_temperature
from segue.models.transitions import Transitions, check_transitions
from segue.models.transitions import resolved as with_transitions
from segue.nn.transformer import initialise
from segue.settings import Count, Negatives, Penalty, Positive, Share, ShareBelowOne


@dataclass(frozen=True)
class SequenceConfig(ModelConfig):
    """Settings of an encoder over the newest items of a history, and of its loss."""

    width: Count = 64
    """Width of the item vectors and of the hidden states."""
    blocks: Count = 2
    """Number of blocks."""
    max_length: Count = 50
    """Number of a user's newest items that are read."""
    windows: Windows = "all"
    """Windows of a longer history to learn from: the "newest" alone, or "all"."""
    dropout: ShareBelowOne = 0.2
    """Dropout of the inputs and within the blocks."""
    loss: LossName | None = None
    """Loss of the target. When not given, softmax for up to 5,000 items, and sampled-softmax for more."""
    negatives: Negatives = 512
    """Negatives: per position for bce and gbce, shared by the batch for sampled-softmax."""
    calibration: Share = 0.75
    """Calibration t of gBCE: 0 is plain BCE, 1 is fully calibrated."""
    similarity: Literal["dot", "cosine"] = "cosine"
    """Similarity of hidden states and item vectors; the cosine is divided by the temperature."""
    temperature: Positive = 0.07
    """Divisor of the cosine similarity."""
    learn_temperature: bool = False
    """Learn the temperature, between 0.01 and 1, starting at `temperature`."""
    logq: bool = True
    """Correct sampled-softmax for how often each negative is drawn."""
    in_batch: Share = 0.0
    """Share of the negatives of sampled-softmax drawn from the batch's targets; the others are uniform."""
    embedding_l2: Penalty = 0.0
    """L2 penalty on the item vectors that a batch reads: inputs, targets and negatives."""
    repeats: bool | None = None
    """Add to the scores of items that the user took before: how often, how long ago and at which pace. When not given,
    true with a softmax if a tenth of the training interactions are repeats."""
    features: FeatureNames = None
    """Columns of the item table whose content is part of the item vectors: names, or "auto" for all but texts. Items
    that nobody has taken are then recommended by their content."""
    own_dropout: ShareBelowOne = 0.2
    """With features: share of the items whose own vector a step leaves out, so that their content stands alone."""

    @property
    def reads_times(self) -> bool:
        """True if the encoder reads the times of the items."""
        return False

    def check(self) -> None:
        """Raise a ConfigError if repeats do not go with the loss, or the temperature cannot be learnt."""
        check_repeats(self.repeats, self.loss)
        if self.learn_temperature and self.similarity == "cosine":
            check_learnt_temperature(self.temperature)

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the loss chosen by the size of the catalogue, and repeats by their share."""
        chosen = self.for_catalogue(dataset.n_items)
        repeats = with_repeats(self.repeats, dataset, chosen.loss in SOFTMAXES)
        return replace(chosen, repeats=repeats, features=with_features(self.features, dataset))

    @property
    def reads_transitions(self) -> bool:
        """True if the scores have additions for items that followed the newest ones."""
        return False

    def why_whole(self) -> str | None:
        """Return the setting because of which the item table cannot be divided; None if it can be."""
        return why_whole(self.loss, self.features, self.repeats, self.embedding_l2, self.reads_transitions)

    def for_catalogue(self, n_items: int) -> Self:
        """Return the settings with the loss chosen by the size of the catalogue."""
        return replace(self, loss=self.loss or softmax_for(n_items))


class SequenceEncoder(nn.Module, ABC):
    """Encoder of item vectors. A model with `reads_times` has a usual gap.

    Attributes
    ----------
    gap
        () int64 usual time from one item to the next, in the unit of the ages; only if the encoder reads times.
    """

    gap: Tensor

    @abstractmethod
    def forward(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors of that shape.

        Parameters
        ----------
        vectors
            (b, length, width) item vectors, oldest first, anything behind the newest.
        lengths
            (b,) int64 number of items of each row.
        ages
            (b, length) int64 time from each item to the newest of its row, negative in rows without times; None if the
            encoder reads no times.
        """

    def newest(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, width) of `forward` at the newest item of each row."""
        states: Tensor = self(vectors, lengths, ages)
        return at_newest(states, lengths)


def at_newest(states: Tensor, lengths: Tensor) -> Tensor:
    """States (b, width) at the newest item of rows (b, length, width) with these lengths (b,)."""
    newest = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, newest)[:, 0]


class SequenceModel(TrainableModel):
    """Module of a `SequenceConfig`: score(i) = ⟨h, E[i]⟩, or cos(h, E[i]) / temperature.

    Parameters
    ----------
    config
        Settings with a loss.
    n_users, n_items
        Sizes of the vocabularies.
    encoder
        Encoder of item vectors; all linear maps and tables in it are drawn anew. A model whose encoder is no
        `SequenceEncoder` has its own `hidden_states` and `newest_states`.
    """

    config: SequenceConfig
    encoder: nn.Module

    def __init__(self, config: SequenceConfig, n_users: int, n_items: int, encoder: nn.Module) -> None:
        super().__init__(config, n_users, n_items)
        assert config.loss is not None
        newest = max(config.max_length, STEPS) if config.reads_transitions else config.max_length
        self.max_history = None if config.repeats else newest
        self.repeats_together = bool(config.repeats)
        self.items = item_table(n_items, config.width, config.features, config.own_dropout)
        self.reads_content = bool(config.features)
        self.encoder = encoder
        self.similarity = Similarity(config.similarity, config.temperature, config.learn_temperature)
        self.loss = NextItemLoss(
            config.loss,
            config.negatives,
            config.calibration,
            n_items,
            self.similarity,
            config.logq or bool(config.repeats),
            config.in_batch,
        )
        initialise(self)
        self.repeats = Repeats(n_items) if config.repeats else None
        self.transitions = Transitions(n_items) if config.reads_transitions else None

    # ---- training ---------------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Store the usual time between two interactions and the content of the items, and begin the repeats."""
        if self.config.reads_times and dataset.times is not None:
            self.encoder.get_buffer("gap").fill_(usual_gap(dataset))
        self.items.prepare(dataset)
        if self.repeats is not None:
            self.repeats.prepare(dataset)
        if self.transitions is not None:
            self.transitions.prepare(dataset)

    def grow_from(self, former: Self) -> set[str]:
        """Take the counts of the transitions."""
        if self.transitions is None:
            return super().grow_from(former)
        assert former.transitions is not None
        self.transitions.grow_from(former.transitions)
        return {f"transitions.{name}" for name, _ in self.transitions.named_buffers()}

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Rows of the item table: inputs, targets, negatives and items of the histories."""
        rows = self.loss.rows_read(terms)
        return {} if rows is None else {self.items: rows + (0 if self.repeats is None else PAIRS)}

    def forward(self, batch: NextItemBatch) -> Tensor:
        """Summed loss over all targets of the batch."""
        inputs, scored, catalogue = self.loss.look_up(self.items, batch)
        ages = batch.ages if self.config.reads_times else None
        states = self.hidden_states(inputs, batch.items, batch.lengths, ages)
        hidden = states.flatten(0, 1).index_select(0, batch.positions)
        loss = self.loss(hidden, scored, catalogue, batch, repeats=self.repeats, transitions=self.transitions)
        if self.config.embedding_l2:
            read = batch._replace(positions=self.read_inputs(batch))
            loss = loss + self.config.embedding_l2 * self.loss.squares(inputs, scored, catalogue, read)
        return loss

    def read_inputs(self, batch: NextItemBatch) -> Tensor:
        """Positions (m,) in `items.flatten()` of the inputs that the L2 penalty counts."""
        return batch.positions

    def hidden_states(self, vectors: Tensor, items: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors of that shape.

        Items and ages are (b, length), lengths (b,).
        """
        states: Tensor = self.encoder(vectors, lengths, ages)
        return states

    # ---- scoring ----------------------------------------------------------------------------------------------------

    def inputs(self, histories: Histories) -> HistoryInputs:
        """Return the newest items of each history."""
        config = self.config
        inputs = history_inputs(histories, config.max_length, config.reads_times, repeats=self.repeats is not None)
        if self.transitions is None:
            return inputs
        followed, logs = self.transitions.arrays(histories)
        return inputs._replace(repeated=followed, features=logs)

    def encode(self, inputs: HistoryInputs) -> Tensor:
        """Hidden state (n, width) after the newest item of each history, ready for a product, and the additions."""
        queries = self.plain_queries(inputs)
        added = self.repeats if self.transitions is None else self.transitions
        return queries if added is None else added.queries(queries, inputs.repeated, inputs.features)

    def plain_queries(self, inputs: HistoryInputs) -> Tensor:
        """Queries (n, width) of `encode` without additions."""
        return self.similarity.query(self.newest_states(inputs))

    def newest_states(self, inputs: HistoryInputs) -> Tensor:
        """Hidden states (n, width) from which the item after each history is scored."""
        ages = inputs.ages if self.config.reads_times else None
        assert isinstance(self.encoder, SequenceEncoder)
        return self.encoder.newest(self.items(inputs.items), inputs.lengths, ages)

    def scores(self) -> ItemScores:
        """Products with the item vectors, which are normalised once for cosines, plus the additions."""
        products = self.items.products(self.item_vectors())
        plain = self.repeats is None and self.transitions is None
        return products if plain else AddedScores(products, self.config.width)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width), ready for a product."""
        return self.similarity.item(self.items.all())


@dataclass(frozen=True)
class CausalConfig(SequenceConfig):
    """Settings of an encoder whose hidden state at each item depends on that item and earlier ones alone."""

    formerly: ClassVar[Mapping[str, Any]] = {"transitions": False}

    targets: Targets = "item"
    """Targets: the next "item" of each input, or every item of the next "session" of the last input of each one."""
    transitions: bool | None = None
    """Add to the scores of items that followed the newest items in other histories: a learnt multiple of the logarithm
    of the count. When not given, true with a softmax and without repeats if the items have few interactions."""

    @property
    def reads_transitions(self) -> bool:
        """True if the scores have additions for items that followed the newest ones."""
        return bool(self.transitions)

    def check(self) -> None:
        """Raise a ConfigError if transitions do not go with the loss, the targets or repeats."""
        check_transitions(self.transitions, self.loss, self.targets, self.repeats)
        super().check()

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the loss, the repeats and the transitions chosen from the data."""
        if self.transitions and self.repeats is None:
            return replace(self, repeats=False).resolved(dataset)
        chosen = super().resolved(dataset)
        possible = chosen.loss in SOFTMAXES and chosen.targets == "item" and not chosen.repeats
        return replace(chosen, transitions=with_transitions(self.transitions, dataset, possible))

    def for_division(self) -> Self:
        """Return the settings without transitions, unless they are set."""
        return replace(self, transitions=bool(self.transitions))


class CausalModel(SequenceModel):
    """Module of a `CausalConfig`: it learns the next item after each item of a history."""

    config: CausalConfig

    def examples(self, dataset: Dataset) -> NextItemExamples:
        """Return windows of the histories according to the settings."""
        config = self.config
        return NextItemExamples(
            dataset,
            config.max_length,
            self.loss,
            with_times=config.reads_times,
            windows=config.windows,
            targets=config.targets,
            repeats=self.repeats is not None,
            transitions=self.transitions is not None,
            candidates=self.items.candidates(),
        )
