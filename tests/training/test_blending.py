from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import segue
from segue.errors import ConfigError
from segue.inference.recommender import Recommender
from tests.models.behaviour import small_world


@pytest.fixture(scope="module")
def parts() -> list[Recommender]:
    split = segue.leave_last_out(small_world())
    training = segue.Training(epochs=2, cpu=True)
    net = segue.SASRec(width=8, blocks=1, max_length=6)
    return [
        segue.fit("popularity", split, quiet=True),
        segue.fit(segue.Markov(), split, quiet=True),
        segue.fit(net, split, training=training, quiet=True),
    ]


def logs(recommender: Recommender) -> np.ndarray:
    """Log-probabilities (users, items) in float64."""
    scores = recommender.score(segue.EVERYONE).drop("user").to_numpy().astype(np.float64)
    if recommender.model.counting_scores:
        shares = scores / scores.sum(1, keepdims=True)
        return np.log((1 - 1e-3) * shares + 1e-3 / scores.shape[1])
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def reciprocal_ranks(recommender: Recommender) -> np.ndarray:
    scores = recommender.score(segue.EVERYONE).drop("user").to_numpy()
    return 1 / (61 + (scores[:, None, :] > scores[:, :, None]).sum(2))


def test_scores_are_the_weighted_sum(parts: list[Recommender]) -> None:
    for by, transformed in (("log-probability", logs), ("rank", reciprocal_ranks)):
        blended = segue.blend(parts, weights=[0.5, 1, 2], by=by)
        expected = sum(weight * transformed(part) for weight, part in zip((0.5, 1, 2), parts, strict=True))
        assert blended.score(segue.EVERYONE).drop("user").to_numpy() == pytest.approx(expected, abs=1e-4)


def test_the_search_raises_validation_and_is_printed(
    parts: list[Recommender], capfd: pytest.CaptureFixture[str]
) -> None:
    blended = segue.blend(parts[:2])
    noted = blended.metadata["blend"]
    best = max(trial["ndcg@10"] for trial in noted["trials"])
    assert blended.metadata["training"]["validation"] == {"ndcg@10": best}
    assert noted["weights"][1] > 0 and noted["weights"][0] == 1
    split = segue.leave_last_out(small_world())
    measured = segue.evaluate(blended, split.validation, resamples=0)
    assert measured["ndcg@10"] == pytest.approx(best, abs=1e-6)
    printed = capfd.readouterr().err
    assert printed.count("ndcg@10") == len(noted["trials"]) + 1 and "2 (markov) 0.3" in printed


def test_a_blend_is_an_ordinary_recommender(parts: list[Recommender], tmp_path: Path) -> None:
    blended = segue.blend(parts, weights=[0.1, 1, 0.1])
    blended.save(tmp_path / "blend")
    loaded = segue.load(tmp_path / "blend")
    assert loaded.model.config == blended.model.config
    assert_frame_equal(loaded.score(segue.EVERYONE), blended.score(segue.EVERYONE), check_exact=True)
    assert (loaded.recommend(segue.EVERYONE, k=3)["model"] == "blend").all()
    alone = pl.concat([loaded.recommend(user, k=3) for user in ("user 003", "user 001")])
    assert_frame_equal(loaded.recommend(["user 003", "user 001"], k=3), alone, abs_tol=1e-5)
    reasons = loaded.explain("user 003", ["k"])
    assert reasons["effect"][0] > 0 and reasons["because"][0] == "j"
    assert loaded.recommend(histories=[["a", "b"]], k=1)["item"].item() == "c"
    split = segue.leave_last_out(small_world())
    compared = segue.compare(segue.evaluate(loaded, split.test), segue.evaluate(parts[1], split.test))
    assert compared.differences


def test_blends_that_make_no_sense_are_refused(parts: list[Recommender]) -> None:
    world = small_world()
    other = segue.fit(segue.Markov(), segue.leave_last_out(world.until(world.ends - (world.lengths > 5))), quiet=True)
    with pytest.raises(ConfigError, match=r"2 \(markov\) was fitted on other data than 1 \(popularity\)"):
        segue.blend([parts[0], other])
    apart = segue.fit(segue.Markov(), segue.leave_last_n(world, n=2), quiet=True)
    with pytest.raises(ConfigError, match="another split"):
        segue.blend([parts[0], apart])
    with pytest.raises(ConfigError, match="two Recommenders or more"):
        segue.blend(parts[:1])
    with pytest.raises(ConfigError, match="no metric of ranking"):
        segue.blend(parts, metric="rmse")
    with pytest.raises(ConfigError, match="weight for each"):
        segue.blend(parts, weights=[1, 2])
    with pytest.raises(ConfigError, match="all weights"):
        segue.blend(parts, weights=[0, 0, 0])
    refitted = segue.fit(segue.Markov(), segue.leave_last_out(world), refit=True, quiet=True)
    with pytest.raises(ConfigError, match="trained again on the validation part"):
        segue.blend([parts[0], refitted])
    frame = world.to_frame().drop("session").with_columns(rating=pl.lit(3.0))
    raters = segue.fit(segue.RatingBias(), segue.prepare(frame), quiet=True)
    with pytest.raises(ConfigError, match="predicts ratings"):
        segue.blend([parts[0], raters])


def test_a_blend_cannot_be_trained_by_name(parts: list[Recommender]) -> None:
    with pytest.raises(ConfigError, match="no model 'blend'"):
        segue.fit("blend", segue.leave_last_out(small_world()))
