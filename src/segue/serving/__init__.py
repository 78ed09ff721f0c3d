"""The service: recommendations over HTTP, from a model, its Dataset and the events that arrive."""
