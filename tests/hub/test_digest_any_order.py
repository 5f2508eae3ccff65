"""Whatever happens to what is gathered, in whatever order: it is told, once, and not too often.

Hypothesis plays relays (some of them slow, some gone), a service that fails, people who cancel,
and transactions that hold a row just when it matters.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from allim.base.errors import Conflict
from allim.base.settings import Environment
from allim.channels.channel import ChannelServices, Message
from allim.channels.log import make
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.digest import DIGESTED, DigestPolicy, digest_key
from allim.hub.operations import Operations
from allim.hub.service import Hub
from allim.relay.observer import Settled
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import Settlement, Transition, decide
from allim.relay.work import Work

Result = TypeVar("Result")

LANE = "LOG"
RETRY = RetryPolicy(base=3000.0, maximum=6000.0, attempts=4)
ENDS = frozenset(
    {Transition.COMPLETE, Transition.ACCEPT, Transition.HOLD, Transition.BURY, Transition.SKIP}
)
WELL = Outcome.delivered()
OUTCOMES = [
    WELL,
    WELL,
    WELL,
    Outcome.retry("http_500", "ill"),
    Outcome.retry("http_500", "ill"),
    Outcome.refused("http_400", "no"),
    Outcome.skip("suppressed"),
    Outcome.snooze("circuit_open", 3000.0),
    Outcome.unknown("timeout"),
    Outcome.released(),
]
places = st.integers(0, 30)


@dataclass(eq=False)
class Flight:
    """A claimed delivery; `tells` are those of which its message speaks, itself too."""

    work: Work[Message]
    relay: int
    refused: Outcome | None
    tells: set[int] = field(default_factory=set)
    lapsed: bool = False


class Digests(RuleBasedStateMachine):
    """Everything that may happen to what is gathered."""

    database_url: str
    hub: Hub

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(self.database_url, min_size=1, max_size=3)
        self.run(self.database.open())
        self.execute(
            "TRUNCATE notification, delivery, delivery_attempt, digest, digest_member"
            " RESTART IDENTITY CASCADE"
        )
        self.boxes = [DeliveryBox(self.database, beside=self._beside) for _ in range(2)]
        self.policies = [DigestPolicy(3600.0) for _ in range(2)]
        self.operations = Operations(self.database)
        self.ids: dict[str, int] = {}
        self.notifications: dict[int, UUID] = {}
        self.flights: list[Flight] = []
        self.told: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.closed: set[str] = set()
        self.canceled: set[int] = set()
        self.doubtful: set[int] = set()
        """Told by a call whose end nobody saw, or sent again by an operator."""
        self.holder: psycopg.Connection[Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(coroutine)

    def execute(self, statement: LiteralString, **parameters: Any) -> None:
        async def do() -> None:
            async with self.database.transaction() as tx:
                await tx.execute(statement, parameters)

        self.run(do())

    def _beside(self, lane: str, batch: Sequence[Settled]) -> None:
        assert lane == LANE
        for each in batch:
            assert each.settlement.code == DIGESTED
            self.ended[each.settlement.work.id] += 1

    # What happens

    @initialize()
    def some_wait_for_the_next_window(self) -> None:
        self.tell("a")
        self.claim(relay=0, limit=6, at_once=True)
        self._settle(list(self.flights), WELL)
        for _ in range(3):
            self.tell("a")
        self.claim(relay=0, limit=6, at_once=True)

    @precondition(lambda self: len(self.ids) < 18)
    @rule(key=st.sampled_from("aaab"))
    def tell(self, key: str) -> None:
        title = f"d{len(self.ids)}"

        async def do() -> None:
            async with self.database.transaction() as tx:
                created = await self.hub.notify(
                    tx,
                    source="t",
                    type="ALERT",
                    title=title,
                    data={"digest_key": key},
                    deliveries=[{"channel": LANE}],
                )
            self.ids[title] = created.deliveries[0].id
            self.notifications[created.deliveries[0].id] = created.id

        self.run(do())

    @rule(relay=st.integers(0, 1), limit=st.integers(2, 6))
    def claim_when_all_are_due(self, relay: int, limit: int) -> None:
        self.time_passes()
        self.claim(relay, limit, at_once=True)

    @rule(relay=st.integers(0, 1), limit=st.integers(2, 6))
    def claim_in_the_next_window(self, relay: int, limit: int) -> None:
        self.the_window_passes()
        self.claim(relay, limit, at_once=True)

    @rule(outcome=st.sampled_from(OUTCOMES), once=st.booleans())
    def settle_what_was_sent(self, outcome: Outcome, once: bool) -> None:
        sent = [flight for flight in self.flights if flight.refused is None]
        self._settle(sent[:1], outcome, once=once)

    @rule(relay=st.integers(0, 1), limit=st.integers(2, 6), at_once=st.booleans())
    def claim(self, relay: int, limit: int, at_once: bool) -> None:
        claimed = self.run(
            self.boxes[relay].claim(
                LANE, limit=limit, lease=3600.0, worker=f"r{relay}", policy=self.policies[relay]
            )
        )
        begun = set()
        for work in sorted(claimed.works, key=lambda work: work.id):
            key = digest_key(work.content)
            flight = Flight(work, relay, claimed.refused.get(work.id))
            if flight.refused is None:
                assert key not in self.closed, "one message a window"
                assert key not in begun
                assert not any(
                    other.refused is None
                    and not other.lapsed
                    and digest_key(other.work.content) == key
                    for other in self.flights
                ), "one message of a key at a time"
                begun.add(key)
                lines = (work.content.message or "").splitlines()
                named = {line.removeprefix("• ") for line in lines}
                flight.tells = {work.id, *(i for title, i in self.ids.items() if title in named)}
                assert not flight.tells & self.canceled
            self.flights.append(flight)
        if at_once:
            self.settle_what_was_refused()

    @precondition(lambda self: self.flights)
    @rule(
        pick=places, count=st.integers(1, 4), outcome=st.sampled_from(OUTCOMES), once=st.booleans()
    )
    def settle(self, pick: int, count: int, outcome: Outcome, once: bool) -> None:
        at = pick % len(self.flights)
        self._settle(self.flights[at : at + count], outcome, once=once)

    @rule()
    def settle_what_was_refused(self) -> None:
        self._settle([flight for flight in self.flights if flight.refused], WELL)

    @rule()
    def leases_run_out(self) -> None:
        for flight in self.flights:
            flight.lapsed = True
            self.doubtful |= flight.tells
        self.execute(
            "UPDATE delivery SET lease_until = now() - interval '1 s' WHERE status = 'PROCESSING'"
        )

    @rule(relay=st.integers(0, 1))
    def rescue(self, relay: int) -> None:
        lost = self.run(self.boxes[relay].rescue(LANE, limit=50, lease=3600.0, worker=f"r{relay}"))
        taken = {work.id for work in lost}
        stale = [flight for flight in self.flights if flight.work.id in taken]
        self.flights = [flight for flight in self.flights if flight.work.id not in taken]
        for flight in stale:
            settlement = decide(flight.work, WELL, RETRY)
            box, policy = self.boxes[flight.relay], self.policies[flight.relay]
            assert self.run(box.settle([settlement], policy)) == set(), "its claim is lost"
        again = sorted(lost, key=lambda work: work.id)
        cut_short = Outcome.cut_short("lease_expired")
        self.flights += [Flight(work, relay, cut_short) for work in again]

    @rule()
    def the_window_passes(self) -> None:
        self.closed.clear()
        self.execute("UPDATE digest SET next_at = now()")
        self.time_passes()

    @rule()
    def time_passes(self) -> None:
        self.execute(
            # In the order of ids, so that a claim takes the same ones each time.
            "UPDATE delivery SET next_retry_at = now() - interval '1 s' + id * interval '1 ms'"
            " WHERE id IN (SELECT id FROM delivery"
            " WHERE status IN ('PENDING', 'FAILED') AND next_retry_at > now()"
            " FOR UPDATE SKIP LOCKED)"
        )

    @precondition(lambda self: self.ids)
    @rule(pick=places)
    def cancel(self, pick: int) -> None:
        self.let_go()
        identity = self._picked(pick)
        with suppress(Conflict):
            view = self.run(self.operations.cancel(self.notifications[identity]))
            if view.canceled:
                self.canceled.add(identity)

    @precondition(lambda self: self.ids)
    @rule(pick=places)
    def expire(self, pick: int) -> None:
        self.let_go()
        self.execute(
            "UPDATE delivery SET expires_at = now() - interval '1 s'"
            " WHERE id = %(id)s AND status IN ('PENDING', 'FAILED')",
            id=self._picked(pick),
        )
        self.run(self.boxes[0].expire())

    @precondition(lambda self: self.ids)
    @rule(pick=places)
    def retry(self, pick: int) -> None:
        self.let_go()
        identity = self._picked(pick)
        with suppress(Conflict):
            self.run(self.operations.retry(identity))
            self.doubtful.add(identity)

    @precondition(lambda self: self.holder is None and self.ids)
    @rule(pick=places)
    def hold(self, pick: int) -> None:
        """Somebody locks a delivery that waits, and changes nothing."""
        self.holder = psycopg.connect(self.database_url)
        self.holder.execute(
            "SELECT FROM delivery WHERE id = %s AND status = 'PENDING' FOR NO KEY UPDATE NOWAIT",
            [self._picked(pick)],
        )

    @precondition(lambda self: self.holder is not None)
    @rule()
    def let_go(self) -> None:
        if self.holder is not None:
            self.holder.rollback()
            self.holder.close()
            self.holder = None

    # What must be true

    @invariant()
    def success_means_told_and_cancelled_means_not(self) -> None:
        rows = self.run(self.database.fetch("SELECT id, status, error_code FROM delivery"))
        for identity, status, code in rows:
            if status == "SUCCESS":
                assert self.told[identity] >= 1, f"{identity} was told to nobody ({code})"
                if identity not in self.doubtful:
                    assert self.ended[identity] == 1, "it ends once in the figures"
            if identity not in self.doubtful:
                assert self.told[identity] <= 1, "nobody is told twice without need"
            if status == "CANCELED" and identity not in self.doubtful:
                assert self.told[identity] == 0

    def teardown(self) -> None:
        try:
            self.let_go()
            self._all_is_told()
        finally:
            self.run(self.database.close())
            self.runner.close()

    def _all_is_told(self) -> None:
        for _ in range(40):
            self.leases_run_out()
            self.rescue(relay=0)
            self._settle(list(self.flights), WELL)
            self.the_window_passes()
            self.claim(relay=1, limit=40, at_once=True)
            self._settle(list(self.flights), WELL)
            rows = self.run(self.database.fetch("SELECT DISTINCT status FROM delivery"))
            if not {row[0] for row in rows} & {"PENDING", "PROCESSING", "FAILED"}:
                break
        else:
            raise AssertionError(f"something waits for ever: {rows}")
        self.success_means_told_and_cancelled_means_not()

    # Helpers

    def _picked(self, pick: int) -> int:
        return list(self.ids.values())[pick % len(self.ids)]

    def _settle(self, flights: Sequence[Flight], outcome: Outcome, *, once: bool = False) -> None:
        for relay in range(2):
            own = [flight for flight in flights if flight.relay == relay]
            if own:
                self._settle_of(relay, own, outcome, once=once)

    def _settle_of(
        self, relay: int, flights: Sequence[Flight], outcome: Outcome, *, once: bool
    ) -> None:
        settlements = [
            decide(flight.work, flight.refused or outcome, RETRY, at_most_once=once)
            for flight in flights
        ]
        for flight, settlement in zip(flights, settlements, strict=True):
            if flight.refused is None and settlement.transition in (
                Transition.COMPLETE,
                Transition.HOLD,
            ):
                self.told.update(flight.tells)
                self.closed.add(digest_key(flight.work.content))
                if settlement.transition is Transition.HOLD:
                    self.doubtful |= flight.tells
            self._ends(settlement)
        landed = self.run(self.boxes[relay].settle(settlements, self.policies[relay]))
        assert landed == {flight.work.id for flight in flights}
        self.flights = [flight for flight in self.flights if flight not in flights]

    def _ends(self, settlement: Settlement[Message]) -> None:
        if settlement.transition in ENDS:
            self.ended[settlement.work.id] += 1


def test_what_is_gathered_is_told_once_whatever_happens(database_url: str) -> None:
    services = ChannelServices(http=None, secrets_for=None, print_line=print)  # type: ignore[arg-type]
    Digests.database_url = database_url
    Digests.hub = Hub({LANE: make(Environment({}), services)})
    run_state_machine_as_test(
        Digests,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
