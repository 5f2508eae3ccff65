"""From what became of the messages of a turn to what is written, in the order of their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from allim.relay.ordered.box import Failure
from allim.relay.ordered.message import Line, Message
from allim.relay.outcomes import Outcome, OutcomeKind

FAILED = frozenset({OutcomeKind.RETRY, OutcomeKind.REFUSED, OutcomeKind.SNOOZED})


@dataclass(frozen=True, slots=True)
class Verdicts(Generic[Message]):
    """What is to become of the messages of a turn.

    `followers` wait behind a head that failed; `unsent` are as if never tried.
    """

    sent: Sequence[Message]
    retried: Sequence[Failure[Message]]
    buried: Sequence[Failure[Message]]
    followers: Sequence[Message]
    unsent: Sequence[Message]


def judge(
    messages: Sequence[Message],
    outcomes: Sequence[Outcome],
    *,
    max_retries: int,
    retry_after: float,
) -> Verdicts[Message]:
    """Judge a turn. Of each line only the first that failed spends a retry."""
    sent: list[Message] = []
    retried: list[Failure[Message]] = []
    buried: list[Failure[Message]] = []
    followers: list[Message] = []
    unsent: list[Message] = []
    stopped: set[Line] = set()
    untried: set[Line] = set()
    for message, outcome in zip(messages, outcomes, strict=True):
        if outcome.kind is OutcomeKind.DELIVERED:
            sent.append(message)
            continue
        line = message.line
        if line in stopped:
            followers.append(message)
        elif outcome.kind not in FAILED or line in untried:
            unsent.append(message)
            if line is not None:
                untried.add(line)
        else:
            if line is not None:
                stopped.add(line)
            code, detail = outcome.code or "failed", outcome.detail or ""
            if outcome.kind is OutcomeKind.SNOOZED:
                delay = outcome.retry_after or retry_after
                retried.append(Failure(message, code, detail, delay, spent=False))
            elif outcome.kind is OutcomeKind.REFUSED or message.retry_count >= max_retries:
                buried.append(Failure(message, code, detail))
            else:
                delay = max(retry_after, outcome.retry_after or 0.0)
                retried.append(Failure(message, code, detail, delay))
    return Verdicts(sent, retried, buried, followers, unsent)
