"""Which refusals say that an address is gone, and which say something else."""

from __future__ import annotations

import pytest

from allim.channels.bounces import HARD_BOUNCES, bounce_of


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (550, "5.1.1 <kim@example.com>: user unknown", "mailbox_unknown"),
        (550, "5.1.10 recipient not found", "mailbox_unknown"),
        (550, "5.1.2 bad destination system", "domain_unknown"),
        (551, "5.1.6 moved", "mailbox_moved"),
        (550, "5.2.1 mailbox disabled", "mailbox_disabled"),
        (550, "No such user here", "mailbox_unknown"),
        (550, "<kim@example.com>: Recipient address rejected: User unknown", "mailbox_unknown"),
        (553, "sorry, that address does not exist", "mailbox_unknown"),
    ],
)
def test_an_address_that_is_gone(number: int, words: str, code: str) -> None:
    assert bounce_of(number, words) == code
    assert code in HARD_BOUNCES


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (450, "4.1.1 user unknown for now"),
        (550, "5.7.1 message rejected: no such user may send here"),
        (554, "5.7.1 client host blocked"),
        (552, "5.2.2 mailbox full"),
        (552, "5.3.4 message too big"),
        (550, "5.1.8 sender address rejected: domain not found"),
        (550, "5.4.1 recipient address rejected: access denied"),
        (550, "relaying denied"),
        (550, "5.2.1 The user you are trying to contact is receiving mail at a rate that"),
        (550, "<no-reply@hub.example>: Sender address rejected: Domain not found"),
        (553, "sender verify failed: no such user"),
        (554, "no such user"),
        (550, ""),
        (550, "5.1.11x"),
    ],
)
def test_a_refusal_about_something_else(number: int, words: str) -> None:
    assert bounce_of(number, words) is None
