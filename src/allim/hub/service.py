"""The hub as the rest of Allim, and callers with a transaction of their own, use it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, Required, TypedDict, Unpack, overload

import psycopg
from pydantic import ValidationError

from allim.base.errors import IdempotencyMismatch, InvalidRequest
from allim.base.validation import invalid_body
from allim.channels.channel import Channel
from allim.database.transactions import Conversation, Deliberation, Reckoning, converse
from allim.database.waking import wake_after_commit
from allim.hub.creation import Created, Prepared, create, first_answer, prepare, templates_of
from allim.hub.model import NotificationRequest
from allim.hub.templates.naming import Templates
from allim.hub.templates.shelf import TemplateShelf


class NotificationFields(TypedDict, total=False):
    """What `notify` takes: the fields of `POST /notifications`, and two of its headers."""

    source: Required[str]
    type: Required[str]
    deliveries: Required[Sequence[Mapping[str, Any]]]
    title: str | None
    message: str | None
    data: Mapping[str, Any]
    priority: Literal["high", "normal", "low"]
    scheduled_at: datetime | None
    expires_at: datetime | None
    tenant_id: int | None
    idempotency_key: str | None
    traceparent: str | None


class Hub:
    """Creates notifications in callers' transactions."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels
        self._templates = TemplateShelf()

    @overload
    def notify(
        self, tx: psycopg.Connection[Any], **fields: Unpack[NotificationFields]
    ) -> Created: ...
    @overload
    def notify(
        self, tx: psycopg.AsyncConnection[Any], **fields: Unpack[NotificationFields]
    ) -> Awaitable[Created]: ...
    @overload
    def notify(self, tx: Any, **fields: Unpack[NotificationFields]) -> Any: ...

    def notify(self, tx: Any, **fields: Unpack[NotificationFields]) -> Any:
        """Create a notification in the caller's transaction `tx`: it is sent if that commits.

        `tx` is a psycopg connection, a SQLAlchemy Session or Connection, an asyncpg
        connection, Django's, or one of the async kinds, for which the answer must be awaited.
        Never commits. Relays find the work by themselves; where the process is `waking` them,
        sessions of SQLAlchemy and Django's connections wake them with their commit.

        A stored template that a delivery names is looked up in the same transaction, which stays
        open while it is compiled and rendered: within the limits of `POST /notifications` (0.25 s
        of CPU a rendering, 20 s a notification), and where `tx` is async in a thread, so that the
        caller's event loop goes on meanwhile. `fields` must not be changed until it is done.

        Raises NotInTransaction, InvalidRequest with every problem, IdempotencyMismatch. A
        taken row key is the driver's own unique violation: it has ended the transaction.
        """
        asked: dict[str, Any] = {**fields}
        idempotency_key = asked.pop("idempotency_key", None)
        traceparent = asked.pop("traceparent", None)
        try:
            # Not strict: a tuple does for a list here, and a word for a priority.
            request = NotificationRequest.model_validate(asked, strict=False)
        except ValidationError as error:
            raise invalid_body(error) from None

        def prepared(templates: Templates | None = None) -> Prepared:
            return prepare(
                request,
                self._channels,
                idempotency_key=idempotency_key,
                traceparent=traceparent,
                templates=templates,
            )

        if wanted := templates_of(request):

            def judged(templates: Templates) -> Prepared | InvalidRequest:
                try:
                    return prepared(templates)
                except InvalidRequest as error:
                    return error

            def rendered() -> Deliberation[Created]:
                templates = yield from self._templates.look_up(wanted)
                ready: Prepared | InvalidRequest = yield Reckoning(partial(judged, templates))
                if isinstance(ready, InvalidRequest):
                    found = yield from first_answer(
                        request, tenant_id=None, idempotency_key=idempotency_key
                    )
                    if found is None:
                        raise ready
                    return found
                return (yield from _create_one(ready))

            wake_after_commit(tx, {delivery.channel for delivery in request.deliveries})
            return converse(tx, rendered)
        ready = prepared()
        wake_after_commit(tx, ready.lanes)
        return converse(tx, lambda: _create_one(ready))


def _create_one(prepared: Prepared) -> Conversation[Created]:
    results = yield from create([prepared])
    result = results[0]
    if isinstance(result, IdempotencyMismatch):
        raise result
    return result
