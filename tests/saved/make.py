"""Saves small Recommenders, a Dataset and a run with the segue that is imported, and what they answer."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl

import segue

out = Path(sys.argv[1])
out.mkdir(parents=True)
rng = np.random.default_rng(7)
rows = []
for user in range(24):
    t = 1_700_000_000 + int(rng.integers(0, 10**6))
    for session in range(int(rng.integers(3, 6))):
        base = int(rng.integers(0, 6)) * 5
        t += 86_400 * int(rng.integers(1, 5))
        for item in rng.permutation(5)[: int(rng.integers(2, 5))]:
            t += int(rng.integers(20, 200))
            rows.append((f"u{user:02}", f"i{base + int(item):02}", t, session, int(rng.integers(1, 6))))
frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "session_id", "rating"], orient="row")
frame.write_csv(out / "log.csv")
data = segue.prepare(out / "log.csv")
print(data, data.session_offsets is not None, data.ratings is not None)
data.save(out / "dataset")
short = segue.Training(epochs=2, cpu=True)
next_item, sessions = segue.leave_last_out(data), segue.last_session_out(data)
made = {
    "sasrec": (segue.SASRec(width=8, blocks=1, max_length=10), next_item),
    "sasrec-times": (
        segue.SASRec(
            width=8,
            blocks=2,
            heads=2,
            max_length=10,
            norm="ligr",
            feed_forward="swiglu",
            positions="both",
            time_bias=True,
        ),
        next_item,
    ),
    "sasrec-published": (segue.SASRec.as_published(width=8, max_length=10), next_item),
    "ssept": (segue.SSEPT(item_width=6, user_width=6, max_length=10), next_item),
    "parsrec": (segue.PARSRec(user_width=6, item_width=6), sessions),
    "markov": (segue.Markov(), next_item),
    "popularity": (segue.Popularity(), next_item),
    "recent-popularity": (segue.RecentPopularity(), next_item),
    "arerec": (segue.ARERec(), segue.random_rows(data)),
    "rating-bias": (segue.RatingBias(), segue.random_rows(data)),
    "matrix-factorization": (segue.MatrixFactorization(width=4), segue.random_rows(data)),
}


def plain(frame):
    return json.loads(frame.write_json())


answers = {}
for name, (config, split) in made.items():
    rec = segue.fit(config, split, training=short, quiet=True)
    rec.save(out / name)
    rec = segue.load(out / name)
    users = ["u03", "u11", "u19"]
    found = {
        "recommend": plain(rec.recommend(users, k=4)),
        "score": plain(rec.score(users, ["i03", "i17", "i29"], long=True)),
    }
    found["as_of"] = plain(rec.recommend(users, k=3, as_of=1_700_000_000 + 6 * 86_400))
    if name not in ("arerec", "rating-bias", "matrix-factorization", "markov", "popularity", "recent-popularity"):
        found["given"] = plain(rec.recommend(histories=[["i01", "i02"], ["i20"]], k=3))
        found["basket"] = plain(rec.recommend(users, basket={"u03": ["i00"]}, k=3))
    if name not in ("rating-bias", "matrix-factorization"):
        found["explain"] = plain(rec.explain("u03", "i17"))
    answers[name] = found
(out / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
segue.fit(
    segue.SASRec(width=8, blocks=1, max_length=10),
    next_item,
    training=segue.Training(epochs=2, cpu=True, keep_every=1),
    out=out / "run",
    quiet=True,
)
