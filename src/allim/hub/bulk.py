"""`POST /notifications/bulk`: many notifications, each judged and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
from allim.hub.creation import Created, Prepared, prepare
from allim.hub.model import (
    DELIVERIES_PER_BULK,
    BulkRequest,
    KeyedRequest,
    WholeBulkRequest,
)

BULK_LIMIT = 16 * 1024 * 1024
"""Bytes of a bulk request's body."""
_AT_A_TIME = 250
"""Deliveries that are checked before others have a turn; what is checked is being stored."""

Judged = Prepared | RequestError


class BulkCreation:
    """Creates many notifications; they go through the coalescer, so into few transactions."""

    def __init__(self, channels: Mapping[str, Channel], coalescer: Coalescer) -> None:
        self._channels = channels
        self._coalescer = coalescer

    async def create(
        self, body: bytes, *, tenant: int | None, traceparent: str | None
    ) -> Sequence[Created | AllimError]:
        """Store what can be stored of a request's body; for each item what was stored, or why not.

        Raises pydantic's ValidationError for a body that is no bulk request at all.
        """
        items = _read(body)
        stored: list[asyncio.Future[Created] | AllimError] = []
        deliveries = turn = 0
        try:
            for item in items:
                if deliveries > DELIVERIES_PER_BULK:
                    stored.append(_too_many())
                    continue
                judged = self._judged(item, tenant, traceparent)
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

    def _judged(self, item: Any, tenant: int | None, traceparent: str | None) -> Judged:
        try:
            # As JSON once more: times are texts there, and only there.
            request = (
                item
                if isinstance(item, KeyedRequest)
                else KeyedRequest.model_validate_json(to_json(item))
            )
            return prepare(
                request,
                self._channels,
                tenant_id=tenant,
                idempotency_key=request.idempotency_key,
                traceparent=traceparent,
            )
        except ValidationError as error:
            return invalid_body(error)
        except RequestError as error:
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


async def _end(stored: asyncio.Future[Created] | AllimError) -> Created | AllimError:
    if isinstance(stored, AllimError):
        return stored
    try:
        return await stored
    except (RequestError, DatabaseUnavailable) as error:
        return error


def _too_many() -> InvalidRequest:
    words = f"with this one the request has more than {DELIVERIES_PER_BULK} deliveries"
    return InvalidRequest([FieldProblem("/deliveries", "too_many_deliveries", words)])
