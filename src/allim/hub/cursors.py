"""Cursors: where a page of a listing begins, opaque and safe in URLs."""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

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
    return _encode(b"n" + identity.bytes)


def read_notification_cursor(cursor: str) -> UUID:
    """The notification that a cursor stands for; raises InvalidCursor."""
    raw = _decode(cursor)
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
    return _encode(kind + identity.to_bytes(8, "big"))


def read_numbered_cursor(kind: bytes, cursor: str) -> int:
    """The id that a cursor of this kind stands for; raises InvalidCursor."""
    raw = _decode(cursor)
    identity = int.from_bytes(raw[1:], "big")
    if len(raw) != 9 or raw[:1] != kind or identity > MAX_BIGINT:
        raise InvalidCursor
    return identity


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(cursor: str) -> bytes:
    try:
        text = cursor.encode("ascii")
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise InvalidCursor from None
