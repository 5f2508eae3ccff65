"""`POST /notifications/bulk`: many notifications, each judged and answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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
from allim.hub.model import NotificationRequest
from allim.hub.templates.naming import Templates, Wanted

BULK_LIMIT = 16 * 1024 * 1024
"""Bytes of a bulk request's body."""


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
        self, items: Sequence[Any], *, tenant: int | None, traceparent: str | None
    ) -> Sequence[Created | AllimError]:
        """Store what can be stored; for each item what was stored, or why not."""
        read = [_read(item) for item in items]
        wanted = set[Wanted]().union(
            *(templates_of(one.request, tenant) for one in read if isinstance(one, _Read))
        )
        templates = await self._templates(wanted) if wanted else None

        def prepared_all() -> Sequence[Prepared | RequestError]:
            return [
                self._prepared(each, tenant, traceparent, templates)
                if isinstance(each, _Read)
                else each
                for each in read
            ]

        # In a thread: costly templates must not hold up everybody else.
        prepared = await asyncio.to_thread(prepared_all) if wanted else prepared_all()
        return await asyncio.gather(*(self._stored(item) for item in prepared))

    def _prepared(
        self, read: _Read, tenant: int | None, traceparent: str | None, templates: Templates | None
    ) -> Prepared | RequestError:
        try:
            return prepare(
                read.request,
                self._channels,
                tenant_id=tenant,
                idempotency_key=read.key,
                traceparent=traceparent,
                templates=templates,
            )
        except RequestError as error:
            return error

    async def _stored(self, item: Prepared | RequestError) -> Created | AllimError:
        if isinstance(item, RequestError):
            return item
        try:
            return await self._coalescer.store(item)
        except (RequestError, DatabaseUnavailable) as error:
            return error


@dataclass(frozen=True, slots=True)
class _Read:
    request: NotificationRequest
    key: str | None


def _read(item: Any) -> _Read | RequestError:
    key = None
    if isinstance(item, dict):
        item = dict(item)
        key = item.pop("idempotency_key", None)
    if key is not None and not isinstance(key, str):
        return InvalidRequest([FieldProblem("/idempotency_key", "string_type", "must be a text")])
    try:
        # As JSON once more: times are texts there, and only there.
        return _Read(NotificationRequest.model_validate_json(to_json(item)), key)
    except ValidationError as error:
        return invalid_body(error)
