"""What commits late is neither overtaken nor lost, in whatever order transactions come and go.

Hypothesis plays producers and the moments at which the relay reads; the engine is the real one, the
outbox is in memory, so that thousands of orders are tried in seconds. Reading from the bottom
now and then, which would hide a mistake here, is switched off.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

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
from allim.relay.ordered.incarnation import Incarnation
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.ordered.publisher import DELIVERED, MaySend
from allim.relay.ordered.turns import Ways
from allim.relay.outcomes import Outcome
from allim.testing.clock import HandClock
from allim.testing.memory_ordered_box import MemoryOrderedBox, MemoryTransaction

SLOT = slot_of("a")
BESIDE = [key for n in range(999) if slot_of(key := f"k{n}") == SLOT][:2]
KEYS = ["a", *BESIDE, "elsewhere"]
LIMITS = OrderedLimits(lease=1e9, batch=2, batch_max=4, turns=4, rescan_every=1e9)


class PatientWorld:
    """Takes everything; a batch when it is told to."""

    name = "world"

    def __init__(self) -> None:
        self.came: dict[str | None, list[str]] = defaultdict(list)
        self.waiting: list[asyncio.Future[bool]] = []

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        if not await future:
            return [Outcome.fault("down")] * len(batch)
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
        self.box = MemoryOrderedBox(clock=self.clock)
        self.world = PatientWorld()
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
            observer=OrderedSilence(),
            clock=self.clock,
        )
        await self.box.register("relay", LIMITS.lease)
        await life._balance()
        return life

    # Producers

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 3))
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

    @rule()
    def read(self) -> None:
        if len(self.life._turns) < LIMITS.turns:
            self.loop.run_until_complete(self._read())

    @precondition(lambda self: self.world.waiting)
    @rule(which=st.integers(0, 3), works=st.sampled_from([True, True, True, False]))
    def send(self, which: int, works: bool) -> None:
        self.loop.run_until_complete(self._send(which, works))

    @rule()
    def rest(self) -> None:
        self.clock.turn(LIMITS.pause_max)

    async def _read(self) -> None:
        self.life._read_at = self.clock()
        await self.life._read()
        await self._quiet()

    async def _send(self, which: int, works: bool) -> None:
        self.world.waiting.pop(which % len(self.world.waiting)).set_result(works)
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

    def teardown(self) -> None:
        try:
            while self.open:
                self.end(0, True, False)
            idle = 0
            while idle < 3:
                before = sum(map(len, self.world.came.values()))
                self.rest()
                self.read()
                while self.world.waiting:
                    self.send(0, True)
                idle = idle + 1 if sum(map(len, self.world.came.values())) == before else 0
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
    producers.send(which=0, works=False)
    producers.end(which=0, commits=True, follows=True)
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
