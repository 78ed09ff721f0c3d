"""RecBole's own split of MovieLens 100K, read by segue: how many of its 943 test items are kept.

    python benchmarks/peers/recbole_split.py                       # makes RecBole's environment on first use
    python benchmarks/peers/recbole_split.py --python PYTHON       # with a RecBole that is installed

RecBole splits the log by its own code, leave-one-out in the order of time, once as rows and once as the item lists of
its sequential models. Its parts are written in its form of atomic files: `ml-100k.train.inter`, `.valid.inter` and
`.test.inter`. Then `segue.given_split` reads the folder. Interactions of a user at equal times have no order, and every
program puts them in its own: so a split that segue makes anew has other test items for many users. The result goes to
results/recbole_split.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAME, PARTS = "ml-100k", ("train", "valid", "test")
WHAT = "RecBole's split of MovieLens 100K (leave-one-out, in the order of time), and the test items that segue keeps"


def write_parts(folder: Path, log: Path) -> None:
    """Split the log by RecBole's code, and write its parts as rows and as item lists. RecBole's Python runs this."""
    import torch
    from recbole.config import Config
    from recbole.data.dataset import Dataset, SequentialDataset

    source = folder / "source" / NAME
    source.mkdir(parents=True)
    (source / f"{NAME}.inter").write_bytes(log.read_bytes())
    for form, kind, model in (("rows", Dataset, "BPR"), ("lists", SequentialDataset, "SASRec")):
        options = {
            "data_path": str(source.parent),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "train_neg_sample_args": None,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "reproducibility": True,
        }
        config = Config(model=model, dataset=NAME, config_dict=options)
        target = folder / form
        target.mkdir()
        for part, data in zip(PARTS, kind(config).build(), strict=True):
            columns = [
                data.id2token("user_id", data.inter_feat["user_id"].numpy()),
                data.id2token("item_id", data.inter_feat["item_id"].numpy()),
                data.inter_feat["timestamp"].to(torch.int64).numpy(),
            ]
            heads = ["user_id:token", "item_id:token", "timestamp:float"]
            if form == "lists":
                lengths = data.inter_feat["item_length"].numpy()
                rows = data.inter_feat["item_id_list"].numpy()
                lists = [" ".join(data.id2token("item_id", row[:n])) for row, n in zip(rows, lengths, strict=True)]
                columns, heads = [*columns, lists], [*heads, "item_id_list:token_seq"]
            lines = ["\t".join(map(str, row)) for row in zip(*columns, strict=True)]
            (target / f"{NAME}.{part}.inter").write_text("\n".join(["\t".join(heads), *lines]) + "\n")


def test_items(split: Any) -> dict[str, str]:
    """Test item of each user, by raw ids."""
    holdout = split.test
    users = split.dataset.users.decode(holdout.users)
    targets = split.dataset.catalogue.decode(split.dataset.items[holdout.history_ends])  # one target each
    return dict(zip(map(str, users), map(str, targets), strict=True))


def published(folder: Path) -> dict[str, str]:
    """Test item of each user in RecBole's file."""
    lines = (folder / f"{NAME}.test.inter").read_text().splitlines()[1:]
    return {user: item for user, item, *_ in (line.split("\t") for line in lines)}


def main() -> None:
    """Write RecBole's parts, read them, and count the test items that are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="Python that has RecBole; one of our own environments otherwise")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write is not None:
        write_parts(arguments.write, arguments.log)
        return
    sys.path.insert(0, str(HERE.parent))
    import common
    import environments

    import segue

    log = common.data_folder() / "ml-100k" / "ml-100k.inter"
    python = arguments.python or environments.interpreter("recbole", environments.DEFAULT)
    result: dict[str, Any] = {"what": WHAT, "forms": {}}
    own = test_items(segue.leave_last_out(segue.prepare(log)))
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(Path(__file__).resolve()), "--write", folder, "--log", str(log)]
        subprocess.run(command, check=True, cwd=folder)
        for form in ("rows", "lists"):
            theirs = published(Path(folder) / form)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = test_items(segue.given_split(Path(folder) / form))
            result["forms"][form] = {
                "test_items": len(theirs),
                "equal": sum(given.get(user) == item for user, item in theirs.items()),
                "equal_of_a_new_split": sum(own.get(user) == item for user, item in theirs.items()),
            }
    question = "import importlib.metadata as m; print(m.version('recbole'))"
    answer = subprocess.run([str(python), "-c", question], check=True, capture_output=True, text=True).stdout
    result |= {"recbole": answer.strip(), **common.provenance()}
    print(common.write("recbole_split", result).read_text())


if __name__ == "__main__":
    main()
