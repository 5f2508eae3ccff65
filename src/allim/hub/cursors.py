"""Cursors: where a page of a listing begins, opaque and safe in URLs."""

from __future__ import annotations

from uuid import UUID

from allim.base import base64url
from allim.base.errors import FieldProblem, InvalidRequest
from allim.hub.model import MAX_BIGINT


class InvalidCursor(InvalidRequest):
    """A cursor that no page gave."""

    status = 400

    def __init__(self) -> None:
        super().__init__(
            [FieldProblem("cursor", "invalid_cursor", "is not one that a page gave as `next`")],
            code="invalid_cursor",
        )


def notification_cursor(identity: UUID) -> str:
    """The cursor of the notifications older than this one."""
    return base64url.encoded(b"n" + identity.bytes)


def read_notification_cursor(cursor: str) -> UUID:
    """The notification that a cursor stands for; raises InvalidCursor."""
    raw = _decoded(cursor)
    if len(raw) != 17 or raw[:1] != b"n":
        raise InvalidCursor
    return UUID(bytes=raw[1:])


def delivery_cursor(identity: int) -> str:
    """The cursor of the deliveries with smaller ids than this one's."""
    return numbered_cursor(b"d", identity)


def read_delivery_cursor(cursor: str) -> int:
    """The delivery that a cursor stands for; raises InvalidCursor."""
    return read_numbered_cursor(b"d", cursor)


def numbered_cursor(kind: bytes, identity: int) -> str:
    """The cursor of what has smaller ids than this; `kind` is one letter, unlike any other's."""
    return base64url.encoded(kind + identity.to_bytes(8, "big"))


def read_numbered_cursor(kind: bytes, cursor: str) -> int:
    """The id that a cursor of this kind stands for; raises InvalidCursor."""
    raw = _decoded(cursor)
    identity = int.from_bytes(raw[1:], "big")
    if len(raw) != 9 or raw[:1] != kind or identity > MAX_BIGINT:
        raise InvalidCursor
    return identity


def _decoded(cursor: str) -> bytes:
    try:
        return base64url.decoded(cursor)
    except ValueError:
        raise InvalidCursor from None
