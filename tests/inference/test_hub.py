"""Recommenders on a hub: the real client, against a local server with the hub's HTTP API."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import segue
from segue.errors import ConfigError
from segue.inference.hub import parse
from tests import programs
from tests.inference.hub_server import TOKEN, Hub, identity

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    split = segue.last_session_out(segue.simulate(30, 5, names=True).dataset())
    segue.fit(segue.Markov(), split, out=tmp_path / "run")
    return tmp_path / "run"


def python(hub: Hub, home: Path, *words: object, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    """A process of its own: the client reads the address of the hub and the place of its cache once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(segue.__file__).parent.parent)}
    environment |= {} if token is None else {"HF_TOKEN": token}
    return programs.run(*words, env=environment, timeout=240)


def opened(address: str, *lines: str) -> str:
    return "\n".join(["import segue", f"recommender = segue.load({address!r})", *lines])


ASK = "print(recommender.recommend(histories=[['beer-03', 'beer-04']], k=3)['item'].to_list())"


@pytest.mark.slow
def test_a_run_goes_to_the_hub_and_back(hub: Hub, run: Path, tmp_path: Path) -> None:
    done = python(hub, tmp_path / "home", "-m", "segue", "push", run, "me/shop")
    assert done.returncode == 0, done.stderr
    assert f"{hub.address}/me/shop/commit/{identity('me/shop', 1)}" in done.stdout
    files = hub.repositories["me/shop"][-1]
    assert hub.private["me/shop"]
    assert {"README.md", "recommender/recommender.json", "recommender/weights.safetensors"} <= set(files)
    assert files["recommender/weights.safetensors"] == (run / "recommender" / "weights.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert 'segue.load("hf://me/shop")' in card and "95 % interval" in card and "personal data" not in card

    answer = python(hub, tmp_path / "other", "-c", opened("hf://me/shop", ASK))
    assert answer.returncode == 0, answer.stderr
    expected = segue.load(run).recommend(histories=[["beer-03", "beer-04"]], k=3)["item"].to_list()
    assert answer.stdout.strip() == str(expected)
    stored = python(hub, tmp_path / "other", "-c", opened("hf://me/shop", "recommender.recommend('user-0001')"))
    assert "saved without histories" in stored.stderr

    again = python(hub, tmp_path / "home", "-m", "segue", "push", run, "me/shop", "--histories")
    assert again.returncode == 0, again.stderr
    assert "personal data" in again.stderr
    newest = opened("hf://me/shop", "print(recommender.dataset.has_histories)")
    assert python(hub, tmp_path / "other", "-c", newest).stdout.strip() == "True"
    earlier = opened(f"hf://me/shop@{identity('me/shop', 1)}", "print(recommender.dataset.has_histories)")
    assert python(hub, tmp_path / "other", "-c", earlier).stdout.strip() == "False"


@pytest.mark.slow
def test_what_the_hub_refuses_is_a_message(hub: Hub, run: Path, tmp_path: Path) -> None:
    refused = python(hub, tmp_path / "home", "-m", "segue", "push", run, "me/shop", token="hf_wrong")
    assert refused.returncode == 1 and refused.stderr.count("\n") < 12 and "cannot be written" in refused.stderr
    missing = python(hub, tmp_path / "home", "-c", opened("hf://me/nothing"))
    assert "StorageError" in missing.stderr and "cannot be fetched" in missing.stderr


def test_addresses() -> None:
    assert parse("hf://me/shop") == parse("me/shop") == ("me/shop", None)
    assert parse("hf://me/shop@v1.0") == ("me/shop", "v1.0")
    for wrong in ("hf://shop", "hf://", "me/shop/more", "me/sh op", "hf://../x y"):
        with pytest.raises(ConfigError, match="no place on a hub"):
            parse(wrong)
    with pytest.raises(ConfigError, match="no place on a hub"):
        segue.load("hf://shop")
