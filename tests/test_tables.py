"""The tables of the pages, made from results whose figures are known."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import curves
import tables
from pages import options
from pages.cells import read_results

ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
PROVENANCE = {
    "date": "2026-11-22",
    "versions": {"segue": "0.1.0", "torch": "2.13.0"},
    "hardware": {"cpu": "a CPU", "cores": 2, "threads": 1},
}


def peer(name: str, ndcg: float, seconds: float, curve: list[float] | None, **more: Any) -> dict[str, Any]:
    """A run of a rival: `curve` has the NDCG@10 of looks after 2, 4, … epochs; without one it had a fixed length."""
    looks = [
        {"epoch": 2 * place, "seconds": 2 * place * seconds, "ndcg@10": value, "hr@10": 2 * value}
        for place, value in enumerate(curve or [], 1)
    ]
    chosen = {"curve": looks, "seconds_to_95_percent": 1.0} if curve else {}
    return {
        "peer": name,
        "seed": 0,
        "threads": 1,
        "protocol": "chosen, trained again" if curve else "fixed",
        "epochs": 2,
        "refit_test": {"ndcg@10": ndcg, "hr@10": 2 * ndcg, "intervals": {"ndcg@10": [0.01, 0.2], "hr@10": [0.02, 0.4]}},
        "seconds_per_epoch": seconds,
        "recommended_users_per_second": 100 / seconds,
        "sampled_users_per_second": None,
        "peak_memory_training": 5e8,
        "peak_memory": 6e8,
        "settings": {"width": 100, "dropout": 0.1},
        "peer_versions": {"python": "3.11", name.partition("-")[0]: "1.0"},
        **chosen,
        **PROVENANCE,
        **more,
    }


def turn(name: str, number: int, seconds: float, lists: float, sampled: float | None) -> dict[str, Any]:
    """What one system needed in one round."""
    return {
        "peer": name,
        "round": number,
        "seconds_per_epoch": seconds,
        "recommended_users_per_second": lists,
        "sampled_users_per_second": sampled,
        "peak_memory_training": 5e8,
        **PROVENANCE,
    }


def variant(name: str, seed: int, validation: float, test: float, **changed: Any) -> dict[str, Any]:
    """A run of the ablation."""
    part = {"validation": {"ndcg@10": validation}, "test": {"ndcg@10": test}}
    return {"model": name, "seed": seed, "changed": changed, "epochs_at_most": 60, **part, **PROVENANCE}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    runs = [
        peer("segue", 0.1, 0.5, [0.04, 0.1]),
        peer("segue-notebook", 0.07, 1.0, [0.04, 0.06], sampled_users_per_second=4_000.0),
        peer("rectools-bce", 0.08, 8.0, [0.02, 0.05, 0.04]),
        peer("recommenders-sasrec", 0.06, 12.0, None, sampled_users_per_second=20.0),
    ]
    (folder / "peers_ml-100k.json").write_text(json.dumps({"runs": runs}))
    turns = [
        turn("segue-notebook", 1, 1.0, 100.0, 4_000.0),
        turn("rectools-bce", 1, 8.0, 20.0, None),
        turn("recommenders-sasrec", 1, 12.0, 50.0, 20.0),
        turn("recommenders-sasrec", 2, 20.0, 25.0, 10.0),  # every other round the other way round
        turn("rectools-bce", 2, 18.0, 10.0, None),
        turn("segue-notebook", 2, 2.0, 60.0, 3_000.0),
        turn("segue-notebook", 3, 1.1, 90.0, 5_000.0),
        turn("rectools-bce", 3, 11.0, 30.0, None),
        turn("recommenders-sasrec", 3, 13.2, 45.0, 20.0),
    ]
    (folder / "turns_ml-100k.json").write_text(json.dumps({"runs": turns}))
    variants = [
        *(variant("defaults", seed, 0.1 + seed / 100, 0.09) for seed in (0, 1)),
        *(variant("bce", seed, 0.08 + seed / 100, 0.05 + seed / 50, loss="bce", negatives=1) for seed in (0, 1)),
        variant("logq", 1, 0.112, 0.091, logq=True),
        variant("heads-2", 2, 0.2, 0.2, heads=2),
    ]
    (folder / "ablation_ml-100k.json").write_text(json.dumps({"runs": variants}))
    return folder


DOCS = (
    "sessions",
    "baskets",
    "ratings",
    "benchmarks",
    "production",
    "scaling",
    "beyond-one-machine",
    "experiments",
    "living-models",
)
PAGES = {"readme": README, **{name.partition("-")[0]: ROOT / "docs" / f"{name}.md" for name in DOCS}}


class Made(NamedTuple):
    """The exit code of a script, and all that it printed."""

    returncode: int
    stdout: str
    stderr: str


def made(script: str, results: Path, *words: str) -> Made:
    """Run a script of benchmarks/ on these results, in this process."""
    main = {"tables.py": tables.main, "curves.py": curves.main}[script]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main(["--results", str(results), *words])
        except SystemExit as ended:  # by --help
            code = int(ended.code or 0)
    return Made(code, out.getvalue(), err.getvalue())


def test_no_page_is_forgotten_here(tmp_path: Path) -> None:
    """Else these tests would write the pages of the repository."""
    helped = made("tables.py", tmp_path, "--help").stdout
    assert set(re.findall(r"^  --(\w+) [A-Z]+", helped, re.M)) == {*PAGES, "results"}


def rows(results: Path, page: Path) -> list[str]:
    """The page's rows of tables, after its tables were made anew."""
    pages = {name: results.parent / f"{name}.md" for name in PAGES}
    for name, copy in pages.items():
        shutil.copy(PAGES[name], copy)
    done = made("tables.py", results, *(word for name, copy in pages.items() for word in (f"--{name}", str(copy))))
    assert done.returncode == 0, done.stderr
    name = "readme" if page == README else page.stem
    return [line for line in pages[name].read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def test_rivals_stand_beside_segue(results: Path) -> None:
    found = rows(results, PAGE)
    good = found.index("|  | NDCG@10, refit [95 %] | HR@10, refit [95 %] | epochs |")
    assert found[good + 2 : good + 6] == [
        "| **segue**, SASRec() | .1000 [.0100, .2000] | .2000 [.0200, .4000] | 2 of 4 |",
        "| RecTools, notebook's setting | .0800 [.0100, .2000] | .1600 [.0200, .4000] | 2 of 6 |",
        "| **segue**, notebook's setting | .0700 [.0100, .2000] | .1400 [.0200, .4000] | 2 of 4 |",
        "| Microsoft's SASREC | .0600 [.0100, .2000] | .1200 [.0200, .4000] | 2, fixed |",
    ]
    assert "| Microsoft's SASREC | 12.0 |  | 8.33 | 20.0 | 500 | 600 |" in found


def test_ratios_are_those_of_each_round(results: Path) -> None:
    found = rows(results, PAGE)
    first = found.index("|  | segue | RecTools | speed-up | speed-up per round, by day |")
    assert found[first + 2 : first + 6] == [
        "| seconds per epoch | 1.10 | 11.0 | 9.00 × | 8.00, 9.00, 10.0 |",
        "| users/s, lists of ten | 90.0 | 20.0 | 5.00 × | 5.00, 6.00, 3.00 |",
        "| seconds to RecTools' best NDCG@10 | 3.00 | 32.0 | 10.7 × |  |",  # .05 is half-way from .04 to .06
        "| seconds to RecTools' best NDCG@10, by SASRec() | 1.20 | 32.0 | 26.7 × |  |",
    ]
    first = found.index("|  | segue | Microsoft's | speed-up | speed-up per round, by day |")
    assert found[first + 2 : first + 4] == [
        "| seconds per epoch | 1.10 | 13.2 | 12.0 × | 12.0, 10.0, 12.0 |",
        "| users/s, evaluated among 100 sampled items | 4,000 | 20.0 | 250 × | 200, 300, 250 |",
    ]


def test_rounds_of_several_days_stand_apart(results: Path) -> None:
    path = results / "turns_ml-100k.json"
    first = json.loads(path.read_text())["runs"]
    second = [{**one, "date": "2026-11-30"} for one in first if one["round"] == 2]
    path.write_text(json.dumps({"runs": [*second, *first]}))
    found = rows(results, PAGE)
    assert "| seconds per epoch | 1.55 | 14.5 | 9.00 × | 8.00, 9.00, 10.0; 9.00 |" in found


def test_the_best_other_is_published_or_was_run(results: Path) -> None:
    summary = {
        "seeds": 1,
        "test ndcg@10": 0.05,
        "test hr@10": 0.1,
        "refit_test ndcg@10": 0.06,
        "refit_test hr@10": 0.11,
    }
    notes = {"best_epoch": 1, "epochs": 1, "seconds": 1.0, "validation": {"ndcg@10": 0.07}}
    test = {"ndcg@10": 0.05, "hr@10": 0.1}
    run = {"model": "sasrec", "seed": 0, "training": notes, "options": {"epochs": 200}, "test": test, **PROVENANCE}
    ours = {"summary": {"sasrec": summary}, "runs": [run]}
    for data in ("beauty", "ml-100k"):
        (results / f"full_ranking_{data}.json").write_text(json.dumps(ours))
    best = "*SASRec, sampled softmax, Tikhonovich et al. 2025*"
    row = f"| Amazon Beauty | refit | .0600 | .1100 |  | .0531 | .0921 | {best} |"
    found = rows(results, README)
    assert row in found
    assert found[found.index(row) - 1].startswith(
        "| Amazon Beauty | no refit | .0500 | .1000 |  | .0614 | .1041 | *WEARec"
    )
    assert "| MovieLens 100K | no refit | .0500 | .1000 |  |  |  | none known |" in found
    assert "| MovieLens 100K | refit | .0600 | .1100 |  | .0800 | .1600 | RecTools, notebook's setting |" in found
    page = rows(results, PAGE)
    assert "| SASRec | .0500 | .1000 | .0600 | .1100 | segue, one seed |" in page
    assert "| *eSASRec* |  |  | .0523 | .0928 | Tikhonovich et al. 2025 |" in page
    assert "| *DuoRec* | .0443 | .0845 |  |  | Qiu et al. 2022 |" in page
    rival = peer("rectools-bce", 0.055, 1.0, None)
    (results / "peers_beauty.json").write_text(json.dumps({"runs": [rival]}))
    assert "| Amazon Beauty | refit | .0600 | .1100 |  | .0550 | .1100 | RecTools, notebook's setting |" in rows(
        results, README
    )
    rival["refit_test"]["ndcg@10"] = 0.05
    (results / "peers_beauty.json").write_text(json.dumps({"runs": [rival]}))
    assert row in rows(results, README)


def test_models_of_baskets_stand_by_their_ndcg(results: Path) -> None:
    def run(model: str, seed: int, ndcg: float) -> dict[str, Any]:
        return {
            "model": model,
            "seed": seed,
            "seconds": 2.0 + seed,
            "users_per_second": 3_000.0,
            "peak_memory": 5e8,
            "data": {
                "users": 9,
                "items": 7,
                "interactions": 80,
                "sessions": 20,
                "items_per_session": 4.0,
                "bought_before": 0.48,
            },
            "protocol": {"users": 8, "repeats": 0.42},
            "test": {"ndcg@10": ndcg},
            **PROVENANCE,
        }

    summary = {
        "markov": {"seeds": 1, "test ndcg@10": 0.05, "test recall@10": 0.06, "test repeat_recall@10": 0.08},
        "my-model": {"seeds": 2, "test ndcg@10": 0.18, "test recall@10": 0.15, "test recall@10 sd": 0.01},
    }
    runs = [run("markov", 0, 0.05), run("my-model", 0, 0.18), run("my-model", 1, 0.18)]
    (results / "baskets.json").write_text(json.dumps({"summary": summary, "runs": runs}))
    found = rows(results, ROOT / "docs" / "baskets.md")
    whole = next(place for place, row in enumerate(found) if "recall@10" in row and "s to fit" in row)
    assert found[whole + 2 : whole + 4] == [
        "| my-model | .1500 ± .0100 | .1800 |  | 2.50 | 3,000 | 500 | 2 seeds |",
        "| Markov | .0600 | .0500 |  | 2.00 | 3,000 | 500 | one seed |",
    ]
    parts = next(place for place, row in enumerate(found) if "bought before" in row)
    assert found[parts + 2 : parts + 4] == ["| my-model |  |  |  |  |  |", "| Markov | .0800 |  |  |  |  |"]
    page = (results.parent / "baskets.md").read_text(encoding="utf-8")
    assert "48% of the items were in an earlier basket" in page.replace("\n", " ")


def test_what_is_never_reached_is_said(results: Path) -> None:
    path = results / "peers_ml-100k.json"
    runs = json.loads(path.read_text())["runs"]
    runs[2]["curve"][0]["ndcg@10"] = 0.5
    path.write_text(json.dumps({"runs": runs}))
    assert "| seconds to RecTools' best NDCG@10, by SASRec() | never | 16.0 |  |  |" in rows(results, PAGE)


def test_variants_are_compared_with_the_defaults_of_the_same_seeds(results: Path) -> None:
    found = rows(results, PAGE)
    first = found.index("|  | validation | test | seeds | source |")
    assert found[first + 2 :][:4] == [
        "| `logq=True` | .1120 (+.0020) | .0910 (+.0010) | 1 | Bengio & Senécal 2008; Yi et al. 2019 |",
        "| **defaults** | .1050 | .0900 | 2 |  |",
        '| `loss="bce", negatives=1` | .0850 (−.0200 ± .0000) | .0600 (−.0300 ± .0141) | 2 '
        "| SASRec, Kang & McAuley 2018 |",
        "| `heads=2` | .2000 | .2000 | 1 |  |",  # no defaults with its seed
    ]


def test_a_cut_in_time_has_a_table_of_its_own(results: Path) -> None:
    runs = [variant("defaults", 0, 0.3, 0.2), variant("time", 0, 0.32, 0.19, time_bias=True)]
    (results / "ablation_ml-100k_time-cut.json").write_text(json.dumps({"runs": runs}))
    text = options.time_cut(read_results(results))
    assert "| `time_bias=True` | .3200 (+.0200) | .1900 (−.0100) | 1 | HSTU, Zhai et al. 2024 |" in text
    assert text.index("time_bias") < text.index("defaults") and "heads" not in text
    assert "time_bias" not in options.ablation(read_results(results))


def test_the_readme_shows_the_shortest_epoch_first(results: Path) -> None:
    found = rows(results, README)
    what = "seconds per epoch | users/s, lists | users/s, sampled evaluation | training memory"
    first = found.index(f"| MovieLens 100K, same configuration | {what} |")
    assert found[first + 2 : first + 5] == [
        "| **segue**, notebook's setting | 1.10 | 90.0 | 4,000 | 500 MB |",
        "| RecTools, notebook's setting | 11.0 | 20.0 |  | 500 MB |",
        "| Microsoft's SASREC | 13.2 | 45.0 | 20.0 | 500 MB |",
    ]


def test_a_step_is_shown_by_its_parts_and_against_the_machine(results: Path) -> None:
    step = {"steps_per_epoch": 1_200, "gigaflop_per_step": 0.5, "share_of_peak": 0.251, "padding": 0.0104, **PROVENANCE}
    shares = {"notebook": {"loss": 0.25, "attention": 0.5}, "defaults": {"loss": 0.75}}
    for name, seconds in (("notebook", 0.05), ("defaults", 0.02)):
        profile = {"seconds_per_step": seconds, "shares": shares[name], **step}
        (results / f"step_profile_{name}.json").write_text(json.dumps(profile))
    top_k = {"users": 1_000, "items": 20_000, "top_k_seconds": 0.6, "bare_seconds": 0.5, "ratio": 1.2}
    memory = {"items": 1_000_000, "width": 64, "targets_per_step": 1_024, "peak_mb": 1_500, "ratio": 1.25}
    memory["parameters_gradients_moments_mb"] = 1_200
    (results / "limits.json").write_text(json.dumps({"top_k": {"some": top_k}, "memory": memory, **PROVENANCE}))
    found = rows(results, PAGE)
    first = found.index("| Amazon Games | notebook's setting | SASRec() |")
    assert found[first + 2 : first + 9] == [
        "| loss | 25 % | 75 % |",
        "| attention | 50 % |  |",
        "| milliseconds of CPU per step | 50.0 | 20.0 |",
        "| steps per epoch | 1,200 | 1,200 |",
        "| gigaflop of matrix products per step | 0.50 | 0.50 |",
        "| share of the machine's fastest matrix product | 25 % | 25 % |",
        "| inputs that are padding | 1.0 % | 1.0 % |",
    ]
    assert "| 1,000 users × 20,000 items | 0.60 | 0.50 | 1.20 |" in found
    assert "| 1,000,000 items, width 64, 1,024 targets | 1,500 MiB | 1,200 MiB | 1.25 |" in found


def test_seconds_to_the_best_stand_by_seed(results: Path) -> None:
    training = {"best_epoch": 40, "epochs": 60, "seconds": 90.4, "validation": {"ndcg@10": 0.07}}
    run = {"model": "sasrec", "seed": 3, "training": training, **PROVENANCE}
    counted = {"model": "markov", "seed": 3, "training": {}, **PROVENANCE}
    summary = {name: {"seeds": 1, "test ndcg@10": 0.05, "test hr@10": 0.1} for name in ("sasrec", "markov")}
    (results / "full_ranking_beauty.json").write_text(json.dumps({"summary": summary, "runs": [counted, run]}))
    assert "| Amazon Beauty, seed 3, one core | 40 of 60 | .0700 | 60.3 | 90.4 |" in rows(results, PAGE)


def test_pages_can_be_made_before_anything_was_measured(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert not [row for row in rows(tmp_path / "results", README) if "NDCG" in row]
    assert made("curves.py", tmp_path / "results", "--check").returncode == 0


def test_a_picture_of_other_results_is_noticed(results: Path, tmp_path: Path) -> None:
    picture = ("--out", str(tmp_path / "curves.png"))
    assert made("curves.py", results, *picture, "--check").returncode == 1
    assert made("curves.py", results, *picture).returncode == 0
    assert made("curves.py", results, *picture, "--check").returncode == 0
    path = results / "peers_ml-100k.json"
    runs = json.loads(path.read_text())["runs"]
    runs[0]["curve"][0]["ndcg@10"] = 0.05
    path.write_text(json.dumps({"runs": runs}))
    done = made("curves.py", results, *picture, "--check")
    assert done.returncode == 1
    assert "benchmarks/curves.py" in done.stderr
