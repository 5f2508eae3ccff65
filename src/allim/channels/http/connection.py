"""One HTTP/1.1 connection: one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from allim.channels.http import failure
from allim.channels.http.answer import AnswerReader, NotHttp, Reply
from allim.channels.http.failure import HttpFailure
from allim.channels.http.target import Place

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than servers do (Node.js and Apache 5), so that no
request meets a connection that the server is just closing."""


class Connection(asyncio.Protocol):
    """A connection to one place, and the exchange that is under way on it.

    `ready` is called when a request waits for `send`, `idle` whenever another one can be taken,
    `ended` once none can any more.
    """

    def __init__(
        self,
        place: Place,
        *,
        ready: Callable[[Connection], None],
        idle: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self.place = place
        self._ready = ready
        self._idle = idle
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._unsent = b""
        self._due = 0.0
        """When the exchange under way, or else the wait for another one, is over."""
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent: it stands, and has not been idle for too long."""
        transport = self._transport
        return (
            transport is not None and not transport.is_closing() and self._loop.time() < self._due
        )

    async def exchange(
        self, request: bytes, *, timeout: float, limit: int, is_file: bool = False
    ) -> Reply:
        """Send a request, and wait `timeout` seconds for all of its answer.

        `limit` and `is_file`: see `AnswerReader.expect`. Raises HttpFailure where not even the
        head of an answer came; always an ambiguous one.
        """
        if self._transport is None:
            raise failure.connection_lost()
        self._reader.expect(limit, is_file=is_file)
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiter = waiter
        self._due = self._loop.time() + timeout
        if self._timer is None or self._fires_at > self._due:
            self._set_timer()
        self._unsent = request
        self._ready(self)
        try:
            return await waiter
        except BaseException:
            # Where the answer came first, the connection may be another request's by now.
            if self._waiter is waiter:
                self._waiter = None
                self.abort()
            raise

    def send(self) -> None:
        """Send the request that waits for it, unless it has been given up."""
        request, self._unsent = self._unsent, b""
        if request and self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """End it in good order; only an idle one."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once, and the exchange under way with it."""
        self._break_off(failure.connection_lost())

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        # Not before: TLS may have taken its time.
        self._due = self._loop.time() + KEEP_ALIVE

    def data_received(self, data: bytes) -> None:
        """Read on; what comes unasked would be taken for the next answer, so it ends here."""
        if self._waiter is None or self._unsent:
            self.abort()
            return
        reader = self._reader
        try:
            reader.feed(data)
        except NotHttp:
            self._break_off(failure.bad_answer())
            return
        if reader.is_whole or reader.has_enough:
            self._finish(complete=True)

    def eof_received(self) -> None:
        """The server says no more: what of the request has not left yet need not leave any more."""
        self._end_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        if exc is None:
            self._end_answer()
        else:
            self.abort()
        self._ended(self)

    def _end_answer(self) -> None:
        """No more will come, which may be how the answer ends."""
        if self._waiter is None:
            return
        self._reader.end()
        if self._reader.is_whole:
            self._finish(complete=True)
        else:
            self.abort()

    def _finish(self, *, complete: bool) -> None:
        """Hand over what there is, and see whether another request may follow."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(self._reader.reply(complete=complete))
        transport = self._transport
        if transport is None:
            return
        # What was answered before all of the request had left has to end with the answer.
        has_left = not self._unsent and not transport.get_write_buffer_size()
        if self._reader.may_go_on and has_left:
            self._due = self._loop.time() + KEEP_ALIVE
            self._idle(self)
        else:
            self._unsent = b""
            transport.abort()

    def _break_off(self, problem: HttpFailure) -> None:
        """End it now: where the head of an answer is there, that is one all the same."""
        if self._waiter is not None and self._reader.has_head:
            self._finish(complete=False)
            return
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(problem)
        self._unsent = b""
        if self._transport is not None:
            self._transport.abort()

    # One timer for all exchanges: it is set again when it fires, not with each of them.

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Kept apart: what uvloop gives for a time that has come has no `when()`.
        self._fires_at = min(self._due, self._loop.time() + KEEP_ALIVE)
        self._timer = self._loop.call_at(self._fires_at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._set_timer()
        elif self._waiter is not None:
            self._break_off(failure.timed_out())
        else:
            self.close()
