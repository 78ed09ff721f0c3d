"""A small shop that does not exist: interactions with a known structure, for the demo, the documentation and tests.

Every user has a **taste** over categories and a **style** (one of a few), every item a category and a style. What a
user takes next depends on

- the item before it: a **habit** leads from each item to its partner ("pasta-02" is followed by "sauce-05"), and from
  each category to a few others;
- the user: the category must be to the user's taste, and most items are of the user's style.

So the most popular items say little, what followed what says more, and a model that reads taste and style from the
longer history says most. Users come in visits: a few interactions minutes apart, visits days apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.errors import ConfigError

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

# In this order because each category leads first of all to the one after it.
CATEGORIES = (
    "pasta", "sauce", "cheese", "wine", "olives", "bread", "jam", "tea", "biscuit", "coffee", "chocolate", "nuts",
    "beer", "crisps", "salsa", "beans", "rice", "spice", "soup", "noodle", "salad", "oil", "fish", "lemon",
)  # fmt: skip
START = 1_704_067_200  # 2024-01-01 00:00 UTC, in seconds
DAY = 86_400
SHORTEST = 5  # interactions of the user with the fewest
OTHER_STYLE = 0.05  # weight of an item of another style than the user's, beside 1 for one of the same
TRIES = 8  # draws before an item already taken is taken again


@dataclass(frozen=True)
class Simulation:
    """What `simulate` made: the log, and the truth behind it, which no model gets to see."""

    log: pl.DataFrame
    """Interactions in order of time: user (string), item (string), time (int64, seconds since 1970 UTC)."""
    users: pl.DataFrame
    """One row per user: user, style, favourite (the category of strongest taste)."""
    items: pl.DataFrame
    """One row per item: item, category, style, weight (share of choices by popularity alone), partner (by habit)."""
    categories: tuple[str, ...]
    """Names of the categories, in the order of the columns of `tastes` and of the rows and columns of `transitions`."""
    tastes: Floats
    """(users, categories) taste of each user; rows sum to 1."""
    transitions: Floats
    """(categories, categories) where habit leads from each category, before taste has its say; rows sum to 1."""


@dataclass(frozen=True)
class _Shop:
    """The items, as codes from 0 in order of category, and what follows what."""

    category: Ints  # (items,)
    style: Ints  # (items,)
    weight: Floats  # (items,)
    partner: Ints  # (items,)
    transitions: Floats  # (categories, categories)
    ladder: Floats  # (styles * (items + 1),), see `_within`


def simulate(
    users: int = 2000,
    items: int = 300,
    seed: int = 0,
    *,
    mean_length: float = 25.0,
    categories: int = 20,
    styles: int = 4,
    habit: float = 0.15,
    days: float = 365.0,
) -> Simulation:
    """Make a log of interactions from habits and tastes.

    Parameters
    ----------
    users
        Number of users, named "user-0001" and so on.
    items
        Number of items, named by category: "coffee-03".
    seed
        The same seed gives the same log.
    mean_length
        Mean number of interactions per user; each user has at least 5.
    categories
        Number of categories, at most 24.
    styles
        Number of styles among users and items.
    habit
        Probability, from 0 to 1, that an item is followed by its partner.
    days
        Length of the simulated period; the last visits of a user who came late may fall after its end.

    Returns
    -------
    Simulation
        The log together with the truth behind it.

    Raises
    ------
    ConfigError
        An option has an impossible value.

    Examples
    --------
    >>> made = simulate(users=50, items=40, seed=1, categories=5)
    >>> made.log.columns
    ['user', 'item', 'time']
    >>> made.items["item"][0]
    'pasta-01'
    """
    _check(users, items, mean_length, categories, styles, habit, days)
    rng = np.random.default_rng(seed)
    shop = _open_shop(rng, items, categories, styles)
    tastes = rng.dirichlet(np.full(categories, 0.25), size=users)
    style = rng.integers(styles, size=users)
    lengths = _lengths(rng, users, mean_length)
    taken = _walk(rng, shop, tastes, style, lengths, habit)
    times = _visits(rng, users, int(lengths.max()), days)

    keep = np.arange(lengths.max()) < lengths[:, None]
    user_names = pl.Series("user", _numbered("user", users, max(4, len(str(users)))))
    item_names = pl.Series("item", _item_names(shop.category, categories))
    who = user_names.gather(np.nonzero(keep)[0])
    log = pl.DataFrame({"user": who, "item": item_names.gather(taken[keep]), "time": times[keep]})
    names = np.array(CATEGORIES[:categories])
    catalogue = {"item": item_names, "category": names[shop.category], "style": shop.style, "weight": shop.weight}
    return Simulation(
        log=log.sort("time", maintain_order=True),
        users=pl.DataFrame({"user": user_names, "style": style, "favourite": names[tastes.argmax(axis=1)]}),
        items=pl.DataFrame(catalogue | {"partner": item_names.gather(shop.partner)}),
        categories=CATEGORIES[:categories],
        tastes=tastes,
        transitions=shop.transitions,
    )


def _check(users: int, items: int, mean_length: float, categories: int, styles: int, habit: float, days: float) -> None:
    """Raise ConfigError, naming the option, its value and what it may be."""
    rules = (
        ("users", users, users >= 1, "at least 1"),
        ("mean_length", mean_length, mean_length >= SHORTEST, f"at least {SHORTEST}"),
        ("categories", categories, 2 <= categories <= len(CATEGORIES), f"from 2 to {len(CATEGORIES)}"),
        ("items", items, items >= categories, f"at least the number of categories, {categories}"),
        ("styles", styles, styles >= 1, "at least 1"),
        ("habit", habit, 0 <= habit <= 1, "from 0 to 1"),
        ("days", days, days > 0, "above 0"),
    )
    for name, value, fine, rule in rules:
        if not fine:
            raise ConfigError(f"simulate: {name}={value} is impossible; it must be {rule}.")


def _lengths(rng: np.random.Generator, users: int, mean: float) -> Ints:
    """Number of interactions of each user (users,): many short histories, a few long ones."""
    more = rng.negative_binomial(3, 3 / (3 + mean - SHORTEST), size=users)
    return np.asarray(SHORTEST + more, dtype=np.int64)


def _open_shop(rng: np.random.Generator, items: int, categories: int, styles: int) -> _Shop:
    """Items with category, style and skewed popularity, and what follows what."""
    category = np.sort(np.arange(items) % categories)
    style = rng.permutation(items) % styles
    rank = np.arange(items) - np.searchsorted(category, category)
    weight = rng.dirichlet(np.full(categories, 3.0))[category] / (1.0 + rank)
    weight /= weight.sum()

    transitions = np.full((categories, categories), 0.1 / categories)
    here = np.arange(categories)
    for step, share in ((1, 0.4), (int(rng.integers(2, 6)), 0.3), (int(rng.integers(6, 12)), 0.2)):
        transitions[here, (here + step) % categories] += share

    # Partners are in the next category; a random order of its items makes most partners different.
    first = np.searchsorted(category, here)
    count = np.bincount(category, minlength=categories)
    after = (category + 1) % categories
    partner = first[after] + (rank * 7 + rng.integers(items, size=categories)[category]) % count[after]
    return _Shop(category, style, weight, partner, transitions, _ladder(weight, style, styles))


def _ladder(weight: Floats, style: Ints, styles: int) -> Floats:
    """Cumulative weights of the items as each style sees them, those of style s rising from s to s + 1."""
    seen = np.where(style == np.arange(styles)[:, None], 1.0, OTHER_STYLE) * weight  # (styles, items)
    steps = np.concatenate([np.zeros((styles, 1)), seen.cumsum(axis=1)], axis=1)
    steps = steps / steps[:, -1:] * (1 - 1e-9)  # the end of one style stays below the start of the next
    return np.asarray((steps + np.arange(styles)[:, None]).ravel())


def _walk(rng: np.random.Generator, shop: _Shop, tastes: Floats, style: Ints, lengths: Ints, habit: float) -> Ints:
    """Items taken (users, longest), one step of all users at a time; -1 after the end of a history."""
    order = np.argsort(-lengths, kind="stable")  # so that those still shopping are always the first
    taken = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int64)
    log_taste, log_transitions = np.log(tastes[order] + 0.002), np.log(shop.transitions)
    for step in range(taken.shape[1]):
        active = int((lengths > step).sum())
        logits = log_taste[:active]
        if step:
            last = taken[:active, step - 1]
            logits = logits + log_transitions[shop.category[last]]
        category = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        choices = _within(rng, shop, category, style[order[:active]])  # (active, TRIES)
        if step:
            first = np.where(rng.random(active) < habit, shop.partner[last], choices[:, 0])
            choices = np.column_stack([first, choices])
        fresh = (choices[:, :, None] != taken[:active, None, :step]).all(axis=2)
        fresh[:, -1] = True
        taken[:active, step] = choices[np.arange(active), fresh.argmax(axis=1)]
    return taken[np.argsort(order)]


def _within(rng: np.random.Generator, shop: _Shop, category: Ints, style: Ints) -> Ints:
    """Items of the given categories (users,) as users of the given styles (users,) choose: (users, TRIES).

    A random point between the two ends of a category on the ladder of the style falls on each item as often as its
    weight says.
    """
    items = len(shop.category)
    first = np.searchsorted(shop.category, category, side="left")[:, None]
    after = np.searchsorted(shop.category, category, side="right")[:, None]
    row = style[:, None] * (items + 1)
    low, high = shop.ladder[row + first], shop.ladder[row + after]
    point = low + rng.random((len(category), TRIES)) * (high - low)
    found = np.searchsorted(shop.ladder, point, side="right") - 1 - row
    return np.asarray(found.clip(first, after - 1))


def _visits(rng: np.random.Generator, users: int, length: int, days: float) -> Ints:
    """Times in seconds (users, length), strictly rising: minutes apart within a visit, whole days between visits."""
    shape = (users, length)
    opens = rng.random(shape) < 0.25
    opens[:, 0] = True
    visit = np.maximum.accumulate(np.where(opens, np.arange(length), 0), axis=1)  # the column in which it opened
    waits = np.where(opens, np.ceil(rng.exponential(0.02 * days, shape)), 0)
    waits[:, 0] = np.floor(rng.random(users) * 0.7 * days)
    clock = np.take_along_axis(rng.triangular(8, 18, 22, shape) * 3600, visit, axis=1)
    running = np.where(opens, 0, np.ceil(rng.exponential(240, shape))).cumsum(axis=1)
    since = running - np.take_along_axis(running, visit, axis=1)
    return np.asarray(START + waits.cumsum(axis=1) * DAY + np.floor(clock) + since, dtype=np.int64)


def _numbered(prefix: str, count: int, digits: int) -> list[str]:
    """Names from "user-0001" on."""
    return [f"{prefix}-{number:0{digits}d}" for number in range(1, count + 1)]


def _item_names(category: Ints, categories: int) -> list[str]:
    """Names such as "coffee-03", numbered from the most popular within the category."""
    counts = np.bincount(category, minlength=categories).tolist()
    digits = max(2, len(str(max(counts))))
    return [name for word, count in zip(CATEGORIES, counts, strict=False) for name in _numbered(word, count, digits)]
