"""Models from outside of segue: registered, installed, or given by import path; trained, saved and loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from polars.testing import assert_frame_equal

import segue
from segue.cli.main import main
from segue.errors import ConfigError, StorageError
from segue.models import registry
from segue.models.registry import MODELS, config_class, config_from_dict, model_names
from tests import programs
from tests.helpers import cycle_dataset
from tests.inference.test_storage import seal
from tests.models.own_model import LastItem

SOURCE = Path(segue.__file__).parent.parent
HERE = Path(__file__).parent
TRAINING = segue.Training(epochs=30, learning_rate=0.05, patience=None, cpu=True)
SHORT = ["--training.metric", "ndcg@3", "--training.learning-rate", "0.05", "--training.cpu", "--quiet"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear the registered models before each test, and restore them after it."""
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a folder for PYTHONPATH with the model in a package `shop`, whose import writes a file."""
    folder = tmp_path / "packages"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    )
    shutil.copy(HERE / "own_model.py", folder / "shop" / "models.py")
    return folder


@pytest.fixture
def install(package: Path) -> Any:
    """Function that adds a dist-info folder with an entry point to the package, as an installer does."""

    def with_name(name: str, value: str = "shop.models:LastItem") -> None:
        folder = package / "shop-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[segue.models]\n{name} = {value}\n")

    return with_name


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Save a Dataset of users who walk around a catalogue of 8 items."""
    cycle_dataset(16, 8, 10).save(tmp_path / "data")
    return tmp_path / "data"


def command(*words: object, paths: tuple[Path, ...] = (), cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `segue` in a separate process, without `python -m`, which adds the current folder to the path."""
    code = "import sys; from segue.cli.main import main; sys.path.remove(''); sys.exit(main())"
    return run("-c", code, *words, paths=paths, cwd=cwd)


def run(*words: object, paths: tuple[Path, ...] = (), cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, *paths))), "OMP_NUM_THREADS": "1"}
    return programs.run(*words, env={**environment, "COLUMNS": "200"}, cwd=cwd, timeout=300)


def follows(recommender: segue.Recommender) -> list[int]:
    """Return the item recommended after each single item."""
    lists = recommender.recommend(histories=[[item] for item in range(1, 9)], k=1)
    return lists["item"].to_list()


# ---- in one process -------------------------------------------------------------------------------------------------


def test_your_own_model_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    fitted = segue.fit(LastItem(), cycle_dataset(), training=TRAINING, quiet=True)
    assert follows(fitted) == [2, 3, 4, 5, 6, 7, 8, 1]
    fitted.save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "recommender.json").read_text())["model"]
    assert settings["name"] == "last-item" and settings["class"] == "tests.models.own_model:LastItem"
    loaded = segue.load(tmp_path / "saved")
    assert loaded.model.config == LastItem()
    assert_frame_equal(loaded.score(segue.EVERYONE), fitted.score(segue.EVERYONE), check_exact=True)


def test_the_settings_of_a_model_of_segue_have_no_class() -> None:
    assert "class" not in segue.SASRec().to_dict()


def test_a_registered_model_is_known_by_name() -> None:
    assert "last-item" not in MODELS
    with pytest.raises(ConfigError, match="there is no model 'last-item'"):
        config_class("last-item")
    assert segue.register(LastItem) is LastItem
    assert config_class("last-item") is MODELS["last-item"] is LastItem
    assert list(MODELS)[-1] == "last-item" and len(MODELS) == len(registry._HOMES) + 1
    assert config_from_dict({"name": "last-item", "width": 3}) == LastItem(width=3)
    assert model_names().endswith("; yours: last-item")


def test_registered_again_it_is_replaced() -> None:
    """Define the class twice, as a notebook cell does that is run again."""

    def define(default: int) -> type[segue.ModelConfig]:
        @segue.register
        @dataclass(frozen=True)
        class Mine(segue.ModelConfig):
            name: ClassVar[str] = "mine"
            width: int = default

            def build(self, n_users: int, n_items: int) -> Any:
                raise NotImplementedError

        return Mine

    define(1)
    assert MODELS["mine"] is not define(2)
    assert MODELS["mine"]().to_dict()["width"] == 2


@dataclass(frozen=True)
class _Named(LastItem):
    name: ClassVar[str] = "sasrec"


@dataclass(frozen=True)
class _Same(LastItem):
    pass


class _Undecorated(LastItem):
    name: ClassVar[str] = "undecorated"
    depth: int = 3


@dataclass(frozen=True)
class _Path(LastItem):
    name: ClassVar[str] = "shop:item"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_Named, "the name 'sasrec' of tests.models.test_own_models:_Named is taken by a model of segue"),
        (_Same, "is taken by tests.models.own_model:LastItem: choose another"),
        (_Undecorated, r"_Undecorated is not a dataclass: decorate it with @dataclass\(frozen=True\)"),
        (_Path, "has name='shop:item': expected a word"),
        (dict, "'dict'> is not a config of a model: expected a class that extends ModelConfig"),
        (LastItem(), "is not a config of a model"),
    ],
)
def test_register_refuses(config: Any, message: str) -> None:
    segue.register(LastItem)
    with pytest.raises(ConfigError, match=message):
        segue.register(config)
    assert MODELS["last-item"] is LastItem and MODELS["sasrec"] is segue.SASRec


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.models:Mine", "the model nowhere.models:Mine cannot be imported: No module named 'nowhere'"),
        ("segue.errors:SegueError", "expected a class in segue.errors that extends ModelConfig"),
        ("segue.errors:Nothing", "expected a class in segue.errors that extends ModelConfig"),
        ("tests.models.own_model", "there is no model 'tests.models.own_model'"),
    ],
)
def test_import_paths_that_name_no_model(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_class(name)


def test_an_import_path_names_a_model() -> None:
    assert config_class("tests.models.own_model:LastItem") is LastItem


# ---- imports of saved folders ---------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a Recommender of the model."""
    data = cycle_dataset()
    return segue.Recommender(LastItem().build(data.n_users, data.n_items).eval(), data).save(tmp_path / "saved")


def names(folder: Path, **changes: object) -> Path:
    """Change the model settings of a folder, with matching checksums."""
    settings = json.loads((folder / "recommender.json").read_text())["model"]
    seal(folder, model={**settings, **changes})
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"class": "shop.models:LastItem"},
        {"name": "shop.models:LastItem"},
        {"name": "shop.models:LastItem", "class": "shop.models:LastItem"},
        {"class": "shop:Path"},
    ],
)
def test_a_folder_imports_nothing(
    saved: Path, package: Path, tmp_path: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that no folder imports a package, even if it is importable."""
    monkeypatch.syspath_prepend(package)
    with pytest.raises(StorageError):
        segue.load(names(saved, **changes))
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os:system", "os:system is not the config of a model 'last-item'"),
        ("segue.models.sasrec:SASRec", "SASRec is not the config of a model 'last-item'"),
        ("__main__:Gone", "the script or notebook that trained it has the class; define it again"),
        ("system", "class='system' of the model 'last-item': expected package.module:Class"),
        (3, "class=3 of the model"),
        ("shop.models:LastItem", "install its package, then `import shop.models` before loading"),
        ("segue:nothing", "neither part of segue, nor registered, nor imported"),
    ],
)
def test_classes_that_a_folder_cannot_have(saved: Path, path: object, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        segue.load(names(saved, **{"class": path}))


def test_the_registered_class_wins_over_a_path_that_is_gone(saved: Path) -> None:
    names(saved, **{"class": "old.place:LastItem"})
    with pytest.raises(StorageError):
        segue.load(saved)
    segue.register(LastItem)
    assert segue.load(saved).model.config == LastItem()


# ---- in separate processes ------------------------------------------------------------------------------------------


@pytest.fixture
def trained(package: Path, log: Path, tmp_path: Path) -> Path:
    """Train the model of the package on the command line."""
    made = command(
        "train", log, "--model", "shop.models:LastItem", "--model.width", 16, "--out", tmp_path / "run",
        "--training.epochs", 30, *SHORT, paths=(package,),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return tmp_path / "run"


LOAD = """
import sys, segue
if len(sys.argv) > 2: __import__(sys.argv[2])
lists = segue.load(sys.argv[1]).recommend(histories=[[i] for i in range(1, 9)], k=1)
print(lists["item"].to_list())
"""


@pytest.mark.slow
def test_through_the_command_line(trained: Path, package: Path, tmp_path: Path) -> None:
    settings = json.loads((trained / "recommender" / "recommender.json").read_text())["model"]
    expected = {"name": "last-item", "class": "shop.models:LastItem", "width": 16, "dropout": 0.0, "start": "small"}
    assert settings == expected
    words = ["recommend", trained, "--history", 3, "--k", 1, "--json"]
    done = command("--import", "shop.models", *words, paths=(package,))
    assert done.returncode == 0 and json.loads(done.stdout)[0]["item"] == 4, done.stderr
    missing = command(*words, paths=(package,))
    assert missing.returncode == 1 and "`segue --import shop.models …`" in missing.stderr
    elsewhere = command("--import=shop.models", *words)
    assert (
        elsewhere.returncode == 2 and "\"shop.models\" cannot be imported: No module named 'shop'" in elsewhere.stderr
    )
    # Without PYTHONPATH: the package is in the current folder, and the name is enough.
    here = command("--import", "shop.models", *words, cwd=package)
    assert here.returncode == 0, here.stderr
    known = run("-c", LOAD, trained, "shop.models", paths=(package,))
    assert known.stdout.strip() == "[2, 3, 4, 5, 6, 7, 8, 1]", known.stderr
    unknown = run("-c", LOAD, trained, paths=(package,))
    assert "StorageError" in unknown.stderr and "`import shop.models` before loading" in unknown.stderr


@pytest.mark.slow
def test_resumed_and_in_several_processes(package: Path, log: Path, tmp_path: Path) -> None:
    """Check that worker processes and a resumed run find the model too."""
    (package / "shop" / "registered.py").write_text(
        "import segue\nfrom shop.models import LastItem\nsegue.register(LastItem)\n"
    )
    words = [
        "--import", "shop.registered", "train", log, "--model", "last-item", "--out", tmp_path / "run",
        *SHORT, "--training.epochs",
    ]  # fmt: skip
    first = command(*words, 2, "--processes", 2, paths=(package,))
    assert first.returncode == 0, first.stderr
    again = command(*words, 3, "--resume", "--json", paths=(package,))
    assert again.returncode == 0 and json.loads(again.stdout)["training"]["epochs"] == 3, again.stderr


@pytest.mark.slow
def test_help_and_yaml(package: Path, log: Path, tmp_path: Path) -> None:
    help_page = command("train", "--model", "shop.models:LastItem", "--help", paths=(package,))
    page = " ".join(help_page.stdout.split())
    assert "Settings of last-item: --model.width INT Width of the item vectors. (default: 8)" in page
    assert "--model.start {small,large} Size of the initial weights." in page
    (tmp_path / "run.yaml").write_text("model: {name: 'shop.models:LastItem', width: 0}\n")
    wrong = command("train", log, "--out", tmp_path / "run", "--config", tmp_path / "run.yaml", paths=(package,))
    assert wrong.returncode == 2 and "run.yaml: --model.width=0: expected 1 or more." in wrong.stderr
    (tmp_path / "run.yaml").write_text(
        "model: shop.models:LastItem\ntraining: {epochs: 1, cpu: true, metric: hr@3}\nquiet: true\n"
    )
    done = command("train", log, "--out", tmp_path / "run", "--config", tmp_path / "run.yaml", paths=(package,))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_installed_package(install: Any, log: Path, package: Path, tmp_path: Path) -> None:
    """Check that the entry point of the package is enough for every command."""
    install("last-item")
    options = ["--training.epochs", 30, *SHORT]
    made = command("train", log, "--model", "last-item", "--out", tmp_path / "run", *options, paths=(package,))
    assert made.returncode == 0, made.stderr
    help_page = command("train", "--help", paths=(package,))
    assert "yours: last-item" in " ".join(help_page.stdout.split())
    done = command("recommend", tmp_path / "run", "--history", 8, "--k", 1, "--json", paths=(package,))
    assert done.returncode == 0 and json.loads(done.stdout)[0]["item"] == 1, done.stderr
    uninstalled = command("recommend", tmp_path / "run", "--history", 8, "--k", 1)
    assert uninstalled.returncode == 1 and "the model 'last-item' is shop.models:LastItem" in uninstalled.stderr


@pytest.fixture
def on_path(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(package)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.usefixtures("on_path")
def test_an_entry_point_is_read_when_it_is_needed(install: Any, tmp_path: Path) -> None:
    install("last-item")
    assert "last-item" in MODELS and "last-item" in list(MODELS)
    assert config_class("sasrec") is segue.SASRec
    assert not (tmp_path / "imported").exists()
    assert config_class("last-item").import_path() == "shop.models:LastItem"
    assert (tmp_path / "imported").exists()


@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("last", "shop.models:LastItem", "the entry point 'last' is shop.models:LastItem, whose name is 'last-item'"),
        ("gone", "shop.gone:LastItem", "the model shop.gone:LastItem cannot be imported: No module named 'shop.gone'"),
        ("path", "shop:Path", "shop:Path is not a config of a model"),
    ],
)
def test_entry_points_that_lead_nowhere(install: Any, name: str, value: str, message: str) -> None:
    install(name, value)
    with pytest.raises(ConfigError, match=message):
        config_class(name)


@pytest.mark.usefixtures("on_path")
def test_an_installed_package_cannot_take_the_name_of_a_model_of_segue(install: Any, tmp_path: Path) -> None:
    install("sasrec")
    assert config_class("sasrec") is segue.SASRec and list(MODELS).count("sasrec") == 1
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--import"], "--import needs a module"),
        (["--import", "--debug"], "--import needs a module"),
        (["--import", "no such"], '"no such" is no name of a module: expected package.module.'),
        (["train", "--model", ":Mine"], '"" is no name of a module'),
        (["train", "--model", "segue.errors:Mine"], "segue.errors:Mine is not a config of a model"),
    ],
)
def test_errors_of_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(words) == 2
    assert message in capsys.readouterr().err
