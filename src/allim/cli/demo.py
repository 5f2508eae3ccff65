"""`allim demo`."""

from __future__ import annotations


def demo() -> None:
    """Start everything, run three scenarios, and tell what happened."""
