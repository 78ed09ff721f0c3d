from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from segue.cli.options import POSITIONAL, OptionParser, peek
from segue.errors import ConfigError, DataError

ALIASES = {"model": "model.name"}


@dataclass(frozen=True)
class Run:
    """The run."""

    dataset: str = field(metadata=POSITIONAL)
    """The Dataset folder."""

    out: str
    """Where to write."""

    users: tuple[str, ...] | None = None
    """Raw ids of users."""

    k_core: int | None = None
    """Fewest interactions."""


@dataclass(frozen=True)
class Steps:
    """How a model is fitted."""

    epochs: int = 10
    """Most epochs.

    Stopping early makes them fewer, by 100% at worst.
    """

    batch_size: int = 128
    """Rows per step."""

    half: bool = False
    """Half precision."""

    clip: float | None = 1.0
    """Largest norm."""

    cutoffs: tuple[int, ...] = (10,)
    """Where rankings are cut."""

    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the moments."""

    optimiser: Literal["adam", "adamw"] = "adam"
    """Which optimiser."""


@dataclass(frozen=True)
class Choice:
    """The model."""

    name: Literal["sasrec", "ssept"] = "sasrec"
    """Which model."""


def made(*words: str) -> OptionParser:
    parser = OptionParser("train", aliases=ALIASES)
    parser.add_options(Run)
    parser.add_options(Steps, under="steps")
    parser.add_options(Choice, under="model")
    parser.read(words)
    return parser


def steps(*words: str) -> Steps:
    return made("data", "--out", "run", *words).get(Steps)


def written(folder: Path, content: object) -> str:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_defaults_are_those_of_the_dataclass() -> None:
    parser = made("data", "--out", "run")
    assert parser.get(Run) == Run("data", "run")
    assert parser.get(Steps) == Steps()
    assert parser.get(Choice) == Choice()


@pytest.mark.parametrize("spelling", ["--steps.batch-size", "--steps.batch_size"])
@pytest.mark.parametrize("equals", [True, False])
def test_dashes_and_underscores_are_the_same(spelling: str, equals: bool) -> None:
    words = [f"{spelling}=5"] if equals else [spelling, "5"]
    assert steps(*words).batch_size == 5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps.half"], True),
        (["--steps.half", "yes"], True),
        (["--steps.half=false"], False),
        (["--steps.half", "off"], False),
        (["--steps.half", "--steps.no-half"], False),
    ],
)
def test_switches(words: list[str], expected: bool) -> None:
    assert steps(*words).half is expected


def test_a_switch_does_not_swallow_what_follows() -> None:
    parser = made("--steps.half", "data", "--out", "run")
    assert parser.get(Run).dataset == "data"


@pytest.mark.parametrize("words", [["5,10,20"], ["5", "10", "20"], ["[5, 10, 20]"]])
def test_lists_of_numbers(words: list[str]) -> None:
    assert steps("--steps.cutoffs", *words).cutoffs == (5, 10, 20)


def test_lists_of_texts_keep_what_looks_like_something_else() -> None:
    users = made("data", "--out", "run", "--users", "42", "a,b", "-7", "null", "--steps.epochs", "3").get(Run).users
    assert users == ("42", "a,b", "-7", "null")


def test_a_value_may_begin_with_dashes() -> None:
    assert made("data", "--out", "--odd").get(Run).out == "--odd"


@pytest.mark.parametrize("word", ["null", "none", "None"])
def test_an_optional_value_may_be_unset(word: str) -> None:
    assert steps("--steps.clip", word).clip is None


@pytest.mark.parametrize("words", [["--model", "ssept"], ["--model=ssept"], ["--model.name", "ssept"]])
def test_aliases(words: list[str]) -> None:
    assert made("data", "--out", "run", *words).get(Choice).name == "ssept"
    assert peek(words, "model.name", "sasrec", ALIASES) == "ssept"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps.bath-size", "5"], 'no option "--steps.bath-size": did you mean "--steps.batch-size"?'),
        (["--steps.bath_size=5"], 'no option "--steps.bath_size": did you mean "--steps.batch-size"?'),
        (["--k-cor", "5"], 'no option "--k-cor": did you mean "--k-core"?'),
        (["--dataset", "x"], 'no option "--dataset"'),
        (["--steps.epochs", "five"], "--steps.epochs=five: expected a whole number."),
        (["--k-core", "1.5"], "--k-core=1.5: expected a whole number or null."),
        (["--steps.cutoffs", "5,ten"], "--steps.cutoffs=ten: expected whole numbers."),
        (["--steps.optimiser", "sgd"], "--steps.optimiser=sgd: expected adam or adamw."),
        (["--steps.half=perhaps"], "--steps.half=perhaps: expected true or false."),
        (["--steps.epochs"], "--steps.epochs needs a value"),
        (["--users"], "--users needs a value"),
        (["more"], 'did not expect "more"'),
    ],
)
def test_errors_name_the_option_and_what_was_expected(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made("data", "--out", "run", *words)
    assert message in str(raised.value)


def test_missing_options_are_named_as_one_types_them() -> None:
    with pytest.raises(ConfigError, match=r"segue train needs dataset, --out\."):
        made()


def test_a_file_gives_options_and_the_command_line_wins(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"dataset": "data", "out": "run", "k-core": 4, "users": [1, "b"], "model": "ssept", "steps": {"batch-size": 3}},
    )
    parser = made("--steps.epochs", "2", "--out", "other", "--config", path)
    assert parser.get(Run) == Run("data", "other", users=("1", "b"), k_core=4)
    assert parser.get(Steps) == Steps(epochs=2, batch_size=3)
    assert parser.get(Choice) == Choice("ssept")
    assert peek(["--config", path], "model.name", "sasrec", ALIASES) == "ssept"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"steps": {"bath_size": 4}}, 'run.yaml: unknown option "steps.bath_size": did you mean "steps.batch_size"?'),
        ({"step": {"epochs": 4}}, 'unknown option "step.epochs": did you mean "steps.epochs"?'),
        ({"steps": 4}, 'unknown option "steps"'),
        ({"steps": {"epochs": "five"}}, "run.yaml: --steps.epochs=five: expected a whole number."),
        ("[1, 2]", "expected options as `name: value`, found a list"),
        ("a: [", "not YAML"),
    ],
)
def test_errors_in_a_file_name_it(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made("data", "--out", "run", "--config", written(tmp_path, content))
    assert message in str(raised.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such configuration file"):
        made("data", "--out", "run", "--config", "nowhere.yaml")


def test_what_is_printed_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--steps.cutoffs", "5,10", "--users", "1", "b", "--model", "ssept", "--steps.clip", "none"]
    with pytest.raises(SystemExit) as leaving:
        made(*words, "--print-config")
    assert leaving.value.code == 0
    path = written(tmp_path, capsys.readouterr().out)
    again = made("data", "--out", "run", "--config", path)
    assert again.get(Run) == Run("data", "run", users=("1", "b"))
    assert again.get(Steps) == Steps(cutoffs=(5, 10), clip=None)
    assert again.get(Choice) == Choice("ssept")


def test_help_shows_the_docs_defaults_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        made("--help")
    assert leaving.value.code == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "usage: segue train dataset [options]" in page
    assert "How a model is fitted:" in page
    assert "--steps.batch-size INT Rows per step. (default: 128)" in page
    assert "Most epochs. Stopping early makes them fewer, by 100% at worst. (default: 10)" in page
    assert "--model.name {sasrec,ssept} --model for short. Which model. (default: sasrec)" in page
    assert "segue train data/mine --model sasrec --out runs/first" in page


def test_help_marks_what_is_required_and_what_is_a_switch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made("--help")
    page = " ".join(capsys.readouterr().out.split())
    assert "--out TEXT Where to write. (required)" in page
    assert "--steps.half Half precision. --" in page


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("leave such rows out with k_core='7'.", "leave such rows out with --k-core=7."),
        ("epochs=0: expected 1 or more.", "--steps.epochs=0: expected 1 or more."),
        ("pass half=True, clip=None or clip=2.5.", "pass --steps.half=true, --steps.clip=null or --steps.clip=2.5."),
        ("Say which: out=…", "Say which: --out=…"),
        ("Give the unit with out=, or not.", "Give the unit with --out=, or not."),
        ("dataset=1 name='x' other=3 a.epochs=2", "dataset=1 --model.name=x other=3 a.epochs=2"),
    ],
)
def test_messages_name_options_as_one_types_them(said: str, typed: str) -> None:
    with pytest.raises(DataError) as raised, made("data", "--out", "run").errors_as_typed():
        raise DataError(said)
    assert str(raised.value) == typed
