"""From an HTTP answer, or the lack of one, to an outcome: what all HTTP channels share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from allim.channels.channel import HttpAnswer
from allim.channels.http import HttpFailure
from allim.relay.outcomes import Outcome

NEVER_WORKS = frozenset({"invalid_url", "blocked_address"})
WORTH_RETRYING = frozenset({408, 425, 429})


def outcome_of_failure(failure: HttpFailure, *, at_most_once: bool) -> Outcome:
    """What a call without an answer means.

    One that may have arrived is UNKNOWN where it must not be sent twice; else a retry.
    """
    if failure.code in NEVER_WORKS:
        return Outcome.refused(failure.code, str(failure))
    if failure.ambiguous and at_most_once:
        return Outcome.unknown(failure.code, str(failure))
    return Outcome.retry(failure.code, str(failure))


def retry_of_answer(answer: HttpAnswer) -> Outcome:
    """A retry after an answer that asks for one, as late as its Retry-After says."""
    code = "rate_limited" if answer.status == 429 else f"http_{answer.status}"
    return Outcome.retry(
        code,
        f"answered {answer.status}",
        http_status=answer.status,
        response=answer.body,
        retry_after=retry_after(answer.headers),
    )


def is_worth_retrying(status: int) -> bool:
    """Whether a status says «later»: 408, 425, 429 and 5xx."""
    return status >= 500 or status in WORTH_RETRYING


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date (RFC 9110)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        # Which of them depends on the Python version and on how odd the date is.
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)
