"""The library `apprise` (the extra of that name): one call, and what it said about it.

Nothing here is imported before the first call: the library takes a second to load.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

LIBRARY = "apprise"
SAID_LIMIT = 500
SHORTEST_SECRET = 3

_PARTS = re.compile(r"[/:@?&=,+\s]+")


class BadAppriseUrl(Exception):
    """The library cannot make a service of a URL; the text says why, without the URL."""


class OutOfTime(Exception):
    """Nobody waits for the call any more, so its next request is not made."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said; `kind` and `form` are the library's notify_type and body_format."""

    title: str
    body: str
    kind: str = "info"
    form: str = "text"


@dataclass(frozen=True, slots=True)
class Notified:
    """Whether the library says that it worked, and what it logged, without the URL's secrets."""

    ok: bool
    said: str


def is_installed() -> bool:
    """Whether the extra is there; imports nothing."""
    return find_spec(LIBRARY) is not None


def notify(url: str, note: Note, *, ends: float) -> Notified:
    """Send a note, blocking. Raises BadAppriseUrl, and whatever a service of the library raises.

    After `ends` (of `time.monotonic`) no request is begun any more, and one that was begun waits
    no longer than until then: whoever waited for this call has gone, and may have tried again.
    """
    library = _library()
    with _listening() as lines:
        service = _service(library, url, lines)
        _bound(service, ends)
        sender = library.Apprise(asset=service.asset)
        sender.add(service)
        ok = sender.notify(
            body=note.body, title=note.title, notify_type=note.kind, body_format=note.form
        )
    return Notified(bool(ok), _told(lines, url))


def check_url(url: str) -> None:
    """Raise BadAppriseUrl for what the library makes no service of; blocking, calls nobody."""
    library = _library()
    with _listening() as lines:
        _service(library, url, lines)


@lru_cache(maxsize=1)
def _library() -> Any:
    library = import_module(LIBRARY)
    # Its DEBUG lines hold messages and URLs, those of urllib3 paths: neither belongs into a log.
    logger = logging.getLogger(LIBRARY)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return library


def _service(library: Any, url: str, lines: list[str]) -> Any:
    kind = library.AppriseAsset
    # In the thread that calls it: threads of the library's own would outlive a stop.
    inline = {"service_timeout": 0} if hasattr(kind, "_service_timeout") else {}
    asset = kind(app_id="Allim", app_desc="Allim", async_mode=False, secure_logging=True, **inline)
    try:
        service = library.Apprise.instantiate(url, asset=asset, suppress_exceptions=False)
    except TypeError as error:
        raise BadAppriseUrl(_masked(str(error), url) or "is refused by its service") from None
    if service is None:
        raise BadAppriseUrl(_told(lines, url) or "is of no service that apprise knows")
    return service


def _bound(service: Any, ends: float) -> None:
    """Stop a service at `ends`: the library's services call `throttle` before every request."""
    throttle = service.throttle
    connect, read = service.socket_connect_timeout, service.socket_read_timeout

    def throttle_in_time(*arguments: Any, **named: Any) -> None:
        throttle(*arguments, **named)
        left = ends - time.monotonic()
        if left <= 0:
            raise OutOfTime
        service.socket_connect_timeout = min(connect, left / 2)
        service.socket_read_timeout = min(read, left / 2)

    service.throttle = throttle_in_time


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the library logs in this thread meanwhile, from WARNING on."""
    heard = _Heard()
    logger = logging.getLogger(LIBRARY)
    logger.addHandler(heard)
    try:
        yield heard.lines
    finally:
        logger.removeHandler(heard)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of this thread."""
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


def _told(lines: list[str], url: str) -> str:
    return _masked(" ".join(dict.fromkeys(lines)), url)


def _masked(text: str, url: str) -> str:
    """The text without any part of the URL behind its scheme: each may be a token."""
    text = text.replace(url, "[url]")
    parts = {part for each in (url, unquote(url)) for part in _PARTS.split(each)[1:]}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= SHORTEST_SECRET:
            # Services write hosts in lower case, which for some is the token.
            text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return " ".join(text.split())[:SAID_LIMIT]
