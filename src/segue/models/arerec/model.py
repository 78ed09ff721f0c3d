"""Module of ARERec: training, predictions, and the neighbours behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.ragged import Int64, rows_of
from segue.errors import ConfigError
from segue.models.arerec.neighbours import (
    NO_NEIGHBOUR,
    ItemNeighbours,
    RatingBatch,
    RatingExamples,
    group_offsets,
    padded_positions,
)
from segue.models.arerec.regions import RegionAttention, RegionReading
from segue.models.arerec.scale import level_indices
from segue.models.arerec.settings import ARERecSettings
from segue.models.base import CodeRows, TrainableModel
from segue.models.rating_bias import ridge_biases
from segue.models.ratings import (
    ExpectedRatings,
    Neighbours,
    Rated,
    RatingModel,
    TrainingRatings,
    concatenated,
    training_ratings,
)
from segue.models.users import UserVectors
from segue.nn.dropout import Dropout
from segue.nn.moving import moved

_CELLS = 4_000_000
"""Number of region products that are held at once in prediction."""
_GROUP = 64
_PULL = 3.0
_USER_STD, _ITEM_STD, _AGREEMENT_STD = 0.4, 0.1, 0.05
_DOUBT = 5.0
_AGREEMENT = 4.0
"""Factor of the agreement. It lets steps of the usual size move the small initial vectors fast enough."""


class ARERecModel(RatingModel, TrainableModel):
    """Module of `ARERec`: `RegionAttention`, then levels = W (regions) + b.

    With `biases` or `neighbour_ratings` the levels also get slope · z, with

    z = b_user + b_item + Σ_j 4 ⟨p_user, q_j⟩ (r_j - mean - b'_j) / √(neighbours + 5)

    Here r_j is the rating of neighbour j and b'_j the bias of the neighbour. The product of p and q, which may be
    negative, is the agreement of the user with the neighbour. This is an item-based linear autoencoder (Sedhain et al.,
    *AutoRec*, 2015) that never sees the rating it predicts. Training starts from the biases of ridge regression, and
    from slopes and b that make the levels a normal distribution around mean + z.
    """

    stores_histories = True
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
            raise ConfigError(
                "levels, history_length or look_back are not set: fill them in from the data with resolved()."
            )
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
        # Only parameters in use, because several processes wait for a gradient of every parameter.
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
        self._index: ItemNeighbours | None = None  # set once training has ended
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw user vectors with enough spread for the attention to distinguish them; row 0 of the items is 0."""
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

    # ---- training ---------------------------------------------------------------------------------------------------

    def prepare(self, dataset: Dataset) -> None:
        """Store the histories of the items, the known users, and the initial biases."""
        self._store_histories(dataset)
        known = training_ratings(dataset)
        self._set_initial_weights(known)
        self.users.trained_on(np.unique(known.users))

    def settle(self) -> None:
        """Build the index of neighbours once, for a model whose training has ended."""
        self._index = self._new_index()

    def examples(self, dataset: Dataset) -> RatingExamples:
        """Return groups of ratings of one item."""
        histories = dataset.item_histories
        assert histories.ratings is not None
        users, items = histories.users.astype(np.int64), rows_of(histories.offsets[:-1], histories.offsets[1:])
        levels = level_indices(histories.ratings.astype(np.float64), self.levels)
        moments = np.full(len(users), NOW) if histories.times is None else np.asarray(histories.times)
        return RatingExamples(self.index, items, users, levels, moments, self.config.group)

    def _store_histories(self, dataset: Dataset) -> None:
        """Store the visible histories of the items or, with the published leak, the whole histories."""
        whole = self.config.look_back == "reference"
        histories = (dataset.until(dataset.offsets[1:]) if whole else dataset).item_histories
        assert histories.ratings is not None
        device = self.device
        self.raters = torch.from_numpy(histories.users.astype(np.int32)).to(device)
        levels = level_indices(histories.ratings.astype(np.float64), self.levels)
        self.rated = torch.from_numpy(levels.astype(np.uint8)).to(device)
        self.item_offsets.copy_(torch.from_numpy(histories.offsets))
        if histories.times is not None:
            self.rated_at = torch.from_numpy(np.array(histories.times, dtype=np.int64)).to(device)
        if self.config.contexts == "interaction":
            self.regions.make_tables(len(self.raters) + 1, len(self.raters) + 1)

    def _set_initial_weights(self, known: TrainingRatings) -> None:
        """Start from the biases of ridge regression, with normal distributions around their predictions."""
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
        """Cross-entropy of the levels, summed over the ratings, plus the penalties times the number of ratings."""
        logits, _ = self.logits(batch)
        real = batch.levels >= 0
        loss = F.cross_entropy(logits[real], batch.levels[real], reduction="sum")
        return loss + self._penalty(batch) * real.sum()

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
            squares = self.asks(torch.unique(batch.users)).square().sum() + self.tells(batch.neighbours).square().sum()
            total = total + config.l2_agreement * squares
        return total

    def logits(self, batch: RatingBatch) -> tuple[Tensor, RegionReading]:
        """Logits (u, c, levels) of the levels, and the strongest neighbours of each region."""
        config = self.config
        known = self.users(batch.users) if self.training else self.users.of(batch.users)
        users = self.dropouts["user"](known)
        neighbours = self.dropouts["neighbour"](self.users(batch.neighbours))
        items = self.dropouts["item"](self.items(batch.items))
        reading = self.regions(batch, users, neighbours, items)
        logits = self.output(self.dropouts["user_rating"](reading.regions))
        if config.biases or config.neighbour_ratings:
            logits = logits + self._above_mean(batch)[..., None] * self.slope
        return logits, reading

    def _above_mean(self, batch: RatingBatch) -> Tensor:
        """Expected difference z (u, c) from the mean, from the biases and the neighbours' ratings."""
        above = self.mean.new_zeros(batch.users.shape)
        if self.config.biases:
            above = above + self.user_biases(batch.users)[..., 0] + self.item_biases(batch.items)
        if self.config.neighbour_ratings:
            biases = self.habits[batch.neighbours][batch.neighbour_index]
            differences = self.scale[batch.neighbour_levels] - self.mean - biases
            counted = batch.inside & (batch.neighbour_levels >= 0)[:, None]
            total = (self.agreement(batch) * differences[:, None]).masked_fill(~counted, 0.0).sum(dim=2)
            above = above + total / (counted.sum(dim=2).to(total) + _DOUBT).sqrt()
        return above

    def agreement(self, batch: RatingBatch) -> Tensor:
        """Agreement 4 ⟨p_user, q_j⟩ (u, c, w) of users with their neighbours; 0 for unknown users."""
        asks = self.dropouts["user"](self.asks(batch.users)) * self.users.known[batch.users][..., None]
        tells = self.dropouts["neighbour"](self.tells(batch.neighbours))[batch.neighbour_index]
        products: Tensor = asks @ tells.transpose(1, 2) * _AGREEMENT
        return products

    # ---- prediction -------------------------------------------------------------------------------------------------

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the scale, ascending."""
        assert self.config.levels is not None
        return self.config.levels

    @property
    def index(self) -> ItemNeighbours:
        """Training ratings of each item, and the rule that selects neighbours among them."""
        return self._new_index() if self._index is None else self._index

    def _new_index(self) -> ItemNeighbours:
        """Build the index on the buffers; on a CPU it shares their memory."""
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
        """Mask (n_items + 1,) bool of the items without ratings in training."""
        unrated = self.item_offsets.diff() == 0
        unrated[0] = False
        return unrated

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """Predict the probabilities of the levels and their mean; pairs of one item are grouped."""
        item, user, moment = (tensor.cpu().numpy() for tensor in (items, users, moments))
        order = np.lexsort((moment, item))  # pairs of one item at similar times have similar neighbours
        item, user, moment = item[order], user[order], moment[order]
        offsets = group_offsets(item, _GROUP)
        starts, ends = offsets[:-1], offsets[1:]
        probabilities = torch.empty(len(item), len(self.levels), device=self.device, dtype=self.scale.dtype)
        rows = torch.from_numpy(order).to(self.device)
        for groups in self._portions(item[starts], moment[starts], moment[ends - 1], _GROUP):
            positions, real = padded_positions(starts[groups], ends[groups])
            predicted = self._probabilities(item[starts[groups]], user[positions], moment[positions])
            pairs = torch.from_numpy(positions[real]).to(self.device)
            probabilities[rows[pairs]] = predicted[torch.from_numpy(real).to(self.device)]
        return Rated(probabilities @ self.scale, probabilities)

    def scores(self) -> RegionScores:
        """Expected ratings, item by item for all users of a batch."""
        return RegionScores(self)

    def expected_by_item(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Expected ratings (batch, stop - start) of the item codes start … stop - 1, from queries (batch, 2)."""
        users_and_times = queries.cpu().numpy()
        if out is None:
            out = torch.empty(len(queries), stop - start, device=self.device, dtype=self.scale.dtype)
        if not len(users_and_times):
            return out
        items = np.arange(start, stop)
        n, times = len(users_and_times), users_and_times[:, 1]
        first, last = (np.full(len(items), moment) for moment in (times.min(), times.max()))
        for portion in self._portions(items, first, last, n):
            users, moments = (np.broadcast_to(column, (len(portion), n)) for column in users_and_times.T)
            expected = self._probabilities(items[portion], users, moments) @ self.scale
            out[:, torch.from_numpy(portion).to(self.device)] = expected.T.to(out.dtype)
        return out

    def _portions(self, items: Int64, first: Int64, last: Int64, size: int) -> Iterator[Int64]:
        """Divide groups (u,) into portions to compute at once: of similar width, and smaller if they are wide.

        Each group predicts the ratings of one of `items`, for up to `size` users, at times from `first` to `last`.
        """
        starts, ends = self.index.windows(np.stack([items, items]), np.stack([first, last]))
        widths = 1 + ends.max(axis=0) - starts.min(axis=0)
        order = np.argsort(-widths, kind="stable")
        low = 0
        while low < len(order):
            count = max(1, _CELLS // (size * self.config.region_size * int(widths[order[low]])))
            yield order[low : low + count]
            low += count

    def _probabilities(self, items: Int64, users: Int64, moments: Int64) -> Tensor:
        """Probabilities (u, c, levels) of the levels, for items (u,) and users and times (u, c)."""
        batch = self.index.batch(items, users, np.full(users.shape, -1), moments)
        return self.logits(moved(batch, self.device))[0].softmax(dim=-1)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width)."""
        return self.items.weight

    def neighbours(self, users: Tensor, items: Tensor, moments: Tensor) -> Neighbours:
        """Neighbours of the pairs: weights, shares of the regions that each decided, and effects."""
        item, user, moment = (tensor.cpu().numpy() for tensor in (items, users, moments))
        width = 1 + int(np.diff(self.index.windows(item, moment), axis=0).max(initial=0))
        size = max(1, _CELLS // (width * width * self.config.region_size))
        parts = [
            self._neighbours_of(low, item[low : low + size], user[low : low + size], moment[low : low + size])
            for low in range(0, max(len(item), 1), size)
        ]
        return concatenated(parts)

    def _neighbours_of(self, first: int, items: Int64, users: Int64, moments: Int64) -> Neighbours:
        """Result of `neighbours` for pairs (n,), numbered from `first`.

        Column 0 of the batch is the prediction itself; column j is the prediction without neighbour j.
        """
        index = self.index
        batch = moved(index.batch(items, users[:, None], np.full((len(items), 1), -1), moments[:, None]), self.device)
        width = batch.inside.shape[2]
        without = batch.inside & ~torch.eye(width, dtype=torch.bool, device=self.device)
        without[:, 0] = batch.inside[:, 0]
        without[:, :, NO_NEIGHBOUR] = ~without[:, :, 1:].any(dim=2)
        left_out = batch._replace(users=batch.users.expand(-1, width), inside=without)
        logits, reading = self.logits(left_out)
        expected = logits.softmax(dim=-1) @ self.scale
        decided = F.one_hot(reading.decided[:, 0], width).float().mean(dim=1)
        rows, columns = np.nonzero(batch.inside[:, 0, 1:].cpu().numpy())
        cells = torch.from_numpy(rows), torch.from_numpy(columns + 1)
        rating = batch.contexts.cpu()[cells].numpy() - 1
        return Neighbours(
            rows=rows + first,
            users=batch.neighbours[batch.neighbour_index].cpu()[cells].numpy(),
            ratings=self.scale[batch.neighbour_levels].cpu()[cells].numpy(),
            positions=rating - index.offsets[items[rows]] + 1,
            times=None if index.times is None else index.times[rating],
            agreement=self.agreement(batch)[:, 0].cpu()[cells].numpy() if self.config.neighbour_ratings else None,
            weights=reading.weights[:, :, 0].transpose(1, 2).cpu()[cells].numpy() if self.config.attention else None,
            decided=decided.cpu()[cells].numpy(),
            effects=(expected[:, :1] - expected).cpu()[cells].numpy(),
        )

    def code_rows(self) -> Mapping[str, CodeRows]:
        """Rows of users and items; with `contexts="interaction"`, context units belong to ratings, not to codes."""
        mean = {"items.weight": "items", "users.weight": "users", "asks.weight": "users", "tells.weight": "users"}
        zero = {"user_biases.weight": "users", "item_biases.weight": "items", "habits": "users", "users.known": "users"}
        if self.config.contexts == "shared":
            mean |= {"regions.k_iu.weight": "users", "regions.k_ui.weight": "items"}
        own = self.state_dict().keys()
        rows: dict[str, CodeRows] = {}
        for fill, names in (("mean", mean), ("zero", zero)):
            rows |= {name: CodeRows(side, fill) for name, side in names.items() if name in own}  # type: ignore[arg-type]
        return rows

    def drawn_on_start(self) -> set[str]:
        """Context units of single ratings, which the new data number anew."""
        units = {"regions.k_iu.weight", "regions.k_ui.weight"}
        return units if self.config.contexts == "interaction" else set()

    def grow_from(self, former: Self) -> set[str]:
        """Take the stored ratings; new items have none."""
        for name in ("raters", "rated", "rated_at"):
            setattr(self, name, getattr(former, name).clone())
        added = self.n_items - former.n_items
        self.item_offsets = torch.cat([former.item_offsets, former.item_offsets[-1:].expand(added)])
        if self.config.contexts == "interaction":
            self.regions.make_tables(*former.regions.sizes)
        return {"raters", "rated", "rated_at", "item_offsets"}

    def forget_users(self, users: npt.NDArray[np.int64]) -> None:
        """Remove the stored ratings of these users."""
        stays = ~torch.isin(self.raters.long(), torch.from_numpy(users).to(self.raters.device))
        before = torch.cat([stays.new_zeros(1, dtype=torch.int64), stays.cumsum(0)])
        self.item_offsets = before[self.item_offsets]
        if self.config.contexts == "interaction":
            self.regions.keep_rows(torch.cat([stays.new_ones(1), stays]))
        self.raters, self.rated = self.raters[stays], self.rated[stays]
        if len(self.rated_at):
            self.rated_at = self.rated_at[stays]

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
        # The number of ratings depends on the data: make buffers of the size to load.
        for name in ("raters", "rated", "rated_at"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        names = (f"{prefix}regions.{table}.weight" for table in ("k_iu", "k_ui"))
        tables = [state_dict[name] for name in names if name in state_dict]
        sizes = tuple(map(len, tables))
        # New tables only if the old ones do not fit, because an optimizer may hold them.
        if self.config.contexts == "interaction" and len(sizes) == 2 and sizes != self.regions.sizes:
            self.regions.make_tables(*sizes)
        super()._load_from_state_dict(state_dict, prefix, *args)


class RegionScores(ExpectedRatings):
    """Expected ratings of an `ARERecModel`, computed item by item for all users of a batch."""

    _model: ARERecModel

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Expected ratings (batch, stop - start) of the item codes start … stop - 1."""
        return self._model.expected_by_item(queries, start, stop, out)
