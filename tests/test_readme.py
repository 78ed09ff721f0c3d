"""What the README and the guide show is run as it stands there, and all figures and curves are those of the results.

Blocks marked `sh` and `python` are run, in their order, in one folder; `bash` blocks are only shown (they install,
download or take long).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import COMMANDS, main
from segue.data.simulation.simulate import simulate
from segue.models import registry

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDE, SESSIONS, BASKETS, RATINGS, BENCHMARKS, COMING_FROM, LIVING, EXPERIMENTS, BEYOND = (
    ROOT / "docs" / f"{name}.md"
    for name in (
        "guide",
        "sessions",
        "baskets",
        "ratings",
        "benchmarks",
        "coming-from",
        "living-models",
        "experiments",
        "beyond-one-machine",
    )
)
TABLES, CURVES = ([sys.executable, str(ROOT / "benchmarks" / f"{name}.py")] for name in ("tables", "curves"))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of the blocks that are to be run."""
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        if language in ("sh", "python"):
            yield language, text


def run_blocks(page: Path) -> None:
    """Run every block in the current folder, in this process."""
    found = list(blocks(page))
    assert "sh" in {language for language, _ in found}
    for language, text in found:
        if language == "python":
            exec(compile(text, f"{page.name}: python", "exec"), {})
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "segue", line
            assert main(words) == 0, line


def made_ratings() -> pl.DataFrame:
    """A small log with words for ids: user, item, rating, time."""
    log = simulate(60, 4, categories=8, products=5, price_effect=0.1, longest=6, names=True).log()
    rating = np.random.default_rng(0).integers(1, 6, len(log))
    return log.with_columns(rating=pl.Series(rating)).select("user", "item", "rating", "time")


def made_movies() -> pl.DataFrame:
    """A small log like MovieLens 100K: users 1, 6, 11, … and 42, items 286, 290, … 762."""
    rng = np.random.default_rng(0)
    ids = np.unique([42, *range(1, 201, 5)])
    users, steps = np.repeat(ids, 8), np.tile(np.arange(8), len(ids))
    items = (np.repeat(rng.integers(0, 120, len(ids)), 8) + steps * 7) % 120 * 4 + 286
    return pl.DataFrame([users, items, rng.integers(1, 6, len(users)), 880_000_000 + steps * 60 + users])


@pytest.mark.slow
def test_the_readme_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_movies().write_csv(tmp_path / "u.data", separator="\t", include_header=False)
    monkeypatch.chdir(tmp_path)
    run_blocks(README)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_readme_does_what_it_says_with_movielens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer epochs than the README trains: its first line of the log is compared, and the last is as good by then."""
    shutil.copy(real_data / "ml-100k" / "u.data", tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = README.read_text(encoding="utf-8")
    found = [text for language, text in blocks(README) if language == "sh"]
    for line in "".join(found[:3]).splitlines():
        words = shlex.split(line)[1:]
        assert main([*words, "--training.epochs", "14"] if words[0] == "train" else words) == 0
    page, log = capsys.readouterr()
    assert re.search(r"read +943 +1,682 +100,000", page)
    assert re.search(r"^42 .* 1  sasrec$", page, re.M)
    assert first_epoch(log) == pytest.approx(first_epoch(shown), abs=0.003)
    validation = re.search(r"validation ndcg@10 +(\S+)", page)
    assert validation is not None
    assert float(validation[1]) > 0.11, "the README shows 0.1279"


def first_epoch(page: str) -> tuple[float, ...]:
    """Loss, HR@10 and NDCG@10 in the first line of a training's log."""
    line = re.search(r"^epoch 1 +loss (\S+) +hr@10 (\S+) +ndcg@10 (\S+)", page, re.M)
    assert line is not None
    return tuple(map(float, line.groups()))


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_ratings().write_csv(tmp_path / "ratings.csv")
    monkeypatch.chdir(tmp_path)
    run_blocks(GUIDE)


@pytest.mark.slow
def test_the_page_on_sessions_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(SESSIONS)
    assert (tmp_path / "drawn.png").exists()


@pytest.mark.slow
def test_the_page_on_baskets_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small log of the same columns and kinds of ids."""
    log = simulate(60, 8, categories=8, products=3, price_effect=0.1, longest=6).log()
    items = log["item"].cast(pl.Int64)
    log.select(
        household_id=pl.col("user").cast(pl.Int64),
        basket_id=1_000 * pl.col("user").cast(pl.Int64) + pl.col("time").cast(pl.Int64),
        product_id=1_082_185 + items - int(items.mode()[0]),
        transaction_timestamp=1_500_000_000 + 86_400 * pl.col("time").cast(pl.Int64),
    ).write_parquet(tmp_path / "transactions.parquet")
    monkeypatch.chdir(tmp_path)
    run_blocks(BASKETS)


@pytest.mark.slow
def test_the_page_on_ratings_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(RATINGS)


@pytest.mark.slow
def test_the_page_for_users_of_other_programs_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = made_ratings().with_columns(time=1_700_000_000 + 86_400 * pl.col("time").cast(pl.Int64))
    log.write_csv(tmp_path / "log.csv")
    monkeypatch.chdir(tmp_path)
    run_blocks(COMING_FROM)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_page_on_living_models_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path
) -> None:
    """With the purchases of ten households: the page trains on two hundred."""
    folder = real_data / "complete-journey"
    if not folder.is_dir():
        pytest.skip("needs the folder complete-journey of the public datasets")
    log = pl.read_parquet(folder / "transactions.parquet")
    few = log["household_id"].unique().sort().head(10)
    log.filter(pl.col("household_id").is_in(few.implode())).write_parquet(tmp_path / "transactions.parquet")
    shutil.copy(folder / "products.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    run_blocks(LIVING)
    assert len(segue.Dataset.open(tmp_path / "data" / "shop").metadata["logs"]) == 3


@pytest.mark.slow
def test_the_page_on_experiments_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed (the extra tune)")
    made_ratings().write_csv(tmp_path / "log.csv")
    (plan,) = re.findall(r"^```yaml\n(.*?)^```$", EXPERIMENTS.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run_blocks(EXPERIMENTS)


@pytest.mark.slow
def test_the_page_beyond_one_machine_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
    from tests.scaling.clusters import local_cluster

    made_ratings().write_csv(tmp_path / "ratings.csv")
    monkeypatch.chdir(tmp_path)
    with local_cluster():  # one for all commands of the page
        run_blocks(BEYOND)
    one, *others = (
        pl.read_parquet(tmp_path / name / "part-*.parquet")
        for name in ("lists", "lists-of-two", "lists-of-ray", "lists-in-python")
    )
    assert all(one.equals(other) for other in others)


def test_the_guide_names_every_option_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    for words in [[], *([name] for name in COMMANDS), *(["train", "--model", name] for name in registry._HOMES)]:
        assert main([*words, "--help"]) == 0
    helped = capsys.readouterr().out
    known = set(re.findall(r"^  (?:-h, )?(--[a-z][a-z0-9.-]+)", helped, re.M)) | {"--model"}
    named = set(re.findall(r"--[a-z][a-z0-9.-]+", GUIDE.read_text(encoding="utf-8")))
    assert known - named == set()
    assert named - known == set()


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


# ---- the tables ----------------------------------------------------------------------------------------------------


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    done = subprocess.run([*TABLES, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_changed_figure_is_noticed_and_put_right(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    text = BENCHMARKS.read_text(encoding="utf-8")
    page.write_text(text.replace("20,000,000 ratings", "30,000,000 ratings"), encoding="utf-8")
    words = [*TABLES, "--benchmarks", str(page)]
    done = subprocess.run([*words, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "benchmarks/tables.py" in done.stderr
    subprocess.run(words, check=True)
    assert page.read_text(encoding="utf-8") == text


def test_the_picture_of_the_curves_shows_the_results() -> None:
    done = subprocess.run([*CURVES, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
