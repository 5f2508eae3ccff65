"""What became of one attempt, as the sender saw it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RESPONSE_LIMIT = 16 * 1024
"""Characters of a provider's answer that are kept with the attempt."""


class OutcomeKind(StrEnum):
    """The kinds of outcome; what each leads to is decided in `settlement.decide`."""

    DELIVERED = "DELIVERED"
    ACCEPTED = "ACCEPTED"
    RETRY = "RETRY"
    REFUSED = "REFUSED"
    SNOOZED = "SNOOZED"
    SKIPPED = "SKIPPED"
    FAULT = "FAULT"
    UNKNOWN = "UNKNOWN"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt.

    `code` is a stable word for programs (``rate_limited``, ``http_500``), `detail` a
    sentence for people. `retry_after` is in seconds, counted from now: the provider's own
    wish for a retry, or how long to snooze. `disable_target` says that the target
    itself is gone (HTTP 410) and no further call to it makes sense. `interrupted` says that it
    was us who cut the call short.
    """

    kind: OutcomeKind
    code: str | None = None
    detail: str | None = None
    http_status: int | None = None
    response: str | None = None
    provider_id: str | None = None
    provider_message_id: str | None = None
    retry_after: float | None = None
    disable_target: bool = False
    interrupted: bool = False

    @classmethod
    def delivered(cls, code: str | None = None, **more: Any) -> Outcome:
        """It arrived. `code` notes a success without a call (``mock``, ``not_configured``)."""
        return cls(OutcomeKind.DELIVERED, code, **more)

    @classmethod
    def accepted(cls, **more: Any) -> Outcome:
        """The provider took it; whether it arrived will be told by a receipt."""
        return cls(OutcomeKind.ACCEPTED, **more)

    @classmethod
    def retry(cls, code: str, detail: str | None = None, **more: Any) -> Outcome:
        """The other side failed and may work later; spends one of the retries."""
        return cls(OutcomeKind.RETRY, code, detail, **more)

    @classmethod
    def refused(cls, code: str, detail: str | None = None, **more: Any) -> Outcome:
        """It will never work as it is: a dead letter."""
        return cls(OutcomeKind.REFUSED, code, detail, **more)

    @classmethod
    def snooze(cls, code: str, seconds: float, detail: str | None = None) -> Outcome:
        """Not now: no call was made and nothing is spent."""
        return cls(OutcomeKind.SNOOZED, code, detail, retry_after=seconds)

    @classmethod
    def skip(cls, code: str, detail: str | None = None) -> Outcome:
        """It must not be sent any more; no call was made."""
        return cls(OutcomeKind.SKIPPED, code, detail)

    @classmethod
    def fault(cls, code: str, detail: str | None = None) -> Outcome:
        """Our own fault (a bug, our database gone): tried again, nothing is spent."""
        return cls(OutcomeKind.FAULT, code, detail)

    @classmethod
    def unknown(cls, code: str, detail: str | None = None) -> Outcome:
        """The other side broke off or hung, and nobody can say whether it arrived.

        Spends a retry like any failure of the other side; held for an operator where the lane
        is at-most-once.
        """
        return cls(OutcomeKind.UNKNOWN, code, detail)

    @classmethod
    def cut_short(cls, code: str, detail: str | None = None) -> Outcome:
        """We broke off the call (a stop, a crash), and nobody can say whether it arrived.

        Tried again and nothing is spent; held where the lane is at-most-once.
        """
        return cls(OutcomeKind.UNKNOWN, code, detail, interrupted=True)

    @classmethod
    def released(cls) -> Outcome:
        """Given back before any call, because this relay is stopping."""
        return cls(OutcomeKind.RELEASED, "released")
