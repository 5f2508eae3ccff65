"""Request bodies: read up to a limit and no further, and only where they are JSON."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from allim.web.problems import Refused

BODY_LIMIT = 256 * 1024
"""Bytes of a request body, unless a route says otherwise."""


def too_large(limit: int) -> Refused:
    """The refusal of a body that is larger than `limit` bytes."""
    return Refused(413, "body_too_large", f"the body is larger than {limit} bytes")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a name (in lower case)."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, value in headers:
        if key == name:
            return value
    return None


def check_declared_size(scope: Scope, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)


def check_json(scope: Scope) -> None:
    """Refuse a body that does not say that it is JSON.

    A browser sends anything else across sites without asking first.
    """
    content_type = (header(scope, b"content-type") or b"").split(b";", 1)[0].strip().lower()
    if content_type == b"application/json" or (
        content_type.startswith(b"application/") and content_type.endswith(b"+json")
    ):
        return
    raise Refused(415, "not_json", "the body must be sent as application/json")


async def only_json(request: Request) -> None:
    """A FastAPI dependency: refuse a body that does not say that it is JSON.

    No body at all passes: what it lacks is said by whoever reads it.
    """
    headers = request.headers
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        check_json(request.scope)


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """A whole JSON body; its size is the middleware's business.

    Raises Refused (415) and, when the client went away, ClientDisconnect.
    """
    check_json(scope)
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return body
