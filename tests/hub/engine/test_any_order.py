"""Whatever happens to deliveries, in whatever order: none is lost, doubled or stranded.

Hypothesis plays relays (some of them slow, some gone), producers with long transactions,
providers that report late or never, and operators; after every move the database must be
what the model says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from allim.base.errors import Conflict
from allim.base.ids import uuid7
from allim.channels.channel import Message
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.receipts import FinalReceipt, ReceiptResult
from allim.hub.settling import STATUS_AFTER
from allim.hub.status import NOT_FINAL, DeliveryStatus
from allim.relay.outcomes import Outcome
from allim.relay.settlement import RESCUES_BEFORE_DEAD, Settlement, Transition, decide
from allim.relay.work import Work
from allim.testing.boxes import LANE, LEASE, RETRY
from tests.hub.engine.harness import DatabaseHarness

Result = TypeVar("Result")

PENDING, PROCESSING, FAILED = (
    DeliveryStatus.PENDING,
    DeliveryStatus.PROCESSING,
    DeliveryStatus.FAILED,
)
WAITING = {PENDING, FAILED}
REPLAYABLE = {DeliveryStatus.DEAD, DeliveryStatus.SKIPPED, DeliveryStatus.HELD}

OUTCOMES = [
    Outcome.delivered(),
    Outcome.accepted(),
    Outcome.retry("http_500", "ill"),
    Outcome.refused("http_400", "no"),
    Outcome.snooze("later", 600.0),
    Outcome.skip("cancelled"),
    Outcome.fault("bug"),
    Outcome.unknown("timeout"),
    Outcome.cut_short("shutdown"),
    Outcome.released(),
    # These lead farthest.
    Outcome.accepted(),
    Outcome.retry("http_500", "ill"),
    Outcome.retry("http_500", "ill"),
]
STEP = {"channel": LANE, "max_attempts": 2}
SHAPES: list[dict[str, Any]] = [
    {},
    {"then": [STEP]},
    {"fallback": [STEP, STEP]},
    {"then": [STEP, STEP], "fallback": [{**STEP, "then": [STEP], "fallback": [STEP]}]},
]

TABLES = "TRUNCATE delivery_attempt, delivery, notification"
EVERYTHING = """
SELECT d.id, d.status, d.attempts, d.retry_count, d.next_retry_at IS NOT NULL, d.step, d.parent_id,
       d.superseded_by, coalesce(jsonb_array_length(d.then_steps), 0),
       d.fallback_steps IS NOT NULL, d.notification_id,
       ARRAY(SELECT (a.attempt_no, a.finished_at IS NOT NULL AND a.outcome IS NOT NULL)::text
               FROM delivery_attempt AS a WHERE a.delivery_id = d.id ORDER BY a.attempt_no)
  FROM delivery AS d ORDER BY d.id
"""


@dataclass(eq=False)
class Attempt:
    """One attempt, as it must be on record."""

    provider_id: str | None = None
    receipt: str | None = None


@dataclass(eq=False)
class Known:
    """One delivery, as it must be."""

    id: int
    notification: UUID
    thens: int
    falls_back: bool
    parent: Known | None = None
    status: DeliveryStatus = PENDING
    held: Work[Message] | None = None
    lapsed: bool = False
    timed: bool = False
    due: bool = True
    past: bool = False
    expires: bool = False
    retry_count: int = 0
    deaths: int = 0
    cancelled_under_way: bool = False
    attempts: list[Attempt] = field(default_factory=list)


class Deliveries(RuleBasedStateMachine):
    """Everything that may happen to deliveries."""

    database_url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(self.database_url, min_size=1, max_size=3)
        self.run(self.database.open())
        self.harness = DatabaseHarness(self.database)
        self.run(self._clear())
        self.boxes = [DeliveryBox(self.database), DeliveryBox(self.database)]
        self.known: dict[int, Known] = {}
        self.stale: list[Work[Message]] = []
        self.canceled: set[UUID] = set()
        self.writer: AsyncConnection[TupleRow] | None = None
        self.unseen: list[Known] = []
        shared = uuid7()
        for shape in SHAPES:
            self._produce(shared, shape, 1, 3, scheduled=False, expires=False)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(coroutine)

    async def _clear(self) -> None:
        async with self.database.connection() as connection:
            await connection.execute(TABLES)

    # Producers

    @rule(
        shape=st.sampled_from(SHAPES),
        priority=st.integers(0, 2),
        max_attempts=st.integers(1, 3),
        scheduled=st.booleans(),
        expires=st.booleans(),
        join=st.booleans(),
    )
    def produce(
        self,
        shape: dict[str, Any],
        priority: int,
        max_attempts: int,
        scheduled: bool,
        expires: bool,
        join: bool,
    ) -> None:
        open_ones = [k.notification for k in self.known.values()]
        mine = [notification for notification in open_ones if notification not in self.canceled]
        notification = mine[-1] if join and mine else uuid7()
        self._produce(
            notification, shape, priority, max_attempts, scheduled=scheduled, expires=expires
        )

    def _produce(
        self,
        notification: UUID,
        shape: dict[str, Any],
        priority: int,
        max_attempts: int,
        *,
        scheduled: bool,
        expires: bool,
    ) -> None:
        delivery = self.run(
            self.harness.add(
                {"channel": LANE, "max_attempts": max_attempts, **shape},
                notification=notification,
                priority=priority,
                due_in=3600.0 if scheduled else None,
                expires_in=3600.0 if expires else None,
            )
        )
        self.known[delivery] = Known(
            delivery,
            notification,
            len(shape.get("then", ())),
            bool(shape.get("fallback")),
            timed=scheduled,
            due=not scheduled,
            expires=expires,
        )

    @precondition(lambda self: self.writer is None)
    @rule(count=st.integers(1, 4))
    def begin_a_long_transaction(self, count: int) -> None:
        async def begin() -> AsyncConnection[TupleRow]:
            connection = await AsyncConnection.connect(self.database_url)
            for _ in range(count):
                notification = uuid7()
                await connection.execute(
                    "INSERT INTO notification (id, source, type) VALUES (%s, 's', 't')",
                    [notification],
                )
                row = await (
                    await connection.execute(
                        "INSERT INTO delivery (notification_id, channel, max_attempts)"
                        " VALUES (%s, %s, 3) RETURNING id",
                        [notification, LANE],
                    )
                ).fetchone()
                assert row is not None
                self.unseen.append(Known(row[0], notification, 0, False))
            return connection

        self.writer = self.run(begin())

    @precondition(lambda self: self.writer is not None)
    @rule(commits=st.booleans())
    def end_the_long_transaction(self, commits: bool) -> None:
        assert self.writer is not None
        self.run(self.writer.commit() if commits else self.writer.rollback())
        self.run(self.writer.close())
        if commits:
            self.known.update({known.id: known for known in self.unseen})
        self.unseen, self.writer = [], None

    # Relays

    @precondition(lambda self: self.due())
    @rule(limit=st.integers(2, 5), relay=st.integers(0, 1))
    def claim(self, limit: int, relay: int) -> None:
        due = self.due()
        works = self.run(self._claim(limit, self.boxes[relay]))
        assert len(works) <= limit
        assert bool(works) == bool(due)
        for work in works:
            known = self.known[work.id]
            assert known in due
            known.attempts.append(Attempt())
            known.status, known.held, known.lapsed, known.timed = PROCESSING, work, False, False
            assert (work.attempt_no, work.retry_count) == (len(known.attempts), known.retry_count)

    async def _claim(self, limit: int, box: DeliveryBox) -> Sequence[Work[Message]]:
        while True:
            found = await box.claim(LANE, limit=limit, lease=LEASE, worker="relay", policy=None)
            if found.works or not found.look_again:
                return found.works

    claim_more = claim_yet_more = claim

    @precondition(lambda self: self.held())
    @rule(
        picks=st.lists(st.integers(0, 20), min_size=1, max_size=3),
        outcome=st.sampled_from(OUTCOMES),
        at_most_once=st.booleans(),
        relay=st.integers(0, 1),
    )
    def settle(self, picks: list[int], outcome: Outcome, at_most_once: bool, relay: int) -> None:
        held = self.held()
        chosen = {held[pick % len(held)].id: held[pick % len(held)] for pick in picks}
        settlements = []
        for known in chosen.values():
            assert known.held is not None
            told = outcome
            if outcome == Outcome.accepted() and known.attempts[-1].provider_id is None:
                told = Outcome.accepted(provider_id=f"p-{known.id}-{len(known.attempts)}")
                known.attempts[-1].provider_id = told.provider_id
            settlements.append(decide(known.held, told, RETRY, at_most_once=at_most_once))
        landed = self.run(self.boxes[relay].settle(settlements, None))
        assert landed == set(chosen)
        for settlement in settlements:
            known = self.known[settlement.work.id]
            self.stale.append(settlement.work)
            self._settled(known, settlement)
        self._meet_children(list(chosen.values()))

    settle_more = settle_yet_more = settle

    def _settled(self, known: Known, settlement: Settlement[Message]) -> None:
        known.status = DeliveryStatus(STATUS_AFTER[settlement.transition])
        if known.attempts[-1].receipt == "DELIVERED":
            known.status = DeliveryStatus.SUCCESS
        elif known.cancelled_under_way and settlement.delay is not None:
            known.status = DeliveryStatus.CANCELED
        known.held = None
        known.retry_count += settlement.spent
        known.timed = settlement.delay is not None
        known.due = settlement.delay == 0.0
        if settlement.transition is Transition.ACCEPT and known.attempts[-1].receipt:
            self._receipted(known)
        elif known.status is DeliveryStatus.DEAD:
            known.deaths += 1

    def _receipted(self, known: Known) -> None:
        if known.attempts[-1].receipt == "DELIVERED":
            known.status = DeliveryStatus.SUCCESS
        else:
            known.status = DeliveryStatus.DEAD
            known.deaths += 1

    @precondition(lambda self: self.stale)
    @rule(pick=st.integers(0, 50), outcome=st.sampled_from(OUTCOMES), relay=st.integers(0, 1))
    def settle_by_a_stale_worker(self, pick: int, outcome: Outcome, relay: int) -> None:
        work = self.stale[pick % len(self.stale)]
        settlement = decide(work, outcome, RETRY)
        assert self.run(self.boxes[relay].settle([settlement], None)) == set()

    @precondition(lambda self: self.stale)
    @rule(pick=st.integers(0, 50))
    def record_by_a_stale_worker(self, pick: int) -> None:
        work = self.stale[pick % len(self.stale)]
        assert not self.run(self.boxes[0].record_provider_id([work], "stale"))

    @precondition(lambda self: self.held())
    @rule(pick=st.integers(0, 20))
    def record_a_provider_id(self, pick: int) -> None:
        held = self.held()
        known = held[pick % len(held)]
        assert known.held is not None
        provider_id = f"p-{known.id}-{len(known.attempts)}"
        assert self.run(self.boxes[0].record_provider_id([known.held], provider_id))
        known.attempts[-1].provider_id = provider_id

    record_another = record_a_provider_id

    @precondition(lambda self: self.held())
    @rule()
    def let_leases_lapse(self) -> None:
        self.run(self.harness.lapse_leases())
        for known in self.held():
            known.lapsed = True

    @precondition(lambda self: any(known.lapsed for known in self.held()))
    @rule()
    def beat(self) -> None:
        works = [k.held for k in self.held() if k.held is not None]
        keeper = self.boxes[0].lease_keeper()
        held = keeper.extend([*works, *self.stale], LEASE)
        keeper.close()
        assert held == {work.id for work in works}
        for known in self.held():
            known.lapsed = False

    @precondition(lambda self: self.held())
    @rule(limit=st.integers(1, 5), relay=st.integers(0, 1))
    def rescue(self, limit: int, relay: int) -> None:
        lapsed = [known for known in self.held() if known.lapsed]
        works = self.run(self.boxes[relay].rescue(LANE, limit=limit, lease=LEASE, worker="rescuer"))
        assert len(works) == min(limit, len(lapsed))
        for work in works:
            known = self.known[work.id]
            assert known in lapsed
            assert known.held is not None
            self.stale.append(known.held)
            known.held, known.lapsed = work, False
            assert work.attempt_no == len(known.attempts)
            assert work.content.provider_id is None or known.attempts

    # Time

    @precondition(lambda self: any(not known.due for known in self.known.values()))
    @rule()
    def let_time_pass(self) -> None:
        self.run(self.harness.make_due())
        for known in self.known.values():
            known.due = True

    @precondition(lambda self: any(k.expires and not k.past for k in self.known.values()))
    @rule()
    def let_expiry_come(self) -> None:
        self.run(self.harness.pass_expiry())
        for known in self.known.values():
            known.past = known.expires

    @precondition(lambda self: any(known.past for known in self.known.values()))
    @rule()
    def expire(self) -> None:
        past = [k for k in self.known.values() if k.past and k.status in WAITING]
        assert self.run(self.boxes[0].expire()) == len(past)
        for known in past:
            known.status, known.timed = DeliveryStatus.EXPIRED, False

    # Providers

    @precondition(lambda self: any(a.provider_id for k in self.known.values() for a in k.attempts))
    @rule(
        pick=st.integers(0, 50),
        attempt=st.integers(0, 5),
        receipt=st.sampled_from(["DELIVERED", "FAILED"]),
        forged=st.sampled_from([False, False, False, True]),
    )
    def receive(self, pick: int, attempt: int, receipt: FinalReceipt, forged: bool) -> None:
        tried = [k for k in self.known.values() if any(a.provider_id for a in k.attempts)]
        known = tried[pick % len(tried)]
        spoken_of = known.attempts[attempt % len(known.attempts)]
        provider_id = spoken_of.provider_id or "nobody's"
        if forged:
            provider_id = f"p-{known.id + 1}-1"
        result = self.run(self.harness.receive(known.id, provider_id, receipt))
        assert result is self._expected(known, None if forged else spoken_of)
        if result in (ReceiptResult.UNKNOWN, ReceiptResult.REPEATED):
            return
        spoken_of.receipt = receipt
        if result is ReceiptResult.APPLIED:
            self._receipted(known)
            self._meet_children([known])

    def _expected(self, known: Known, spoken_of: Attempt | None) -> ReceiptResult:
        if spoken_of is None or spoken_of.provider_id is None:
            return ReceiptResult.UNKNOWN
        if spoken_of.receipt is not None:
            return ReceiptResult.REPEATED
        if spoken_of is known.attempts[-1]:
            if known.status is PROCESSING:
                return ReceiptResult.STORED
            if known.status is DeliveryStatus.ACCEPTED:
                return ReceiptResult.APPLIED
        return ReceiptResult.NOTED

    receive_more = receive_yet_more = receive

    # Operators

    @rule(pick=st.integers(0, 50), sure=st.sampled_from([False, False, True]))
    def cancel(self, pick: int, sure: bool) -> None:
        if not sure:
            return  # a cancelled notification is the end of most stories
        notification = list(self.known.values())[pick % len(self.known)].notification
        members = [k for k in self.known.values() if k.notification == notification]
        waiting = [known for known in members if known.status in WAITING]
        try:
            view = self.run(self.harness.operations.cancel(notification))
        except Conflict:
            assert not waiting
            return
        assert view.canceled == len(waiting)
        self.canceled.add(notification)
        for known in waiting:
            known.status, known.timed = DeliveryStatus.CANCELED, False
        for known in members:
            known.cancelled_under_way = known.status is PROCESSING

    @rule(pick=st.integers(0, 50), anything=st.booleans())
    def retry(self, pick: int, anything: bool) -> None:
        apt = [known for known in self.known.values() if known.status in REPLAYABLE]
        offered = list(self.known.values()) if anything or not apt else apt
        known = offered[pick % len(offered)]
        try:
            self.run(self.harness.operations.retry(known.id))
        except Conflict:
            return
        assert known.status in REPLAYABLE | {FAILED}
        assert known.notification not in self.canceled
        assert not known.past
        for below in self._below(known):
            assert known.status is FAILED or below.status not in NOT_FINAL
            assert known.status is FAILED or below.status is not DeliveryStatus.SUCCESS
        if known.status is not FAILED:
            known.status, known.retry_count = PENDING, 0
        known.timed = known.due = True

    @precondition(lambda self: any(k.status in REPLAYABLE for k in self.known.values()))
    @rule(pick=st.integers(0, 50))
    def discard(self, pick: int) -> None:
        known = list(self.known.values())[pick % len(self.known)]
        try:
            self.run(self.harness.operations.discard(known.id, "no use"))
        except Conflict:
            return
        assert known.status in REPLAYABLE
        known.status = DeliveryStatus.CANCELED

    # What must be true at all times

    @invariant()
    def the_database_is_what_the_model_says(self) -> None:
        rows = self.run(self.database.fetch(EVERYTHING))
        assert {row[0] for row in rows} == set(self.known)
        fallbacks: dict[int, list[int]] = {}
        thens: dict[int, int] = {}
        for row in rows:
            known = self.known[row[0]]
            assert row[1] == known.status
            assert row[2] == len(known.attempts)
            assert row[3] == known.retry_count
            # While it is under way its old time stays: it says when its place in line was.
            assert row[4] == known.timed or known.status is PROCESSING
            expected = [
                f"({number},{'f' if known.status is PROCESSING and number == row[2] else 't'})"
                for number in range(1, row[2] + 1)
            ]
            assert row[11] == expected, "every settled attempt is on record"
            if row[5] == "fallback":
                fallbacks.setdefault(row[6], []).append(row[0])
            elif row[5] == "then":
                thens[row[6]] = thens.get(row[6], 0) + 1
        for row in rows:
            known = self.known[row[0]]
            done = known.status is DeliveryStatus.SUCCESS
            assert thens.get(known.id, 0) == (known.thens if done else 0)
            followed = fallbacks.get(known.id, [])
            assert len(followed) == (known.deaths if known.falls_back else 0)
            if known.status is DeliveryStatus.DEAD and known.falls_back and row[7] is not None:
                # Where the branch was superseded from above, it says so instead.
                assert row[7] == max(followed) or row[7] < known.id

    def teardown(self) -> None:
        try:
            if self.writer is not None:
                self.end_the_long_transaction(commits=True)
            self._nothing_is_stranded()
        finally:
            self.run(self.database.close())
            self.runner.close()

    def _nothing_is_stranded(self) -> None:
        for _ in range(60):
            for known in self.held():
                known.lapsed = True
            self.run(self.harness.lapse_leases())
            self.rescue(limit=100, relay=0)
            self.let_time_pass()
            self.expire()
            self.claim(limit=100, relay=0)
            if not self.held():
                break
            for known in list(self.held()):
                assert known.held is not None
                outcome = Outcome.delivered()
                if known.held.rescues >= RESCUES_BEFORE_DEAD:
                    outcome = Outcome.cut_short("lease_expired")
                settlement = decide(known.held, outcome, RETRY)
                assert self.run(self.boxes[0].settle([settlement], None)) == {known.id}
                self._settled(known, settlement)
                self._meet_children([known])
        self.the_database_is_what_the_model_says()
        left = {known.status for known in self.known.values()}
        assert not left & {PENDING, PROCESSING, FAILED}

    # Helpers of the model

    def due(self) -> list[Known]:
        return [k for k in self.known.values() if k.status in WAITING and k.due and not k.past]

    def held(self) -> list[Known]:
        return [known for known in self.known.values() if known.status is PROCESSING]

    def _below(self, known: Known) -> list[Known]:
        children = [one for one in self.known.values() if one.parent is known]
        return children + [below for child in children for below in self._below(child)]

    def _meet_children(self, parents: list[Known]) -> None:
        """Take in the children that settling brought; the invariant counts them."""
        by_id = {parent.id: parent for parent in parents}
        for row in self.run(self.database.fetch(EVERYTHING)):
            if row[0] in self.known or row[6] not in by_id:
                continue
            parent = by_id[row[6]]
            gone = parent.notification in self.canceled
            self.known[row[0]] = Known(
                row[0],
                parent.notification,
                row[8],
                row[9],
                parent,
                status=DeliveryStatus.CANCELED if gone else PENDING,
                expires=parent.expires,
                past=parent.past,
            )


@pytest.mark.timeout(280)
def test_no_order_of_events_loses_doubles_or_strands_a_delivery(database_url: str) -> None:
    class OnThisDatabase(Deliveries):
        pass

    OnThisDatabase.database_url = database_url
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=25,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
