"""Model card of a run: data, split, settings, figures, limits and use, as Markdown that people and model hubs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.files import FileKind, atomic_file

if TYPE_CHECKING:
    from segue.evaluation.tasks.result import Evaluation
    from segue.inference.recommender import Recommender

CARD = "MODEL_CARD.md"
_CARD_FILE = FileKind("a model card", (b"library_name: segue",))
_MOST = 12
"""Number of metrics in a card."""

_HEAD = """\
---
library_name: segue
pipeline_tag: other
tags:
- recommendation
- sequential-recommendation
- {model}
---

# {title}

A recommender that segue fitted: from what a user took, it ranks {items:,} items by {scores}.

"""

_USE = """\
## How to load it

```python
import segue

recommender = segue.load("{folder}"){where}
lists = recommender.recommend(segue.EVERYONE, k=10)                 # users of the training log
others = recommender.recommend(histories={{"new": {history}}}, k=10)  # anybody else
```

It needs Python 3.11 or newer and `pip install segue`. Opening the folder runs no code from it.
"""

_LEAKS = {
    "leave-last-out": "Users are cut at different times, so the model learned from some what happened after the "
    "targets of others. That flatters the figures, here as in most papers.",
    "random-rows": "Rows were drawn at random, so the model learned from the future of each target. That flatters the "
    "figures.",
    "held-out-users": "Other users were learned from beyond the times of the targets. That flatters the figures.",
    "time-cut": "All users are cut at the same time, so the figures hold no knowledge of the future.",
}
_LEAKS |= dict.fromkeys(("leave-last-n", "last-session-out", "cold-items"), _LEAKS["leave-last-out"])


def write_card(folder: Path, recommender: Recommender, evaluation: Evaluation | None = None) -> Path:
    """Write the card of a run into its folder, atomically, and return its path.

    Raises
    ------
    StorageError
        The folder holds a MODEL_CARD.md that is no card by segue.
    """
    path = folder / CARD
    with atomic_file(path, _CARD_FILE) as temporary:
        temporary.write_text(card_of(recommender, recommender.model.config.name, evaluation), encoding="utf-8")
    return path


def card_of(recommender: Recommender, title: str, evaluation: Evaluation | None = None, folder: str = ".") -> str:
    """Text of a model card.

    Parameters
    ----------
    recommender
        The fitted model.
    title
        Heading of the card.
    evaluation
        Figures of the test part; without them the card has those of validation.
    folder
        Place that the card loads the model from; "." is the folder of the card, which may be renamed.
    """
    config, data = recommender.model.config, recommender.dataset
    known = data.catalogue.ids.head(2).to_list()
    head = _HEAD.format(
        model=config.name,
        title=title,
        items=data.n_items,
        scores="expected rating" if config.task == "ratings" else "how likely they come next",
    )
    parts = [
        head + _section("Data", _data_facts(recommender)),
        _section("Split", _split_facts(recommender.metadata)),
        _section(
            "Settings", {name: value for name, value in config.to_dict().items() if name not in ("name", "class")}
        ),
        _figures(recommender.metadata, evaluation),
        _limits(recommender),
        _USE.format(folder=folder, history=known, where="  # in the folder of this card" if folder == "." else ""),
    ]
    return "\n".join(parts)


def _section(title: str, facts: Mapping[str, Any]) -> str:
    """A table of names and values."""
    if not facts:
        return f"## {title}\n\nNone.\n"
    rows = "".join(f"| {_cell(name)} | {_cell(value)} |\n" for name, value in facts.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}"


def _cell(value: object) -> str:
    """A value as the text of a cell."""
    text = "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", r"\|")


def _data_facts(recommender: Recommender) -> dict[str, Any]:
    data = recommender.dataset
    facts: dict[str, Any] = {"source": data.metadata.get("source")}
    facts |= {"users": f"{data.n_users:,}", "items": f"{data.n_items:,}"}
    facts["interactions"] = f"{data.n_interactions:,}" if data.has_histories else "left out of this folder"
    if data.times is not None and data.n_interactions:
        first, last = (
            data.times_as_given(time).item() for time in (_series(data.times.min()), _series(data.times.max()))
        )
        facts["from"], facts["to"] = str(first), str(last)
    return facts | {"preparation": ", ".join(str(step.get("step")) for step in data.metadata.get("steps", ()))}


def _series(time: Any) -> Any:
    import polars as pl

    return pl.Series([int(time)])


def _split_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    spec = dict(metadata.get("split") or {})
    if not spec:
        return {"split": "none: fitted on all interactions"}
    name = spec.pop("name", "")
    refit = {"refit": "fitted again on everything but the test part"} if metadata.get("refit") else {}
    return {"split": name, **spec, **refit}


def _figures(metadata: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """Figures of the test part with intervals, or those of validation."""
    if evaluation is not None:
        names = [name for name in evaluation.metrics if name in evaluation.intervals] or list(evaluation.metrics)
        lines = ["## Figures", "", f"{evaluation.remarks}.", "", "| metric | value | 95 % interval |", "|---|---:|---|"]
        for name in names[:_MOST]:
            low, high = evaluation.intervals.get(name, (None, None))
            between = "" if low is None else f"{low:.4f} to {high:.4f}"
            lines.append(f"| {name} | {evaluation.metrics[name]:.4f} | {between} |")
        return "\n".join([*lines, "", "Intervals are bootstrap intervals over users, for this one training.", ""])
    validation = (metadata.get("training") or {}).get("validation") or {}
    if not validation:
        return "## Figures\n\nNot evaluated yet: `segue card RUN` measures the test part and writes the figures here.\n"
    rows = "".join(f"| {name} | {value:.4f} |\n" for name, value in validation.items())
    return (
        "## Figures\n\nOf the validation part, which chose the epoch, so they flatter the model. `segue card RUN` "
        f"measures the test part.\n\n| metric | value |\n|---|---:|\n{rows}"
    )


def _limits(recommender: Recommender) -> str:
    data, spec = recommender.dataset, recommender.metadata.get("split") or {}
    limits = [_LEAKS[spec["name"]]] if spec.get("name") in _LEAKS else []
    cold = 0 if recommender.model.cold is None else len(recommender.model.cold)
    if cold:
        limits.append(f"{cold:,} items of the item table were never taken; the model recommends none of them.")
    limits += [
        "It knows the items of its log only. Newer ones need another training, or a model that reads content.",
        "Scores order the items of one list. They are no probabilities, and not comparable between models.",
        "It learned what people took, with all that influenced them: earlier recommendations, prices, positions.",
    ]
    if data.has_histories:
        limits.append("The folder holds the histories of its users: treat it as personal data.")
    return "## Limits\n\n" + "".join(f"- {limit}\n" for limit in limits)
