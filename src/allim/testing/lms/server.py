"""What the fake LMSs share: a server on a free port, faults, gates, and a record of calls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from aiohttp import web

from allim.testing.lms.faults import Fault, Gate, Plan, Way, is_asked

END_SECONDS = 1.0
ITEMS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it came: `name` is the path (kvca) or the function (moodle)."""

    name: str
    asked: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server itself answers: plain JSON; an iterator is sent as an array, bit by bit."""

    content: Any
    status: int = 200


class FakeLms(ABC):
    """A server on 127.0.0.1. Its data may be changed at any time, between calls and during."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        self.calls: list[Call] = []
        """Every call, in the order in which they came."""
        self.most_at_once = 0
        """The most calls that stood in the server at the same time."""
        self.port = 0
        self._at_once = 0
        self._plans: list[Plan] = []
        self._gates: list[Gate] = []
        self._runner: web.ServerRunner | None = None
        self._ending = asyncio.Event()
        self._called = asyncio.Condition()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``: the LMS_BASE_URL."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The settings that lead to this server, with all that it asks of a caller."""

    @abstractmethod
    def forget_tokens(self) -> None:
        """Refuse every token given out so far."""

    @abstractmethod
    async def read(self, request: web.BaseRequest) -> tuple[str, dict[str, Any]]:
        """The name and the parameters of a call."""

    @abstractmethod
    def reply(self, call: Call) -> Reply:
        """What the server answers to a call that no fault has taken."""

    def fail(
        self,
        name: str,
        *faults: Fault,
        times: int | None = 1,
        after: int = 0,
        where: Mapping[str, Any] | None = None,
    ) -> None:
        """Spoil the next calls of `name` by these faults, one after the other.

        Each is given `times` times (None: for ever), the first after `after` good answers.
        `where` restricts it to calls with such parameters, as ``{"courseid": 447}``.
        """
        for position, fault in enumerate(faults):
            spare = after if position == 0 else 0
            self._plans.append(Plan(name, fault, times, spare, where or {}))

    def heal(self) -> None:
        """Forget every fault that is still to come, and open every gate."""
        self._plans.clear()
        for gate in self._gates:
            gate.open()
        self._gates.clear()

    def hold(self, name: str, *, where: Mapping[str, Any] | None = None) -> Gate:
        """Hold such calls back until the gate is opened; their answers are made after that."""
        gate = Gate(name, where or {})
        self._gates.append(gate)
        return gate

    def calls_of(self, name: str, **where: Any) -> list[Call]:
        """The calls of `name` with these parameters so far."""
        return [c for c in self.calls if c.name == name and is_asked(c.asked, where)]

    async def called(self, name: str, count: int = 1, **where: Any) -> list[Call]:
        """Wait until that many such calls have come; all of them."""
        async with self._called:
            await self._called.wait_for(lambda: len(self.calls_of(name, **where)) >= count)
        return self.calls_of(name, **where)

    async def start(self) -> None:
        """Listen, on the same port again where it was stopped."""
        self._ending = asyncio.Event()
        self._runner = web.ServerRunner(
            web.Server(self._serve, handler_cancellation=True, access_log=None),
            shutdown_timeout=END_SECONDS,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections from now on, and break those that stand."""
        self._ending.set()
        for gate in self._gates:
            gate.open()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request)
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        name, asked = await self.read(request)
        call = Call(name, asked, dict(request.headers))
        self.calls.append(call)
        async with self._called:
            self._called.notify_all()
        for gate in [g for g in self._gates if g.name == name and is_asked(asked, g.where)]:
            await gate.pass_through()
        fault = next((p.fault for p in self._plans if p.takes(name, asked)), None)
        if fault is None:
            reply = self.reply(call)
            if isinstance(reply.content, Iterator):
                return await _stream(request, reply.content)
            return _json(reply)
        match fault.way:
            case Way.INSTEAD:
                return web.Response(
                    status=fault.code,
                    body=fault.body,
                    headers={"Content-Type": fault.content_type, **fault.headers},
                )
            case Way.HANG:
                await self._ending.wait()
                return web.Response(status=500)
            case Way.HALF:
                content = _bytes(self.reply(call))
                return _response(content[: int(len(content) * fault.share)])
            case Way.CUT:
                return await _cut(request, _bytes(self.reply(call)), fault.share)


async def _stream(request: web.BaseRequest, items: Iterator[Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    before = b"["
    # Whoever has read enough goes away.
    with contextlib.suppress(ConnectionError):
        while some := list(itertools.islice(items, ITEMS_AT_ONCE)):
            await response.write(before + b",".join(map(_json_bytes, some)))
            before = b","
        await response.write(b"]" if before == b"," else b"[]")
    return response


async def _cut(request: web.BaseRequest, content: bytes, share: float) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(content))}
    )
    await response.prepare(request)
    await response.write(content[: int(len(content) * share)])
    if request.transport is not None:
        request.transport.close()
    return response


def _json(reply: Reply) -> web.Response:
    return _response(_bytes(reply), reply.status)


def _response(content: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=content, content_type="application/json")


def _bytes(reply: Reply) -> bytes:
    content = reply.content
    return _json_bytes(list(content) if isinstance(content, Iterator) else content)


def _json_bytes(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
