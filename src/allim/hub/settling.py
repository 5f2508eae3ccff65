"""Writing settlements: attempt, state and children together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.rows import TupleRow

from allim.channels.channel import Message
from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.settlement import Settlement, Transition

STATEMENTS = Statements.load("allim.hub", "delivery_box.sql")

ERROR_LIMIT = 2000
"""Characters of an error that are kept."""

PROVIDER_ID_LIMIT = 200
"""Characters of a provider's id that are kept."""

STATUS_AFTER = {
    Transition.COMPLETE: "SUCCESS",
    Transition.ACCEPT: "ACCEPTED",
    Transition.RETRY: "FAILED",
    Transition.SNOOZE: "PENDING",
    Transition.SKIP: "SKIPPED",
    Transition.HOLD: "HELD",
    Transition.BURY: "DEAD",
}

DELIVERED_RECEIPT = "DELIVERED"
FAILED_RECEIPT = "FAILED"
UNKNOWN_RECEIPT = "UNKNOWN"


@dataclass(slots=True)
class SettleRows:
    """The columns of a settle statement, one element a delivery, in the order of their ids."""

    ids: list[int] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    delays: list[float | None] = field(default_factory=list)
    spent: list[bool] = field(default_factory=list)
    codes: list[str | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    http_statuses: list[int | None] = field(default_factory=list)
    responses: list[str | None] = field(default_factory=list)
    provider_ids: list[str | None] = field(default_factory=list)
    provider_message_ids: list[str | None] = field(default_factory=list)
    receipts: list[str | None] = field(default_factory=list)

    @classmethod
    def of_claims(cls, settlements: Iterable[Settlement[Message]]) -> SettleRows:
        """Rows for claimed work, guarded by its claim tokens."""
        rows = cls()
        for settlement in settlements:
            work = settlement.work
            rows.add(
                work.id,
                work.claim_token,
                settlement.transition,
                settlement.outcome,
                delay=settlement.delay,
                spent=settlement.spent,
                code=settlement.code,
            )
        return rows

    def add(
        self,
        delivery_id: int,
        token: str | None,
        transition: Transition,
        outcome: Outcome,
        *,
        delay: float | None = None,
        spent: bool = False,
        code: str | None = None,
        receipt: str | None = None,
    ) -> None:
        """Add one; no token means: accepted before, guarded by the outcome's provider id."""
        self.ids.append(delivery_id)
        self.tokens.append(token)
        self.statuses.append(STATUS_AFTER[transition])
        self.outcomes.append(outcome.kind.value)
        self.delays.append(delay)
        self.spent.append(spent)
        self.codes.append(storable(code, 100))
        self.errors.append(storable(outcome.detail, ERROR_LIMIT))
        self.http_statuses.append(outcome.http_status)
        self.responses.append(storable(outcome.response, RESPONSE_LIMIT))
        self.provider_ids.append(storable(outcome.provider_id, PROVIDER_ID_LIMIT))
        self.provider_message_ids.append(storable(outcome.provider_message_id, PROVIDER_ID_LIMIT))
        self.receipts.append(receipt)

    def parameters(self) -> dict[str, Any]:
        """As the statement names them.

        What is known to need no quoting is written as an array literal at once, and a column
        without values is one NULL: psycopg's general way costs ten times as much.
        """
        return {
            "ids": array_literal(self.ids),
            "tokens": array_literal(self.tokens),
            "statuses": array_literal(self.statuses),
            "outcomes": array_literal(self.outcomes),
            "delays": array_literal(self.delays),
            "spent": array_literal(self.spent),
            "http_statuses": array_literal(self.http_statuses),
            "codes": _unless_empty(self.codes),
            "errors": _unless_empty(self.errors),
            "responses": _unless_empty(self.responses),
            "provider_ids": _unless_empty(self.provider_ids),
            "message_ids": _unless_empty(self.provider_message_ids),
            "receipts": _unless_empty(self.receipts),
        }


def array_literal(values: Sequence[object]) -> str | None:
    """A PostgreSQL array of numbers, booleans, UUIDs or our own words; None where all are None."""
    if not any(value is not None for value in values):
        return None
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _unless_empty(values: list[str | None]) -> list[str | None] | None:
    return values if any(value is not None for value in values) else None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settle changed: the deliveries that landed, the lanes where children wait."""

    landed: set[int]
    lanes: set[str]
    receipted: Sequence[tuple[int, str, str | None]] = ()
    """Deliveries now ACCEPTED whose receipt had come before: what it said, and the provider id."""


def read_settled(answers: Sequence[TupleRow]) -> Settled:
    """Read the rows of the settle statement."""
    landed, lanes, receipted = set(), set[str](), []
    for delivery_id, status, receipt, children, _unborn, provider_id in answers:
        landed.add(delivery_id)
        if children:
            lanes.update(children)
        if receipt is not None and status == "ACCEPTED":
            receipted.append((delivery_id, receipt, provider_id))
    return Settled(landed, lanes, receipted)


async def settle_families(
    tx: Connection, rows: SettleRows, notifications: Iterable[UUID]
) -> Settled:
    """Settle deliveries that may bring children, in the transaction `tx`.

    Locks their notifications first, in order: see «lock order» in docs/explanation/engine.md.
    """
    locked = sorted(set(notifications))
    if locked:
        await tx.execute(STATEMENTS["lock_families"], {"notifications": locked})
    cursor = tx.cursor(binary=True)
    await cursor.execute(STATEMENTS["settle"], rows.parameters())
    answers = await cursor.fetchall()
    unborn = [answer[0] for answer in answers if answer[4]]
    if unborn:
        await tx.execute(STATEMENTS["forget_unborn_fallback"], {"ids": unborn})
    settled = read_settled(answers)
    if not settled.receipted:
        return settled
    late = await settle_families(tx, _receipt_rows(settled.receipted), [])
    return Settled(settled.landed, settled.lanes | late.lanes)


def _receipt_rows(receipted: Sequence[tuple[int, str, str | None]]) -> SettleRows:
    after = SettleRows()
    for delivery_id, receipt, provider_id in sorted(receipted):
        transition, outcome, code = receipt_verdict(receipt, provider_id)
        after.add(delivery_id, None, transition, outcome, code=code, receipt=receipt)
    return after


def receipt_verdict(
    receipt: str, provider_id: str | None
) -> tuple[Transition, Outcome, str | None]:
    """What a final receipt makes of an accepted delivery."""
    if receipt == FAILED_RECEIPT:
        outcome = Outcome.refused(
            "receipt_failed",
            "the provider reported that it did not arrive",
            provider_id=provider_id,
        )
        return Transition.BURY, outcome, outcome.code
    return Transition.COMPLETE, Outcome.delivered(provider_id=provider_id), None


def storable(text: str | None, limit: int) -> str | None:
    """A text that PostgreSQL can store: no NUL, no lone surrogates, not too long.

    One such row would abort a whole batch, and all of it would be sent again.
    """
    if text is None:
        return None
    text = text[:limit]
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
