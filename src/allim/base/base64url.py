"""Bytes in letters that URLs, headers and file names may hold (RFC 4648 section 5), unpadded."""

from __future__ import annotations

import base64


def encoded(content: bytes) -> str:
    """The bytes as letters, digits, ``-`` and ``_``."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes of such a text. Raises ValueError for any other."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
