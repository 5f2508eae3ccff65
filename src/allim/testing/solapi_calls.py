"""What a Solapi of one's own knows: its calls, groups and texts, and how a call goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from allim.testing.http import Answer


class Step(StrEnum):
    """The calls that it knows."""

    CREATE = "create"
    ADD = "add"
    REMOVE = "remove"
    SEND = "send"
    GROUP = "group"
    MESSAGES = "messages"
    DELETE = "delete"
    BALANCE = "balance"


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call goes wrong: what is answered, and whether it was `done` all the same.

    `held` calls are not answered, and done only when `FakeSolapi.release` is called.
    """

    answer: Answer
    done: bool = False
    held: bool = False

    @classmethod
    def hang(cls, *, done: bool = False) -> Fault:
        """No answer, ever."""
        return cls(Answer.hang(), done)

    @classmethod
    def cut(cls, *, done: bool = False) -> Fault:
        """The connection breaks."""
        return cls(Answer.cut(), done)

    @classmethod
    def html(cls, *, done: bool = False) -> Fault:
        """A proxy's page, with 200."""
        return cls(Answer.of(200, "<html>Please wait</html>"), done)

    @classmethod
    def status(
        cls,
        status: int,
        code: str = "InternalError",
        *,
        done: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """An error in Solapi's shape."""
        return cls(error(status, code, "told to fail", headers), done)

    @classmethod
    def late(cls) -> Fault:
        """No answer, and done only when it is released."""
        return cls(Answer.hang(), held=True)


@dataclass(slots=True)
class FakeGroup:
    """A group as it stands; its messages by id."""

    group_id: str
    status: str = "PENDING"
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentText:
    """A message that went out."""

    group_id: str
    message_id: str
    to: str
    key: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SolapiCall:
    """A call that was let in."""

    step: Step
    group_id: str | None
    body: Any


def ok(content: Any) -> Answer:
    """An answer with this content."""
    return Answer.of(200, json.dumps(content), {"Content-Type": "application/json"})


def error(status: int, code: str, words: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in Solapi's shape."""
    body = json.dumps({"errorCode": code, "errorMessage": words})
    return Answer.of(status, body, {"Content-Type": "application/json", **(headers or {})})
