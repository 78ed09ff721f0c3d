"""The plan of an experiment: its cells, and the evaluation that all of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segue.errors import ConfigError, nearest
from segue.models.base import ModelConfig
from segue.models.registry import config_class
from segue.settings import Count, Seed, Settings, Word
from segue.training.config import Training
from segue.training.tuning import is_trained

_FOLDER = re.compile(r"[^\s./\\][^/\\\0]*")
_PARTS = ("data", "models", "settings", "seeds", "split", "training", "evaluation", "metrics", "baseline")


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """The evaluation of a plan, the same for all cells."""

    on: str = "test"
    """Part of the split: "test" or "validation"."""

    k: tuple[Count, ...] | None = None
    """Lengths of the lists; 10 when not given."""

    candidates: Count | None = None
    """Number of sampled items to rank each target among; all items when not given."""

    by: Word = "uniform"
    """Law of the sampled candidates: "uniform" or "popularity"."""

    users: Count | None = None
    """Number of users to evaluate; all when not given."""

    exclude_seen: bool | None = None
    """Leave the items of the history out of the ranking; when not given, as suits the models and the data."""

    seed: Seed = 0
    """Seed of users, candidates and intervals."""

    def check(self) -> None:
        """Raise a ConfigError if a word is not one of those that are known."""
        for name, known in (("on", ("test", "validation")), ("by", ("uniform", "popularity"))):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{name}={value!r}: expected {' or '.join(known)}.")


@dataclass(frozen=True)
class Cell:
    """One training of a plan, and its evaluation.

    Attributes
    ----------
    data, model, seed
        Names of the data set and of the model with its setting, and the seed of the training.
    dataset
        Folder of the Dataset.
    split
        The split as plain data; None for the one that suits the model.
    config, training
        Settings of the model and of its training.
    """

    data: str
    model: str
    seed: int
    dataset: str
    split: Mapping[str, Any] | None
    config: ModelConfig
    training: Training

    def place(self, out: Path) -> Path:
        """Folder of the run; its evaluation and its note stand beside it."""
        return out / self.data / self.model / f"seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The cells of an experiment, and how they are evaluated and shown."""

    cells: tuple[Cell, ...]
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    metrics: tuple[str, ...] | None = None
    baseline: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Plan:
        """The plan that a YAML file describes; see `segue.experiment`.

        Raises
        ------
        ConfigError
            A part is missing, unknown or impossible; the message names it.
        """
        for name in content:
            if name not in _PARTS:
                raise ConfigError(f"plan: there is no part {name!r}; {nearest(str(name), _PARTS)}")
        for name in ("data", "models"):
            if not isinstance(content.get(name), Mapping) or not content[name]:
                raise ConfigError(f"plan: expected {name} as names with their settings, found {content.get(name)!r}.")
        seeds = content.get("seeds", 1)
        seeds = list(range(seeds)) if type(seeds) is int else seeds
        if not isinstance(seeds, list) or not seeds or any(type(one) is not int or one < 0 for one in seeds):
            raise ConfigError(f"plan: seeds={content.get('seeds')!r}: expected a number of seeds, or a list of them.")
        cells = [
            Cell(data, model, seed, folder, split, config, replace(training, seed=seed))
            for data, (folder, split) in _data(content).items()
            for model, (config, training) in _models(content).items()
            for seed in (dict.fromkeys(seeds) if is_trained(config) else seeds[:1])
        ]
        metrics, baseline = content.get("metrics"), content.get("baseline")
        metrics = [metrics] if isinstance(metrics, str) else metrics
        if metrics is not None and not (isinstance(metrics, list) and all(isinstance(one, str) for one in metrics)):
            raise ConfigError(f"plan: metrics={metrics!r}: expected names of metrics, such as ndcg@10.")
        names = dict.fromkeys(cell.model for cell in cells)
        if baseline is not None and baseline not in names:
            raise ConfigError(f"plan: baseline={baseline!r} is none of the models; {nearest(str(baseline), names)}")
        options = EvaluationSettings.from_dict(_mapping(content.get("evaluation") or {}, "evaluation"))
        return cls(tuple(cells), options, None if metrics is None else tuple(metrics), baseline)


def _mapping(value: Any, part: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"plan: expected {part} as `name: value`, found {value!r}.")
    return {str(name).replace("-", "_"): one for name, one in value.items()}


def _name(name: Any, part: str) -> str:
    """A name that can be a folder."""
    if not isinstance(name, str | int) or not _FOLDER.fullmatch(str(name)):
        raise ConfigError(f"plan: {part}: {name!r} cannot be the name of a folder: leave out / and leading dots.")
    return str(name)


def _split(value: Any, part: str) -> Mapping[str, Any] | None:
    if value is None or (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
        return value
    if isinstance(value, str):
        return {"name": value}
    raise ConfigError(f"plan: {part}: split={value!r}: expected the name of a split, or its settings with a name.")


def _data(content: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """Folder and split of each data set."""
    usual, found = _split(content.get("split"), "split"), {}
    for name, value in content["data"].items():
        part = f"data.{name}"
        if isinstance(value, str):
            value = {"dataset": value}
        options = _mapping(value, part)
        unknown = options.keys() - {"dataset", "split"}
        if unknown or not isinstance(options.get("dataset"), str):
            raise ConfigError(f"plan: {part}: expected the folder of a Dataset as dataset, and perhaps a split.")
        found[_name(name, "data")] = options["dataset"], _split(options.get("split", usual), part)
    return found


def _models(content: Mapping[str, Any]) -> dict[str, tuple[ModelConfig, Training]]:
    """Settings of each model and its training, for each of the settings of the plan."""
    shared = _mapping(content.get("training") or {}, "training")
    common = _mapping(content.get("settings") or {}, "settings")
    found: dict[str, tuple[ModelConfig, Training]] = {}
    for name, value in content["models"].items():
        part = f"models.{name}"
        options = {"model": value} if isinstance(value, str) else _mapping(value, part)
        if not isinstance(options.get("model", name), str):
            raise ConfigError(f"plan: {part}: model={options['model']!r}: expected the name of a model.")
        kind = config_class(options.pop("model", name))
        training = {**shared, **_mapping(options.pop("training", None) or {}, f"{part}.training")}
        own = options.pop("settings", None)
        variants = common if own is None else _mapping(own, f"{part}.settings")
        for variant, changes in variants.items() or [("", {})]:
            where = f"{part}.settings.{variant}" if variant else part
            changed = _mapping(changes, where)
            more = _mapping(changed.pop("training", None) or {}, f"{where}.training")
            full = _name(f"{name}-{variant}" if variant else name, "models")
            try:
                found[full] = kind.from_dict({**options, **changed}), Training.from_dict({**training, **more})
            except (ConfigError, TypeError) as error:
                raise ConfigError(f"plan: {where}: {error}") from None
    return found


def content_of(plan: Any) -> Mapping[str, Any]:
    """The plan as plain data."""
    if isinstance(plan, Mapping):
        return plan
    if not isinstance(plan, str | Path):
        raise ConfigError(f"plan={plan!r}: expected a YAML file, or its content as a dict.")
    import yaml

    try:
        content = yaml.safe_load(Path(plan).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{plan}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{plan}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{plan}: expected the parts of a plan as `name: value`: {', '.join(_PARTS)}.")
    return content
