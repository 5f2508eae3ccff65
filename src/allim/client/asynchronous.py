"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from uuid import UUID

import aiohttp

from allim.client import calls
from allim.client.calls import Call, Made
from allim.client.filters import DeliveryFilters, NotificationFilters, ReplayFilters
from allim.client.retrying import Retrying, Tries
from allim.hub.views import (
    BulkView,
    CanceledView,
    DeliveryView,
    NotificationSummary,
    NotificationView,
    ReplayCountView,
    ReplayView,
)

if TYPE_CHECKING:
    from allim.hub.service import NotificationFields

Read = TypeVar("Read")


class AsyncClient:
    """Allim's API. `timeout` is seconds, for one try. Every method may raise ClientError."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        retrying: Retrying | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._retrying = retrying or Retrying()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def notify(self, **fields: Unpack[NotificationFields]) -> Made:
        """Make a notification: the fields of `POST /notifications`, and `idempotency_key`.

        With the same key and fields it is made once, however often this is called.
        """
        given: dict[str, Any] = {**fields}
        key, trace = given.pop("idempotency_key", None), given.pop("traceparent", None)
        return await self._ask(calls.notify(given, idempotency_key=key, traceparent=trace))

    async def bulk(self, notifications: Iterable[Mapping[str, Any]]) -> BulkView:
        """Make up to 1000 notifications; each is answered by itself, in order."""
        return await self._ask(calls.bulk(notifications))

    async def notification(self, identity: UUID | str) -> NotificationView:
        """One notification with its deliveries and every attempt."""
        return await self._ask(calls.notification(identity))

    async def notifications(
        self, **wanted: Unpack[NotificationFilters]
    ) -> AsyncIterator[NotificationSummary]:
        """Notifications that fit, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = await self._ask(calls.notifications(wanted, cursor))
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def cancel(self, identity: UUID | str) -> CanceledView:
        """Cancel what is not under way; ApiError ``too_late`` where there is nothing left."""
        return await self._ask(calls.cancel(identity))

    async def delivery(self, identity: int) -> DeliveryView:
        """One delivery with every attempt."""
        return await self._ask(calls.delivery(identity))

    async def deliveries(self, **wanted: Unpack[DeliveryFilters]) -> AsyncIterator[DeliveryView]:
        """Deliveries that fit, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = await self._ask(calls.deliveries(wanted, cursor))
            for item in page.items:
                yield item
            if (cursor := page.next) is None:
                return

    async def retry(self, identity: int) -> DeliveryView:
        """Send a dead, skipped or held delivery again, or a failed one now. Never repeated."""
        return await self._ask(calls.retry(identity))

    async def discard(self, identity: int, *, reason: str) -> DeliveryView:
        """Give up on a dead, skipped or held delivery. Never repeated."""
        return await self._ask(calls.discard(identity, reason))

    async def count_replay(self, **wanted: Unpack[ReplayFilters]) -> ReplayCountView:
        """What a replay would send, in groups."""
        return await self._ask(calls.count_replay(wanted))

    async def replay(
        self,
        *,
        rate_per_second: float | None = None,
        reason: str = "",
        **wanted: Unpack[ReplayFilters],
    ) -> ReplayView:
        """Have dead letters that fit sent again. Never repeated."""
        call = calls.replay(wanted, rate_per_second=rate_per_second, reason=reason)
        return await self._ask(call)

    async def show_replay(self, identity: int) -> ReplayView:
        """How far a replay is."""
        return await self._ask(calls.show_replay(identity))

    async def _ask(self, call: Call[Read]) -> Read:
        tries = Tries(call, self._retrying)
        while True:
            try:
                status, headers, body = await self._send(call)
            except aiohttp.ClientConnectorError as error:
                tries.failed(error, was_sent=False)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                tries.failed(error, was_sent=True)
            else:
                if (answer := tries.answered(status, headers, body)) is not None:
                    return answer
            await asyncio.sleep(tries.wait())

    async def _send(self, call: Call[Any]) -> tuple[int, Mapping[str, str], bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        content = {"Content-Type": "application/json"} if call.body is not None else {}
        async with self._session.request(
            call.method,
            self._url + call.path,
            data=call.body,
            headers={**self._headers, **content, **call.headers},
            allow_redirects=False,
        ) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, headers, await answer.read()
