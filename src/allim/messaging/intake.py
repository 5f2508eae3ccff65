"""Taking jobs in: each becomes one notification, whoever brings it how often."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from pydantic import ValidationError

from allim.base.errors import FieldProblem, IdempotencyMismatch, InvalidRequest, RequestError
from allim.base.settings import Environment
from allim.base.validation import invalid_body
from allim.channels.alimtalk import NAME as ALIMTALK
from allim.channels.alimtalk import AlimtalkSettings
from allim.channels.channel import Channel
from allim.database.pool import Connection, Database
from allim.database.transactions import converse
from allim.hub.coalescer import Coalescer, OnCommit, unstorable_request
from allim.hub.creation import Created, Prepared, create, first_answer, prepare, templates_of
from allim.hub.model import NotificationRequest
from allim.hub.templates.naming import Templates, Wanted
from allim.hub.templates.shelf import TemplateShelf
from allim.messaging.job import MessageJob
from allim.messaging.plan import SentBy, plan
from allim.messaging.tenants import SQL as TENANTS

_PLACES = {
    "recipient": "/to",
    "message": "/text",
    "title": "/subject",
    "template_code": "/template_id",
    "variables": "/variables",
    "image_id": "/image_id",
    "subject": "/subject",
    "advertising": "/advertising",
    "sender": "/tenant_id",
    "pf_id": "/tenant_id",
}


class JobIdReused(IdempotencyMismatch):
    """The job's id was used before, by another job."""

    def __init__(self, job_id: str) -> None:
        RequestError.__init__(
            self, "idempotency_mismatch", f"the job id {job_id!r} was used before, by another job"
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A job and where it came from; `queue` is the queue that it was taken from."""

    job: MessageJob
    source: str
    queue: str | None = None


class Intake:
    """Makes notifications of jobs. Raises ConfigurationError for settings that cannot be."""

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        environment: Environment,
        on_commit: OnCommit = lambda lanes: None,
    ) -> None:
        defaults = environment.read(AlimtalkSettings)
        self._database = database
        self._channels = channels
        self._on_commit = on_commit
        self._templates = TemplateShelf()
        alimtalk = channels.get(ALIMTALK)
        self._is_mock = alimtalk is not None and alimtalk.configured().mode == "mock"
        self._defaults = SentBy(
            pf_id=defaults.solapi_kakao_pf_id, template_id=defaults.solapi_kakao_template_id
        )

    async def post(self, offer: Offer, coalescer: Coalescer) -> Created:
        """Store one job, together with whatever else is being posted.

        Raises InvalidRequest, JobIdReused, Overloaded, DatabaseUnavailable.
        """
        async with self._database.connection() as connection:
            tenants = await _senders(connection, [offer.job])
        request = self._requested(offer, tenants)
        templates = await self._templates.find(self._database, templates_of(request))
        preparing = partial(self._prepared, offer, request, templates)
        # In a thread where there are templates: a costly one must hold up nobody else.
        prepared = await asyncio.to_thread(preparing) if templates.any_stored else preparing()
        try:
            return await coalescer.store(prepared)
        except IdempotencyMismatch:
            raise JobIdReused(offer.job.job_id or "") from None

    async def store(self, offers: Sequence[Offer]) -> Sequence[Created | RequestError]:
        """Store jobs in one transaction; for each what was stored, or why it never can be.

        Raises DatabaseUnavailable: then nothing was, and doing it again is safe.
        """
        try:
            results = await self._store(offers)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(offers) == 1:
                return [unstorable_request(error)]
            return [result for offer in offers for result in await self.store([offer])]
        lanes = {
            delivery.channel
            for result in results
            if isinstance(result, Created)
            for delivery in result.deliveries
        }
        if lanes:
            self._on_commit(lanes)
        return results

    async def _store(self, offers: Sequence[Offer]) -> Sequence[Created | RequestError]:
        async with self._database.transaction() as tx:
            return await self.store_in(tx, offers)

    async def store_in(
        self, tx: Connection, offers: Sequence[Offer]
    ) -> Sequence[Created | RequestError]:
        """Store jobs in the transaction `tx`; wakes nobody."""
        tenants = await _senders(tx, [offer.job for offer in offers])
        requests: list[NotificationRequest | RequestError] = []
        wanted: set[Wanted] = set()
        for offer in offers:
            try:
                request = self._requested(offer, tenants)
                wanted |= templates_of(request)
                requests.append(request)
            except RequestError as error:
                requests.append(error)
        found: Any = converse(tx, lambda: self._templates.look_up(wanted))
        templates: Templates = await found
        results: list[Created | RequestError | None] = []
        prepared: list[Prepared] = []
        for offer, asked in zip(offers, requests, strict=True):
            try:
                if isinstance(asked, RequestError):
                    raise asked
                preparing = partial(self._prepared, offer, asked, templates)
                prepared.append(
                    await asyncio.to_thread(preparing) if templates.any_stored else preparing()
                )
                results.append(None)
            except RequestError as error:
                results.append(await self._first_answer(tx, offer, asked) or error)
        stored: Sequence[Created | IdempotencyMismatch] = ()
        if prepared:
            answer: Any = converse(tx, lambda: create(prepared))
            stored = await answer
        answers = iter(stored)
        return [
            _told(offer, next(answers)) if result is None else result
            for offer, result in zip(offers, results, strict=True)
        ]

    async def _first_answer(
        self, tx: Connection, offer: Offer, asked: NotificationRequest | RequestError
    ) -> Created | None:
        """What a job had stored that is brought again, where its template is gone since."""
        if isinstance(asked, RequestError) or offer.job.job_id is None:
            return None
        key = job_key(offer.job.job_id)
        asking = partial(
            first_answer,
            asked,
            tenant_id=None,
            idempotency_key=key,
            fingerprint=offer.job.fingerprint(),
        )
        found: Any = converse(tx, asking)
        answer: Created | None = await found
        return answer

    def _requested(self, offer: Offer, tenants: Mapping[int, SentBy]) -> NotificationRequest:
        job = offer.job
        own = SentBy()
        if job.tenant_id is not None:
            if job.tenant_id not in tenants:
                raise InvalidRequest(
                    [FieldProblem("/tenant_id", "unknown_tenant", "there is no such tenant")]
                )
            own = tenants[job.tenant_id]
        fields = plan(
            job,
            own.over(self._defaults),
            source=offer.source,
            queue=offer.queue,
            is_mock=self._is_mock,
        )
        try:
            return NotificationRequest.model_validate(fields, strict=False)
        except ValidationError as error:
            raise _as_of_job(invalid_body(error)) from None

    def _prepared(
        self, offer: Offer, request: NotificationRequest, templates: Templates
    ) -> Prepared:
        job = offer.job
        try:
            return prepare(
                request,
                self._channels,
                idempotency_key=None if job.job_id is None else job_key(job.job_id),
                fingerprint=job.fingerprint(),
                templates=templates,
            )
        except InvalidRequest as error:
            raise _as_of_job(error) from None


def job_key(job_id: str) -> str:
    """The idempotency key of a job's notification."""
    return f"sqs:{job_id}"


def _told(offer: Offer, stored: Created | IdempotencyMismatch) -> Created | RequestError:
    return stored if isinstance(stored, Created) else JobIdReused(offer.job.job_id or "")


async def _senders(tx: Connection, jobs: Collection[MessageJob]) -> Mapping[int, SentBy]:
    ids = sorted({job.tenant_id for job in jobs if job.tenant_id is not None})
    if not ids:
        return {}
    rows = await (await tx.execute(TENANTS["senders"], {"ids": ids})).fetchall()
    return {tenant: SentBy(pf_id=pf_id, sender=sender) for tenant, pf_id, sender in rows}


def _as_of_job(error: RequestError) -> RequestError:
    """The same with the names of a job's fields: nobody wrote the notification it points into."""
    if not isinstance(error, InvalidRequest):
        return error
    return InvalidRequest(
        list(dict.fromkeys(replace(p, place=_place(p.place)) for p in error.problems)),
        code=error.code,
    )


def _place(place: str) -> str:
    for step in reversed(place.split("/")):
        if step in _PLACES:
            return _PLACES[step]
    return place
