"""Moments, as operators read and type them."""

from __future__ import annotations

from datetime import datetime

from allim.base.clock import KST
from allim.base.errors import ConfigurationError


def when(moment: datetime | None) -> str:
    """A moment in Korea's time, with its offset, so that it can be typed again."""
    return "-" if moment is None else moment.astimezone(KST).isoformat(timespec="seconds")


def typed(text: str | None) -> datetime | None:
    """A moment that somebody typed. Raises ConfigurationError without its offset from UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no time, as in 2026-01-31T09:00+09:00") from None
    if moment.tzinfo is None:
        at = text if len(text) > len("2026-01-31") else f"{text}T00:00"
        raise ConfigurationError(f"{text!r} needs its offset from UTC, as in {at}+09:00")
    return moment
