"""The service: what each request does, apart from HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from segue.errors import SegueError
from segue.serving import asking, finding
from segue.serving.config import ServiceConfig
from segue.serving.engine import Engine
from segue.serving.items import Document, documents_of, with_documents
from segue.serving.journal import Journal
from segue.serving.live import FEW_IDS, codes_of
from segue.serving.metrics import Metrics
from segue.serving.models import Models, Variant
from segue.serving.problems import refused
from segue.serving.schemas import (
    Answered,
    BatchAnswer,
    CompleteRequest,
    Completion,
    Event,
    ExplainRequest,
    Explanation,
    FindItems,
    FindUsers,
    Forgotten,
    ItemAnswer,
    ItemsAnswer,
    ModelAnswer,
    Neighbours,
    NewItem,
    PutItems,
    Recommendation,
    RecommendBatch,
    Recommended,
    RecommendRequest,
    Reloaded,
    ScoreRequest,
    Scores,
    SimilarRequest,
    Stored,
    UserAnswer,
    UsersAnswer,
    VariantItems,
    id_text,
)
from segue.serving.schemas import Models as ModelsAnswer
from segue.serving.served import BestItems
from segue.serving.store.base import KINDS, NewEvent
from segue.serving.times import iso, microseconds, now

_AT_ONCE = 64
"""Questions of a batch that are in the queue together."""


class _Numbers:
    """Ids that are unique and rise with time: milliseconds, a random number of the process, and a counter."""

    def __init__(self) -> None:
        self._process = os.urandom(5).hex()
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """A new id."""
        with self._lock:
            self._count += 1
            count = self._count
        return f"{time.time_ns() // 1_000_000:012x}{self._process}{count:08x}"


@dataclass
class Service:
    """Everything that requests need.

    Attributes
    ----------
    config
        Settings.
    models
        Served models.
    engine
        Threads that compute.
    journal
        Thread that stores events.
    metrics
        Metrics.
    """

    config: ServiceConfig
    models: Models
    engine: Engine
    journal: Journal
    metrics: Metrics

    def __post_init__(self) -> None:
        self._numbers = _Numbers()
        self.draining = False

    # ---- questions ----------------------------------------------------------------------------------------------

    async def recommend(self, request: RecommendRequest) -> Recommendation:
        """Answer a question for a list."""
        variant = self._variant(request.user, request.variant)
        served = variant.served
        if not asking.takes_long(request):
            question = asking.question_of(request)
            kept = served.kept_answer(question)
            if kept is not None:
                self.metrics.from_kept.inc()
            answer = kept or await self.engine.ask(served, question)
            return self._recommendation(request, variant, answer, None)
        answer, reasons = await self.engine.run(lambda: asking.recommend(served, request))
        return self._recommendation(request, variant, answer, reasons)

    async def recommend_batch(self, request: RecommendBatch) -> BatchAnswer:
        """Answer many questions, some at a time; a fault of one is a problem in its place."""
        answers: list[Answered] = []
        for first in range(0, len(request.requests), _AT_ONCE):
            part = request.requests[first : first + _AT_ONCE]
            answers += await self._answers(part)
        return BatchAnswer(answers)

    async def _answers(self, part: Sequence[RecommendRequest]) -> list[Answered]:
        """Answers of some questions: those of lists as one call, all others in turn."""
        answers = [Answered() for _ in part]
        groups: dict[str, tuple[Variant, list[int]]] = {}
        for row, question in enumerate(part):
            try:
                if question.as_of is not None or question.explain:  # rules are no reason: equal ones go together
                    answers[row].recommendation = await self.recommend(question)
                else:
                    variant = self._variant(question.user, question.variant)
                    groups.setdefault(variant.name, (variant, []))[1].append(row)
            except Exception as error:
                answers[row].problem = refused(error).problem
        for variant, rows in groups.values():

            def answer(variant: Variant = variant, rows: list[int] = rows) -> Sequence[BestItems | Exception]:
                results: list[Any] = [None] * len(rows)
                questions = []
                for place, row in enumerate(rows):
                    try:
                        questions.append((place, asking.question_of(part[row])))
                    except SegueError as error:
                        results[place] = error
                lists = variant.served.answer([question for _, question in questions])
                for (place, _), result in zip(questions, lists, strict=True):
                    results[place] = result
                return results

            for row, result in zip(rows, await self.engine.run(answer), strict=True):
                if isinstance(result, Exception):
                    answers[row].problem = refused(result).problem
                else:
                    answers[row].recommendation = self._recommendation(part[row], variant, result, None)
        return answers

    async def score(self, request: ScoreRequest) -> Scores:
        """Answer a question for scores."""
        variant = self._variant(request.user, request.variant)
        return await self.engine.run(lambda: asking.score(variant.served, variant.name, request))

    async def similar(self, request: SimilarRequest) -> Neighbours:
        """Answer a question for similar items."""
        variant = self._variant(None, request.variant)
        return await self.engine.run(lambda: asking.similar(variant.served, variant.name, request))

    async def complete(self, request: CompleteRequest) -> Completion:
        """Answer a question for the completion of a basket."""
        variant = self._variant(request.user, request.variant)
        return await self.engine.run(lambda: asking.complete(variant.served, variant.name, request))

    async def explain(self, request: ExplainRequest) -> Explanation:
        """Answer a question for reasons."""
        variant = self._variant(request.user, request.variant)
        return await self.engine.run(lambda: asking.explain(variant.served, variant.name, request))

    # ---- events and users ---------------------------------------------------------------------------------------

    async def events(self, events: Sequence[Event]) -> Stored:
        """Store events; they are on the disk, and the next answer knows them, when it returns."""
        received = now()
        rows = []
        for event in events:
            event_id = event.event_id or self._numbers.next()
            rows.append(
                NewEvent(
                    event_id,
                    KINDS[event.type],
                    id_text(event.user),
                    id_text(event.item),
                    received if event.time is None else microseconds(event.time),
                    None if event.session is None else id_text(event.session),
                    event.rating,
                    event.recommendation_id,
                    received,
                    event.event_id is not None,
                )
            )
        outcome = await self.journal.append(rows)
        catalogue = self.models.variants[0].served.catalogue
        items = [row.item for row in rows]
        codes = codes_of(catalogue, items) if len(items) <= FEW_IDS else catalogue.encode(items)
        unknown = int((codes == 0).sum())
        for name in ("stored", "repeated", "retracted"):
            if number := getattr(outcome, name):
                self.metrics.events.labels(name).inc(number)
        if unknown:
            self.metrics.unknown_items.inc(unknown)
        return Stored(outcome.stored, outcome.repeated, outcome.retracted, unknown, [row.event_id for row in rows])

    async def user(self, user: str, variant: str | None) -> UserAnswer:
        """History and events of a user."""
        served = self._variant(user, variant).served
        store = self.journal.store
        return await self.engine.run(lambda: asking.user_answer(served, user, store.of_user(user, 1_000)))

    async def forget(self, user: str) -> Forgotten:
        """Delete a user's events, and leave out the user's interactions in the Dataset."""
        deleted: int = await self.journal.call(lambda: self.journal.store.forget(user, now()))
        return Forgotten(user, deleted)

    async def item(self, item: str, variant: str | None) -> ItemAnswer:
        """An item of the catalogue."""
        served = self._variant(None, variant).served
        return await self.engine.run(lambda: asking.item_answer(served, item))

    async def put_items(self, items: Sequence[NewItem]) -> PutItems:
        """Put items into the catalogue; they are on the disk, and every model knows their ids, when it returns."""
        documents = {id_text(one.item): Document(one.title, one.columns) for one in items}
        for variant in self.models.variants:
            variant.served.require_puts()
            check = partial(with_documents, variant.served.opened, documents)
            await self.engine.run(check)
        store = self.journal.store

        def put() -> None:
            earlier, _ = documents_of(store)
            newer = {item: one.over(earlier.get(item)) for item, one in documents.items()}
            store.put_items([(item, json.dumps(one)) for item, one in newer.items()], now())

        await self.journal.call(put)
        await asyncio.to_thread(self.models.take_items)
        answers = []
        for variant in self.models.variants:
            served = variant.served
            codes = served.catalogue.encode(list(documents)).tolist()
            ready = sum(served.recommends(code) for code in codes)
            answers.append(VariantItems(variant.name, ready, len(codes) - ready))
        return PutItems(len(documents), answers)

    async def find_users(self, request: FindUsers) -> UsersAnswer:
        """Users that a search finds."""
        served = self._variant(None, request.variant).served
        return await self.engine.run(lambda: finding.find_users(served, request))

    async def find_items(self, request: FindItems) -> ItemsAnswer:
        """Items that a search finds."""
        served = self._variant(None, request.variant).served
        return await self.engine.run(lambda: finding.find_items(served, request))

    # ---- models -------------------------------------------------------------------------------------------------

    def served_models(self) -> ModelsAnswer:
        """All served models."""
        answers = []
        for variant in self.models.variants:
            served, data = variant.served, variant.served.dataset
            settings = {
                name: list(map(str, value)) if isinstance(value, list | tuple) else value
                for name, value in served.settings.items()
                if value is None or isinstance(value, str | int | float | bool | list | tuple)
            }
            answers.append(
                ModelAnswer(
                    variant.name,
                    variant.share,
                    served.name,
                    served.run,
                    iso(int(served.loaded * 1e6)),
                    data.n_users,
                    data.n_items,
                    data.n_interactions,
                    data.has_times,
                    data.session_offsets is not None,
                    served.live.n_events,
                    settings,
                    data.time_unit if data.has_times else None,
                    served.repeat_share,
                )
            )
        return ModelsAnswer(answers)

    async def reload(self) -> Reloaded:
        """Open all runs that changed."""
        reloaded, unchanged = await asyncio.to_thread(self.models.reload)
        return Reloaded(reloaded, unchanged)

    # ---- helpers ------------------------------------------------------------------------------------------------

    def _variant(self, user: int | str | None, name: str | None) -> Variant:
        return self.models.choose(None if user is None else id_text(user), name)

    def _recommendation(
        self, request: RecommendRequest, variant: Variant, answer: BestItems, reasons: list[Any] | None
    ) -> Recommendation:
        self.metrics.count_list(variant.name, answer.model)
        ranks = range(1, len(answer.items) + 1)
        named = [] if answer.titles is None else [answer.titles]
        items = list(map(Recommended, answer.items, answer.scores, ranks, *named))
        if reasons is not None:
            for item, own in zip(items, reasons, strict=True):
                item.reasons = own
        if answer.columns is not None:
            for item, columns in zip(items, answer.columns, strict=True):
                item.columns = columns
        return Recommendation(
            f"{variant.name}.{self._numbers.next()}",
            variant.name,
            answer.model,
            items,
            request.user,
            answer.unknown or None,
        )
