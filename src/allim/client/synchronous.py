"""The client for code without asyncio."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit
from uuid import UUID

from allim.client import calls
from allim.client.calls import Call, Made
from allim.client.errors import ClientError
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


class Client:
    """Allim's API. `timeout` is seconds, for one try. Every method may raise ClientError.

    May be used from several threads; each has a connection of its own.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        retrying: Retrying | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError("the URL of Allim must begin with http:// or https://")
        self._is_https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = timeout
        self._retrying = retrying or Retrying()
        self._own = threading.local()
        self._open: set[http.client.HTTPConnection] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections, those of other threads too."""
        for connection in list(self._open):
            connection.close()

    def notify(self, **fields: Unpack[NotificationFields]) -> Made:
        """Make a notification: the fields of `POST /notifications`, and `idempotency_key`.

        With the same key and fields it is made once, however often this is called.
        """
        given: dict[str, Any] = {**fields}
        key, trace = given.pop("idempotency_key", None), given.pop("traceparent", None)
        return self._ask(calls.notify(given, idempotency_key=key, traceparent=trace))

    def bulk(self, notifications: Iterable[Mapping[str, Any]]) -> BulkView:
        """Make up to 1000 notifications; each is answered by itself, in order."""
        return self._ask(calls.bulk(notifications))

    def notification(self, identity: UUID | str) -> NotificationView:
        """One notification with its deliveries and every attempt."""
        return self._ask(calls.notification(identity))

    def notifications(self, **wanted: Unpack[NotificationFilters]) -> Iterator[NotificationSummary]:
        """Notifications that fit, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = self._ask(calls.notifications(wanted, cursor))
            yield from page.items
            if (cursor := page.next) is None:
                return

    def cancel(self, identity: UUID | str) -> CanceledView:
        """Cancel what is not under way; ApiError ``too_late`` where there is nothing left."""
        return self._ask(calls.cancel(identity))

    def delivery(self, identity: int) -> DeliveryView:
        """One delivery with every attempt."""
        return self._ask(calls.delivery(identity))

    def deliveries(self, **wanted: Unpack[DeliveryFilters]) -> Iterator[DeliveryView]:
        """Deliveries that fit, newest first; pages are fetched as they are needed."""
        cursor = None
        while True:
            page = self._ask(calls.deliveries(wanted, cursor))
            yield from page.items
            if (cursor := page.next) is None:
                return

    def retry(self, identity: int) -> DeliveryView:
        """Send a dead, skipped or held delivery again, or a failed one now. Never repeated."""
        return self._ask(calls.retry(identity))

    def discard(self, identity: int, *, reason: str) -> DeliveryView:
        """Give up on a dead, skipped or held delivery. Never repeated."""
        return self._ask(calls.discard(identity, reason))

    def count_replay(self, **wanted: Unpack[ReplayFilters]) -> ReplayCountView:
        """What a replay would send, in groups."""
        return self._ask(calls.count_replay(wanted))

    def replay(
        self,
        *,
        rate_per_second: float | None = None,
        reason: str = "",
        **wanted: Unpack[ReplayFilters],
    ) -> ReplayView:
        """Have dead letters that fit sent again. Never repeated."""
        call = calls.replay(wanted, rate_per_second=rate_per_second, reason=reason)
        return self._ask(call)

    def show_replay(self, identity: int) -> ReplayView:
        """How far a replay is."""
        return self._ask(calls.show_replay(identity))

    def _ask(self, call: Call[Read]) -> Read:
        tries = Tries(call, self._retrying)
        while True:
            try:
                status, headers, body = self._send(call)
            except ConnectionRefusedError as error:
                tries.failed(error, was_sent=False)
            except (http.client.HTTPException, OSError) as error:
                tries.failed(error, was_sent=True)
            else:
                if (answer := tries.answered(status, headers, body)) is not None:
                    return answer
            time.sleep(tries.wait())

    def _send(self, call: Call[Any]) -> tuple[int, Mapping[str, str], bytes]:
        connection, is_kept = self._connection()
        content = {"Content-Type": "application/json"} if call.body is not None else {}
        headers = {**self._headers, **content, **call.headers}
        try:
            connection.request(call.method, self._prefix + call.path, call.body, headers)
            answer = connection.getresponse()
            body = answer.read()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self._drop(connection)
            if is_kept and call.repeatable:
                # The server had closed a connection that was kept: that is no failure yet.
                return self._send(call)
            raise
        except BaseException:
            self._drop(connection)
            raise
        return answer.status, {n.lower(): v for n, v in answer.getheaders()}, body

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None and kept.sock is not None:
            return kept, True
        make = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=self._timeout)
        connection.connect()
        self._own.connection = connection
        self._open.add(connection)
        return connection, False

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._open.discard(connection)
        self._own.connection = None
