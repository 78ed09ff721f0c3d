"""Metrics of the two processes of the service, in the form of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class HttpMetrics:
    """Counters and histograms of the HTTP process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("segue_requests", "Answered requests.", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "segue_request_seconds", "Time to answer.", ["route"], buckets=_LATENCIES, registry=registry
        )
        self.errors = Counter("segue_errors", "Answers with a status from 500.", ["route"], registry=registry)
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        pair = self._children.get((route, status))
        if pair is None:
            pair = self.requests.labels(route, str(status)), self.latency.labels(route)
            self._children[route, status] = pair
        pair[0].inc()
        pair[1].observe(seconds)
        if status >= 500:
            self.errors.labels(route).inc()

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class Metrics:
    """Counters, gauges and histograms of the model process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.batches = Histogram(
            "segue_batch_requests", "Requests answered together.", buckets=_SIZES, registry=registry
        )
        self.queue = Gauge("segue_queue_requests", "Requests that wait for the model.", registry=registry)
        self.answers = Counter("segue_lists", "Lists, by source.", ["variant", "model"], registry=registry)
        self.from_kept = Counter("segue_kept_answers", "Answers from kept lists.", registry=registry)
        self.kept = Gauge("segue_kept_lists", "Lists that are kept.", ["variant"], registry=registry)
        self.events = Counter("segue_events", "Events that arrived, by outcome.", ["outcome"], registry=registry)
        self.unknown_items = Counter("segue_unknown_items", "Events with unknown items.", registry=registry)
        self.commits = Histogram(
            "segue_commit_events", "Events stored in one transaction.", buckets=_SIZES, registry=registry
        )
        self.live = Gauge("segue_live_events", "Events on top of the Dataset.", ["variant"], registry=registry)
        self.loaded = Gauge("segue_model_loaded_timestamp_seconds", "Time of loading.", ["variant"], registry=registry)
        self.made = Gauge("segue_model_made_timestamp_seconds", "Time of the training.", ["variant"], registry=registry)
        self.reloads = Counter("segue_reloads", "Reloads of models, by outcome.", ["outcome"], registry=registry)
        self._lists: dict[tuple[str, str], Counter] = {}

    def count_list(self, variant: str, model: str) -> None:
        """Count a list by its source."""
        counter = self._lists.get((variant, model))
        if counter is None:
            counter = self._lists[variant, model] = self.answers.labels(variant, model)
        counter.inc()

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)
