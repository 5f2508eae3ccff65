"""When a call is tried again, and how long after."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from allim.client.calls import Call
from allim.client.errors import Unreachable, api_error

Read = TypeVar("Read")

WORTH_RETRYING = frozenset({429, 502, 503, 504})
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Retrying:
    """At most `attempts` tries; waits double from `base` to `maximum` seconds.

    A server's Retry-After counts where it asks for more, up to a minute.
    """

    attempts: int = 4
    base: float = 0.2
    maximum: float = 5.0
    jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2)  # noqa: S311

    def wait(self, tried: int, headers: Mapping[str, str]) -> float:
        """Seconds before the next try, after `tried` that failed."""
        own = min(self.base * float(2 ** (tried - 1)), self.maximum) * self.jitter()
        asked = headers.get("retry-after", "")
        return max(own, min(float(asked[:9]), LONGEST_WAIT)) if asked.isdigit() else own


class Tries(Generic[Read]):
    """The tries of one call: after each, whether that was the last, and how long to wait.

    Only what is repeatable is tried again once it may have been sent.
    """

    def __init__(self, call: Call[Read], retrying: Retrying) -> None:
        self._call = call
        self._retrying = retrying
        self._tried = 0
        self._headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> Read | None:
        """What came of a try that was answered; None: it is to be tried again.

        Raises ApiError for an error that stays, and Unreachable where the tries are spent on
        answers that are none of Allim's.
        """
        self._tried += 1
        self._headers = headers
        if status in WORTH_RETRYING and self._may_go_on(was_sent=True):
            return None
        if status >= 400:
            raise api_error(status, body)
        try:
            return self._call.read(body, headers)
        except ValidationError:
            # Cut short, or from somebody between us and Allim.
            self._go_on(f"answered {status} with what cannot be read", was_sent=True)
            return None

    def failed(self, error: Exception, *, was_sent: bool) -> None:
        """A try had no answer. Raises Unreachable where it was the last."""
        self._tried += 1
        self._headers = {}
        self._go_on(str(error) or type(error).__name__, was_sent=was_sent)

    def wait(self) -> float:
        """Seconds before the next try."""
        return self._retrying.wait(self._tried, self._headers)

    def _go_on(self, failure: str, *, was_sent: bool) -> None:
        if not self._may_go_on(was_sent=was_sent):
            call = self._call
            raise Unreachable(f"{call.method} {call.path}: {failure}, tried {self._tried} times")

    def _may_go_on(self, *, was_sent: bool) -> bool:
        return self._tried < self._retrying.attempts and (self._call.repeatable or not was_sent)
