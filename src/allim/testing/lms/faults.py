"""What a fake LMS can do instead of answering as it should."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

LOGIN_PAGE = "<!DOCTYPE html><html><head><title>로그인</title></head><body>login</body></html>"
MAINTENANCE_PAGE = "<!DOCTYPE html><html><body><h1>점검 중입니다</h1></body></html>"


class Way(Enum):
    """How the answer is spoilt."""

    INSTEAD = "instead"
    """Another answer is given."""
    HANG = "hang"
    """No answer, until the caller goes away."""
    CUT = "cut"
    """A part of the true answer, then the connection breaks."""
    HALF = "half"
    """A part of the true answer, as if that were all of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One spoilt answer; made by the class methods."""

    way: Way
    code: int = 200
    body: bytes = b""
    content_type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    share: float = 0.5

    @classmethod
    def status(cls, code: int, body: str = "", *, retry_after: float | str | None = None) -> Self:
        """This HTTP status; `retry_after` is seconds or a date for its Retry-After."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(Way.INSTEAD, code, body.encode(), headers=headers)

    @classmethod
    def maintenance(cls) -> Self:
        """503 with a page for people, as servers under maintenance answer."""
        return cls(Way.INSTEAD, 503, MAINTENANCE_PAGE.encode())

    @classmethod
    def page(cls) -> Self:
        """200 with a login page in HTML."""
        return cls(Way.INSTEAD, 200, LOGIN_PAGE.encode())

    @classmethod
    def answer(cls, body: str | bytes, *, code: int = 200) -> Self:
        """This body, said to be JSON whatever it is."""
        content = body.encode() if isinstance(body, str) else body
        return cls(Way.INSTEAD, code, content, content_type="application/json")

    @classmethod
    def redirect(cls, to: str) -> Self:
        """302 to another address."""
        return cls(Way.INSTEAD, 302, headers={"Location": to})

    @classmethod
    def hang(cls) -> Self:
        """No answer at all, until the caller goes away."""
        return cls(Way.HANG)

    @classmethod
    def cut(cls, share: float = 0.5) -> Self:
        """This share of the true answer, then the connection breaks."""
        return cls(Way.CUT, share=share)

    @classmethod
    def half(cls, share: float = 0.5) -> Self:
        """This share of the true answer's bytes, as if that were all of it."""
        return cls(Way.HALF, share=share)


@dataclass(eq=False, slots=True)
class Plan:
    """A fault and the calls that it is for."""

    name: str
    fault: Fault
    left: int | None
    spare: int
    where: Mapping[str, Any]

    def takes(self, name: str, asked: Mapping[str, Any]) -> bool:
        """Whether this call gets the fault; counts it."""
        if name != self.name or not is_asked(asked, self.where) or self.left == 0:
            return False
        if self.spare:
            self.spare -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass(eq=False, slots=True)
class Gate:
    """Holds calls back until it is opened; `await gate.reached()` waits for the first."""

    name: str
    where: Mapping[str, Any]
    waiting: int = 0
    """How many calls stand before it, or have passed it."""
    _opened: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reached(self, count: int = 1) -> None:
        """Wait until that many calls have come to it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting >= count)

    def open(self) -> None:
        """Let every call through, those to come too."""
        self._opened.set()

    async def pass_through(self) -> None:
        """What a call does that comes to it."""
        async with self._changed:
            self.waiting += 1
            self._changed.notify_all()
        await self._opened.wait()


def is_asked(asked: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a call's parameters are these; numbers and their digits are the same."""
    return all(str(asked.get(name)) == str(value) for name, value in where.items())
