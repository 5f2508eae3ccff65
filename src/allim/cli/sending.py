"""`allim send`."""

from __future__ import annotations


def send() -> None:
    """Post one notification."""
