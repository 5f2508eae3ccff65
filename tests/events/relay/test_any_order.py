"""Whatever happens to events, in whatever order: none is lost, stranded, or seen out of order.

Hypothesis plays relays (some killed, some frozen and woken), brokers, producers with long
transactions, and operators. The engine and the box are the real ones; only when a turn publishes
and when it writes what became of it is for hypothesis to say.

Nothing here hangs on the clock, and no precondition on what the engine has made of it: hypothesis
compares runs that begin alike, and calls the machine flaky where they may not go on alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import psycopg
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

from allim.base.tasks import cancel_and_wait
from allim.database.pool import Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.operations import OutboxOperator
from allim.events.slots import slot_of
from allim.relay.ordered.box import Fetched, Holdings, Landed, Settlement
from allim.relay.ordered.incarnation import Incarnation
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Line
from allim.relay.ordered.observer import OrderedSilence
from allim.relay.ordered.publisher import DELIVERED, NOT_TRIED, MaySend
from allim.relay.ordered.turns import Ways
from allim.relay.outcomes import Outcome
from tests.events.relay.conftest import put

Result = TypeVar("Result")

KEYS = ["a", "b", "c", None]
OUTCOMES = [
    DELIVERED,
    DELIVERED,
    DELIVERED,
    Outcome.retry("ill"),
    Outcome.refused("no"),
    Outcome.fault("down"),
    Outcome.snooze("later", 600.0),
    Outcome.unknown("hung"),
]
LIMITS = OrderedLimits(
    lease=3600.0, batch=3, batch_max=6, turns=4, max_retries=1, retry_after=0.0, pause=0.0,
    pause_max=0.0, due_every=0.0, rescan_every=1e9,
)  # fmt: skip
EVERYTHING = """
SELECT id::text, convert_from(payload, 'UTF8'), status, parked, next_retry_at IS NOT NULL,
       slot, topic, message_key, seq FROM outbox_messages ORDER BY seq"""


Late = tuple[str | None, Sequence[Sequence[int]]]
"""The question whose answer comes late, and what is published before it comes, and how."""
AT_ONCE: Late = (None, ())


def late(*questions: str) -> st.SearchStrategy[Late]:
    """No answer is late, or one to these is."""
    turns = st.lists(st.lists(st.integers(0, len(OUTCOMES) - 1), max_size=2), max_size=2)
    return st.just(AT_ONCE) | st.tuples(st.sampled_from(questions), turns)


class Gate:
    """Where turns wait until they may go on."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Sequence[int]]] = []

    async def wait(self) -> Sequence[int]:
        """Wait; what it was opened with."""
        future: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    def open(self, choices: Sequence[int]) -> None:
        """Let the first go on."""
        self.waiting.pop(0).set_result(choices)


class GatedBox(OutboxBox):
    """Writes what became of a turn when it is told to; one answer may come late.

    Such an answer says what was true when it was asked.
    """

    def __init__(self, database: Database, *, dead_blocks: bool) -> None:
        super().__init__(database, dead_blocks=dead_blocks)
        self.gate = Gate()
        self.answers = Gate()
        self.late: str | None = None
        """The question whose next answer comes late."""

    async def balance(self, relay: str) -> Holdings | None:
        found = await super().balance(relay)
        await self._wait("balance")
        return found

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        found = await super().blocked(slots)
        await self._wait("blocked")
        return found

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        found = await super().fetch(marks, limit, each=each)
        await self._wait("fetch")
        return found

    async def _wait(self, question: str) -> None:
        if self.late == question:
            self.late = None
            await self.answers.wait()

    async def settle(self, relay: str, settlement: Settlement[OutboxMessage]) -> Landed | None:
        await self.gate.wait()
        return await super().settle(relay, settlement)


class GatedWorld:
    """One relay's way out: publishes when it is told to, with outcomes it is told."""

    name = "world"

    def __init__(self, log: list[tuple[GatedWorld, OutboxMessage]]) -> None:
        self.gate = Gate()
        self._log = log

    def begin(self, relay: str) -> None:
        """It has no names."""

    async def fence(self, relay: str) -> None:
        """It has no fence."""

    async def publish(self, batch: Sequence[OutboxMessage], may_send: MaySend) -> Sequence[Outcome]:
        choices = await self.gate.wait()
        stopped = set()
        outcomes = []
        for place, message in enumerate(batch):
            outcome = OUTCOMES[choices[place % len(choices)]] if choices else DELIVERED
            if message.line in stopped:
                outcome = NOT_TRIED
            if outcome is DELIVERED:
                self._log.append((self, message))
            elif message.line is not None:
                stopped.add(message.line)
            outcomes.append(outcome)
        return outcomes

    async def purge(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Nothing is held."""

    async def diagnose(self) -> str | None:
        """All is well."""
        return None


class Relay:
    """An incarnation that is moved by hand."""

    def __init__(self, number: int, database: Database, log: list[Any], dead_blocks: bool) -> None:
        self.box = GatedBox(database, dead_blocks=dead_blocks)
        self.world = GatedWorld(log)
        self.life: Incarnation[OutboxMessage] = Incarnation(
            f"relay-{number}",
            self.box,
            Ways({"world": self.world}, lambda _topic: "world"),
            limits=LIMITS,
            woken=asyncio.Event(),
            listening=lambda: True,
            observer=OrderedSilence(),
            clock=asyncio.get_running_loop().time,
        )
        self.killed = False

    async def balance(self) -> None:
        """Take what there is to take, and have the dead fenced."""
        await self.life._balance()
        if (task := self.life._succession._task) is not None:
            await task

    async def step(self, step: Coroutine[Any, Any, Any], late: Late) -> None:
        """Do a step; where an answer of it is late, turns go on before it comes."""
        question, meanwhile = late
        self.box.late = question
        doing = asyncio.create_task(step)
        while not doing.done() and not self.box.answers.waiting:
            await asyncio.sleep(0.0005)
        if not doing.done():
            for choices in meanwhile:
                await self.quiet()
                for gate in (self.world.gate, self.box.gate):
                    if gate.waiting:
                        gate.open(choices)
                        await asyncio.sleep(0)
                        await self.quiet()
            self.box.answers.open([])
        self.box.late = None
        await doing
        await self.quiet()

    async def quiet(self) -> None:
        """Until every turn has ended or waits at a gate."""
        while len(self.life._turns) > len(self.box.gate.waiting) + len(self.world.gate.waiting):
            await asyncio.sleep(0.0005)


class Events(RuleBasedStateMachine):
    """What may happen to the outbox."""

    database_url = ""
    dead_blocks = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.database = Database(self.database_url)
        self.run(self.database.open())
        self.run(
            self.database.fetch(
                "WITH s AS (UPDATE relay_slot SET relay_id = NULL),"
                " r AS (DELETE FROM relay), m AS (DELETE FROM outbox_messages) SELECT 1"
            )
        )
        self.operator = OutboxOperator(self.database)
        self.log: list[tuple[GatedWorld, OutboxMessage]] = []
        self.checked = 0
        self.relays: list[Relay] = []
        self.everybody: list[Relay] = []
        self.number = 0
        self.committed: set[str] = set()
        self.late: dict[str, tuple[psycopg.AsyncConnection[Any], list[str]]] = {}
        self.excused: set[str] = set()
        self.delivered: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(coroutine)

    # Producers

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def publish(self, keys: list[str | None]) -> None:
        events = [(key, self._name(key)) for key in keys]

        async def write() -> None:
            async with self.database.transaction() as tx:
                # What has no key takes any slot, and the same each time.
                await tx.execute("SELECT setseed(0)")
                await put(tx, *events)

        self.run(write())
        self.committed.update(name for _, name in events)

    @precondition(lambda self: len(self.late) < 2)
    @rule()
    def begin_late(self) -> None:
        # Beside others in their slot, whose numbers go on meanwhile.
        key = next(
            key
            for number in range(9999)
            if slot_of(key := f"late{number}") == slot_of("a") and key not in self.late
        )
        names = [self._name(key), self._name(key)]

        async def write() -> psycopg.AsyncConnection[Any]:
            tx = await psycopg.AsyncConnection.connect(self.database_url)
            await put(tx, *[(key, name) for name in names])
            return tx

        self.late[key] = (self.run(write()), names)

    @precondition(lambda self: self.late)
    @rule(commits=st.booleans(), follows=st.booleans())
    def end_late(self, commits: bool, follows: bool) -> None:
        key = next(iter(self.late))
        tx, names = self.late.pop(key)
        self.run(tx.commit() if commits else tx.rollback())
        self.run(tx.close())
        self.committed.update(names if commits else ())
        if follows:  # somebody had waited for it
            self.publish([key])

    # Relays

    @precondition(lambda self: len(self.relays) < 4)
    @rule()
    def join(self) -> None:
        self.number += 1

        async def begin() -> Relay:
            relay = Relay(self.number, self.database, self.log, self.dead_blocks)
            await relay.box.register(relay.life.name, LIMITS.lease)
            await relay.balance()
            return relay

        self.relays.append(self.run(begin()))
        self.everybody.append(self.relays[-1])

    @precondition(lambda self: self.relays)
    @rule(which=st.integers(0, 3), late=late("balance", "blocked"))
    def balance(self, which: int, late: Late = AT_ONCE) -> None:
        relay = self._relay(which)
        if not relay.killed:
            self.run(relay.step(relay.balance(), late))

    @precondition(lambda self: self.relays)
    @rule(which=st.integers(0, 3), drains=st.booleans(), late=late("fetch"))
    def read(self, which: int, drains: bool, late: Late = AT_ONCE) -> None:
        relay = self._relay(which)
        if relay.killed or len(relay.life._turns) >= LIMITS.turns:
            return

        for slot, seq in relay.life._pauses.to_read_again():
            relay.life._marks.lower(slot, seq - 1)
        self.run(relay.step(relay.life._drain() if drains else relay.life._fetch(), late))

    @precondition(lambda self: self.relays)
    @rule(which=st.integers(0, 7), choices=st.lists(st.integers(0, len(OUTCOMES) - 1), max_size=5))
    def send(self, which: int, choices: list[int]) -> None:
        ready = [relay for relay in self.relays if relay.world.gate.waiting]
        if not ready:
            return
        relay = ready[which % len(ready)]
        before = len(self.log)
        self.run(self._open(relay, relay.world.gate, choices))
        for _, message in self.log[before:]:
            if relay.killed:
                # A relay that woke from its death: these are repeats, or will have been.
                self.allowed[message.payload.decode()] += 1

    @precondition(lambda self: self.relays)
    @rule(which=st.integers(0, 7))
    def settle(self, which: int) -> None:
        ready = [relay for relay in self.relays if relay.box.gate.waiting]
        if not ready:
            return
        relay = ready[which % len(ready)]
        before = self.rows()
        self.run(self._open(relay, relay.box.gate, []))
        if relay.killed:
            assert self.rows() == before, "a relay without a lease writes nothing"

    @precondition(lambda self: any(not relay.killed for relay in self.relays))
    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        alive = [relay for relay in self.relays if not relay.killed]
        relay = alive[which % len(alive)]
        relay.killed = True
        self.run(relay.box.retire(relay.life.name, clean=False))
        sent = {message.id: name for name, message in self._in_doubt(relay)}
        self.allowed.update(sent.values())

    # Time

    @precondition(lambda self: self.relays)
    @rule()
    def let_time_pass(self) -> None:
        self.run(
            self.database.fetch(
                "UPDATE outbox_messages SET next_retry_at = now() WHERE next_retry_at > now()"
                " RETURNING 1"
            )
        )

    # Operators

    @precondition(lambda self: self.committed)
    @rule(which=st.integers(0, 1000), discards=st.booleans())
    def operate(self, which: int, discards: bool) -> None:
        rows = self.rows()
        identity, name, status = rows[which % len(rows)][:3]
        if discards:
            if self.run(self.operator.discard([UUID(identity)])):
                self.excused.add(name)
        elif self.run(self.operator.replay([UUID(identity)])):
            self.allowed[name] += 1
            if status == "DISCARDED":
                self.excused.add(name)

    # What must hold

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        assert {row[1] for row in self.rows()} == self.committed

    @invariant()
    def every_blocked_line_has_somebody_who_lets_it_go_on(self) -> None:
        lines: dict[Any, bool] = {}
        for _, _, status, parked, due, slot, topic, key, seq in self.rows():
            if parked:
                line = (slot, topic, key if key is not None else seq)
                lines[line] = lines.get(line, False) or due or status == "DEAD"
        assert all(lines.values())

    @invariant()
    def what_is_seen_first_is_in_order_and_repeats_have_a_reason(self) -> None:
        rows = self.rows()
        for _, name, status, *_ in rows:
            if status == "DEAD" and not self.dead_blocks:
                self.excused.add(name)
        for _, message in self.log[self.checked :]:
            name = message.payload.decode()
            # What was discarded and replayed leaves when it is due: its place is gone.
            if not self.delivered[name] and message.key is not None and name not in self.excused:
                before = [r[1] for r in rows if r[7] == message.key and r[8] < message.seq]
                unseen = [n for n in before if not self.delivered[n] and n not in self.excused]
                assert not unseen, f"{name} overtook {unseen}"
            self.delivered[name] += 1
            assert self.delivered[name] <= 1 + self.allowed[name], f"{name} came without a reason"
        self.checked = len(self.log)
        for _, name, status, *_ in rows:
            assert status != "SENT" or self.delivered[name]

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            self.run(cancel_and_wait(*(t for relay in self.everybody for t in relay.life._turns)))
            self.run(self.database.close())
            self.loop.close()

    def _finish(self) -> None:
        """Everything else ends, and one relay whose world takes everything does the rest."""
        while self.late:
            self.end_late(True, False)
        while any(not relay.killed for relay in self.relays):
            self.kill(0)
        self.relays.clear()
        self.join()
        idle = 0
        # Transactions of other databases on this server end between two reads, too; then what was
        # met is read again before it leaves, and a round goes by. What is stranded stays so.
        while idle < (100 if self._left() else 2):
            before = self.rows()
            self.let_time_pass()
            # Now and then, as relays do: a slot that was locked just then is taken the next time.
            self.balance(0)
            for drains in (True, False):
                self.read(0, drains)
                while any(r.world.gate.waiting for r in self.relays):
                    self.send(0, [0])
                while any(r.box.gate.waiting for r in self.relays):
                    self.settle(0)
            if self.dead_blocks:
                dead = [UUID(row[0]) for row in before if row[2] == "DEAD" and row[3]]
                if dead:
                    self.run(self.operator.discard(dead))
                    self.excused.update(r[1] for r in before if r[2] == "DEAD")
            idle = idle + 1 if self.rows() == before else 0
        self.what_is_seen_first_is_in_order_and_repeats_have_a_reason()
        left = self._left()
        assert not left, f"stranded: {left}"

    # Parts

    def rows(self) -> list[tuple[Any, ...]]:
        return self.run(self.database.fetch(EVERYTHING))

    def _left(self) -> list[tuple[Any, ...]]:
        return [row[1:3] for row in self.rows() if row[2] not in ("SENT", "DEAD", "DISCARDED")]

    def _name(self, key: str | None) -> str:
        self.number += 1
        return f"{key}-{self.number:04}"

    def _relay(self, which: int) -> Relay:
        return self.relays[which % len(self.relays)]

    async def _open(self, relay: Relay, gate: Gate, choices: Sequence[int]) -> None:
        gate.open(choices)
        await asyncio.sleep(0)
        await relay.quiet()

    def _in_doubt(self, relay: Relay) -> list[tuple[str, OutboxMessage]]:
        """What this relay has sent and not written down."""
        sent = {row[0] for row in self.rows() if row[2] == "SENT"}
        mine = [message for world, message in self.log if world is relay.world]
        return [(m.payload.decode(), m) for m in mine if m.id not in sent]


@pytest.mark.timeout(280)
@pytest.mark.parametrize("dead_blocks", [False, True])
def test_no_order_of_events_loses_strands_or_reorders_any(
    database_url: str, dead_blocks: bool
) -> None:
    class OnThisDatabase(Events):
        pass

    OnThisDatabase.database_url = database_url
    OnThisDatabase.dead_blocks = dead_blocks
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=20,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
