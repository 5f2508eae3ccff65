"""The words of an LmsError.

They go to `run_log.error_message`, where the operators' SQL groups runs by
``% 409 %``, ``% 5__ %``, ``%timeout%`` and ``%job_lock active%``. So no text has a number
between blanks but an HTTP status right after ``upstream HTTP``, none but a timeout's says
"timeout", and what an LMS sent is never quoted.
"""

from __future__ import annotations

from allim.enrolment.lms.protocol import FailureGroup, LmsError

_NEEDS_A_SETTING = frozenset({401, 403})


class UpstreamError(LmsError):
    """An answer with an HTTP status that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(_group_of(status), message)
        self.status = status


class Unauthorized(UpstreamError):
    """401: the login or the token is not, or no longer, good."""


def upstream_http(status: int, place: str, hint: str = "") -> UpstreamError:
    """An answer with an HTTP status that is no success; `place` is what was called."""
    text = f"upstream HTTP {status} from {place}" + (f": {hint}" if hint else "")
    return (Unauthorized if status == 401 else UpstreamError)(status, text)


def timed_out(place: str) -> LmsError:
    """No answer, or no more of it, in time."""
    return LmsError(FailureGroup.TIMEOUT, f"timeout: no answer from {place} in time")


def not_connected(place: str, reason: str) -> LmsError:
    """The LMS could not be reached at all."""
    return LmsError(FailureGroup.OTHER, f"could not connect to the LMS ({place}): {reason}")


def connection_lost(place: str) -> LmsError:
    """The connection broke before the answer was whole."""
    return LmsError(FailureGroup.OTHER, f"the connection broke while {place} answered")


def run_has_ended(place: str) -> LmsError:
    """A call that was still to be made when its run ended."""
    return LmsError(FailureGroup.OTHER, f"the run ended before {place} was asked")


def unreadable(place: str, reason: str) -> LmsError:
    """An answer that is not what it should be."""
    return LmsError(FailureGroup.OTHER, f"unreadable answer from {place}: {reason}")


def misconfigured(sentence: str) -> LmsError:
    """Somebody must change a setting, or a right in the LMS."""
    return LmsError(FailureGroup.CONFIGURATION, sentence)


def unknown_category(category_id: int) -> LmsError:
    """The LMS has no such category."""
    return misconfigured(
        f'unknown category "{category_id}": the LMS does not list it for this account'
    )


def _group_of(status: int) -> FailureGroup:
    if status == 409:
        return FailureGroup.HTTP_409
    if 500 <= status < 600:
        return FailureGroup.HTTP_5XX
    if status in _NEEDS_A_SETTING or 300 <= status < 400:
        return FailureGroup.CONFIGURATION
    return FailureGroup.HTTP_4XX if 400 <= status < 500 else FailureGroup.OTHER
