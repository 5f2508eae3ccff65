"""An outbox in memory, for trying out publishers and the ordered engine without a database.

It keeps to the same cases as the one in PostgreSQL: transactions see nothing of each other before
they commit, and their numbers are drawn when they write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.events.relaying.message import OutboxMessage
from allim.events.slots import slot_of
from allim.relay.low_water import Snapshot
from allim.relay.ordered.box import Failure, Fetched, Holdings, Landed, Settlement
from allim.relay.ordered.limits import SLOTS
from allim.relay.ordered.message import Line


@dataclass(slots=True)
class MemoryEvent:
    """An event as it stands in the outbox; `due` is by the box's clock."""

    message: OutboxMessage
    transaction: int
    status: str = "PENDING"
    parked: bool = False
    due: float | None = None
    error: str | None = None

    @property
    def seq(self) -> int:
        """Its place."""
        return self.message.seq


@dataclass(slots=True)
class MemoryRelay:
    """An incarnation and its lease."""

    lease_until: float
    retired: bool = False
    fenced: bool = False
    slots: set[int] = field(default_factory=set)


class MemoryTransaction:
    """Events that nobody sees before they are committed."""

    def __init__(self, box: MemoryOrderedBox) -> None:
        self._box = box
        self._id: int | None = None

    def take_id(self) -> int:
        """Take the transaction's number, as any write of it does."""
        if self._id is None:
            self._id = self._box._begin()
        return self._id

    def publish(self, key: str | None, payload: str, topic: str = "orders") -> None:
        """Write an event."""
        self._box._write(self.take_id(), key, payload, topic)

    def commit(self) -> None:
        """Let everybody see them."""
        if self._id is not None:
            self._box._end(self._id, commits=True)

    def rollback(self) -> None:
        """As if nothing had been."""
        if self._id is not None:
            self._box._end(self._id, commits=False)


class MemoryOrderedBox:
    """Implements relay.ordered.box.OrderedBox for any number of relays of one process.

    With `dead_blocks` a dead message holds up its line.
    """

    def __init__(self, *, dead_blocks: bool = False, clock: Clock = SYSTEM_CLOCK) -> None:
        self.dead_blocks = dead_blocks
        self.events: list[MemoryEvent] = []
        """In the order of their numbers, what is not committed included."""
        self.relays: dict[str, MemoryRelay] = {}
        self._clock = clock
        self._open: set[int] = set()
        self._last_transaction = 0
        self._last_seq = 0

    # Producers

    def begin(self) -> MemoryTransaction:
        """Begin a transaction."""
        return MemoryTransaction(self)

    def put(self, *events: tuple[str | None, str], topic: str = "orders") -> None:
        """Write events, each a key and a payload, in a transaction of their own."""
        transaction = self.begin()
        for key, payload in events:
            transaction.publish(key, payload, topic)
        transaction.commit()

    def committed(self) -> Sequence[MemoryEvent]:
        """What everybody sees."""
        return [event for event in self.events if event.transaction not in self._open]

    def _begin(self) -> int:
        self._last_transaction += 1
        self._open.add(self._last_transaction)
        return self._last_transaction

    def _write(self, transaction: int, key: str | None, payload: str, topic: str) -> None:
        self._last_seq += 1
        slot = slot_of(key) if key is not None else self._last_seq % SLOTS
        line = None if key is None else Line(slot, topic, key)
        message = OutboxMessage(
            slot, self._last_seq, line, str(uuid4()), topic, key, payload.encode(), {}, None,
            None, self._clock(), 0, 0,
        )  # fmt: skip
        self.events.append(MemoryEvent(message, transaction))

    def _end(self, transaction: int, *, commits: bool) -> None:
        self._open.discard(transaction)
        if not commits:
            self.events = [event for event in self.events if event.transaction != transaction]

    # Relays and their slots

    async def register(self, relay: str, lease: float) -> None:
        """Begin an incarnation."""
        self.relays[relay] = MemoryRelay(self._clock() + lease)

    def fence_keeper(self, relay: str, lease: float) -> MemoryFence:
        """A keeper of its lease."""
        return MemoryFence(self, relay, lease)

    async def balance(self, relay: str) -> Holdings | None:
        """Retire the dead, take free slots up to the fair share; None where the lease is lost."""
        for other in self.relays.values():
            if not other.retired and other.lease_until < self._clock():
                other.retired = True
                other.slots.clear()
        if not self.holds(relay):
            return None
        alive = [other for other in self.relays.values() if not other.retired]
        share = -(-SLOTS // len(alive))
        mine = self.relays[relay].slots
        free = set(range(SLOTS)).difference(*(other.slots for other in alive))
        mine.update(sorted(free)[: max(share - len(mine), 0)])
        unfenced = {name for name, it in self.relays.items() if it.retired and not it.fenced}
        return Holdings(frozenset(mine), share, frozenset(unfenced))

    async def release(self, relay: str, slots: Collection[int]) -> None:
        """Give slots back."""
        self.relays[relay].slots.difference_update(slots)

    async def retire(self, relay: str, *, clean: bool) -> None:
        """End an incarnation; its slots are free at once."""
        ended = self.relays[relay]
        ended.retired, ended.fenced = True, ended.fenced or clean
        ended.slots.clear()

    async def fenced(self, relays: Collection[str]) -> None:
        """Of these ended incarnations nothing can come any more."""
        for relay in relays:
            if relay in self.relays and self.relays[relay].retired:
                self.relays[relay].fenced = True

    def holds(self, relay: str) -> bool:
        """Whether an incarnation's lease holds."""
        known = self.relays.get(relay)
        return known is not None and not known.retired and known.lease_until > self._clock()

    # Reading

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        """What is ready in these slots above these marks; pairs of slot and mark."""
        ready = [e for e in self.committed() if e.status == "PENDING" and not e.parked]
        found: list[OutboxMessage] = []
        for slot, mark in marks:
            above = [e for e in ready if e.message.slot == slot and e.seq > mark]
            found += [replace(event.message) for event in above[: min(each or limit, limit)]]
        return Fetched(found[:limit], Snapshot(self._last_transaction + 1, frozenset(self._open)))

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        """The lines of these slots that have parked messages."""
        lines = {e.message.line for e in self.committed() if e.parked and e.message.slot in slots}
        return {line for line in lines if line is not None}

    async def due(
        self, slots: Collection[int], limit: int, *, without: Collection[str] = ()
    ) -> Sequence[OutboxMessage]:
        """Parked messages that are due, each line in order from its head.

        A head that has failed before comes alone.
        """
        parked = [
            event
            for event in self.committed()
            if event.parked and event.message.slot in slots and event.message.topic not in without
        ]
        found: list[OutboxMessage] = []
        looked_at: set[Line] = set()
        for first in sorted((e for e in parked if self._is_due(e)), key=lambda e: e.due or 0.0):
            line = first.message.line
            if line is None:
                found.append(replace(first.message))
            elif line not in looked_at:
                looked_at.add(line)
                found += self._ready_of([e for e in parked if e.message.line == line])
        return found[:limit]

    def _ready_of(self, line: Sequence[MemoryEvent]) -> Sequence[OutboxMessage]:
        ready: list[OutboxMessage] = []
        for event in line:
            waits = event.status == "DEAD" or (event.due is not None and not self._is_due(event))
            if waits or (ready and line[0].message.retry_count):
                break
            ready.append(replace(event.message))
            if event.message.retry_count:
                break
        return ready

    def _is_due(self, event: MemoryEvent) -> bool:
        return event.due is not None and event.due <= self._clock()

    # Settling

    async def settle(self, relay: str, settlement: Settlement[OutboxMessage]) -> Landed | None:
        """Write what became of a turn; None where the lease is lost and nothing was written."""
        if not self.holds(relay):
            return None
        by_id = {event.message.id: event for event in self.committed()}
        for message in settlement.sent:
            event = by_id.get(message.id)
            if event is not None and self._is_as_read(event, message):
                event.status, event.parked, event.due = "SENT", False, None
                event.message.version += 1
        if settlement.is_plain:
            return Landed()
        for failure in settlement.retried:
            self._fail(by_id.get(failure.message.id), failure, "FAILED", parked=True)
        for failure in settlement.buried:
            parked = self.dead_blocks and failure.message.line is not None
            self._fail(by_id.get(failure.message.id), failure, "DEAD", parked=parked)
        for message in settlement.parked:
            event = by_id.get(message.id)
            if event is not None and event.status == "PENDING":
                event.parked = True
        lines = {
            *(settlement.drained or ()),
            *(message.line for message in settlement.parked),
            *(f.message.line for f in (*settlement.retried, *settlement.buried)),
        }
        return self._mark_heads({line for line in lines if line is not None})

    @staticmethod
    def _is_as_read(event: MemoryEvent, message: OutboxMessage) -> bool:
        return event.status in ("PENDING", "FAILED") and event.message.version == message.version

    def _fail(
        self,
        event: MemoryEvent | None,
        failure: Failure[OutboxMessage],
        status: str,
        *,
        parked: bool,
    ) -> None:
        if event is None or not self._is_as_read(event, failure.message):
            return
        event.status, event.parked = status, parked
        event.error = f"{failure.code}: {failure.detail}" if failure.detail else failure.code
        event.due = None
        if status == "FAILED":
            event.message.retry_count += int(failure.spent)
            if failure.delay is not None:
                event.due = self._clock() + failure.delay
        event.message.version += 1

    def _mark_heads(self, lines: Collection[Line]) -> Landed:
        """Every line that has parked messages is due at some time, or waits for an operator."""
        blocked: dict[Line, float | None] = {}
        for line in lines:
            head = next((e for e in self.committed() if e.parked and e.message.line == line), None)
            if head is None:
                continue
            if head.status == "DEAD":
                blocked[line] = None
                continue
            if head.due is None:
                head.due = self._clock()
            blocked[line] = head.due - self._clock()
        return Landed(blocked, [line for line in lines if line not in blocked])


class MemoryFence:
    """Extends the lease of one incarnation."""

    def __init__(self, box: MemoryOrderedBox, relay: str, lease: float) -> None:
        self._box = box
        self._relay = relay
        self._lease = lease

    def beat(self) -> bool:
        """Extend it; False where it is lost for good."""
        if not self._box.holds(self._relay):
            return False
        self._box.relays[self._relay].lease_until = self._box._clock() + self._lease
        return True

    def close(self) -> None:
        """Nothing is held."""
