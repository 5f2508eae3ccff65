"""The box of deliveries: claiming, settling and rescuing rows of `delivery`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from uuid import uuid4

import psycopg
from psycopg.rows import TupleRow

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.channels.channel import Message
from allim.database.kept_connection import KeptConnection
from allim.database.pool import PIN_PLANS, Database
from allim.hub.settling import (
    PROVIDER_ID_LIMIT,
    STATEMENTS,
    UNKNOWN_RECEIPT,
    Settled,
    SettleRows,
    array_literal,
    read_settled,
    receipt_verdict,
    settle_families,
    storable,
)
from allim.relay.box import Backlog, Claim, LeaseKeeper
from allim.relay.low_water import LowWaterMarks, Snapshot
from allim.relay.observer import Settled as Told
from allim.relay.outcomes import Outcome
from allim.relay.policy import Beside, ChannelPolicy
from allim.relay.rates import RESERVED
from allim.relay.settlement import Settlement, Transition
from allim.relay.work import Work

log = logging.getLogger("allim.hub")

PRIORITIES = 3
RESCAN_SECONDS = 60.0
RECEIPT_PATIENCE_SECONDS = 72 * 3600.0
"""An accepted delivery without a receipt counts as a success after this, receipt unknown."""

NOTHING: Mapping[str, Any] = {}

Wake: TypeAlias = Callable[[Collection[str]], None]
TellBeside: TypeAlias = Callable[[str, Sequence[Told]], None]


@dataclass(slots=True, eq=False)
class ClaimedDelivery(Work[Message]):
    """A claimed delivery; `has_steps` when settling it may bring children."""

    has_steps: bool = False


class DeliveryBox:
    """Deliveries in PostgreSQL, by channel. Implements relay.box.Box.

    `wake` is told the channels where a settle left new work; `beside`, as an observer is, what
    policies have settled of their own accord.
    """

    def __init__(
        self,
        database: Database,
        *,
        wake: Wake = lambda _: None,
        beside: TellBeside = lambda _lane, _batch: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._database = database
        self._wake = wake
        self._beside = beside
        self._clock = clock
        self._marks: dict[str, LowWaterMarks] = {}

    async def claim(
        self,
        lane: str,
        *,
        limit: int,
        lease: float,
        worker: str,
        policy: ChannelPolicy[Message] | None,
    ) -> Claim[Message]:
        """Claim due deliveries of one channel and open their attempts."""
        marks = self._marks_of(lane)
        asked_from = marks.current()
        deadline = self._clock() + lease
        token = str(uuid4())
        parameters = {
            "channel": lane,
            "token": token,
            "limit": limit,
            "marks": asked_from,
            "highest": marks.highest,
            "worker": worker,
            "lease": lease,
            "reserved": RESERVED,
        }
        refused: Mapping[int, Outcome] = {}
        if policy is None or not policy.joins_claim:
            rows = await self._database.run_pinned(STATEMENTS["claim"], parameters)
            works = works_of(rows, lane, token, deadline)
        else:
            async with self._database.transaction(pinned=True) as tx:
                cursor = tx.cursor(binary=True)
                await cursor.execute(STATEMENTS["claim"], parameters)
                rows = await cursor.fetchall()
                works = works_of(rows, lane, token, deadline)
                if works:
                    refused = await policy.on_attempt(tx, works)
        reached, snapshot, unlisted, own, more_timed = rows[0][:5]
        seen = Snapshot.parse(snapshot, unlisted, own and int(own))
        lowered = marks.advance(reached, seen, asked_from)
        return Claim(works, refused, look_again=lowered or (more_timed and bool(works)))

    async def settle(
        self,
        settlements: Sequence[Settlement[Message]],
        policy: ChannelPolicy[Message] | None,
    ) -> set[int]:
        """Settle a batch in one transaction; one by one when a row of it cannot be stored."""
        ordered = sorted(settlements, key=lambda settlement: settlement.work.id)
        try:
            return await self._settle(ordered, policy)
        except (psycopg.DataError, psycopg.IntegrityError):
            if len(ordered) == 1:
                raise
        landed: set[int] = set()
        for settlement in ordered:
            landed |= await self._settle([settlement], policy)
        return landed

    async def _settle(
        self,
        settlements: Sequence[Settlement[Message]],
        policy: ChannelPolicy[Message] | None,
    ) -> set[int]:
        rows = SettleRows.of_claims(settlements)
        families = [
            settlement.work.content.notification_id
            for settlement in settlements
            if getattr(settlement.work, "has_steps", False)
        ]
        accepting = any(s.transition is Transition.ACCEPT for s in settlements)
        joining = policy if policy is not None and policy.joins_settle(settlements) else None
        if joining is None and not families and not accepting:
            answers = await self._database.run_pinned(STATEMENTS["settle"], rows.parameters())
            return read_settled(answers).landed
        beside: Beside | None = None
        async with self._database.transaction(pinned=True) as tx:
            settled = await settle_families(tx, rows, families)
            if joining is not None:
                landed = [s for s in settlements if s.work.id in settled.landed]
                beside = await joining.on_settle(tx, landed)
        lanes = {*settled.lanes, *(beside.lanes if beside is not None else ())}
        self._wake_lanes(replace(settled, lanes=lanes))
        if beside is not None and beside.settlements:
            self._tell_beside(beside.settlements)
        return settled.landed

    def _tell_beside(self, settlements: Sequence[Settlement[Message]]) -> None:
        lane = settlements[0].work.content.channel
        try:
            self._beside(lane, [Told(each, "", 0.0, landed=True) for each in settlements])
        except Exception:
            # The observer's boundary: what is committed has landed, whoever fails to count it.
            log.exception("what a settle on lane %s ended beside could not be told", lane)

    async def record_provider_id(self, works: Sequence[Work[Message]], provider_id: str) -> bool:
        """Store a provider's id on running attempts; False unless all claims are still ours."""
        rows = await self._database.run_pinned(
            STATEMENTS["record_provider_id"],
            {
                "ids": array_literal([work.id for work in works]),
                "tokens": array_literal([work.claim_token for work in works]),
                "provider_id": storable(provider_id, PROVIDER_ID_LIMIT),
            },
        )
        return bool(rows[0][0])

    async def rescue(
        self, lane: str, *, limit: int, lease: float, worker: str
    ) -> Sequence[Work[Message]]:
        """Take over deliveries whose lease ran out."""
        deadline = self._clock() + lease
        token = str(uuid4())
        rows = await self._database.run_pinned(
            STATEMENTS["rescue"],
            {"channel": lane, "token": token, "limit": limit, "lease": lease, "worker": worker},
        )
        return works_of(rows, lane, token, deadline)

    async def expire(self) -> int:
        """Move deliveries past their `expires_at` to EXPIRED; how many.

        Also counts as delivered what was accepted 72 hours ago and never receipted.
        """
        expired = await self._database.run_pinned(STATEMENTS["expire"], {})
        await self._give_up_on_receipts()
        return len(expired)

    async def _give_up_on_receipts(self) -> None:
        async with self._database.transaction(pinned=True) as tx:
            cursor = await tx.execute(
                STATEMENTS["unreceipted"], {"patience": RECEIPT_PATIENCE_SECONDS}
            )
            rows, families = SettleRows(), []
            for delivery_id, provider_id, notification_id in sorted(await cursor.fetchall()):
                transition, outcome, code = receipt_verdict(UNKNOWN_RECEIPT, provider_id)
                rows.add(delivery_id, None, transition, outcome, code=code, receipt=UNKNOWN_RECEIPT)
                families.append(notification_id)
            settled = Settled(set(), set())
            if families:
                settled = await settle_families(tx, rows, families)
        self._wake_lanes(settled)

    async def next_due(self, lane: str) -> float | None:
        """Seconds until the next timed delivery of a channel is due."""
        rows = await self._database.run_pinned(STATEMENTS["next_due"], {"channel": lane})
        return max(rows[0][0], 0.0) if rows else None

    async def backlog(self) -> Mapping[str, Backlog]:
        """Waiting, failed and dead deliveries by channel."""
        waiting = await self._database.fetch(STATEMENTS["backlog"])
        dead: dict[str, int] = dict(await self._database.fetch(STATEMENTS["parked"]))
        figures = {
            channel: Backlog(pending, failed, dead.pop(channel, 0), oldest)
            for channel, pending, failed, oldest in waiting
        }
        figures.update({channel: Backlog(0, 0, count, None) for channel, count in dead.items()})
        return figures

    def lease_keeper(self) -> LeaseKeeper:
        """A keeper of leases with a connection of its own."""
        return _DeliveryLeaseKeeper(self._database)

    def _marks_of(self, lane: str) -> LowWaterMarks:
        if lane not in self._marks:
            self._marks[lane] = LowWaterMarks(
                PRIORITIES, rescan_every=RESCAN_SECONDS, clock=self._clock
            )
        return self._marks[lane]

    def _wake_lanes(self, settled: Settled) -> None:
        if settled.lanes:
            self._wake(settled.lanes)


class _DeliveryLeaseKeeper:
    """Extends leases over a blocking connection, for the heartbeat's thread."""

    def __init__(self, database: Database) -> None:
        self._connection = KeptConnection(database, "allim heartbeat")

    def extend(self, works: Sequence[Work[Any]], lease: float) -> set[int]:
        """Extend in the order of ids. Raises DatabaseUnavailable."""
        ordered = sorted(works, key=lambda work: work.id)
        parameters = {
            "ids": array_literal([work.id for work in ordered]),
            "tokens": array_literal([work.claim_token for work in ordered]),
            "lease": lease,
        }
        with self._connection.use() as connection, connection.transaction():
            connection.execute(PIN_PLANS)
            return {row[0] for row in connection.execute(STATEMENTS["extend"], parameters)}

    def close(self) -> None:
        """Close the connection; the next extend opens a new one."""
        self._connection.close()


def works_of(
    rows: Sequence[TupleRow], lane: str, token: str, deadline: float
) -> list[Work[Message]]:
    """The works of a claim's rows."""
    works: list[Work[Message]] = []
    for row in rows:
        (
            delivery_id,
            attempts,
            retry_count,
            max_attempts,
            rescues,
            has_steps,
            reserved,
            notification_id,
            recipient,
            template_code,
            payload,
            row_key,
            tenant_id,
            provider_id,
            reason,
            guard,
            title,
            message,
            type_,
            source,
            data,
            created_at,
            traceparent,
        ) = row[5:]
        if delivery_id is None:
            break
        content = Message(
            delivery_id=delivery_id,
            notification_id=notification_id,
            channel=lane,
            recipient=recipient,
            title=payload.get("title", title) if payload else title,
            message=payload.get("message", message) if payload else message,
            type=type_,
            source=source,
            data=data or NOTHING,
            payload=payload or NOTHING,
            created_at=created_at,
            tenant_id=tenant_id,
            template_code=template_code,
            row_key=row_key,
            provider_id=provider_id,
            traceparent=traceparent,
            reason=reason,
            guard=guard or NOTHING,
        )
        works.append(
            ClaimedDelivery(
                id=delivery_id,
                claim_token=token,
                attempt_no=attempts,
                retry_count=retry_count,
                max_attempts=max_attempts,
                rescues=rescues,
                deadline=deadline,
                content=content,
                reserved=bool(reserved),
                has_steps=has_steps,
            )
        )
    return works
