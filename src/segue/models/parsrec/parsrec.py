"""PARSRec: personalised attention fused with a recurrent network over the partial basket (Gholami, Motamedi &
Aravindakshan, KDD 2022, arXiv 2209.13015).

A session is a set of items. The model predicts it step by step, from the user, the items of earlier sessions, and the
items that are already in the basket.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.models.base import Attention, ModelConfig, TrainableModel
from segue.models.features import FeatureNames
from segue.models.features import resolved as with_features
from segue.models.item_table import Catalogue, item_table
from segue.models.negatives import SOFTMAXES, softmax_for
from segue.models.parsrec.attention import BasketAttention, BasketGradient
from segue.models.parsrec.examples import (
    SessionBatch,
    SessionExamples,
    SparseRows,
    history_means,
    row_sums,
)
from segue.models.parsrec.export import run_as_scan
from segue.models.parsrec.inputs import BasketInputs, basket_inputs
from segue.models.parsrec.loss import catalogue_loss
from segue.models.repeats import Repeats, check_repeats
from segue.models.repeats import resolved as with_repeats
from segue.models.scores import AddedScores, ItemScores, ProductScores
from segue.models.users import UserVectors
from segue.nn import losses
from segue.nn.dropout import Dropout
from segue.nn.moving import moved
from segue.settings import Count, Negatives, Share, ShareBelowOne, Size

PARSRecLoss = Literal["softmax", "sampled-softmax", "bce", "mse"]

_KEPT_BYTES = 256 << 20
"""Largest size of the scores of a batch that are stored for the loss; larger ones are computed twice."""
_CHUNK_BYTES = 32 << 20
_WORTH_A_GROUP = 512
"""Smallest product of sessions and steps that is run as a group of its own."""


@dataclass(frozen=True)
class PARSRec(ModelConfig):
    """Recurrent network over the user's attention to the basket so far; one item table scores the next item.

    Examples
    --------
    >>> segue.PARSRec(user_width=64, item_width=64).heads
    2
    """

    name: ClassVar[str] = "parsrec"
    task: ClassVar[str] = "sessions"
    formerly: ClassVar[Mapping[str, Any]] = {"repeats": False}
    published_training: ClassVar[Mapping[str, Any]] = {
        "epochs": 50,
        "batch_size": 256,
        "beta2": 0.999,
        "clip_norm": 30.0,
        "patience": None,
        "metric": "sess_prec@10",
        "validation_candidates": 99,
    }

    user_width: Count = 128
    """Width of the user vectors."""
    item_width: Count = 128
    """Width of the item vectors and of the hidden state."""
    blocks: Count = 1
    """Attention blocks; the output of one is the query of the next."""
    heads: Count = 2
    """Attention heads; must divide the sum of the widths."""
    dropout: ShareBelowOne = 0.1
    """Dropout of the user, item and history vectors."""
    loss: PARSRecLoss | None = None
    """Loss over the whole catalogue: softmax (categorical cross-entropy), bce or mse; or sampled-softmax. When not
    given, softmax for up to 5,000 items, and sampled-softmax for more."""
    negatives: Negatives = 512
    """Number of negatives of sampled-softmax, which the batch shares, with the logQ correction."""
    in_batch: Share = 0.5
    """Share of these negatives drawn from the sessions of the batch; the others are uniform."""
    history_sessions: Size | None = None
    """Number of earlier sessions that make the history; all when not given."""
    history_time: Count | None = None
    """Longest time from the history's items to the session, in the data's unit of time; any when not given."""
    repeats: bool | None = None
    """Add to the scores of items that the user took before: how often, how long ago and at which pace. When not given,
    true with a softmax if a tenth of the training interactions are repeats."""
    features: FeatureNames = None
    """Columns of the item table whose content is part of the item vectors: names, or "auto" for all but texts. Items
    that nobody has taken are then recommended by their content."""
    own_dropout: ShareBelowOne = 0.2
    """With features: share of the items whose own vector a step leaves out, so that their content stands alone."""

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the sum of the widths, or repeats lack a softmax."""
        check_repeats(self.repeats, self.loss)
        width = self.user_width + self.item_width
        if width % self.heads:
            raise ConfigError(f"heads={self.heads} does not divide user_width + item_width = {width}.")

    @classmethod
    def as_published(cls) -> Self:
        """Return the settings of the program: the softmax over the whole catalogue, without repeats."""
        return cls(loss="softmax", repeats=False)

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the loss chosen by the size of the catalogue, and repeats by their share."""
        chosen = self._for_catalogue(dataset.n_items)
        repeats = with_repeats(self.repeats, dataset, chosen.loss in SOFTMAXES)
        return replace(chosen, repeats=repeats, features=with_features(self.features, dataset))

    def build(self, n_users: int, n_items: int) -> PARSRecModel:
        """Return a new module with random weights."""
        return PARSRecModel(self._for_catalogue(n_items), n_users, n_items)

    def _for_catalogue(self, n_items: int) -> Self:
        return replace(self, loss=self.loss or softmax_for(n_items))


class PARSRecModel(TrainableModel):
    """Module of `PARSRec`.

    u = U[user]; h₀ = mean of E over the history (0 without one). Step t: q = [u ; hₜ₋₁]; aₜ = result of the attention
    blocks for q over the items of the basket; c = [q ; aₜ]; hₜ = ReLU(W_h c); oₜ = W_o c; score(i) = ⟨oₜ, E[i]⟩. At the
    first step the basket has only the start item SOB, which is row 0 of E.

    In training the target of a step is the item with the best score in the catalogue, if it is one of the remaining
    items of the session. Otherwise the target is a random one of them. The target then joins the basket.

    With repeats the scores of earlier items get an addition (`Repeats`). Under sampled softmax the catalogue of the
    rule is the shared negatives and the items of the session.
    """

    personal = True
    config: PARSRec

    def __init__(self, config: PARSRec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        width, item_width = config.user_width + config.item_width, config.item_width
        self.items = item_table(n_items, item_width, config.features, config.own_dropout)
        self.reads_content = bool(config.features)
        self.users = UserVectors(n_users, config.user_width)
        self.attention_blocks = nn.ModuleList(
            BasketAttention(width, item_width, item_width if last else width, config.heads)
            for last in (block == config.blocks for block in range(1, config.blocks + 1))
        )
        self.hidden = nn.Linear(width + item_width, item_width)
        self.output = nn.Linear(width + item_width, item_width)
        self.dropout = Dropout(config.dropout)
        self.reset_parameters()
        self.repeats = Repeats(n_items) if config.repeats else None
        self.repeats_together = self.repeats is not None

    def reset_parameters(self) -> None:
        """Draw both tables uniform in ±1/√n, and the recurrent maps normal with variance 2 / (inputs + outputs)."""
        for table in (self.items, self.users):
            bound = 1 / math.sqrt(table.num_embeddings)
            nn.init.uniform_(table.weight, -bound, bound)
        for layer in (self.hidden, self.output):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_features + layer.out_features)))
            nn.init.normal_(layer.bias, std=math.sqrt(1 / layer.out_features))

    # ---- training ---------------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Store the users in training and the content of the items, and begin the repeats."""
        visible = dataset.compact()
        self.users.trained_on(np.unique(visible.sessions.users))
        self.items.prepare(visible)
        if self.repeats is not None:
            self.repeats.prepare(visible)

    def examples(self, dataset: Dataset) -> SessionExamples:
        """Return one unit per session."""
        config = self.config
        negatives = config.negatives if config.loss == "sampled-softmax" else 0
        return SessionExamples(
            dataset,
            config.history_sessions,
            config.history_time,
            negatives,
            config.in_batch,
            repeats=self.repeats is not None,
            candidates=self.items.candidates(),
        )

    def forward(self, batch: SessionBatch) -> Tensor:
        """Summed loss over all steps of the sessions of the batch."""
        if self.config.loss == "sampled-softmax" or self.repeats is not None:
            return self._among_candidates(batch)
        return self._among_all(batch)

    def _among_candidates(self, batch: SessionBatch) -> Tensor:
        """Summed loss among shared negatives and, with repeats, the items of the histories."""
        repeats, sampled = self.repeats, self.config.loss == "sampled-softmax"
        parts = [batch.items, batch.negatives, batch.repeats.items]
        table = self.items.with_rows(*parts, batch.columns) if sampled else self.items.all()
        # All vectors are read in one lookup, because each lookup costs a gradient as large as the table.
        vectors = F.embedding(torch.cat([part.flatten() for part in parts]), table)
        basket, drawn, own_vectors = torch.split(vectors, [part.numel() for part in parts])
        basket = basket.view(*batch.items.shape, vectors.shape[-1])
        catalogue = Catalogue(table) if sampled else self.items.catalogue(table)
        negatives = batch.negatives if sampled else catalogue.all_codes()
        drawn = drawn if sampled else catalogue.vectors[1:]
        steps, groups, real = self._steps(batch, basket, table)
        waiting = real.clone()
        offsets = batch.lengths.cumsum(0) - batch.lengths
        own_bases, other_bases = self._bases(batch, negatives)
        own_vectors = own_vectors.view(*batch.repeats.items.shape, vectors.shape[-1])  # empty without any repeats
        outputs: list[Tensor] = []
        rows: list[Tensor] = []
        columns: list[Tensor] = []
        own_scores: list[Tensor] = []
        for group in groups:
            begin, length = group.begin, len(group.counts)
            own, first = steps.part(group.rows, length), len(outputs)
            for step, n in enumerate(group.counts):
                now = slice(begin, begin + n)
                inside = real[now, :length] & ~waiting[now, :length]
                output, _ = own.step(n, inside, last=step + 1 == length)
                with torch.no_grad():
                    highest = torch.addmm(other_bases[now], output, drawn.T).amax(1, keepdim=True)
                    own_products = torch.bmm(basket[now, :length], output[:, :, None])[..., 0]
                    scores = own_products + own_bases[now, :length]
                column = _first_best(scores, highest, waiting[now, :length])
                waiting[now].scatter_(1, column, False)
                outputs.append(output)
                rows.append(torch.arange(begin, begin + n, device=table.device))
                columns.append(column[:, 0])
            if repeats is not None:
                own_scores.append(group.products(outputs[first:], own_vectors[group.rows]))
        queries, row, column = torch.cat(outputs), torch.cat(rows), torch.cat(columns)
        targets, target_vectors = batch.items[row, column], basket[row, column]
        target_scores, negative_scores = (queries * target_vectors).sum(-1), queries @ drawn.T
        log_counts = batch.log_counts if sampled else None
        if repeats is None:
            hits = losses.shared_hits(targets, negatives)
            return losses.sampled_softmax(target_scores, negative_scores, hits, log_counts)
        chosen = batch.repeats.of_targets(offsets[row] + column)
        return repeats.loss(
            target_scores, negative_scores, torch.cat(own_scores), targets, negatives, log_counts, chosen
        )

    @torch.no_grad()
    def _bases(self, batch: SessionBatch, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Additions (b, length) of the items of the sessions, and (b, k) of the negatives; -inf for no candidate.

        Padding is none, and neither is a negative that is an item of the session.
        """
        real, repeats, table = batch.items > 0, batch.repeats, self.items.weight
        own = table.new_zeros(batch.items.shape).masked_fill_(~real, -torch.inf)
        others = table.new_zeros(len(real), len(negatives))
        if self.repeats is not None:
            own[real] = self.repeats.of_targets(batch.items[real], repeats)
            others[repeats.hit_rows, repeats.hit_columns] = self.repeats(
                repeats.hit_features, negatives[repeats.hit_columns]
            )
        items, columns = losses.shared_hits(batch.items[real], negatives)
        others[torch.nonzero(real)[items, 0], columns] = -torch.inf
        return own, others

    def _steps(self, batch: SessionBatch, basket: Tensor, table: Tensor) -> tuple[SessionSteps, list[Group], Tensor]:
        """Steps of a batch, its groups of sessions of like length, and the mask (b, length) of real items."""
        users, means = self.users(batch.users), history_means(table, batch)
        basket = self.dropout(basket)
        steps = SessionSteps(self, self.dropout(users), self.dropout(means), basket)
        return steps, groups_of(batch.lengths.tolist()), batch.items > 0

    def _among_all(self, batch: SessionBatch) -> Tensor:
        """Summed loss over the whole catalogue."""
        table = self.items.all()
        catalogue = self.items.catalogue(table)
        scored, items = catalogue.vectors[1:], catalogue.rows_of(batch.items)
        steps, groups, real = self._steps(batch, F.embedding(batch.items, table), table)
        stored = self._score_buffer(int(batch.lengths.sum()), scored)
        waiting, first = real.clone(), 0
        outputs, targets = [], []
        for group in groups:
            begin, length = group.begin, len(group.counts)
            own = steps.part(group.rows, length)
            for step, n in enumerate(group.counts):
                now = slice(begin, begin + n)
                inside = real[now, :length] & ~waiting[now, :length]
                output, _ = own.step(n, inside, last=step + 1 == length)
                scores = None if stored is None else stored[first : first + n]
                own_items, still = items[now, :length], waiting[now, :length]
                column = _chosen_targets(output.detach(), scored.detach(), own_items, still, scores)
                still.scatter_(1, column, False)
                outputs.append(output)
                targets.append(own_items.gather(1, column)[:, 0] - 1)
                first += n
        name = self.config.loss
        assert name is not None and name != "sampled-softmax"
        loss = catalogue_loss(name, torch.cat(outputs), scored, torch.cat(targets), stored)
        if (
            real.shape[1] == 1
        ):  # the query map was not used, but several processes wait for the gradient of every parameter
            loss = loss + 0 * steps.user_queries.sum()
        return loss

    def _score_buffer(self, n_steps: int, scored: Tensor) -> Tensor | None:
        """Buffer for all scores (steps, m) of a batch with m scored items, or None if it would be too large."""
        if n_steps * len(scored) * scored.element_size() > _KEPT_BYTES:
            return None
        return scored.new_empty((n_steps, len(scored)))

    # ---- scoring ----------------------------------------------------------------------------------------------------

    def inputs(self, histories: Histories) -> BasketInputs:
        """Return users, ordered baskets and earlier items, with the longest baskets first."""
        config = self.config
        return basket_inputs(histories, config.history_sessions, config.history_time, self.repeats is not None)[0]

    def encode(self, inputs: BasketInputs) -> Tensor:
        """Outputs (n, item_width) after each basket. The longest basket decides the number of steps."""
        outputs = run_as_scan(self, inputs) if torch.compiler.is_exporting() else self._run(inputs)[0]
        if self.repeats is None:
            return outputs
        return self.repeats.queries(outputs, inputs.repeated, inputs.features)

    def attention(self, histories: Histories) -> Attention:
        """Attention over the items of each basket."""
        inputs, positions = basket_inputs(histories, self.config.history_sessions, self.config.history_time)
        return Attention(self._run(moved(inputs, self.device))[1], positions)

    def _run(self, inputs: BasketInputs) -> tuple[Tensor, Tensor]:
        """Run the steps of each basket in its order, up to the prediction of the next item.

        Return outputs (n, item_width) and attention weights (n, blocks, heads, width), in the order of the histories.
        """
        table = self.items.all()
        rows = SparseRows(inputs.offsets, inputs.columns, inputs.values)
        means = row_sums(rows, table) / inputs.sizes.clamp(min=1)[:, None]
        steps = SessionSteps(self, self.users.of(inputs.users), means, self.items(inputs.items))
        width = inputs.items.shape[1]
        outputs = table.new_zeros((len(inputs.users), self.config.item_width))
        weights = outputs.new_zeros((len(inputs.users), self.config.blocks, self.config.heads, width))
        within = torch.arange(width, device=table.device)
        counts = (inputs.lengths >= torch.arange(width + 1, device=table.device)[:, None]).sum(1).tolist()
        for step, n in enumerate(counts):
            after = counts[step + 1] if step + 1 < len(counts) else 0
            output, attention = steps.step(n, (within < step).expand(n, -1), last=step == width)
            outputs[after:n] = output[after:]
            if attention is not None:
                weights[after:n] = attention[after:]
        return outputs[inputs.back], weights[inputs.back]

    def scores(self) -> ItemScores:
        """Products with the item vectors, plus the additions of repeats."""
        products = ProductScores(self.items.all())
        return products if self.repeats is None else AddedScores(products, self.config.item_width)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, item_width)."""
        return self.items.all()


class Group(NamedTuple):
    """Sessions of a batch that have like lengths, so that little of their steps is padding.

    Attributes
    ----------
    begin
        First row.
    counts
        Number of sessions that take each step; as many as the longest session has items.
    """

    begin: int
    counts: list[int]

    @property
    def rows(self) -> slice:
        """Rows of the sessions."""
        return slice(self.begin, self.begin + self.counts[0])

    def products(self, outputs: list[Tensor], vectors: Tensor) -> Tensor:
        """Products (steps of the group, r) of the outputs of each step with r vectors (sessions, r, width)."""
        queries = torch.cat(outputs)
        rows = torch.cat([torch.arange(n, device=queries.device) for n in self.counts])
        steps = torch.arange(len(self.counts), device=queries.device).repeat_interleave(
            torch.tensor(self.counts, device=queries.device)
        )
        places = rows * len(self.counts) + steps
        grid = queries.new_zeros(self.counts[0] * len(self.counts), queries.shape[1]).index_copy(0, places, queries)
        products = grid.view(self.counts[0], len(self.counts), -1) @ vectors.transpose(1, 2)
        return products.flatten(0, 1).index_select(0, places)


def groups_of(lengths: list[int]) -> list[Group]:
    """Groups of sessions with these lengths, which descend.

    A session with half as many items as the first of its group, or fewer, begins the next group, if those together have
    enough items to pay for steps of their own.
    """
    groups, begin = [], 0
    while begin < len(lengths):
        longest = lengths[begin]
        end = next((row for row in range(begin, len(lengths)) if 2 * lengths[row] <= longest), len(lengths))
        if (len(lengths) - end) * longest < _WORTH_A_GROUP:
            end = len(lengths)
        within = lengths[begin:end]
        groups.append(Group(begin, [sum(length > step for length in within) for step in range(longest)]))
        begin = end
    return groups


class SessionSteps:
    """Steps of a batch of sessions: values that are the same at every step, and the hidden states.

    The terms of the user in the query, in the next state and in the output are computed once.

    Parameters
    ----------
    model
        Model, whose weights are read once, here.
    users, states
        (b, user_width) user vectors, and (b, item_width) hidden states before the first step.
    basket
        (b, length, item_width) vectors of all items that join the baskets.
    """

    def __init__(self, model: PARSRecModel, users: Tensor, states: Tensor, basket: Tensor) -> None:
        self.blocks = [module for module in model.attention_blocks if isinstance(module, BasketAttention)]
        self.composed = [block.composed() for block in self.blocks]
        self.start_of_basket = model.items.weight[0]
        self.users, self.states, self.basket = users, states, basket
        width = users.shape[1]
        query_map = self.composed[0].query_map
        self.user_queries = torch.addmm(self.composed[0].query_bias, users, query_map[:, :width].T)
        self.state_map = query_map[:, width:].T
        result_map = torch.cat([model.output.weight, model.hidden.weight])
        bias = torch.cat([model.output.bias, model.hidden.bias])
        self.user_results = torch.addmm(bias, users, result_map[:, :width].T)
        self.result_map = result_map[:, width:].T
        self.started = False
        self.gradient: tuple[BasketGradient, Tensor] | None = None

    def part(self, rows: slice, length: int) -> SessionSteps:
        """Steps of some of the sessions, of which none has more items than `length`."""
        if rows == slice(0, len(self.users)):
            return self
        part = copy.copy(self)
        part.users, part.states, part.basket = self.users[rows], self.states[rows], self.basket[rows, :length]
        part.user_queries, part.user_results = self.user_queries[rows], self.user_results[rows]
        return part

    def _narrow(self, n: int) -> None:
        """Leave out the sessions behind the first n.

        Each tensor is cut from the one of the step before: the gradient of a cut has the size of what it is cut from.
        """
        if n < len(self.users):
            self.users, self.states, self.basket = self.users[:n], self.states[:n], self.basket[:n]
            self.user_queries, self.user_results = self.user_queries[:n], self.user_results[:n]

    def step(self, n: int, inside: Tensor, last: bool) -> tuple[Tensor, Tensor | None]:
        """Take one step of the first n sessions.

        Parameters
        ----------
        n
            Number of sessions; never more than at the previous step.
        inside
            (n, length) bool, True for items in the basket; none at the first step.
        last
            Skip the next hidden state, because no step follows.

        Returns
        -------
        Outputs (n, item_width), and attention weights (n, blocks, heads, length), which are None at the first step.
        """
        self._narrow(n)
        state = self.states
        query, weights = self._attend(torch.cat([self.users, state], dim=1), inside)
        size = state.shape[1] if last else 2 * state.shape[1]
        joint = torch.cat([state, query], dim=1)
        bias, weight = self.user_results, self.result_map
        results = torch.addmm(bias[:, :size], joint, weight[:, :size]) if last else torch.addmm(bias, joint, weight)
        if not last:
            self.states = F.relu(results[:, state.shape[1] :])
        self.started = True
        return results[:, : state.shape[1]], weights

    def _attend(self, query: Tensor, inside: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run all attention blocks; return the result of the last one (n, item_width), and the weights of each."""
        if not self.started:
            if torch.is_grad_enabled() and self.basket.requires_grad:
                gradient = BasketGradient()
                self.gradient = gradient, gradient.token(self.basket)
                self.basket = self.basket.detach()
            for block, composed in zip(self.blocks, self.composed, strict=True):
                query = block.alone(query, self.start_of_basket, composed)
            return query, None
        weights = []
        mapped = torch.addmm(self.user_queries, self.states, self.state_map)
        for number, (block, composed) in enumerate(zip(self.blocks, self.composed, strict=True)):
            if number:
                mapped = torch.addmm(composed.query_bias, query, composed.query_map.T)
            query, block_weights = block(query, mapped, self.basket, inside, composed, self.gradient)
            weights.append(block_weights)
        return query, torch.stack(weights, dim=1)


def _first_best(scores: Tensor, highest: Tensor, waiting: Tensor) -> Tensor:
    """Column (n, 1) of the best candidate if it is an item that waits, else of the first that waits.

    Parameters
    ----------
    scores, waiting
        (n, length) scores of the items of the sessions in random order, and a mask of those not yet in the basket.
    highest
        (n, 1) best scores of the other candidates.
    """
    fits = waiting & (scores >= torch.maximum(highest, scores.amax(1, keepdim=True)))
    return torch.where(fits.any(1, keepdim=True), fits, waiting).to(torch.uint8).argmax(1, keepdim=True)


def _chosen_targets(outputs: Tensor, table: Tensor, items: Tensor, waiting: Tensor, scores: Tensor | None) -> Tensor:
    """Column (n, 1) of the next target: the item with the best score if it waits, else the first that waits.

    Parameters
    ----------
    outputs
        (n, width) outputs of the step.
    table
        (n_items, width) vectors of the item codes from 1.
    items, waiting
        (n, length) item codes in random order, and a mask of those that are not yet in the basket; each row has one.
    scores
        (n, n_items) buffer for all scores. If None, they are computed in chunks and not stored.
    """
    if scores is None:
        size = max(1, _CHUNK_BYTES // (table.element_size() * len(outputs)))
        chunks = [(outputs @ table[low : low + size].T).max(1) for low in range(0, len(table), size)]
        highest = torch.stack([chunk.values for chunk in chunks])
        chunk = highest.argmax(0, keepdim=True)
        best = torch.stack([chunk.indices for chunk in chunks]).gather(0, chunk) + chunk * size
        fits = waiting & (items - 1 == best.T)
    else:
        torch.mm(outputs, table.T, out=scores)
        own = scores.gather(1, (items - 1).clamp_(min=0)).masked_fill(~waiting, -torch.inf)
        fits = own >= scores.amax(1, keepdim=True)
    # The first item that fits or, if none does, the first that waits.
    return torch.where(fits.any(1, keepdim=True), fits, waiting).to(torch.uint8).argmax(1, keepdim=True)
