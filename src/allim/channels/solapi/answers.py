"""What stands in Solapi's answers, in whichever of its shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DELIVERY_KEY = "deliveryKey"
"""The custom field that tells a message's delivery."""


class GroupStatus(StrEnum):
    """How a group stands."""

    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    SENDING = "SENDING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class SolapiMessage:
    """What Solapi says of one message; `code` is its status code, as text."""

    message_id: str | None
    to: str | None
    code: str
    words: str | None
    delivery_key: str | None
    group_id: str | None = None


def read_registration(answer: Mapping[str, Any]) -> Sequence[SolapiMessage]:
    """Of each message that an «add» tells of, what became of it.

    `{"resultList": […]}`, or the one-shot call's shape: `{"failedMessageList": […],
    "groupInfo": …, "messageList": …}`, which names those that failed.
    """
    return [
        *_read_all(answer.get("resultList")),
        *_read_all(answer.get("messageList")),
        *_read_all(answer.get("failedMessageList")),
    ]


def read_messages(answer: Mapping[str, Any]) -> tuple[Sequence[SolapiMessage] | None, str | None]:
    """A page of a group's messages, and the key of the next one; None where there is no list."""
    listed = answer.get("messageList")
    if not isinstance(listed, Mapping | list):
        return None, None
    following = answer.get("nextKey")
    return _read_all(listed), following if isinstance(following, str) and following else None


def read_message(item: object) -> SolapiMessage | None:
    """One message, as lists and reports hold it; None where it says nothing of use."""
    if not isinstance(item, Mapping):
        return None
    code = item.get("statusCode")
    if isinstance(code, int):
        code = str(code)
    if not isinstance(code, str):
        return None
    custom = item.get("customFields")
    return SolapiMessage(
        message_id=_text(item.get("messageId")),
        to=_text(item.get("to")),
        code=code[:20],
        words=_text(item.get("statusMessage")) or _text(item.get("reason")),
        delivery_key=_text(custom.get(DELIVERY_KEY)) if isinstance(custom, Mapping) else None,
        group_id=_text(item.get("groupId")),
    )


def _read_all(listed: object) -> list[SolapiMessage]:
    items: Iterable[object] = ()
    if isinstance(listed, Mapping):
        items = [
            {"messageId": name, **item} for name, item in listed.items() if isinstance(item, dict)
        ]
    elif isinstance(listed, list):
        items = listed
    return [message for item in items if (message := read_message(item)) is not None]


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None
