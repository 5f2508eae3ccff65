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
from allim.hub.model import NotificationRequest

BULK_LIMIT = 16 * 1024 * 1024
"""Bytes of a bulk request's body."""


class BulkCreation:
    """Creates many notifications; they go through the coalescer, so into few transactions."""

    def __init__(self, channels: Mapping[str, Channel], coalescer: Coalescer) -> None:
        self._channels = channels
        self._coalescer = coalescer

    async def create(
        self, items: Sequence[Any], *, tenant: int | None, traceparent: str | None
    ) -> Sequence[Created | AllimError]:
        """Store what can be stored; for each item what was stored, or why not."""
        prepared = [self._prepared(item, tenant, traceparent) for item in items]
        return await asyncio.gather(*(self._stored(item) for item in prepared))

    def _prepared(
        self, item: Any, tenant: int | None, traceparent: str | None
    ) -> Prepared | RequestError:
        key = None
        if isinstance(item, dict):
            item = dict(item)
            key = item.pop("idempotency_key", None)
        try:
            if key is not None and not isinstance(key, str):
                problem = FieldProblem("/idempotency_key", "string_type", "must be a text")
                raise InvalidRequest([problem])
            # As JSON once more: times are texts there, and only there.
            request = NotificationRequest.model_validate_json(to_json(item))
            return prepare(
                request,
                self._channels,
                tenant_id=tenant,
                idempotency_key=key,
                traceparent=traceparent,
            )
        except ValidationError as error:
            return invalid_body(error)
        except RequestError as error:
            return error

    async def _stored(self, item: Prepared | RequestError) -> Created | AllimError:
        if isinstance(item, RequestError):
            return item
        try:
            return await self._coalescer.store(item)
        except (RequestError, DatabaseUnavailable) as error:
            return error
