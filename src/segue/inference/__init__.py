"""From a fitted model to answers: the Scorer, the Recommender, explanations, exports and storage."""
