"""Registry of models by name: of segue, of the running program, and of installed packages.

A new model of segue is one new file and one line here. Your own model gets its name in one of two ways:

- `segue.register(Config)`, also as a decorator, for this process;
- the entry-point group `segue.models` of an installed package, such as `gru = "shop.models:GRU"`.

A model can be trained without a name too: `segue.fit(Config(), …)` or `--model package.module:Class`. A saved
Recommender records the class of its config. A folder may come from a stranger, so opening it never imports a module
that the folder names. Such a model opens if its name is registered, or if the program has imported its module.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeGuard, TypeVar

from segue.errors import ConfigError, nearest
from segue.models.base import ModelConfig

C = TypeVar("C", bound=type[ModelConfig])

ENTRY_POINTS = "segue.models"
"""Entry-point group of installed packages with models."""

_BY_TASK = {
    "next items": {
        "sasrec": "segue.models.sasrec:SASRec",
        "ssept": "segue.models.ssept:SSEPT",
        "gru4rec": "segue.models.gru4rec:GRU4Rec",
        "hstu": "segue.models.hstu:HSTU",
        "bert4rec": "segue.models.bert4rec:BERT4Rec",
        "lrurec": "segue.models.lrurec:LRURec",
        "personal-frequency": "segue.models.personal_frequency:PersonalFrequency",
        "tifu-knn": "segue.models.tifu_knn:TIFUKNN",
        "up-cf": "segue.models.up_cf:UPCF",
        "vsknn": "segue.models.vsknn:VSKNN",
        "vstan": "segue.models.vstan:VSTAN",
        "item-knn": "segue.models.item_knn:ItemKNN",
        "ease": "segue.models.ease:EASE",
        "markov": "segue.models.markov:Markov",
        "content-neighbours": "segue.models.content_neighbours:ContentNeighbours",
        "category-popularity": "segue.models.category_popularity:CategoryPopularity",
        "popularity": "segue.models.popularity:Popularity",
        "recent-popularity": "segue.models.popularity:RecentPopularity",
    },
    "sessions": {
        "parsrec": "segue.models.parsrec.parsrec:PARSRec",
    },
    "ratings": {
        "arerec": "segue.models.arerec.arerec:ARERec",
        "bayesian-factorization": "segue.models.bayesian_factorization:BayesianFactorization",
        "matrix-factorization": "segue.models.matrix_factorization:MatrixFactorization",
        "rating-bias": "segue.models.rating_bias:RatingBias",
        "global-mean": "segue.models.rating_bias:GlobalMean",
    },
}
_MADE = {"blend": "segue.models.blend:Blend"}
"""Models that are made of fitted ones: they open from files, and cannot be trained by name."""
_HOMES = {name: home for models in _BY_TASK.values() for name, home in models.items()}
_REGISTERED: dict[str, type[ModelConfig]] = {}

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class _Models(Mapping[str, type[ModelConfig]]):
    """Config classes by name; each is imported when it is first needed."""

    def __getitem__(self, name: str) -> type[ModelConfig]:
        if name in _HOMES:
            return _imported(_HOMES[name])
        if name in _REGISTERED:
            return _REGISTERED[name]
        return _from_entry_point(name, _installed()[name])

    def __iter__(self) -> Iterator[str]:
        return iter({**_HOMES, **_REGISTERED, **_installed()})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in _HOMES or name in _REGISTERED or name in _installed()


MODELS: Mapping[str, type[ModelConfig]] = _Models()
"""Config classes of all known models by name: of segue, registered, or of an installed package."""


def register(config: C) -> C:
    """Register your own model under its name, for Python, YAML and saved Recommenders.

    Parameters
    ----------
    config
        Config class: a frozen dataclass that extends `ModelConfig` and has a `name`. A class that is defined again, as
        in a notebook, replaces its earlier definition.

    Returns
    -------
    The class, so that `register` can be a decorator above `@dataclass(frozen=True)`.

    Raises
    ------
    ConfigError
        The class is not a config, or its name belongs to a model of segue or to another registered class.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> @segue.register
    ... @dataclass(frozen=True)
    ... class Doubled(segue.Markov):
    ...     name: ClassVar[str] = "doubled"
    ...     steps: int = 2
    >>> segue.fit("doubled", segue.simulate(20, 4).dataset()).model.config
    Doubled(steps=2, decay=0.5, smoothing=5.0)
    """
    if not (isinstance(config, type) and issubclass(config, ModelConfig)):
        raise ConfigError(f"{config!r} is not a config of a model: expected a class that extends ModelConfig.")
    path = config.import_path()
    if "__dataclass_fields__" not in vars(config):
        raise ConfigError(
            f"{path} is not a dataclass: decorate it with @dataclass(frozen=True), below @segue.register."
        )
    name = getattr(config, "name", None)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigError(f'{path} has name={name!r}: expected a word, as in name: ClassVar[str] = "my-model".')
    other = _REGISTERED.get(name)
    if name in _HOMES or name in _MADE or (other is not None and other.import_path() != path):
        owner = "a model of segue" if other is None else other.import_path()
        raise ConfigError(f"the name {name!r} of {path} is taken by {owner}: choose another.")
    _REGISTERED[name] = config
    return config


def config_class(name: str) -> type[ModelConfig]:
    """Return the config class of a model.

    Parameters
    ----------
    name
        Name of a known model, or "package.module:Class". The latter imports the module, so it must come from the user,
        never from a file of unknown origin.

    Raises
    ------
    ConfigError
        The model is unknown (the message names the nearest one), or it cannot be imported.
    """
    if name in MODELS:
        return MODELS[name]
    if _IMPORT_PATH.fullmatch(name):
        return _imported(name)
    raise ConfigError(f"there is no model {name!r}; {nearest(name, MODELS)}")


def config_from_dict(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the config of a result of `ModelConfig.to_dict`.

    Settings missing from older saved files get the values of `ModelConfig.formerly`. Only modules of segue and of
    installed packages are imported.

    Raises
    ------
    ConfigError
        The name is missing or unknown, the class is not imported, or a setting is unknown or has an impossible value.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"a model needs a name: expected name = one of {', '.join(MODELS)}.")
    if name in MODELS:
        config = MODELS[name]
    elif name in _MADE:
        config = _imported(_MADE[name])
    elif "class" in settings:
        config = _already_imported(name, settings["class"])
    else:
        raise ConfigError(f"there is no model {name!r}; {nearest(name, MODELS)}")
    return config.from_dict({**config.formerly, **settings})


def model_names() -> str:
    """Return the names of all known models in one sentence, by task."""
    groups = [f"for {task}: {', '.join(models)}" for task, models in _BY_TASK.items()]
    own = [name for name in MODELS if not any(name in models for models in _BY_TASK.values())]
    groups += [f"yours: {', '.join(own)}"] if own else []
    return "; ".join(groups)


# ---- importing classes ----------------------------------------------------------------------------------------------


def _imported(path: str) -> type[ModelConfig]:
    """Import the module of "package.module:Class", and return the config class."""
    module, _, attribute = path.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"the model {path} cannot be imported: {error}.") from error
    config = getattr(imported, attribute, None)
    if not _is_config(config):
        raise ConfigError(f"{path} is not a config of a model: expected a class in {module} that extends ModelConfig.")
    return config


def _installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name, except names of models of segue."""
    # The first entry point of a name on sys.path wins, as with imports.
    return {
        point.name: point
        for point in reversed(entry_points(group=ENTRY_POINTS))
        if point.name not in {**_HOMES, **_MADE}
    }


def _from_entry_point(name: str, point: EntryPoint) -> type[ModelConfig]:
    """Import and return the config class of an entry point."""
    config = _imported(point.value)
    if config.name != name:
        raise ConfigError(
            f"the entry point {name!r} is {point.value}, whose name is {config.name!r}: the two names must be the same."
        )
    return config


def _already_imported(name: str, path: object) -> type[ModelConfig]:
    """Return the config class at a path from a saved file, if the program has imported its module."""
    if not (isinstance(path, str) and ":" in path):
        raise ConfigError(f"class={path!r} of the model {name!r}: expected package.module:Class.")
    module, _, attribute = path.partition(":")
    # vars(), not getattr(): a module may import others when getattr reads an attribute.
    config = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    if config is None:
        if module == "__main__":
            remedy = "the script or notebook that trained it has the class; define it again, or move it into a module"
        else:
            remedy = f"install its package, then `import {module}` before loading, or run `segue --import {module} …`"
        raise ConfigError(
            f"the model {name!r} is {path}, which is neither part of segue, nor registered, nor imported. segue "
            f"imports no code because a folder names it: {remedy}."
        )
    if not _is_config(config) or config.name != name:
        raise ConfigError(f"{path} is not the config of a model {name!r}: the file was edited, or the package changed.")
    return config


def _is_config(config: object) -> TypeGuard[type[ModelConfig]]:
    return isinstance(config, type) and issubclass(config, ModelConfig) and dataclasses.is_dataclass(config)
