"""The models by name. A new model is one new file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from segue.errors import ConfigError, nearest
from segue.models.base import ModelConfig

_HOMES = {
    "sasrec": "segue.models.sasrec:SASRec",
    "ssept": "segue.models.ssept:SSEPT",
    "parsrec": "segue.models.parsrec.parsrec:PARSRec",
    "popularity": "segue.models.popularity:Popularity",
    "recent-popularity": "segue.models.popularity:RecentPopularity",
    "markov": "segue.models.markov:Markov",
    "arerec": "segue.models.arerec.arerec:ARERec",
    "global-mean": "segue.models.rating_bias:GlobalMean",
    "rating-bias": "segue.models.rating_bias:RatingBias",
    "matrix-factorization": "segue.models.matrix_factorization:MatrixFactorization",
}


class _Models(Mapping[str, type[ModelConfig]]):
    """Config classes by name, imported when they are first asked for."""

    def __getitem__(self, name: str) -> type[ModelConfig]:
        module, _, attribute = _HOMES[name].partition(":")
        found: type[ModelConfig] = getattr(importlib.import_module(module), attribute)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)

    def __contains__(self, name: object) -> bool:
        return name in _HOMES


MODELS: Mapping[str, type[ModelConfig]] = _Models()
"""Every model's config class by the model's name."""


def config_class(name: str) -> type[ModelConfig]:
    """The config class of the model `name`.

    Raises
    ------
    ConfigError
        There is no such model; the message names the nearest.
    """
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}; {nearest(name, MODELS)}.")
    return MODELS[name]


def config_from_dict(settings: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `ModelConfig.to_dict`: the config that `settings["name"]` and the other settings describe.

    The settings may be those of a file from before some others existed; these are as they were then.

    Raises
    ------
    ConfigError
        No name, an unknown model, an unknown setting or an impossible value.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"a model needs a name: expected name = one of {', '.join(MODELS)}.")
    found = config_class(name)
    return found.from_dict({**found.formerly, **settings})
