"""`POST /notifications/bulk`: many notifications, each judged and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from allim.base.errors import (
    AllimError,
    DatabaseUnavailable,
    FieldProblem,
    InvalidRequest,
    RequestError,
)
from allim.base.validation import invalid_body
from allim.channels.channel import Channel
from allim.hub.coalescer import Coalescer
from allim.hub.creation import Created, Prepared, prepare, templates_of
from allim.hub.model import (
    DELIVERIES_PER_BULK,
    BulkRequest,
    KeyedRequest,
    WholeBulkRequest,
)
from allim.hub.templates.naming import Templates, Wanted

BULK_LIMIT = 16 * 1024 * 1024
"""Bytes of a bulk request's body."""
_AT_A_TIME = 250
"""Deliveries that are checked before others have a turn; what is checked is being stored."""

Judged = Prepared | RequestError


class BulkCreation:
    """Creates many notifications; they go through the coalescer, so into few transactions.

    The templates that all of them name are looked up at once.
    """

    def __init__(
        self,
        channels: Mapping[str, Channel],
        coalescer: Coalescer,
        templates: Callable[[Collection[Wanted]], Awaitable[Templates]],
    ) -> None:
        self._channels = channels
        self._coalescer = coalescer
        self._templates = templates

    async def create(
        self, body: bytes, *, tenant: int | None, traceparent: str | None
    ) -> Sequence[Created | AllimError]:
        """Store what can be stored of a request's body; for each item what was stored, or why not.

        Raises pydantic's ValidationError for a body that is no bulk request at all.
        """
        items = [_checked(item) for item in _read(body)]
        wanted = set[Wanted]().union(
            *(templates_of(one, tenant) for one in items if isinstance(one, KeyedRequest))
        )
        templates = await self._templates(wanted) if wanted else None
        stored: list[asyncio.Future[Created] | Created | AllimError] = []
        deliveries = turn = 0
        try:
            for item in items:
                if deliveries > DELIVERIES_PER_BULK:
                    stored.append(_too_many())
                    continue
                preparing = partial(self._prepared, item, tenant, traceparent, templates)
                # In a thread where there are templates: a costly one must hold up nobody else.
                judged = await asyncio.to_thread(preparing) if wanted else preparing()
                if wanted and (found := await self._first_answer(item, judged, tenant)):
                    stored.append(found)
                    continue
                checked = _AT_A_TIME  # Or fewer, but nobody counts what is refused.
                if isinstance(judged, Prepared):
                    checked = len(judged.entries)
                    deliveries += checked
                    if deliveries > DELIVERIES_PER_BULK:
                        judged = _too_many()
                stored.append(self._submitted(judged))
                turn += checked
                if turn >= _AT_A_TIME:
                    turn = 0
                    await asyncio.sleep(0)
            return [await _end(each) for each in stored]
        finally:
            for each in stored:
                if isinstance(each, asyncio.Future):
                    each.cancel()  # Where the client went away: nobody asks for it any more.

    def _prepared(
        self,
        item: KeyedRequest | RequestError,
        tenant: int | None,
        traceparent: str | None,
        templates: Templates | None,
    ) -> Judged:
        if isinstance(item, RequestError):
            return item
        try:
            return prepare(
                item,
                self._channels,
                tenant_id=tenant,
                idempotency_key=item.idempotency_key,
                traceparent=traceparent,
                templates=templates,
            )
        except RequestError as error:
            return error

    async def _first_answer(
        self, item: KeyedRequest | RequestError, judged: Judged, tenant: int | None
    ) -> Created | AllimError | None:
        if not isinstance(item, KeyedRequest) or not isinstance(judged, InvalidRequest):
            return None
        try:
            return await self._coalescer.first_answer(
                item, tenant_id=tenant, idempotency_key=item.idempotency_key
            )
        except DatabaseUnavailable as error:
            return error

    def _submitted(self, judged: Judged) -> asyncio.Future[Created] | AllimError:
        if isinstance(judged, RequestError):
            return judged
        try:
            return self._coalescer.submit(judged)
        except AllimError as error:
            return error


def _read(body: bytes) -> Sequence[Any]:
    """The items: checked all at once where nothing is wrong with any, else as they are."""
    try:
        return WholeBulkRequest.model_validate_json(body).notifications
    except ValidationError:
        return BulkRequest.model_validate_json(body).notifications


def _checked(item: Any) -> KeyedRequest | RequestError:
    if isinstance(item, KeyedRequest):
        return item
    try:
        # As JSON once more: times are texts there, and only there.
        return KeyedRequest.model_validate_json(to_json(item))
    except ValidationError as error:
        return invalid_body(error)


async def _end(
    stored: asyncio.Future[Created] | Created | AllimError,
) -> Created | AllimError:
    if not isinstance(stored, asyncio.Future):
        return stored
    try:
        return await stored
    except (RequestError, DatabaseUnavailable) as error:
        return error


def _too_many() -> InvalidRequest:
    words = f"with this one the request has more than {DELIVERIES_PER_BULK} deliveries"
    return InvalidRequest([FieldProblem("/deliveries", "too_many_deliveries", words)])
