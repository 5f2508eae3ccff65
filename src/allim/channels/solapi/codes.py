"""What Solapi's message codes mean for a delivery.

1xxx say that a message was not taken, 2xxx that it was not passed on, 3xxx what the carrier or
Kakao reported; 2000 and 3000 are on their way, 4000 has arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from allim.channels.korean_sms import seconds_until_eight
from allim.relay.outcomes import Outcome

PREFIX = "solapi_"
"""Before a message code, as the code of an outcome: `solapi_3054`."""
LATER_SECONDS = 600.0
BALANCE_SECONDS = 300.0


class Verdict(StrEnum):
    """The kinds of codes."""

    DELIVERED = "delivered"
    ON_ITS_WAY = "on_its_way"
    UNCERTAIN = "uncertain"
    """Nobody knows: wait for another word, start no fallback."""
    RETRY = "retry"
    LATER = "later"
    """The handset is off, full or out of reach: worth another try in a while."""
    IN_THE_MORNING = "in_the_morning"
    NO_BALANCE = "no_balance"
    """Our account at Solapi is empty: everything pauses, and an operator must know."""
    BAD_SENDER = "bad_sender"
    """The sender's number is not registered: an operator must know."""
    SUPPRESS = "suppress"
    """The number wants or can take nothing more, ever."""
    NOT_ON_KAKAO = "not_on_kakao"
    BAD_TEMPLATE = "bad_template"
    """Channel, template or its text is wrong: an operator must know."""
    PERMANENT = "permanent"


ALARMING = frozenset({Verdict.NO_BALANCE, Verdict.BAD_SENDER, Verdict.BAD_TEMPLATE})
AGAIN = frozenset({Verdict.RETRY, Verdict.LATER, Verdict.IN_THE_MORNING, Verdict.NO_BALANCE})
"""It did not arrive, and is worth another try."""
NOT_YET = frozenset({Verdict.ON_ITS_WAY, Verdict.UNCERTAIN})


def _table(*entries: tuple[Verdict, Iterable[int]]) -> dict[str, Verdict]:
    return {str(code): verdict for verdict, codes in entries for code in codes}


TEXTS = _table(
    (Verdict.DELIVERED, [4000]),
    (Verdict.ON_ITS_WAY, [2000, 3000]),
    (Verdict.RETRY, [1024, 2024, 3012, 3024, 3053]),
    (Verdict.LATER, [*range(3040, 3047), 3056, 3057]),
    (Verdict.PERMANENT, [*range(1010, 1020), *range(1025, 1030), *range(1031, 1035)]),
    (Verdict.PERMANENT, [*range(1040, 1060), 3010, 3032, 3047, 3050]),
    (Verdict.NO_BALANCE, [1030, 2230]),
    (Verdict.BAD_SENDER, [1062, 2062, 3013, 3059]),
    (Verdict.SUPPRESS, [1060, 1061, 1064, 2060, 2061, 2064, 3060, 3061, 3064, 3054, 3055]),
)
ALIMTALK = TEXTS | _table(
    (Verdict.NOT_ON_KAKAO, [3104, 3107]),
    (Verdict.BAD_TEMPLATE, [3101, 3103, 3105, 3106]),
    (Verdict.IN_THE_MORNING, [3108]),
    (Verdict.UNCERTAIN, [3005]),
)


def verdict_of(code: str) -> Verdict:
    """What a message code means; an unknown one that names a failure is permanent.

    The codes of Alimtalk are no text's, so one table serves both.
    """
    return ALIMTALK.get(code, Verdict.PERMANENT)


def suppresses(outcome_code: str | None) -> bool:
    """Whether an outcome's code (`solapi_3054`) says that the number must not be tried again."""
    code = (outcome_code or "").removeprefix(PREFIX)
    return outcome_code != code and ALIMTALK.get(code) is Verdict.SUPPRESS


def retry_delay(verdict: Verdict, now: datetime) -> float | None:
    """Seconds after which another try makes sense; None where the usual back-off will do."""
    if verdict is Verdict.LATER:
        return LATER_SECONDS
    if verdict is Verdict.NO_BALANCE:
        return BALANCE_SECONDS
    if verdict is Verdict.IN_THE_MORNING:
        return seconds_until_eight(now)
    return None


def outcome_of(code: str, words: str | None, now: datetime, **more: str | None) -> Outcome:
    """The outcome of a message of which Solapi says `code`; `more` are fields of Outcome."""
    verdict = verdict_of(code)
    name = f"{PREFIX}{code}"
    detail = f"Solapi says {code}" + (f": {words[:200]}" if words else "")
    if verdict is Verdict.DELIVERED:
        return Outcome.delivered(**more)
    if verdict in NOT_YET:
        return Outcome.accepted(**more)
    if verdict in (Verdict.NO_BALANCE, Verdict.IN_THE_MORNING):
        return Outcome.snooze(name, retry_delay(verdict, now) or 0.0, detail)
    if verdict in AGAIN:
        delay = retry_delay(verdict, now)
        return Outcome.retry(name, detail, retry_after=delay, **more)
    return Outcome.refused(name, detail, **more)
