"""What commits late is neither overtaken nor lost, in whatever order transactions come and go.

Hypothesis plays producers, the moments at which the relay reads, another relay that comes and
leaves, and answers of the outbox that come late, when turns have ended meanwhile. The engine is
the real one, the outbox is in memory, so that thousands of orders are tried in seconds. Reading
from the bottom now and then, which would hide a mistake here, is switched off.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Coroutine, Sequence
from enum import Enum, auto
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from allim.events.relaying.message import OutboxMessage
from allim.events.slots import slot_of
from allim.relay.ordered.box import Fetched, Holdings, Settlement
from allim.relay.ordered.incarnation import Incarnation
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Line
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend
from allim.relay.ordered.turns import Ways
from allim.relay.outcomes import Outcome
from allim.testing.clock import HandClock
from allim.testing.memory_ordered_box import MemoryOrderedBox, MemoryTransaction

RETRY = Outcome.retry("ill")
SLOT = slot_of("a")
BESIDE = [key for n in range(999) if slot_of(key := f"k{n}") == SLOT][:2]
KEYS = ["a", *BESIDE, "elsewhere"]
LIMITS = OrderedLimits(
    lease=1e9, batch=2, batch_max=4, turns=4, max_retries=1000, retry_after=10.0, rescan_every=1e9,
    pause=0.001,
)  # fmt: skip


class Way(Enum):
    """How a turn ends."""

    TAKEN = auto()
    DOWN = auto()
    REFUSED = auto()
    """The head of each line for now; what follows is not tried."""
    BROKEN = auto()
    """The same, and the relay breaks down over it once that is written."""


WAYS = st.sampled_from([Way.TAKEN, Way.TAKEN, Way.REFUSED, Way.DOWN, Way.BROKEN])
MEANWHILE = st.lists(WAYS | st.sampled_from(KEYS), min_size=1, max_size=4)
"""Turns that end, and keys for which something is published."""


class LateBox(MemoryOrderedBox):
    """An outbox of which one answer may come late: it says what was true when it was asked."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock=clock)
        self.late: str | None = None
        """The question whose next answer comes late."""
        self.answers: asyncio.Future[None] | None = None

    async def balance(self, relay: str) -> Holdings | None:
        """Late when told so."""
        found = await super().balance(relay)
        await self._wait("balance")
        return found

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        """Late when told so."""
        found = await super().blocked(slots)
        await self._wait("blocked")
        return found

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        """Late when told so."""
        found = await super().fetch(marks, limit, each=each)
        await self._wait("fetch")
        return found

    async def due(
        self, slots: Collection[int], limit: int, *, without: Collection[str] = ()
    ) -> Sequence[OutboxMessage]:
        """Late when told so."""
        found = await super().due(slots, limit, without=without)
        await self._wait("due")
        return found

    async def _wait(self, question: str) -> None:
        if self.late == question:
            self.late = None
            self.answers = asyncio.get_running_loop().create_future()
            await self.answers


class Brittle(OrderedSilence):
    """An observer that fails once it was told to."""

    def __init__(self) -> None:
        self.breaks = False

    def settled(self, settlement: Settlement[Any], seconds: float) -> None:
        """Fail, if so."""
        if self.breaks:
            self.breaks = False
            raise RuntimeError("a bug of whoever looks on")


class PatientWorld:
    """Ends a turn when it is told to, and as it is told."""

    name = "world"

    def __init__(self, observer: Brittle) -> None:
        self.observer = observer
        self.came: dict[str | None, list[str]] = defaultdict(list)
        self.waiting: list[asyncio.Future[Way]] = []

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        future: asyncio.Future[Way] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        way = await future
        if way is Way.DOWN:
            return [Outcome.fault("down")] * len(batch)
        self.observer.breaks = way is Way.BROKEN
        if way in (Way.REFUSED, Way.BROKEN):
            heads = {message.line: message for message in reversed(batch)}.values()
            return [RETRY if message in heads else NOT_TRIED for message in batch]
        for message in batch:
            self.came[message.key].append(message.payload.decode())
        return [DELIVERED] * len(batch)

    async def purge(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Nothing is held."""

    async def diagnose(self) -> str | None:
        """All is well."""
        return None


class Producers(RuleBasedStateMachine):
    """Producers keep to the contract: they lock a key before they publish for it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.box = LateBox(self.clock)
        self.observer = Brittle()
        self.world = PatientWorld(self.observer)
        self.number = 0
        self.open: list[tuple[MemoryTransaction, dict[str, list[str]]]] = []
        self.committed: dict[str, list[str]] = defaultdict(list)
        self.life: Incarnation[OutboxMessage] = self.loop.run_until_complete(self._live())

    async def _live(self) -> Incarnation[OutboxMessage]:
        life = Incarnation(
            "relay",
            self.box,
            Ways({"world": self.world}, lambda _topic: "world"),
            limits=LIMITS,
            woken=asyncio.Event(),
            listening=lambda: True,
            observer=self.observer,
            clock=self.clock,
        )
        await self.box.register("relay", LIMITS.lease)
        await self._another_comes()
        await life._balance()
        await self.box.balance(self.another)
        return life

    async def _another_comes(self) -> None:
        self.another = f"another-{len(self.box.relays)}"
        await self.box.register(self.another, LIMITS.lease)

    # Producers

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 3), reads=st.booleans())
    def publish_and_read(self, key: str, count: int, reads: bool) -> None:
        self.publish(key, count)
        if reads:
            self.read()

    def publish(self, key: str, count: int) -> None:
        if any(key in locked for _, locked in self.open):
            return  # it waits for the lock
        names = [self._name(key) for _ in range(count)]
        self.box.put(*[(key, name) for name in names])
        self.committed[key] += names

    @precondition(lambda self: len(self.open) < 3)
    @rule(takes_id=st.booleans())
    def begin(self, takes_id: bool) -> None:
        transaction = self.box.begin()
        if takes_id:
            transaction.take_id()
        self.open.append((transaction, {}))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2), key=st.sampled_from(KEYS))
    def publish_in_it(self, which: int, key: str) -> None:
        at = which % len(self.open)
        transaction, mine = self.open[at]
        if any(key in locked for n, (_, locked) in enumerate(self.open) if n != at):
            return
        name = self._name(key)
        transaction.publish(key, name)
        mine.setdefault(key, []).append(name)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2), commits=st.booleans(), follows=st.booleans())
    def end(self, which: int, commits: bool, follows: bool) -> None:
        transaction, mine = self.open.pop(which % len(self.open))
        if commits:
            transaction.commit()
            for key, names in mine.items():
                self.committed[key] += names
        else:
            transaction.rollback()
        for key in mine if follows else ():
            self.publish(key, 1)  # somebody had waited for it

    # The relay

    @rule(late=st.sampled_from([None, "fetch", "due"]), meanwhile=MEANWHILE)
    def read(self, late: str | None = None, meanwhile: Sequence[Way | str] = ()) -> None:
        if len(self.life._turns) < LIMITS.turns:
            self.life._read_at = self.clock()
            self.loop.run_until_complete(self._step(self.life._read(), late, meanwhile))

    @rule(late=st.sampled_from([None, "balance", "blocked"]), meanwhile=MEANWHILE)
    def balance(self, late: str | None = None, meanwhile: Sequence[Way | str] = ()) -> None:
        self.loop.run_until_complete(self._step(self.life._balance(), late, meanwhile))
        if self.box.holds(self.another):
            self.loop.run_until_complete(self.box.balance(self.another))

    @rule(
        key=st.sampled_from(KEYS),
        late=st.sampled_from(["balance", "blocked"]),
        meanwhile=MEANWHILE,
    )
    def another_comes_or_leaves_in_mid_flow(
        self, key: str, late: str, meanwhile: Sequence[Way | str]
    ) -> None:
        self.publish(key, 1)
        self.read()
        self.another_comes_or_leaves(late, meanwhile)

    def another_comes_or_leaves(self, late: str, meanwhile: Sequence[Way | str]) -> None:
        leaves = self.box.holds(self.another)
        self.loop.run_until_complete(
            self.box.retire(self.another, clean=True) if leaves else self._another_comes()
        )
        self.balance(late, meanwhile)

    @precondition(lambda self: self.world.waiting)
    @rule(which=st.integers(0, 3), way=WAYS)
    def send(self, which: int, way: Way) -> None:
        self.loop.run_until_complete(self._send(which, way))

    @rule()
    def rest(self) -> None:
        self.clock.turn(LIMITS.pause_max)

    async def _step(
        self, step: Coroutine[Any, Any, Any], late: str | None, meanwhile: Sequence[Way | str]
    ) -> None:
        """A step of the relay. Where an answer of it is late, this comes before it."""
        self.box.late, self.box.answers = late, None
        doing = asyncio.create_task(step)
        while not doing.done() and self.box.answers is None:
            await asyncio.sleep(0)
        if self.box.answers is not None:
            await self._quiet()
            for each in meanwhile:
                if isinstance(each, str):
                    self.publish(each, 1)
                elif self.world.waiting:
                    await self._send(0, each)
            self.box.answers.set_result(None)
        self.box.late = None
        await doing
        await self._quiet()

    async def _send(self, which: int, way: Way) -> None:
        self.world.waiting.pop(which % len(self.world.waiting)).set_result(way)
        await asyncio.sleep(0)
        await self._quiet()

    async def _quiet(self) -> None:
        while len(self.life._turns) > len(self.world.waiting):
            await asyncio.sleep(0)

    def _name(self, key: str) -> str:
        self.number += 1
        return f"{key}-{self.number:04}"

    # What must hold

    @invariant()
    def every_key_leaves_in_order_and_once(self) -> None:
        for key, came in self.world.came.items():
            assert came == self.committed[str(key)][: len(came)]

    @invariant()
    def what_is_parked_is_known_to_be(self) -> None:
        held = self.life._tenure.held
        parked = {e.message.line for e in self.box.committed() if e.parked}
        unknown = parked - self.life._tenure.blocked
        assert not {line for line in unknown if line is not None and line.slot in held}

    def teardown(self) -> None:
        try:
            while self.open:
                self.end(0, True, False)
            self.loop.run_until_complete(self.box.retire(self.another, clean=True))
            self.balance()
            idle = 0
            while idle < 3:
                before = [(event.status, event.parked) for event in self.box.events]
                if idle:  # at first as it stands: time mends much
                    self.rest()
                self.read()
                while self.world.waiting:
                    self.send(0, Way.TAKEN)
                after = [(event.status, event.parked) for event in self.box.events]
                idle = idle + 1 if after == before else 0
            self.every_key_leaves_in_order_and_once()
            assert dict(self.world.came) == {k: v for k, v in self.committed.items() if v}
        finally:
            for task in self.life._turns:
                task.cancel()
            self.loop.close()


def test_late_commits_are_neither_overtaken_nor_lost() -> None:
    run_state_machine_as_test(
        Producers,
        settings=settings(
            max_examples=150,
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_what_commits_late_below_what_was_passed_over_is_not_left_behind() -> None:
    producers = Producers()
    early, late = BESIDE
    producers.begin(takes_id=True)
    producers.publish_in_it(which=0, key=late)
    producers.publish(key=early, count=1)
    producers.read()
    producers.send(which=0, way=Way.DOWN)
    producers.end(which=0, commits=True, follows=True)
    producers.teardown()


def test_a_turn_that_breaks_down_once_it_is_written_lets_nothing_overtake() -> None:
    producers = Producers()
    producers.publish(key="a", count=1)
    producers.read()
    producers.send(which=0, way=Way.BROKEN)
    producers.publish(key="a", count=1)
    producers.teardown()


def test_a_publisher_that_closes_while_parked_messages_are_looked_for_is_closed() -> None:
    producers = Producers()
    producers.publish(key="a", count=1)
    producers.read()
    producers.publish(key="a", count=1)
    producers.life._due_at = producers.clock()
    producers.read(late="due", meanwhile=[Way.DOWN])
    producers.teardown()


def test_a_line_that_is_refused_while_slots_are_taken_over_stays_blocked() -> None:
    producers = Producers()
    producers.publish(key="a", count=1)
    producers.read()
    producers.another_comes_or_leaves(late="blocked", meanwhile=[Way.REFUSED])
    producers.publish(key="a", count=1)
    producers.teardown()


def test_a_wake_that_comes_as_a_wait_ends_is_heard() -> None:
    producers = Producers()
    life = producers.life

    async def wake_at_the_end() -> bool:
        waiting = asyncio.create_task(life._wait(0.0))
        await asyncio.sleep(0)
        life._woken.set()
        return await waiting

    assert producers.loop.run_until_complete(wake_at_the_end())
    producers.teardown()


def test_a_relay_whose_slots_are_all_busy_waits() -> None:
    producers = Producers()
    life = producers.life
    life._tenure.busy |= life._tenure.held
    producers.read()
    assert life._seconds_to_wait() == LIMITS.balance_every
    producers.teardown()
