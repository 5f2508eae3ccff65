"""From an HTTP answer, or the lack of one, to an outcome: what all HTTP channels share."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic_core import from_json

from allim.channels.channel import HttpAnswer
from allim.channels.http.failure import HttpFailure
from allim.relay.outcomes import Outcome

NEVER_WORKS = frozenset({"invalid_url", "blocked_address"})
SUCCESS = range(200, 300)
REDIRECT = range(300, 400)
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


def outcome_of_answer(
    answer: HttpAnswer,
    *,
    by: str = "",
    code: str | None = None,
    reason: str = "",
    success: Container[int] = SUCCESS,
    retried: Container[int] = (),
    gone: Container[int] = (),
) -> Outcome:
    """What an answer means where its status tells all: the one table for every HTTP channel.

    A status in `success` is that; 408, 425, 429, 5xx and those in `retried` are tried again; all
    else is refused, redirects too. A status in `gone` says that the target itself is no more.
    `by` (who answered), `code` and `reason` are the provider's own words for a refusal.
    """
    status = answer.status
    if status in success:
        return Outcome.delivered(http_status=status, response=answer.body)
    if status not in gone and (is_worth_retrying(status) or status in retried):
        return retry_of_answer(answer)
    said = "with a redirect, which is not followed" if status in REDIRECT else f"{status} {reason}"
    return Outcome.refused(
        code or f"http_{status}",
        f"{by} answered {said}".strip(),
        http_status=status,
        response=answer.body,
        disable_target=status in gone,
    )


def bad_answer(answer: HttpAnswer, sentence: str, *, at_most_once: bool) -> Outcome:
    """What a success means that the provider did not speak (a proxy's page, say).

    It is tried again: a message twice is better than none, unless nothing may go out twice.
    """
    if at_most_once:
        return Outcome.unknown("bad_answer", sentence)
    return Outcome.retry("bad_answer", sentence, http_status=answer.status, response=answer.body)


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


def json_object(body: str) -> dict[str, Any] | None:
    """The JSON object that the body of an answer is; None where it is none, or was cut off."""
    try:
        said = from_json(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


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
