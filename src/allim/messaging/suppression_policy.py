"""The opt-out list at work: whoever is on it is not written to, and who is gone is put there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from allim.channels import unsubscribing
from allim.channels.bounces import HARD_BOUNCES
from allim.channels.channel import Message
from allim.channels.solapi.codes import suppresses
from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.messaging.suppression import (
    COMPLAINT,
    HARD_BOUNCE,
    UNSUBSCRIBED,
    Learnt,
    SuppressedKind,
    canonical,
    learn,
)
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Work

SQL = Statements.load("allim.messaging", "suppression.sql")

TOLD_REASONS = frozenset({HARD_BOUNCE, COMPLAINT, UNSUBSCRIBED})
"""Reasons that a delivery's record repeats; what a person wrote may be meant for nobody else."""
SUPPRESSED = Outcome.skip("suppressed", "the recipient is on the opt-out list")


@dataclass(frozen=True, slots=True)
class SuppressionRules:
    """What differs between kinds of recipients.

    `gone` tells by an outcome's code that a recipient takes nothing more. `reason` is what the
    list then says; none: the provider's own words. `list_of` names the list of a message.
    """

    kind: SuppressedKind
    gone: Callable[[str | None], bool]
    reason: str | None = None
    list_of: Callable[[Message], str | None] = lambda _message: None


def phone_rules() -> SuppressionRules:
    """Of phone numbers: gone is what the carrier calls so."""
    return SuppressionRules(SuppressedKind.PHONE, suppresses)


def email_rules(types: tuple[str, ...] = ()) -> SuppressionRules:
    """Of e-mail addresses: gone is a hard bounce. Mails of `types` can be unsubscribed from."""
    return SuppressionRules(
        SuppressedKind.EMAIL,
        HARD_BOUNCES.__contains__,
        HARD_BOUNCE,
        lambda message: unsubscribing.list_of(message, types),
    )


class SuppressionPolicy(OpenPolicy):
    """Skips, in the claiming transaction and so before anything is paid, who opted out.

    A provider's word that a recipient takes nothing more puts it on the list, for every tenant.
    """

    def __init__(self, rules: SuppressionRules) -> None:
        self._rules = rules

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Skip those on the list."""
        rules = self._rules
        asked = [work for work in batch if work.content.recipient]
        cursor = await tx.execute(
            SQL["suppressed"],
            {
                "ids": [work.id for work in asked],
                "tenants": [work.content.tenant_id for work in asked],
                "recipients": [
                    canonical(work.content.recipient or "", rules.kind) for work in asked
                ],
                "lists": [rules.list_of(work.content) for work in asked],
                "kind": rules.kind.value,
            },
        )
        return {row[0]: _skipped(row[1], row[2]) for row in await cursor.fetchall()}

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Only where a recipient takes nothing more."""
        return any(map(self._is_gone, settlements))

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Put recipients that take nothing more on the list."""
        gone = [
            self._learnt(
                each.work.content.recipient,
                each.work.id,
                each.outcome.response if self._rules.reason else None,
                each.outcome.detail or each.outcome.code,
            )
            for each in settled
            if self._is_gone(each) and each.work.content.recipient
        ]
        await learn(tx, self._rules.kind, gone)

    async def on_receipt(self, tx: Connection, ended: Sequence[int]) -> None:
        """The same, where the report said it."""
        rows = await (await tx.execute(SQL["ended_by"], {"ids": list(ended)})).fetchall()
        gone = [
            self._learnt(recipient, delivery, None, error or code)
            for delivery, recipient, code, error in rows
            if self._rules.gone(code)
        ]
        await learn(tx, self._rules.kind, gone)

    def _is_gone(self, settlement: Settlement[Message]) -> bool:
        return settlement.outcome.disable_target or self._rules.gone(settlement.outcome.code)

    def _learnt(
        self, recipient: str, delivery: int, response: str | None, words: str | None
    ) -> Learnt:
        if self._rules.reason:
            return Learnt(recipient, self._rules.reason, response or words, delivery)
        return Learnt(recipient, words or "it is gone", None, delivery)


def _skipped(name: str | None, reason: str | None) -> Outcome:
    if name is not None:
        return Outcome.skip("unsubscribed", f"the recipient has unsubscribed from {name!r}")
    if reason in TOLD_REASONS:
        return Outcome.skip("suppressed", f"the recipient is on the suppression list: {reason}")
    return SUPPRESSED
