"""Recipients as people are shown them: whoever knows an address may post there, so it is cut."""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SUBSCRIPTION = re.compile(r"\{.*\"endpoint\".*\}", re.DOTALL)


def shown(recipient: object) -> str:
    """The recipient; of an address only its scheme and host, and a hash to tell it by.

    Paths, queries and users of addresses hold tokens (Slack's, Teams' and Discord's webhooks are
    nothing else), and a push subscription holds keys.
    """
    if recipient is None:
        return ""
    recipient = str(recipient)
    if _SUBSCRIPTION.fullmatch(recipient.strip()):
        found = _URL.search(recipient)
        return f"{_bare(found[0]) if found else ''} #{_hash(recipient)}".strip()
    return _URL.sub(lambda found: _bare(found[0]) + _mark(found[0]), recipient)


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}"
    except ValueError:
        return "://"


def _mark(url: str) -> str:
    return "" if url.rstrip("/") == _bare(url) else f"/… #{_hash(url)}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
