"""Search spaces of `segue.tune`: for each model, the settings that are worth a search, each with a sensible range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segue.errors import ConfigError, nearest
from segue.models.base import ModelConfig
from segue.settings import MISFIT, complaint, field_types, fit
from segue.training.config import Training

MODEL, TRAINING = "model", "training"
"""First parts of the names of settings: "model.width", "training.learning_rate"."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]
    """The values: numbers, words, true, false and None."""

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(one) and value == one for one in self.values)


@dataclass(frozen=True)
class Between:
    """A number between two others, both included. It is whole if both are."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    log: bool = False
    """Every factor is as likely as every other: for ranges over several powers of ten."""

    @property
    def is_whole(self) -> bool:
        """True if only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]


Dimension = Choice | Between
Space = Mapping[str, Dimension]

_WIDTHS, _HEADS = Choice((32, 64, 128)), Choice((1, 2, 4))  # every number of heads divides every width
_SMOOTHING = Between(1e-6, 1e-1, log=True)

SPACES: Mapping[str, Space] = {
    "sasrec": {
        "width": _WIDTHS,
        "blocks": Between(1, 4),
        "heads": _HEADS,
        "max_length": Choice((20, 50, 100, 200)),
        "dropout": Between(0.0, 0.6),
        "temperature": Between(0.03, 0.3, log=True),
        "frequency": Between(0.0, 0.9),
        "norm": Choice(("pre", "ligr")),
        "feed_forward": Choice(("relu", "gelu", "swiglu")),
    },
    "ssept": {
        "item_width": Choice((32, 50, 64, 100)),
        "user_width": Choice((32, 50, 64, 100)),
        "blocks": Between(1, 4),
        "max_length": Choice((20, 50, 100, 200)),
        "dropout": Between(0.1, 0.7),
        "swap_user": Between(0.0, 0.98),
        "swap_item": Between(0.0, 0.3),
        "swap_target": Between(0.0, 0.3),
    },
    "gru4rec": {
        "width": Choice((32, 64, 128, 256)),
        "layers": Between(1, 3),
        "max_length": Choice((20, 50, 100, 200)),
        "dropout_input": Between(0.0, 0.6),
        "dropout_hidden": Between(0.0, 0.6),
        "in_batch": Between(0.0, 1.0),
        "loss": Choice(("cross-entropy", "bpr-max")),
    },
    "hstu": {
        "width": _WIDTHS,
        "blocks": Between(1, 4),
        "heads": _HEADS,
        "max_length": Choice((20, 50, 100, 200)),
        "dropout": Between(0.0, 0.6),
        "temperature": Between(0.03, 0.3, log=True),
    },
    "bert4rec": {
        "width": _WIDTHS,
        "blocks": Between(1, 4),
        "heads": _HEADS,
        "max_length": Choice((20, 50, 100, 200)),
        "dropout": Between(0.0, 0.6),
        "masked": Between(0.1, 0.8),
        "newest_every": Between(1, 20),
    },
    "lrurec": {
        "width": _WIDTHS,
        "blocks": Between(1, 4),
        "max_length": Choice((20, 50, 100, 200)),
        "dropout": Between(0.0, 0.6),
        "temperature": Between(0.03, 0.3, log=True),
    },
    "parsrec": {
        "user_width": Choice((64, 128, 256)),
        "item_width": Choice((64, 128, 256)),
        "blocks": Between(1, 2),
        "heads": _HEADS,
        "dropout": Between(0.0, 0.5),
    },
    "arerec": {
        "width": _WIDTHS,
        "region_size": Choice((3, 5, 7, 9)),
        "heads": _HEADS,
        "history_length": Choice((50, 100, 200)),
        "dropout_user": Between(0.0, 0.6),
        "dropout_item": Between(0.0, 0.6),
        "dropout_neighbour": Between(0.0, 0.6),
        "l2_agreement": Between(1e-5, 1e-2, log=True),
    },
    "personal-frequency": {
        "decay": Between(0.7, 1.0),
        "smoothing": Between(1e-3, 10.0, log=True),
        "behind": Choice(("popularity", "recent-popularity", "markov")),
    },
    "tifu-knn": {
        "neighbours": Between(20, 1000, log=True),
        "group_size": Between(2, 20),
        "within_decay": Between(0.5, 1.0),
        "group_decay": Between(0.3, 1.0),
        "alpha": Between(0.0, 1.0),
    },
    "up-cf": {
        "recency": Choice((1, 5, 10, 25, 50, 100, None)),
        "locality": Between(1.0, 100.0, log=True),
        "asymmetry": Between(0.0, 1.0),
    },
    "vsknn": {
        "neighbours": Between(20, 1500, log=True),
        "sample": Between(200, 10_000, log=True),
        "idf": Between(0.0, 10.0),
    },
    "vstan": {
        "neighbours": Between(20, 1500, log=True),
        "sample": Between(200, 10_000, log=True),
        "idf": Between(0.0, 10.0),
        "position_scale": Between(0.3, 10.0, log=True),
        "distance_scale": Between(0.3, 10.0, log=True),
        "match_scale": Between(0.3, 10.0, log=True),
    },
    "item-knn": {
        "neighbours": Between(10, 1000, log=True),
        "shrinkage": Between(0.0, 100.0),
        "decay": Between(0.3, 1.0),
    },
    "ease": {"reg": Between(1.0, 10_000.0, log=True)},
    "markov": {"steps": Between(1, 6), "decay": Between(0.1, 1.0), "smoothing": Between(0.1, 100.0, log=True)},
    "content-neighbours": {"decay": Between(0.3, 1.0)},
    "category-popularity": {"smoothing": _SMOOTHING},
    "recent-popularity": {"half_life": Between(0.003, 1.0, log=True)},
    "matrix-factorization": {
        "width": Choice((8, 16, 32, 64, 128)),
        "reg": Between(0.1, 20.0, log=True),
        "frequency": Between(0.0, 1.0),
        "bias_reg": Between(0.1, 20.0, log=True),
    },
    "bayesian-factorization": {"width": Between(2, 32), "implicit": Choice((False, True))},
    "rating-bias": {"user_reg": Between(0.1, 50.0, log=True), "item_reg": Between(0.1, 50.0, log=True)},
}
"""Settings of each model to search by the name of the model. Models without settings are not there."""

TRAINING_SPACE: Space = {"learning_rate": Between(1e-4, 1e-2, log=True)}
"""Options of the training to search, for models that are trained."""


def space_of(config: type[ModelConfig], trained: bool) -> dict[str, Dimension]:
    """The search space of a model, with the full names of the settings; empty if it has nothing to tune.

    Parameters
    ----------
    config
        Class of the model's config.
    trained
        True if the model is trained by gradient steps.
    """
    space = {f"{MODEL}.{name}": one for name, one in SPACES.get(config.name, {}).items()}
    return space | ({f"{TRAINING}.{name}": one for name, one in TRAINING_SPACE.items()} if trained else {})


def dimension_of(name: str, given: Any) -> Dimension:
    """A dimension as a caller writes it: a list of values, or (low, high) or (low, high, "log").

    Raises
    ------
    ConfigError
        It is neither.
    """
    if isinstance(given, Choice | Between):
        return given
    if isinstance(given, tuple) and len(given) in (2, 3):
        low, high, *log = given
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
        if numbers and low < high and log in ([], ["log"]) and not (log and low <= 0):
            return Between(low, high, bool(log))
    if isinstance(given, list) and given and all(one is None or isinstance(one, str | int | float) for one in given):
        return Choice(tuple(given))
    raise ConfigError(
        f"space: {name} is {given!r}: expected a list of values, or a tuple (low, high) or (low, high, 'log') with low "
        "below high, and above 0 with 'log'."
    )


def check_space(space: Space, config: type[ModelConfig]) -> None:
    """Raise a ConfigError that names the first setting that is unknown, or the first value that it cannot have."""
    types = {f"{MODEL}.{name}": kind for name, kind in field_types(config).items()}
    types |= {f"{TRAINING}.{name}": kind for name, kind in field_types(Training).items()}
    for name, dimension in space.items():
        if name not in types:
            raise ConfigError(f"space: {config.name} has no setting {name!r}; {nearest(name, types)}")
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            if fit(value, types[name]) is MISFIT:
                raise ConfigError(f"space: {name}={value!r}: {complaint(value, types[name])}")


def parsed_space(words: Sequence[str]) -> dict[str, Dimension]:
    """Dimensions from words of a command line.

    >>> parsed_space(["model.width=32,64", "training.learning_rate=1e-4:1e-2:log"])["model.width"]
    Choice(values=(32, 64))

    Raises
    ------
    ConfigError
        A word has another form.
    """
    import yaml

    space = {}
    for word in words:
        name, equals, text = word.partition("=")
        parts = text.split(":")
        if not equals or not text:
            raise ConfigError(f"search: expected NAME=low:high, NAME=low:high:log or NAME=a,b,c, found {word!r}.")
        values = [_number(yaml.safe_load(part)) for part in (text.split(",") if len(parts) == 1 else parts)]
        given: Any = values if len(parts) == 1 else tuple(values)
        space[name.replace("-", "_")] = dimension_of(name, given)
    return space


def _number(value: Any) -> Any:
    """A number that YAML reads as a word, as 1e-4, as the number that it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def applied(config: ModelConfig, training: Training, values: Mapping[str, Any]) -> tuple[ModelConfig, Training]:
    """Config and options of the training with other values, by their full names."""
    parts: dict[str, dict[str, Any]] = {MODEL: {}, TRAINING: {}}
    for name, value in values.items():
        part, _, field = name.partition(".")
        parts[part][field] = value
    return dataclasses.replace(config, **parts[MODEL]), dataclasses.replace(training, **parts[TRAINING])


def value_of(config: ModelConfig, training: Training, name: str) -> Any:
    """Value of a setting by its full name."""
    part, _, field = name.partition(".")
    return getattr(config if part == MODEL else training, field)
