"""Which refusals of a mail say that the address itself is gone, by RFC 3463 and RFC 5321.

Only those: a refusal for policy, reputation, size, a full mailbox or for anything about us or the
message says nothing about the next mail.
"""

from __future__ import annotations

import re

MAILBOX_UNKNOWN = "mailbox_unknown"
MAILBOX_MOVED = "mailbox_moved"
MAILBOX_DISABLED = "mailbox_disabled"
DOMAIN_UNKNOWN = "domain_unknown"

HARD_BOUNCES = frozenset({MAILBOX_UNKNOWN, MAILBOX_MOVED, MAILBOX_DISABLED, DOMAIN_UNKNOWN})
"""Codes of outcomes after which an address is not written to any more."""

_ENHANCED = re.compile(r"\s*(?P<status>[245]\.\d{1,3}\.\d{1,3})(?!\d)")
_BY_STATUS = {
    "5.1.1": MAILBOX_UNKNOWN,
    "5.1.2": DOMAIN_UNKNOWN,
    "5.1.3": MAILBOX_UNKNOWN,
    "5.1.6": MAILBOX_MOVED,
    "5.1.10": MAILBOX_UNKNOWN,
    "5.2.1": MAILBOX_DISABLED,
}
_WORDS_FOR_GONE = re.compile(
    r"\b(no such|unknown|invalid|non-?existent) (user|recipient|mailbox|address|account)\b"
    r"|\b(user|recipient|mailbox|address|account)\b[^.;]{0,60}?\b"
    r"(unknown|not found|does not exist|doesn'?t exist|is disabled)\b",
    re.IGNORECASE,
)
_WORDS_FOR_US = re.compile(r"\b(sender|return.?path|mail.from|relay(ing)?|spf)\b", re.IGNORECASE)
"""Many servers refuse a sender whose domain they cannot find only when they hear the recipient."""
_WORDS_FOR_RATE = re.compile(r"\b(rate|quickly|too (many|much)|later)\b", re.IGNORECASE)
_ABOUT_MAILBOXES = frozenset({550, 551, 553})


def bounce_of(number: int, words: str) -> str | None:
    """The code of HARD_BOUNCES that a reply about a recipient means; None for any other.

    `words` begin with the enhanced status, where the server gives one; then nothing else counts.
    Without one, words of a 550, 551 or 553 that plainly say so are taken, since old servers say
    550 for policy too.
    """
    if number < 500:
        return None
    if status := _ENHANCED.match(words):
        code = _BY_STATUS.get(status["status"])
        # Gmail says 5.2.1 of an account that is disabled, and of one that gets mail too fast.
        return None if code == MAILBOX_DISABLED and _WORDS_FOR_RATE.search(words) else code
    if number not in _ABOUT_MAILBOXES or _WORDS_FOR_US.search(words):
        return None
    return MAILBOX_UNKNOWN if _WORDS_FOR_GONE.search(words) else None
