"""`allim doctor`."""

from __future__ import annotations


def doctor() -> None:
    """Check every configured connection and say what is wrong and what to do."""
