"""The commands, end to end, on a tiny log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml

import segue
from segue.cli.main import main
from segue.data.dataset import Dataset
from segue.models.registry import MODELS
from segue.training.config import Training
from tests.programs import run_joined

Ask = Callable[..., Any]


# ---- data ----------------------------------------------------------------------------------------------------------


def test_prepare_writes_the_dataset(data: Path) -> None:
    dataset = Dataset.open(data)
    assert dataset.n_users == 60
    assert dataset.users.ids[0] == "user-0001"


def test_prepare_reports_each_step(csv: Path, tmp_path: Path, answer: Ask) -> None:
    found = answer("prepare", csv, "--out", tmp_path / "data", "--k-core", 3)
    assert [step["step"] for step in found["steps"]][-1] == "3-core"
    assert found["options"]["per_user"] == 3


def test_prepare_takes_columns_separator_and_header(tmp_path: Path, answer: Ask) -> None:
    path = tmp_path / "odd.txt"
    path.write_text(
        "".join(f"{stars}|{item}|{user}\n" for user in range(3) for item, stars in ((7, 5), (8, 3), (9, 4)))
    )
    words = ["--separator", "|", "--no-header", "--user", "2", "--item", "1", "--rating", "0", "--min-rating", "4"]
    answer("prepare", path, "--out", tmp_path / "data", *words)
    assert Dataset.open(tmp_path / "data").to_frame()["item"].to_list() == [7, 9] * 3


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (1, ["ml1m"], 'no public dataset of that name: did you mean "ml-1m"?'),
        (1, ["nowhere.csv"], "nowhere.csv: no such file"),
        (2, ["ml-1m", "--user", "3"], "ml-1m is a public dataset, which is read as it should be: leave out --user."),
        (2, ["shop.csv", "--archive", "a.zip"], "shop.csv is not the name of a public dataset: leave out --archive."),
        (2, ["shop.csv", "--kcore", "3"], 'no option "--kcore": did you mean "--k-core"?'),
    ],
)
def test_prepare_refuses(code: int, words: list[str], message: str, complaint: Ask, tmp_path: Path) -> None:
    assert message in complaint(code, "prepare", *words, "--out", tmp_path / "data")


def test_prepare_names_a_missing_column(csv: Path, tmp_path: Path, complaint: Ask) -> None:
    assert 'has no column "buyer"' in complaint(1, "prepare", csv, "--out", tmp_path / "data", "--user", "buyer")


def test_prepare_makes_sessions(csv: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    assert answer("prepare", csv, "--out", tmp_path / "column")["sessions"] == 240
    assert answer("prepare", csv, "--out", tmp_path / "day", "--sessions", "day")["sessions"] == 240
    gap = answer("prepare", csv, "--out", tmp_path / "gap", "--session", "false", "--session-gap", 700_000)
    assert gap["sessions"] == 60
    none = answer("prepare", csv, "--out", tmp_path / "none", "--sessions", "none")
    assert none["sessions"] is None
    assert "two rules" in complaint(2, "prepare", csv, "--out", tmp_path / "x", "--sessions", "day", "--session-gap", 5)


def test_a_run_on_last_sessions(data: Path, tmp_path: Path, answer: Ask) -> None:
    run = tmp_path / "run"
    answer("train", data, "--out", run, "--model", "markov", "--split", "last-session-out")
    protocol = answer("evaluate", run, "--k", 5)["protocol"]
    assert protocol["users"] == 60 < protocol["targets"], "all items of the last session"


def test_prepare_as_arerec_does(csv: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    words = ["prepare", csv, "--out", tmp_path / "data", "--oldest", 0.5, "--min-per-user", 6, "--rounds", 1]
    steps = answer(*words, "--first", "users")["steps"]
    assert steps[1]["step"] == "the oldest 0.5 of the rows"
    assert steps[1]["interactions"] == steps[0]["interactions"] / 2
    assert steps[-1]["step"] == "at least 6 per user, 0 per item, rounds: 1, users first"
    assert "--oldest=50.0: expected a share above 0" in complaint(
        2, "prepare", csv, "--out", tmp_path / "x", "--oldest", 50
    )


def test_a_run_on_random_rows(data: Path, tmp_path: Path, answer: Ask) -> None:
    runs = tmp_path / "markov", tmp_path / "popularity"
    for run in runs:
        words = ["train", data, "--out", run, "--model", run.name, "--split", "random-rows"]
        split = answer(*words, "--split-test", 0.25, "--split-known-items", "true")["split"]
        assert split == {"name": "random-rows", "test": 0.25, "validation": 0.1, "seed": 0, "known_items": True}
    asked = answer("evaluate", runs[0], "--k", 5)["protocol"]
    total = Dataset.open(data).n_interactions
    assert 0.2 * total < asked["targets"] <= total / 4
    (found,) = answer("compare", *runs)
    assert found["users"] == asked["users"]


def test_simulate(tmp_path: Path, answer: Ask, complaint: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer("simulate", "--out", tmp_path / "made", "--users", 70, "--sessions", 3, "--products", 4)
    assert (found["users"], found["sessions"], found["items"]) == (70, 210, 80)
    assert found["market"]["price_effect"] == 2.0
    assert len(Dataset.open(tmp_path / "made").sessions) == 210
    assert Path(found["truth"]).is_file()
    assert main(["simulate", "--out", str(tmp_path / "made.txt"), "--users", "5", "--quiet"]) == 0
    said = capsys.readouterr()
    assert "made.truth.npz" in said.out
    assert f"segue prepare {tmp_path / 'made.txt'}" in said.err
    assert "--categories=21: expected a whole number from 1 to 20" in complaint(
        2, "simulate", "--out", tmp_path / "x", "--categories", 21
    )
    assert "ends in .parquet" in complaint(2, "simulate", "--out", tmp_path / "x.doc")


def test_a_bad_session_file_is_named(tmp_path: Path, complaint: Ask) -> None:
    path = tmp_path / "toy.txt"
    path.write_text("user_id,time,session_length,session_items\n1,1,2,5,6\n1,2,2,5\n")
    assert "line 3 says 2 items, and 1 follow" in complaint(1, "prepare", path, "--out", tmp_path / "data")


def test_describe(data: Path, answer: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("describe", data)["users"] == 60
    assert main(["describe", str(data), "--picture", str(tmp_path / "shop.png")]) == 0
    assert "interactions" in capsys.readouterr().out
    assert (tmp_path / "shop.png").stat().st_size > 1000


def test_describe_refuses_another_folder(tmp_path: Path, complaint: Ask) -> None:
    assert "is not a dataset written by segue" in complaint(1, "describe", tmp_path)


def test_datasets(answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ml-1m" in [dataset["name"] for dataset in answer("datasets")]
    assert main(["datasets"]) == 0
    assert "MovieLens 1M" in capsys.readouterr().out


# ---- training ------------------------------------------------------------------------------------------------------


def test_train_leaves_a_run(run: Path) -> None:
    left = {path.name for path in run.iterdir()}
    assert {"recommender", "metrics.csv", "curves.png", "run.json"} <= left


def test_train_takes_yaml_and_refits(data: Path, tmp_path: Path, answer: Ask) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"dataset: {data}\nmodel: {{name: sasrec, width: 8, blocks: 1}}\nrefit: true\nquiet: true\n"
        "split: leave-last-n\nsplit-n: 2\ntraining: {epochs: 1, cpu: true}\n"
    )
    found = answer("train", "--config", path, "--out", tmp_path / "run")
    assert found["model"]["width"] == 8
    assert found["split"] == {"name": "leave-last-n", "n": 2}
    assert found["refit"] is True


def test_train_resumes(data: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    words = ["train", data, "--out", tmp_path / "run", "--model.width", 8, "--training.cpu", "--quiet"]
    answer(*words, "--training.epochs", 1)
    assert "resume" in complaint(1, *words, "--training.epochs", 2)
    assert answer(*words, "--training.epochs", 2, "--resume")["training"]["epochs"] == 2
    longer = answer("train", "--resume", tmp_path / "run", "--training.epochs", 3, "--quiet")
    assert (longer["training"]["epochs"], longer["model"]["width"]) == (3, 8)
    assert longer["options"]["cpu"] is True
    again = answer("train", data, "--out", tmp_path / "run", "--resume", "--training.epochs", 4, "--quiet")
    assert again["training"]["epochs"] == 4
    assert "another model.width" in complaint(1, "train", "--resume", tmp_path / "run", "--model.width", 16)
    assert "did not keep its state" in complaint(1, "train", "--resume", tmp_path / "run", "--from-epoch", 2)
    assert "is not a run that can be resumed" in complaint(1, "train", "--resume", data)
    assert "needs --out" in complaint(2, "train", data)
    assert "goes with --resume" in complaint(2, "train", data, "--out", tmp_path / "new", "--from-epoch", 1)


def test_a_resumed_training_takes_all_options_from_the_run(data: Path, tmp_path: Path, answer: Ask) -> None:
    """Whatever the model, its settings and the split."""
    words = ["train", data, "--out", tmp_path / "run", "--model", "gru4rec", "--model.width", 4, "--training.cpu"]
    words += ["--split", "leave-last-n", "--split-n", 1, "--refit", "--quiet", "--training.keep-every", 1]
    answer(*words, "--training.epochs", 2, "--training.batch-size", 16, "--training.averaging", 0.5)
    found = answer("train", "--resume", tmp_path / "run", "--from-epoch", 1, "--training.epochs", 3, "--quiet")
    assert found["model"]["name"] == "gru4rec"
    assert (found["refit"], found["split"]) == (True, {"name": "leave-last-n", "n": 1})
    assert (found["options"]["batch_size"], found["options"]["averaging"]) == (16, 0.5)
    assert found["training"]["epochs"] == 3


def test_commands_use_the_best_weights_of_a_run_that_was_stopped(
    data: Path, tmp_path: Path, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    answer("train", data, "--out", run, "--model.width", 8, "--training.cpu", "--training.epochs", 2, "--quiet")
    (run / "recommender" / "data").rename(run / "unfinished")
    shutil.rmtree(run / "recommender")
    for words in (["evaluate", run], ["recommend", run, "--users", "user-0001"]):
        assert main([*map(str, words)]) == 0
        shown = capsys.readouterr()
        assert shown.out
        assert f"warning: {run} was not finished: these are its best weights so far, of epoch" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "sasrek"], 'did you mean "sasrec"?'),
        (["--model.widht", "8"], 'no option "--model.widht": did you mean "--model.width"?'),
        (["--model", "markov", "--model.width", "8"], 'no option "--model.width"'),
        (["--training.epochs", "0"], "epochs=0: expected 1 or more"),
        (["--processes", "0"], "--processes=0: expected a whole number from 1 to 1,024"),
        (["--split", "leave-last-out", "--split-n", "2"], "--split-n means nothing to --split leave-last-out"),
        (["--split", "leave-last-n"], "needs --split-n"),
        (
            ["--split", "time-cut", "--split-known-items", "true"],
            "--split-known-items means nothing to --split time-cut",
        ),
    ],
)
def test_train_refuses(words: list[str], message: str, data: Path, tmp_path: Path, complaint: Ask) -> None:
    assert message in complaint(2, "train", data, "--out", tmp_path / "run", *words)


def test_an_interrupted_training_says_how_to_go_on(
    data: Path, tmp_path: Path, complaint: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segue.training.fit.fit", interrupted)
    said = complaint(130, "train", data, "--out", tmp_path / "my run")
    assert f"segue train --resume '{tmp_path / 'my run'}'" in said


@pytest.mark.slow
def test_train_in_two_processes(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(data), "--model", "sasrec", "--training.epochs", "1", "--json", "--out"]
    assert main([*words, str(tmp_path / "launched"), "--processes", "2"]) == 0
    outputs = [
        capfd.readouterr().out,
        "".join(run_joined(2, "-m", "segue", *words, tmp_path / "cpu", "--training.cpu")),
    ]
    assert [out.count('"run":') for out in outputs] == [1, 1]
    runs = [tmp_path / name for name in ("launched", "cpu")]
    assert all((run / "recommender").is_dir() for run in runs)
    # Without a GPU both join the processes.
    losses = [(run / "metrics.csv").read_text().splitlines()[1].split(",")[1] for run in runs]
    assert losses[0] == losses[1] or torch.accelerator.is_available()


def test_train_by_sessions(data: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    words = ["train", data, "--out", tmp_path / "run", "--model.width", 8, "--training.cpu", "--training.epochs", 1]
    asked = [*words, "--quiet", "--training.metric", "sess_prec@5", "--training.watch-test"]
    said = complaint(2, *asked)
    assert "--training.metric=sess_prec@5 is measured on whole sessions" in said
    assert not (tmp_path / "run").exists()
    found = answer(*asked, "--split", "last-session-out")
    assert found["training"]["validation"].keys() == {"sess_prec@5", "step_hr@5", "step_ndcg@5"}
    assert "test sess_prec@5" in (tmp_path / "run" / "metrics.csv").read_text()


def test_graph(run: Path, markov: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    path = tmp_path / "graph.dot"
    assert answer("graph", run, "--out", path) == {"model": "sasrec", "wrote": str(path)}
    assert "items.weight" in path.read_text()
    assert "markov only counts" in complaint(2, "graph", markov, "--out", path)
    assert "a graph ends in" in complaint(2, "graph", run, "--out", tmp_path / "graph.gif")


# ---- evaluation ----------------------------------------------------------------------------------------------------


def test_evaluate(run: Path, tmp_path: Path, answer: Ask) -> None:
    found = answer("evaluate", run, "--k", "5,10", "--out", tmp_path / "found.json")
    assert {"ndcg@5", "ndcg@10", "hr@10"} <= set(found["metrics"])
    assert found["protocol"]["split"] == "test"
    assert (tmp_path / "found.json").is_file()


def test_evaluate_on_another_log(
    run: Path, csv: Path, tmp_path: Path, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first half of the users under new names, one item renamed; the others as they were."""
    users = pl.read_csv(csv)["user"].unique(maintain_order=True)
    renamed = users.head(len(users) // 2).to_list()
    log = pl.read_csv(csv).with_columns(
        user=pl.when(pl.col("user").is_in(renamed)).then("new " + pl.col("user")).otherwise("user"),
        item=pl.col("item").replace("pasta-01", "something new"),
    )
    log.write_csv(tmp_path / "other.csv")
    words = ["--data", tmp_path / "other.csv", "--k", "5", "--report", tmp_path / "page.html"]
    found = answer("evaluate", run, *words)
    assert found["data"] == str(tmp_path / "other.csv")
    assert found["protocol"]["on_unknown_users"] == len(renamed)
    assert "other.csv" in (tmp_path / "page.html").read_text(encoding="utf-8")
    recommender = segue.load(run)
    with pytest.warns(UserWarning, match="unknown"):
        split = segue.split_for(recommender, tmp_path / "other.csv")
    assert found["metrics"] == dict(segue.evaluate(recommender, split.test, k=5).metrics)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "other.csv"), "--k", "5"]) == 0
    said = capsys.readouterr().err
    assert "30 unknown users of 60 in the other data" in said and "1 unknown item in the other data" in said


def test_evaluate_among_candidates(run: Path, answer: Ask) -> None:
    words = ["--on", "validation", "--candidates", 10, "--by", "popularity", "--users", 20, "--k", 5]
    asked = answer("evaluate", run, *words)["protocol"]
    assert (asked["split"], asked["candidates"], asked["drawn_by"], asked["users"]) == (
        "validation",
        10,
        "popularity",
        20,
    )


def test_evaluate_shows_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--parts"]) == 0
    page = capsys.readouterr().out
    assert "ndcg" in page
    assert "popularity" in page


@pytest.mark.parametrize("name", ["run", "markov"])
def test_evaluate_writes_a_page(name: str, tmp_path: Path, request: pytest.FixtureRequest, answer: Ask) -> None:
    folder, page = request.getfixturevalue(name), tmp_path / "page.html"
    answer("evaluate", folder, "--k", "5", "--report", page)
    text = page.read_text(encoding="utf-8")
    for shown in (str(folder), "ndcg@5", "because of", "By length of history", "Gini of item popularity"):
        assert shown in text
    assert ("Training curves" in text) is (name == "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--k", "1000"], "k"), (["--k", "0"], "k"), (["--by", "fame"], "--by=fame: expected uniform or")],
)
def test_evaluate_refuses(words: list[str], message: str, run: Path, complaint: Ask) -> None:
    assert message in complaint(2, "evaluate", run, *words)


def test_compare(run: Path, markov: Path, answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer("compare", markov, run, "--metric", "ndcg@10")
    assert (found["a"], found["b"], found["users"]) == ("markov", "sasrec", 60)
    assert [row["metric"] for row in found["differences"]] == ["ndcg@10"]
    assert main(["compare", str(markov), str(run)]) == 0
    assert "sasrec" in capsys.readouterr().out


def test_compare_names_two_runs_of_one_model_by_their_folders(run: Path, answer: Ask) -> None:
    again = f"{run}/."
    (found,) = answer("compare", run, again, "--metric", "ndcg@10")
    assert (found["a"], found["b"]) == (str(run), again)


def test_compare_needs_two(run: Path, complaint: Ask) -> None:
    assert "needs two runs or more, found 1" in complaint(2, "compare", run)


# ---- answers -------------------------------------------------------------------------------------------------------


def test_recommend_users(run: Path, answer: Ask) -> None:
    rows = answer("recommend", run, "--users", "user-0002", "user-0001", "--k", 3)
    assert [(row["user"], row["rank"]) for row in rows] == [
        (user, rank) for user in ("user-0002", "user-0001") for rank in (1, 2, 3)
    ]


def test_recommend_for_an_unknown_history_and_from_files(run: Path, tmp_path: Path, answer: Ask) -> None:
    allowed, users = tmp_path / "allowed.txt", tmp_path / "users.txt"
    allowed.write_text("pasta-01\nrice-01\n\n")
    users.write_text("user-0003\n")
    new = answer("recommend", run, "--history", "jam-01", "bread-01", "--k", 2, "--allow-file", allowed)
    assert {row["item"] for row in new} == {"pasta-01", "rice-01"}
    denied = answer("recommend", run, "--users-file", users, "--k", 40, "--include-seen", "--deny-file", allowed)
    assert not {row["item"] for row in denied} & {"pasta-01", "rice-01"}
    assert len(denied) == 38


def test_recommend_everyone_to_a_file(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    assert main(["recommend", str(run), "--all", "--k", "4", "--out", str(out)]) == 0
    assert pl.read_parquet(out)["user"].n_unique() == 60


def test_recommend_answers_the_known_and_lists_the_unknown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(run), "--users", "user-0001", "nobody"]) == 0
    captured = capsys.readouterr()
    assert "user-0001" in captured.out
    assert "segue: warning: 1 unknown user" in captured.err
    assert "nobody" in captured.err


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, [], "give one of --users, --users-file, --all, --history, --basket: found none."),
        (2, ["--users", "a", "--all"], "found --users and --all."),
        (2, ["--all"], "--all needs --out FILE"),
        (2, ["--history", "a", "--out", "x.csv"], "--history goes with none of --out, --as-of and --on"),
        (2, ["--users", "user-0001", "--k", "-1"], "k"),
        (1, ["--users", "nobody"], "unknown user"),
        (1, ["--users-file", "nowhere.txt"], "nowhere.txt: there is no such file"),
    ],
)
def test_recommend_refuses(code: int, words: list[str], message: str, run: Path, complaint: Ask) -> None:
    assert message in complaint(code, "recommend", run, *words)


def test_recommend_in_a_session(run: Path, answer: Ask) -> None:
    known = answer("recommend", run, "--user", "user-0001", "--basket", "jam-01", "pasta-01", "--k", 40)
    assert {row["user"] for row in known} == {"user-0001"}
    assert len(known) == 38, "all but the basket, items of the history too"
    unseen = answer("recommend", run, "--user", "user-0001", "--basket", "jam-01", "--k", 40, "--include-seen=false")
    assert len(unseen) < 38
    stranger = answer("recommend", run, "--basket", "jam-01", "--k", 2)
    assert [(row["user"], row["model"]) for row in stranger] == [(0, "sasrec")] * 2
    assert stranger == answer("recommend", run, "--history", "jam-01", "--k", 2), "the model knows no baskets"
    both = answer("recommend", run, "--history", "bread-01", "--basket", "jam-01", "--k", 3, "--no-include-seen")
    assert both == answer("recommend", run, "--history", "bread-01", "jam-01", "--k", 3)
    for empty in (["--basket", "[]"], ["--basket=[]"]):
        assert answer("recommend", run, *empty, "--k", 1)[0]["model"] == "popularity"


def test_complete(run: Path, tmp_path: Path, answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    rows = answer("complete", run, "--user", "user-0001", "--basket", "jam-01", "pasta-01", "--n", 3)
    assert [(row["user"], row["step"]) for row in rows] == [("user-0001", step) for step in (1, 2, 3)]
    first = answer("recommend", run, "--user", "user-0001", "--basket", "jam-01", "pasta-01", "--k", 1)
    assert [rows[0]["item"], rows[0]["score"]] == [first[0]["item"], first[0]["score"]]
    grown = ["jam-01", "pasta-01", *(row["item"] for row in rows[:2])]
    assert answer("recommend", run, "--user", "user-0001", "--basket", *grown, "--k", 1)[0]["item"] == rows[2]["item"]
    begun = answer("complete", run, "--user", "user-0001", "--include-seen=false")
    assert [row["step"] for row in begun] == [1, 2, 3, 4, 5]
    assert begun[0]["item"] == answer("recommend", run, "--users", "user-0001", "--k", 1)[0]["item"]
    allowed = tmp_path / "allowed.txt"
    allowed.write_text("rice-01\n")
    assert [row["item"] for row in answer("complete", run, "--history", "jam-01", "--allow-file", allowed)] == [
        "rice-01"
    ]
    assert main(["complete", str(run), "--basket", "jam-01", "nothing"]) == 0
    captured = capsys.readouterr()
    assert "step" in captured.out
    assert "1 unknown item left out of the basket: 'nothing'" in captured.err


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("recommend", ["--users", "user-0001", "user-0002", "--basket", "jam-01"], "2 users: give a list for each"),
        ("recommend", ["--basket", "jam-01", "--out", "x.csv"], "--basket goes with neither --all nor --out"),
        ("recommend", ["--all", "--basket", "jam-01", "--out", "x.csv"], "--basket goes with neither"),
        ("recommend", ["--user", "user-0001", "--history", "a", "--basket", "jam-01"], "found --users and --history."),
        ("recommend", ["--user", "user-0001", "--basket"], "--basket needs a value"),
        ("recommend", ["--basket", "jam-01", "--k", "41"], "the catalogue has only 40 items"),
        (
            "score",
            ["--users", "user-0001", "user-0002", "--basket", "jam-01", "--items", "rice-01"],
            "question has 2 users",
        ),
        ("complete", [], "give one of --user, --history, --basket: found none."),
        ("complete", ["--user", "user-0001", "--n", "0"], "--n=0: expected 1 or more."),
        ("complete", ["--user", "user-0001", "--history", "a"], "found --user and --history."),
        ("complete", ["--history", "jam-01", "--as-of", "2024-01-01"], "as_of cuts stored histories"),
        ("complete", ["--user", "user-0001", "--n", "many"], "--n=many: expected a whole number from 1."),
    ],
)
def test_sessions_that_cannot_be(command: str, words: list[str], message: str, run: Path, complaint: Ask) -> None:
    assert message in complaint(2, command, run, *words)


def test_score(run: Path, answer: Ask) -> None:
    (row,) = answer("score", run, "--users", "user-0001", "--items", "pasta-01", "jam-01")
    assert set(row) == {"user", "pasta-01", "jam-01"}
    rows = answer("score", run, "--history", "bread-01", "--items", "pasta-01", "jam-01", "--long")
    assert [row["item"] for row in rows] == ["pasta-01", "jam-01"]
    within = answer("score", run, "--history", "jam-02", "--basket", "bread-01", "--items", "pasta-01", "--long")
    assert within == answer("score", run, "--history", "jam-02", "bread-01", "--items", "pasta-01", "--long")
    assert within[0]["score"] != rows[0]["score"]
    (stranger,) = answer("score", run, "--basket", "bread-01", "--items", "pasta-01")
    assert stranger == {"user": 0, "pasta-01": rows[0]["score"]}


def test_similar(run: Path, answer: Ask) -> None:
    rows = answer("similar", run, "--items", "pasta-01", "--k", 2)
    assert [row["rank"] for row in rows] == [1, 2]


def test_explain(run: Path, answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    rows = answer("explain", run, "--user", "user-0001", "--item", "pasta-01", "--top", 2)
    assert len(rows) == 2
    assert rows[0]["effect"] >= rows[1]["effect"]
    assert main(["explain", str(run), "--user", "user-0001", "--item", "pasta-01"]) == 0
    captured = capsys.readouterr()
    assert "2024-" in captured.out
    assert "without that item" in captured.err


def test_explain_within_a_session(run: Path, answer: Ask, tmp_path: Path) -> None:
    words = ["explain", run, "--user", "user-0001", "--basket", "bread-01", "jam-01"]
    rows = answer(*words, "--item", "pasta-01")
    assert {row["kind"] for row in rows} == {"basket", "session", "repeats"}
    assert [row["position"] for row in answer(*words, "--item", "pasta-01", "--by", "basket", "--top", "1")] != []
    items = answer(*words, "--item", "pasta-01", "--by", "basket", "item")
    assert {row["kind"] for row in items} == {"basket", "item"}
    logs = answer(*words, "--item", "pasta-01", "--measure", "log-probability")
    assert logs[0]["score"] < 0
    looks = answer(*words, "--attention")
    assert sum(row["weight"] for row in looks) == pytest.approx(1, abs=1e-4)
    for picture in (["--k", "3"], ["--item", "pasta-01"]):
        path = tmp_path / f"{picture[0]}.png"
        assert main([*map(str, words), *picture, "--picture", str(path)]) == 0
        assert path.read_bytes().startswith(b"\x89PNG")


def test_explain_draws_a_map(data: Path, answer: Ask, complaint: Ask, tmp_path: Path) -> None:
    run, items = tmp_path / "run", Dataset.open(data).catalogue.ids
    assert main(["train", str(data), "--out", str(run), "--model", "markov", "--split", "last-session-out"]) == 0
    frame = pl.DataFrame({"item": items, "category": items.str.split("-").list.first()})
    frame.write_csv(tmp_path / "categories.csv")
    users = Dataset.open(data).users.ids
    pl.DataFrame({"user": users, "group": ["a", "b"] * (len(users) // 2)}).write_csv(tmp_path / "groups.csv")
    words = ["explain", str(run), "--map", str(tmp_path / "map.png"), "--categories", str(tmp_path / "categories.csv")]
    for more in ([], ["--groups", str(tmp_path / "groups.csv"), "--users", "20"]):
        assert main([*words, *more]) == 0
        assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "map.png").unlink()
    assert "this model has no attention" in complaint(2, *words, "--attention")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--user", "user-0001"], "give --item"),
        (["--item", "pasta-01"], "give one of --user, --history, --basket: found none"),
        (["--map", "m.png"], "give either --categories or --truth"),
        (["--map", "m.png", "--truth", "t.npz", "--groups", "g.csv"], "leave out --groups"),
        (["--map", "m.png", "--truth", "t.npz", "--user", "user-0001"], "leave out --user"),
        (["--user", "user-0001", "--item", "pasta-01", "--truth", "t.npz"], "--truth goes with --map"),
        (["--user", "user-0001", "--item", "pasta-01", "--by", "user"], "answers by the history alone"),
    ],
)
def test_explain_refuses(run: Path, words: list[str], message: str, complaint: Ask) -> None:
    assert message in complaint(2, "explain", run, *words)


# ---- published settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sasrec", "ssept", "parsrec", "arerec", "gru4rec", "hstu", "bert4rec", "lrurec"])
def test_a_published_setting_is_a_preset(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Model and training are those of `as_published`; options that are given win, before and behind the switch."""
    config = MODELS[name]
    words = ["train", "data", "--out", "run", "--training.seed", "7", "--as-published", "--training.epochs", "3"]
    assert main([*words, "--model", name, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert config.from_dict(printed["model"]) == config.as_published()
    expected = {**Training().to_dict(), **config.published_training, "seed": 7, "epochs": 3}
    assert Training.from_dict(printed["training"]).to_dict() == expected


def test_a_model_without_a_published_setting_says_so(data: Path, complaint: Ask) -> None:
    words = ["train", data, "--out", "run", "--model", "markov", "--as-published"]
    assert "markov has no published setting" in complaint(2, *words)


def test_the_help_of_train_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    page = capsys.readouterr().out
    assert [name for name in MODELS if name not in page] == []


def test_the_help_of_a_model_shows_its_published_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "parsrec", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "--training.epochs 50 --training.batch-size 256 --training.beta2 0.999" in page


# ---- parts of the split --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation"])
def test_lists_on_a_part_are_those_of_its_evaluation(part: str, run: Path, tmp_path: Path, answer: Ask) -> None:
    """As often as `segue evaluate` says, the held-out item is in the list."""
    out = tmp_path / "lists.parquet"
    assert main(["recommend", str(run), "--all", "--out", str(out), "--k", "5", "--on", part]) == 0
    recommender = segue.load(run)
    holdout = getattr(segue.leave_last_out(recommender.dataset), part)
    targets = dict(zip(holdout.users, recommender.dataset.items[holdout.history_ends], strict=True))
    lists = pl.read_parquet(out)
    users = recommender.dataset.users.encode(lists["user"])
    items = recommender.dataset.catalogue.encode(lists["item"])
    hits = sum(targets.get(user) == item for user, item in zip(users, items, strict=True))
    measured = answer("evaluate", run, "--on", part, "--k", 5)["metrics"]["hr@5"]
    assert hits / len(holdout) == pytest.approx(measured)
    user = str(lists["user"][0])
    scores = answer("score", run, "--user", user, "--items", lists["item"][0], "--on", part, "--long")
    assert scores[0]["score"] == pytest.approx(lists["score"][0], abs=1e-5)
    assert answer("recommend", run, "--user", user) != answer("recommend", run, "--user", user, "--on", part)


def test_a_split_is_described(data: Path, answer: Ask, complaint: Ask) -> None:
    whole, found = answer("describe", data), answer("describe", data, "--split", "leave-last-n", "--split-n", 2)
    assert found["split"] == {"name": "leave-last-n", "n": 2}
    assert found["test"] == found["validation"] == {"users": 60, "targets": 120}
    assert found["interactions"] == whole["interactions"] - 240
    assert "--split-n needs --split" in complaint(2, "describe", data, "--split-n", 2)
