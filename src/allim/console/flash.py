"""One message carried over a redirect, in a cookie that is read once."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import StrEnum

COOKIE = "allim_flash"
_LONGEST = 500


class Mood(StrEnum):
    """How a message looks."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Flash:
    """What happened, in words. It is text, wherever it came from."""

    text: str
    mood: Mood = Mood.GOOD

    def to_cookie(self) -> str:
        """Letters that a cookie may hold."""
        return base64.urlsafe_b64encode(
            json.dumps([self.mood, self.text[:_LONGEST]]).encode()
        ).decode()

    @classmethod
    def from_cookie(cls, cookie: str | None) -> Flash | None:
        """None for what is none."""
        if not cookie or len(cookie) > 4096:
            return None
        try:
            mood, text = json.loads(base64.b64decode(cookie, altchars=b"-_", validate=True))
            return cls(str(text)[:_LONGEST], Mood(mood))
        except (ValueError, TypeError, RecursionError, binascii.Error):
            return None
