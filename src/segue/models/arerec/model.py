"""The module of ARERec: its training, and its answers with their reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.ragged import Int64, rows_of
from segue.errors import ConfigError
from segue.models.arerec.neighbours import (
    NOBODY,
    ItemNeighbours,
    RatingBatch,
    RatingExamples,
    group_offsets,
    ragged_places,
)
from segue.models.arerec.regions import Read, RegionAttention
from segue.models.arerec.scale import places_on
from segue.models.arerec.settings import ARERecSettings
from segue.models.base import TrainableModel
from segue.models.rating_bias import ridge_biases
from segue.models.ratings import (
    ExpectedRatings,
    Neighbours,
    Rated,
    RatingModel,
    TrainingRatings,
    joined,
    training_ratings,
)
from segue.models.users import UserVectors
from segue.nn.dropout import Dropout

_CELLS = 4_000_000
"""Region products that are made at once when ratings are predicted."""
_GROUP = 64
_PULL = 3.0
_USER_STD, _ITEM_STD, _AGREEMENT_STD = 0.4, 0.1, 0.05
_DOUBT = 5.0
_AGREEMENT = 4.0
"""Makes up for vectors that begin small, so that steps of the usual size move them fast enough."""


class ARERecModel(RatingModel, TrainableModel):
    """The module of `ARERec`: `RegionAttention`, then levels = W (regions) + b.

    With `biases` or `neighbour_ratings` the levels get slope · z besides, where

    z = b_user + b_item + Σ_j 4 ⟨p_user, q_j⟩ (r_j - mean - b'_j) / √(neighbours + 5)

    r_j is what neighbour j gave, b'_j the neighbour's bias, and the product of p and q, which may be negative, says how
    far the user agrees with the neighbour: an item-based linear autoencoder (Sedhain et al., *AutoRec*, 2015) that
    never sees the rating it predicts. Training begins at the biases of ridge regression, and at slopes and b that make
    it a normal distribution around mean + z.
    """

    config: ARERecSettings
    scale: Tensor
    raters: Tensor
    rated: Tensor
    rated_at: Tensor
    item_offsets: Tensor
    mean: Tensor
    habits: Tensor

    def __init__(self, config: ARERecSettings, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        if config.levels is None or not isinstance(config.history_length, int) or config.look_back is None:
            raise ConfigError("these settings leave levels, history_length or look_back to the data: use resolved().")
        self.dropouts = nn.ModuleDict(
            {name: Dropout(getattr(config, f"dropout_{name}")) for name in ("user", "neighbour", "item", "user_rating")}
        )
        self.users = UserVectors(n_users, config.width, sparse=True)
        self.items = nn.Embedding(n_items + 1, config.width, sparse=True)
        shared = config.contexts == "shared"
        inner = ("k_ui", "k_iu", "neighbour_profile", "item_profile", "neighbour_rating")
        self.regions = RegionAttention(
            config.width,
            config.heads,
            config.region_size,
            config.contexts,
            (n_users + 1, n_items + 1) if shared else (1, 1),
            config.attention,
            config.history_length,
            {name: getattr(config, f"dropout_{name}") for name in inner},
        )
        self.output = nn.Linear(config.region_size, len(config.levels))
        # Only what is used: several processes wait for a gradient of every parameter there is.
        if config.biases:
            self.user_biases, self.item_biases = nn.Embedding(n_users + 1, 1), nn.Embedding(n_items + 1, 1)
        if config.neighbour_ratings:
            self.asks = nn.Embedding(n_users + 1, config.width, sparse=True)
            self.tells = nn.Embedding(n_users + 1, config.width, sparse=True)
        if config.biases or config.neighbour_ratings:
            self.slope = nn.Parameter(torch.zeros(len(config.levels)))
        self.register_buffer("scale", torch.tensor(config.levels))
        self.register_buffer("raters", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("rated", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("rated_at", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("item_offsets", torch.zeros(n_items + 2, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("habits", torch.zeros(n_users + 1))
        self._index: ItemNeighbours | None = None  # of a model that is no longer trained
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """User vectors spread enough for the attention to tell them apart; what stands for nothing is 0."""
        nn.init.normal_(self.users.weight, std=_USER_STD)
        nn.init.normal_(self.items.weight, std=_ITEM_STD)
        nn.init.normal_(self.output.weight, std=self.config.region_size**-0.5)
        if self.config.neighbour_ratings:
            nn.init.normal_(self.asks.weight, std=_AGREEMENT_STD)
            nn.init.normal_(self.tells.weight, std=_AGREEMENT_STD)
        nn.init.zeros_(self.output.bias)
        if self.config.biases:
            nn.init.zeros_(self.user_biases.weight)
            nn.init.zeros_(self.item_biases.weight)
        with torch.no_grad():
            self.items.weight[0] = 0

    # ---- training -----------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Keep the histories of the items, the known users, and the biases that training begins at."""
        self._look_back_at(dataset)
        known = training_ratings(dataset)
        self._begin(known)
        self.users.trained_on(np.unique(known.users))

    def settle(self) -> None:
        """Make the index of neighbours once, for a model that is no longer trained."""
        self._index = self._new_index()

    def examples(self, dataset: Dataset) -> RatingExamples:
        """Groups of ratings of one item."""
        histories = dataset.item_histories
        assert histories.ratings is not None
        users, items = histories.users.astype(np.int64), rows_of(histories.offsets[:-1], histories.offsets[1:])
        levels = places_on(histories.ratings.astype(np.float64), self.levels)
        moments = np.full(len(users), NOW) if histories.times is None else np.asarray(histories.times)
        return RatingExamples(self.index, items, users, levels, moments, self.config.group)

    def _look_back_at(self, dataset: Dataset) -> None:
        """Keep the histories of the items: of what is visible or, with the published leak, of everything."""
        whole = self.config.look_back == "reference"
        histories = (dataset.until(dataset.offsets[1:]) if whole else dataset).item_histories
        assert histories.ratings is not None
        device = self.device
        self.raters = torch.from_numpy(histories.users.astype(np.int32)).to(device)
        levels = places_on(histories.ratings.astype(np.float64), self.levels)
        self.rated = torch.from_numpy(levels.astype(np.uint8)).to(device)
        self.item_offsets.copy_(torch.from_numpy(histories.offsets))
        if histories.times is not None:
            self.rated_at = torch.from_numpy(np.array(histories.times, dtype=np.int64)).to(device)
        if self.config.contexts == "interaction":
            self.regions.make_tables(len(self.raters) + 1, len(self.raters) + 1)

    def _begin(self, known: TrainingRatings) -> None:
        """Start from the biases of ridge regression, and from a normal distribution around what they expect."""
        users, items = ridge_biases(known, (self.n_users + 1, self.n_items + 1), (_PULL, _PULL))
        mean = float(known.ratings.mean())
        self.mean.fill_(mean)
        self.habits.copy_(torch.from_numpy(users))
        if not (self.config.biases or self.config.neighbour_ratings):
            return
        variance = float(np.var(known.ratings - mean - users[known.users] - items[known.items])) + 1e-6
        with torch.no_grad():
            above = self.scale - mean
            self.slope.copy_(above / variance)
            self.output.bias.copy_(-above.square() / (2 * variance))
            if self.config.biases:
                self.user_biases.weight.copy_(torch.from_numpy(users)[:, None])
                self.item_biases.weight.copy_(torch.from_numpy(items)[:, None])

    def forward(self, batch: RatingBatch) -> Tensor:
        """The cross-entropy of the levels, summed over the ratings, with the penalties for as many."""
        logits, _ = self.logits(batch)
        asked = batch.levels >= 0
        loss = F.cross_entropy(logits[asked], batch.levels[asked], reduction="sum")
        return loss + self._penalty(batch) * asked.sum()

    def _penalty(self, batch: RatingBatch) -> Tensor:
        config = self.config
        rates = {"output": config.l2_output}
        if config.attention:
            rates |= {"query": config.l2_query, "key": config.l2_key}
            rates |= {"value": config.l2_value, "concat": config.l2_concat}
        total = self.output.weight.new_zeros(())
        for name, rate in rates.items():
            if rate:
                layer = self.output if name == "output" else getattr(self.regions, name)
                total = total + rate * layer.weight.square().sum()
        if config.neighbour_ratings and config.l2_agreement:
            read = self.asks(torch.unique(batch.users)).square().sum() + self.tells(batch.neighbours).square().sum()
            total = total + config.l2_agreement * read
        return total

    def logits(self, batch: RatingBatch) -> tuple[Tensor, Read]:
        """Scores of the levels (u, c, levels), before the softmax, and what was read of the neighbours."""
        config = self.config
        known = self.users(batch.users) if self.training else self.users.of(batch.users)
        users = self.dropouts["user"](known)
        neighbours = self.dropouts["neighbour"](self.users(batch.neighbours))
        items = self.dropouts["item"](self.items(batch.items))
        read = self.regions(batch, users, neighbours, items)
        logits = self.output(self.dropouts["user_rating"](read.regions))
        if config.biases or config.neighbour_ratings:
            logits = logits + self._above(batch)[..., None] * self.slope
        return logits, read

    def _above(self, batch: RatingBatch) -> Tensor:
        """z (u, c): how far above the mean the rating is expected, from biases and what the neighbours gave."""
        above = self.mean.new_zeros(batch.users.shape)
        if self.config.biases:
            above = above + self.user_biases(batch.users)[..., 0] + self.item_biases(batch.items)
        if self.config.neighbour_ratings:
            gave = self.scale[batch.given] - self.mean - self.habits[batch.neighbours][batch.which]
            counted = batch.inside & (batch.given >= 0)[:, None]
            said = (self.agreement(batch) * gave[:, None]).masked_fill(~counted, 0.0).sum(dim=2)
            above = above + said / (counted.sum(dim=2).to(said) + _DOUBT).sqrt()
        return above

    def agreement(self, batch: RatingBatch) -> Tensor:
        """4 ⟨p_user, q_j⟩ (u, c, w): how far users agree with their neighbours; 0 of users unknown."""
        asks = self.dropouts["user"](self.asks(batch.users)) * self.users.known[batch.users][..., None]
        tells = self.dropouts["neighbour"](self.tells(batch.neighbours))[batch.which]
        products: Tensor = asks @ tells.transpose(1, 2) * _AGREEMENT
        return products

    # ---- answers ------------------------------------------------------------------------------------------------

    @property
    def levels(self) -> tuple[float, ...]:
        """The scale, ascending."""
        assert self.config.levels is not None
        return self.config.levels

    @property
    def index(self) -> ItemNeighbours:
        """Who rated each item in training, and which of them count."""
        return self._new_index() if self._index is None else self._index

    def _new_index(self) -> ItemNeighbours:
        """The index over the buffers, which it shares on a CPU."""
        assert self.config.look_back is not None and isinstance(self.config.history_length, int)
        return ItemNeighbours(
            self.raters.cpu().numpy(),
            self.rated.cpu().numpy(),
            self.rated_at.cpu().numpy() if len(self.rated_at) else None,
            self.item_offsets.cpu().numpy(),
            self.config.look_back,
            self.config.history_length,
            self.config.keep,
        )

    def unrated(self) -> Tensor:
        """(n_items + 1,) bool: the items that have no rating in training."""
        found = self.item_offsets.diff() == 0
        found[0] = False
        return found

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """The probabilities of the levels and their mean; pairs of one item are answered together."""
        asked, people, when = (tensor.cpu().numpy() for tensor in (items, users, moments))
        order = np.lexsort((when, asked))  # pairs that are asked at about the same time look at the same neighbours
        asked, people, when = asked[order], people[order], when[order]
        offsets = group_offsets(asked, _GROUP)
        starts, ends = offsets[:-1], offsets[1:]
        probabilities = torch.empty(len(asked), len(self.levels), device=self.device, dtype=self.scale.dtype)
        rows = torch.from_numpy(order).to(self.device)
        for groups in self._portions(asked[starts], when[starts], when[ends - 1], _GROUP):
            places, real = ragged_places(starts[groups], ends[groups])
            found = self._probabilities(asked[starts[groups]], people[places], when[places])
            there = torch.from_numpy(places[real]).to(self.device)
            probabilities[rows[there]] = found[torch.from_numpy(real).to(self.device)]
        return Rated(probabilities @ self.scale, probabilities)

    def scores(self) -> RegionScores:
        """Expected ratings, item by item for all users of a batch."""
        return RegionScores(self)

    def expected_by_item(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Expected ratings (batch, stop - start) of the item codes start … stop - 1, from users and moments."""
        asked = queries.cpu().numpy()
        if out is None:
            out = torch.empty(len(queries), stop - start, device=self.device, dtype=self.scale.dtype)
        if not len(asked):
            return out
        items = np.arange(start, stop)
        first, last = (np.full(len(items), moment) for moment in (asked[:, 1].min(), asked[:, 1].max()))
        for portion in self._portions(items, first, last, len(asked)):
            users, moments = (np.broadcast_to(column, (len(portion), len(asked))) for column in asked.T)
            found = self._probabilities(items[portion], users, moments) @ self.scale
            out[:, torch.from_numpy(portion).to(self.device)] = found.T.to(out.dtype)
        return out

    def _portions(self, items: Int64, first: Int64, last: Int64, size: int) -> Iterator[Int64]:
        """Groups (u,) divided into those that are answered at once: of like width, and few where they look at many.

        Each asks about `items`, for up to `size` users, at moments from `first` to `last`.
        """
        starts, ends = self.index.windows(np.stack([items, items]), np.stack([first, last]))
        widths = 1 + ends.max(axis=0) - starts.min(axis=0)
        order = np.argsort(-widths, kind="stable")
        low = 0
        while low < len(order):
            many = max(1, _CELLS // (size * self.config.region_size * int(widths[order[low]])))
            yield order[low : low + many]
            low += many

    def _probabilities(self, items: Int64, users: Int64, moments: Int64) -> Tensor:
        """Of the levels (u, c, levels), for items (u,) and users and moments (u, c)."""
        batch = self.index.batch(items, users, np.full(users.shape, -1), moments)
        return self.logits(_on(batch, self.device))[0].softmax(dim=-1)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width)."""
        return self.items.weight

    def neighbours(self, users: Tensor, items: Tensor, moments: Tensor) -> Neighbours:
        """Who decided: weights, the regions in which each was the strongest, and what is expected without each."""
        item, user, moment = (tensor.cpu().numpy() for tensor in (items, users, moments))
        width = 1 + int(np.diff(self.index.windows(item, moment), axis=0).max(initial=0))
        size = max(1, _CELLS // (width * width * self.config.region_size))
        found = [
            self._reasons(low, item[low : low + size], user[low : low + size], moment[low : low + size])
            for low in range(0, max(len(item), 1), size)
        ]
        return joined(found)

    def _reasons(self, first: int, items: Int64, users: Int64, moments: Int64) -> Neighbours:
        """`neighbours` of pairs (n,), numbered from `first`: each as it is, then without one after the other."""
        index = self.index
        batch = _on(index.batch(items, users[:, None], np.full((len(items), 1), -1), moments[:, None]), self.device)
        width = batch.inside.shape[2]
        without = batch.inside & ~torch.eye(width, dtype=torch.bool, device=self.device)
        without[:, 0] = batch.inside[:, 0]
        without[:, :, NOBODY] = ~without[:, :, 1:].any(dim=2)
        variants = batch._replace(users=batch.users.expand(-1, width), inside=without)
        logits, read = self.logits(variants)
        expected = logits.softmax(dim=-1) @ self.scale
        decided = F.one_hot(read.decided[:, 0], width).float().mean(dim=1)
        rows, columns = np.nonzero(batch.inside[:, 0, 1:].cpu().numpy())
        at = torch.from_numpy(rows), torch.from_numpy(columns + 1)
        places = batch.contexts.cpu()[at].numpy() - 1
        return Neighbours(
            rows=rows + first,
            users=batch.neighbours[batch.which].cpu()[at].numpy(),
            ratings=self.scale[batch.given].cpu()[at].numpy(),
            positions=places - index.offsets[items[rows]] + 1,
            times=None if index.times is None else index.times[places],
            agreement=self.agreement(batch)[:, 0].cpu()[at].numpy() if self.config.neighbour_ratings else None,
            weights=read.weights[:, :, 0].transpose(1, 2).cpu()[at].numpy() if self.config.attention else None,
            decided=decided.cpu()[at].numpy(),
            effects=(expected[:, :1] - expected).cpu()[at].numpy(),
        )

    def fault(self) -> str | None:
        """Histories of items that do not fit each other, and codes or levels that do not exist."""
        n, offsets = len(self.raters), self.item_offsets
        times = len(self.rated_at)
        rises = bool((offsets[1:] >= offsets[:-1]).all())
        if not rises or int(offsets[0]) != 0 or int(offsets[1]) != 0 or int(offsets[-1]) != n:
            return f"item_offsets does not rise from 0, 0 to the {n:,} ratings"
        if self.rated.shape != (n,) or self.rated_at.shape not in ((0,), (n,)) or self.raters.shape != (n,):
            return f"there are {n:,} raters, {len(self.rated):,} ratings and {times:,} times"
        if n and (int(self.raters.min()) < 1 or int(self.raters.max()) > self.n_users):
            return "raters holds users that do not exist"
        if n and int(self.rated.max()) >= len(self.levels):
            return "rated holds levels that do not exist"
        if times > 1:
            begins = torch.zeros(n + 1, dtype=torch.bool)
            begins[offsets.cpu()] = True
            falls = (self.rated_at[1:] < self.rated_at[:-1]).cpu()
            if bool((falls & ~begins[1:n]).any()):
                return "rated_at is not in the order of time"
        if self.config.contexts == "interaction" and self.regions.sizes != (n + 1, n + 1):
            return f"its context units are not those of {n:,} ratings"
        if self.scale.tolist() != torch.tensor(self.config.levels).tolist():
            return f"scale holds other levels than the settings, {self.config.levels}"
        return None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # How many ratings there are depends on the data: make room for what is about to be loaded.
        for name in ("raters", "rated", "rated_at"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        names = (f"{prefix}regions.{table}.weight" for table in ("k_iu", "k_ui"))
        tables = [state_dict[name] for name in names if name in state_dict]
        sizes = tuple(map(len, tables))
        # New tables only where the old ones do not fit: an optimizer may hold them.
        if self.config.contexts == "interaction" and len(sizes) == 2 and sizes != self.regions.sizes:
            self.regions.make_tables(*sizes)
        super()._load_from_state_dict(state_dict, prefix, *args)


class RegionScores(ExpectedRatings):
    """Expected ratings of an `ARERecModel`; all users of a batch are answered item by item."""

    _model: ARERecModel

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Expected ratings (batch, stop - start) of the item codes start … stop - 1."""
        return self._model.expected_by_item(queries, start, stop, out)


def _on(batch: RatingBatch, device: torch.device) -> RatingBatch:
    return RatingBatch(*(tensor.to(device) for tensor in batch))
