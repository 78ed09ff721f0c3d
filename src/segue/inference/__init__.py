"""From a model to answers: ranking, the Recommender, explanations, export."""
