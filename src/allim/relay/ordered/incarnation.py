"""One life of an ordered relay: from the lease it gets to the lease it gives back or loses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Generic

from allim.base.clock import Clock
from allim.base.errors import DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.relay.ordered.box import OrderedBox
from allim.relay.ordered.lease import Lease
from allim.relay.ordered.limits import SLOTS, OrderedLimits
from allim.relay.ordered.marks import SlotMarks
from allim.relay.ordered.message import Message
from allim.relay.ordered.observer import OrderedObserver
from allim.relay.ordered.pauses import Pauses
from allim.relay.ordered.succession import Succession
from allim.relay.ordered.tenure import Tenure
from allim.relay.ordered.turn_size import TurnSize
from allim.relay.ordered.turns import Turn, TurnEnd, TurnTaker, Ways

log = logging.getLogger("allim.relay.ordered")

PURGE_SECONDS = 5.0


class Incarnation(Generic[Message]):
    """Reads the slots it holds and takes turns with what is ready in them.

    Of a slot one turn at a time is under way, and nothing of it is read meanwhile: so the order of
    a slot needs nothing else to be kept, and what is in flight is never met again.
    """

    def __init__(
        self,
        name: str,
        box: OrderedBox[Message],
        ways: Ways[Message],
        *,
        limits: OrderedLimits,
        woken: asyncio.Event,
        listening: Callable[[], bool],
        observer: OrderedObserver,
        clock: Clock,
    ) -> None:
        self.name = name
        self._box = box
        self._ways = ways
        self._limits = limits
        self._woken = woken
        self._listening = listening
        self._observer = observer
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lease = Lease(
            box.fence_keeper(name, limits.lease),
            seconds=limits.lease,
            asked_at=clock(),
            clock=clock,
            on_lost=self._wake_from_thread,
        )
        self._pauses = Pauses(ways.publishers, limits, observer, clock)
        self._succession = Succession(box, ways.publishers)
        self._taker = TurnTaker(
            name, box, ways, self._lease, self._succession, self._pauses,
            limits=limits, observer=observer, clock=clock,
        )  # fmt: skip
        self._marks = SlotMarks(rescan_every=limits.rescan_every, clock=clock)
        self._tenure = Tenure(name, box, self._succession, self._marks, self._pauses, observer)
        self._turns: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._size = TurnSize(limits)
        self._first_slot = 0
        self._drained_last: set[int] = set()
        self._passed_by = False
        self._maybe_due: set[int] = set()
        """Slots in which more may be due than was read."""
        self._balance_at = self._read_at = self._due_at = clock()

    async def run(self) -> None:
        """Live until `stop`, or until the lease is lost. Raises DatabaseUnavailable at birth."""
        await self._box.register(self.name, self._limits.lease)
        self._ways.begin(self.name)
        self._lease.start()
        try:
            await self._read_until_over()
        finally:
            await self._end()

    def stop(self) -> None:
        """Read no more, end what is in flight, give everything back."""
        self._stopping = True
        self._woken.set()

    def _wake_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to wake
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _read_until_over(self) -> None:
        while self._lease.holds() and not self._stopping:
            self._woken.clear()
            try:
                if self._clock() >= self._balance_at:
                    await self._balance()
                more = await self._read()
            except DatabaseUnavailable as error:
                self._observer.database_lost(str(error))
                await self._wait(self._limits.pause)
                self._read_at = self._clock()
                continue
            if more:
                self._read_at = self._clock()
                await asyncio.sleep(0)  # lets turns begin before the next fetch
            elif await self._wait(self._seconds_to_wait()):
                self._read_at = self._clock()

    async def _end(self) -> None:
        lost = not self._lease.holds()
        if lost:
            self._observer.lease_lost(self.name)
        elif self._turns:
            await asyncio.wait(list(self._turns), timeout=self._limits.grace)
        clean = not lost and not self._turns
        if self._turns:
            await self._ways.purge()
            await asyncio.wait(list(self._turns), timeout=PURGE_SECONDS)
            await cancel_and_wait(*self._turns)
        await self._succession.end()
        await asyncio.to_thread(self._lease.stop)
        try:
            await self._box.retire(self.name, clean=clean)
        except DatabaseUnavailable as error:
            log.warning("the lease of %s runs out by itself: %s", self.name, error)

    # Slots

    async def _balance(self) -> None:
        self._balance_at = self._clock() + self._limits.balance_every
        taken = await self._tenure.balance()
        if taken is None:
            self._lease.lose()
            return
        self._maybe_due &= self._tenure.held
        if taken:
            self._read_at = self._due_at = self._clock()

    # Reading

    async def _read(self) -> bool:
        """Begin turns with what is ready; whether to come again at once."""
        for slot, seq in self._pauses.to_read_again():
            self._marks.lower(slot, seq - 1)
            self._read_at = self._clock()
        if len(self._turns) < self._limits.turns:
            await self._try_again()
        if len(self._turns) >= self._limits.turns or self._pauses.all_closed():
            return False
        if self._clock() >= self._due_at:
            await self._drain()
        return await self._fetch() if self._clock() >= self._read_at else False

    async def _fetch(self) -> bool:
        # Both of this very moment: what a turn passed over for a publisher that closed since
        # would be overtaken by what is read above it in a slot that is idle since.
        closed = self._pauses.closed()
        idle = self._tenure.idle(self._first_slot)
        self._drained_last.clear()
        self._read_at = self._clock() + self._poll()
        # A wake may have meant a slot that is busy: it is looked at when that is free.
        self._passed_by = bool(self._tenure.busy)
        if not idle:
            return False
        was_spread, limit = self._size.is_spread, self._size.batch
        idle = self._size.slots(idle, len(self._tenure.held))
        each = self._size.each(len(idle))
        asked = self._marks.ask(idle, self._pauses.slots())
        fetched = await self._box.fetch(asked, limit, each=each)
        reached = {message.slot: message.seq for message in fetched.messages}
        counts = Counter(message.slot for message in fetched.messages)
        end = fetched.messages[-1].slot if len(fetched.messages) >= limit else None
        cut = {slot for slot, count in counts.items() if count >= each or slot == end}
        early = self._marks.advance(asked, reached, cut, end, fetched.snapshot)
        self._size.fit(fetched.messages, cut=bool(cut))
        is_scarce = len(fetched.messages) < limit / 2
        self._size.fit_spread(cut=bool(cut), full=end is not None, scarce=is_scarce)
        if cut or was_spread:
            self._first_slot = ((end if end is not None else idle[-1]) + 1) % SLOTS
        messages = self._pauses.open_ones(
            self._ways.route,
            [m for m in fetched.messages if m.slot not in early] if early else fetched.messages,
            closed,
        )
        if messages:
            self._begin(self._tenure.turn(frozenset(reached.keys() - early), messages))
        return bool(early or cut or was_spread)

    async def _try_again(self) -> None:
        """Give publishers that have rested some of what was passed over for them."""
        while len(self._turns) < self._limits.turns:
            found = self._pauses.to_try(self._tenure.idle(self._first_slot))
            if found is None:
                return
            await self._try(*found)

    async def _try(self, name: str, slot: int, seq: int) -> None:
        read_to, limit = self._marks.mark(slot), self._size.batch
        # What is to be read before it (what commits late, what was not sent) is not left behind.
        start = min(seq - 1, read_to)
        fetched = await self._box.fetch([(slot, start)], limit)
        last = max((message.seq for message in fetched.messages), default=0)
        cut_in = slot if len(fetched.messages) >= limit else None
        reached = {slot: last} if fetched.messages else {}
        cut = () if cut_in is None else (slot,)
        if self._marks.advance([(slot, start)], reached, cut, cut_in, fetched.snapshot):
            return
        # What is above was met when it was passed over.
        self._marks.lift(slot, read_to)
        messages = self._pauses.open_ones(
            self._ways.route, fetched.messages, self._pauses.closed() - {name}
        )
        has_some = any(self._ways.route(message.topic) == name for message in messages)
        if has_some:
            self._pauses.tries(name)
        else:
            self._pauses.read_on(name, slot, max(last, seq - 1) if cut else None)
        if messages:
            self._begin(
                self._tenure.turn(frozenset({slot}), messages), tries=name if has_some else None
            )

    async def _drain(self) -> None:
        """Begin a turn with parked messages that are due."""
        closed = self._pauses.closed()
        idle = set(self._tenure.idle(self._first_slot))
        resting = idle & self._drained_last
        self._due_at = self._clock() + (0.0 if resting else self._limits.due_every)
        if resting:
            # Theirs is the turn after this: what is fresh in a slot isn't kept waiting by a
            # long line of what is old.
            self._read_at = self._clock()
        if not idle - resting:
            return
        limit = self._size.batch
        asked = idle - resting
        parked = await self._box.due(asked, limit, without=self._pauses.topics())
        is_cut = len(parked) >= limit
        self._size.fit(parked, cut=is_cut)
        # Slots that are busy now were not asked: what is known of them stays.
        self._maybe_due = self._maybe_due | asked if is_cut else self._maybe_due - asked
        self._tenure.blocked.update(message.line for message in parked if message.line is not None)
        messages = self._pauses.open_ones(self._ways.route, parked, closed, passes_over=False)
        if messages:
            drained = {message.line for message in messages if message.line is not None}
            slots = frozenset(message.slot for message in messages)
            self._drained_last |= slots
            if is_cut:
                self._due_at = self._clock()
            self._begin(Turn(slots, messages, (), drained))

    # Turns

    def _begin(self, turn: Turn[Message], *, tries: str | None = None) -> None:
        self._tenure.busy |= turn.slots
        task = asyncio.create_task(self._take(turn, tries))
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)

    async def _take(self, turn: Turn[Message], tries: str | None) -> None:
        try:
            self._ended(turn, await self._taker.take(turn))
        except Exception:
            # The turn's own boundary. What it has written before it failed is not known here.
            log.exception("a turn of %s failed", self.name)
            self._tenure.doubt(turn.slots)
            self._balance_at = self._clock()
            await asyncio.sleep(self._limits.pause)
        finally:
            self._tenure.busy -= turn.slots
            if tries is not None:
                self._pauses.tries(tries, is_over=True)
            if self._passed_by:
                self._read_at = self._clock()
            if self._tenure.leaving & turn.slots:
                self._balance_at = self._clock()
            self._woken.set()

    def _ended(self, turn: Turn[Message], end: TurnEnd[Message]) -> None:
        if turn.drained is None:
            closed = self._pauses.closed() if end.unsent else ()
            for message in end.unsent:
                if (name := self._ways.route(message.topic)) in closed:
                    self._pauses.meet(name, message)
                else:
                    self._marks.lower(message.slot, message.seq - 1)
        if self._maybe_due:
            self._due_at = self._clock()
        if end.landed is None:
            return
        self._tenure.blocked.update(end.landed.blocked)
        self._tenure.blocked.difference_update(end.landed.freed)
        delays = [delay for delay in end.landed.blocked.values() if delay is not None]
        if end.next_retry is not None:
            delays.append(end.next_retry)
        if delays:
            self._due_at = min(self._due_at, self._clock() + max(min(delays), 0.0))

    # Waiting

    def _poll(self) -> float:
        return self._limits.poll if self._listening() else self._limits.poll_deaf

    def _seconds_to_wait(self) -> float:
        now = self._clock()
        moments = [self._balance_at - now, self._pauses.seconds_left()]
        if len(self._turns) < self._limits.turns and not self._pauses.all_closed():
            moments += [self._read_at - now, self._due_at - now]
        return max(min(moments), 0.001)

    async def _wait(self, seconds: float) -> bool:
        """Wait for a wake; whether one came."""
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            # It may have come in the same moment: whoever reads next forgets it.
            return self._woken.is_set()
