"""Sending claimed work: by target, at its rate, with its breaker, within its lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Generic

from allim.base.clock import Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.asking import Asking
from allim.relay.limits import RelayLimits
from allim.relay.observer import Observer
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.rates import RESERVED, Overflow, RateKeeper
from allim.relay.sender import RecordProviderId, Sender
from allim.relay.settlement import decide
from allim.relay.settler import Settler
from allim.relay.targets import Target, Targets
from allim.relay.time_limit import TimeLimit
from allim.relay.work import Content, Work

log = logging.getLogger("allim.relay.dispatch")

TURNS_WAITED_FOR = 2.0


class Dispatch(Generic[Content]):
    """Sends the claimed work of one lane and hands every outcome to the settler."""

    def __init__(
        self,
        lane: str,
        sender: Sender[Content],
        record: RecordProviderId[Content],
        settler: Settler[Content],
        *,
        limits: RelayLimits,
        rates: RateKeeper,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._lane = lane
        self._sender = sender
        self._sending = sender.limits
        self._record = record
        self._settler = settler
        self._limits = limits
        self._rates = rates
        self._overflow = Overflow(clock)
        self._observer = observer
        self._clock = clock
        concurrency = self._sending.concurrency
        shared = concurrency if sender.only_target is not None else max(concurrency // 4, 1)
        self.targets: Targets[Content] = Targets(
            self._sending.per_target or shared, limits.breaker, clock
        )
        self._places = asyncio.Semaphore(concurrency)
        self._time_limit = TimeLimit(self._sending.call_timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        self._patience_timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._asking = Asking(lane, sender, settler, self._stopping, clock)

    @property
    def window(self) -> int:
        """How much work the lane may have claimed and not settled at a time.

        Should this relay die, nobody can say what of it was sent: where that is held for an
        operator, no more is claimed than can be under way.
        """
        under_way = self._sending.concurrency * self._sending.batch
        return under_way if self._sending.at_most_once else 4 * under_way

    @property
    def is_stopping(self) -> bool:
        """Whether it sends nothing any more."""
        return self._stopping.is_set()

    def seconds_closed(self) -> float:
        """Where the sender has one target: how long no claim makes sense, because it is closed."""
        name = self._sender.only_target
        return 0.0 if name is None else self.targets[name].seconds_closed()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something as part of this lane's work in flight."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send(self, works: Sequence[Work[Content]]) -> None:
        """Send works, each to its target when that is free."""
        by_target: dict[str, list[Work[Content]]] = {}
        for work in works:
            try:
                by_target.setdefault(self._sender.target(work.content), []).append(work)
            except Exception as bug:
                # The sender's boundary, as in `_call`: nothing may be left claimed for ever.
                log.exception("the sender of lane %s has no target for %d", self._lane, work.id)
                self.settle([work], [Outcome.fault("internal_error", type(bug).__name__)])
        for name in list(by_target):
            of_target, target = by_target.pop(name), self.targets[name]
            if self._sending.rate is None:
                for batch in _batches(of_target, self._sending.batch):
                    self._enqueue(target, batch)
                continue
            try:
                await self._send_in_line(target, of_target)
            except asyncio.CancelledError:
                for waiting in by_target.values():
                    self.settle(waiting, [Outcome.released()])
                raise

    async def reconcile(self, work: Work[Content]) -> None:
        """Ask the sender what became of a call whose end nobody saw, and settle that."""
        await self._asking.reconcile(work)

    def settle(
        self,
        works: Sequence[Work[Content]],
        outcomes: Sequence[Outcome],
        target: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Decide and hand over to the settler; one outcome may stand for all works."""
        if len(outcomes) == 1 and len(works) > 1:
            outcomes = [outcomes[0]] * len(works)
        retry, at_most_once = self._sending.retry, self._sending.at_most_once
        self._settler.put(
            [
                decide(work, outcome, retry, at_most_once=at_most_once)
                for work, outcome in zip(works, outcomes, strict=True)
            ],
            target,
            seconds,
        )

    async def stop(self, grace: float) -> None:
        """Release what waits, give calls under way `grace` seconds, cut the rest short."""
        self._stopping.set()
        self._release_waiting()
        deadline = self._clock() + grace
        while self._tasks and (left := deadline - self._clock()) > 0:
            await asyncio.wait(list(self._tasks), timeout=left)
        # One that has not begun yet would end without a word of what it was given.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)
        # What came to wait since: those who were to send it are gone.
        self._release_waiting()
        if self._patience_timer is not None:
            self._patience_timer.cancel()

    def _release_waiting(self) -> None:
        for target in self.targets.with_waiting():
            while target.waiting:
                _, batch = target.waiting.popleft()
                self.settle(batch, [Outcome.released()], target.name)

    # Waiting for a target

    async def _send_in_line(self, target: Target[Content], works: Sequence[Work[Content]]) -> None:
        """Give each call its place in the rate; those whose turn is far off are snoozed."""
        rate = self._sending.rate
        assert rate is not None
        for batch in _batches([work for work in works if work.reserved], self._sending.batch):
            self._enqueue(target, batch)
        works = [work for work in works if not work.reserved]
        works = works[target.join(works, self._sending.batch) :]
        batches = _batches(works, self._sending.batch)
        if not batches:
            return
        if target.seconds_closed() > 0:
            # No place in line is wasted on a target that is not called now.
            for batch in batches:
                outcome = target.held_back()
                if outcome is None:
                    # It opened this very moment; the call made when its turn comes is the probe.
                    target.abandon_probe()
                    outcome = Outcome.snooze("circuit_open", 0.0)
                self.settle(batch, [outcome], target.name)
            return
        key = f"{self._lane} {target.name}"
        try:
            waits = await self._rates.reserve(key, rate, len(batches))
        except asyncio.CancelledError:
            for batch in batches:
                self.settle(batch, [Outcome.released()], target.name)
            raise
        except DatabaseUnavailable as error:
            outcome = Outcome.fault("database_unavailable", str(error))
            for batch in batches:
                self.settle(batch, [outcome], target.name)
            return
        except Exception as bug:
            # The rate keeper's boundary: nothing may be left claimed for ever.
            log.exception("no places in the line of %s", key)
            for batch in batches:
                outcome = Outcome.fault("internal_error", type(bug).__name__)
                self.settle(batch, [outcome], target.name)
            return
        patience = self._limits.patience
        if self._sending.batch > 1:
            # Whatever comes until the turn goes with it, so it had better wait here.
            patience = max(patience, TURNS_WAITED_FOR / rate.per_second)
        for batch, wait in zip(batches, waits, strict=False):
            if wait <= 0:
                self._enqueue(target, batch)
            elif wait <= patience:
                self.start(self._enqueue_after(wait, target, batch))
            else:
                self.settle(batch, [Outcome.snooze(RESERVED, wait)], target.name)
        for batch in batches[len(waits) :]:
            wait = self._overflow.ask_again_in(key, rate)
            self.settle(batch, [Outcome.snooze("rate_limit_queue", wait)], target.name)

    async def _enqueue_after(
        self, wait: float, target: Target[Content], batch: Sequence[Work[Content]]
    ) -> None:
        target.forming = batch = list(batch)
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self.settle(batch, [Outcome.released()], target.name)
            raise
        finally:
            if target.forming is batch:
                target.forming = None
        self._enqueue(target, batch)

    def _enqueue(self, target: Target[Content], batch: Sequence[Work[Content]]) -> None:
        target.waiting.append((self._clock(), batch))
        if target.serving < target.places:
            target.serving += 1
            self.start(self._serve(target))
        elif self._patience_timer is None:
            self._watch_patience()

    async def _serve(self, target: Target[Content]) -> None:
        """Send what waits for a target, one call after the other, until nothing waits."""
        try:
            while target.waiting:
                async with self._places:
                    if not target.waiting:
                        return
                    await self._send(target, target.next_batch(self._sending.batch))
        finally:
            target.serving -= 1

    def _watch_patience(self) -> None:
        loop = asyncio.get_running_loop()
        self._patience_timer = loop.call_later(self._limits.patience / 4, self._snooze_impatient)

    def _snooze_impatient(self) -> None:
        """Give back what waits too long, so that one slow target doesn't fill the lane."""
        self._patience_timer = None
        waiting = self.targets.with_waiting()
        for target in waiting:
            for batch, snooze in target.impatient(self._limits.patience):
                self.settle(batch, [snooze], target.name)
        if any(target.waiting for target in waiting):
            self._watch_patience()

    # Calling

    async def _send(self, target: Target[Content], batch: Sequence[Work[Content]]) -> None:
        """Make one call, unless the relay stops, the breaker is open or the lease is too short."""
        if self._stopping.is_set():
            self.settle(batch, [Outcome.released()], target.name)
            return
        began = self._clock()
        ends_by = began + self._sending.call_timeout
        late = [work for work in batch if work.deadline <= ends_by]
        if late:
            # No call may outlive its lease: what waited here too long is given back.
            outcome = Outcome.snooze("lease_too_short", 0.0, "waited too long before the call")
            self.settle(late, [outcome], target.name)
            batch = [work for work in batch if work.deadline > ends_by]
        if not batch:
            return
        if (held_back := target.held_back()) is not None:
            self.settle(batch, [held_back], target.name)
            return
        # Let through although it is open: of all calls under way this is the one that tries.
        probes = target.is_open
        outcomes = await self._call(batch)
        seconds = self._clock() - began
        if target.record(outcomes, seconds, probes=probes):
            self._observer.breaker(self._lane, target.name, is_open=target.is_open)
        self._settle_or_ask(batch, outcomes, target.name, seconds)

    def _settle_or_ask(
        self,
        batch: Sequence[Work[Content]],
        outcomes: Sequence[Outcome],
        target: str,
        seconds: float,
    ) -> None:
        """Settle what is known; of the rest the sender is asked, where it can be."""
        doubtful: list[Work[Content]] = []
        if self._sending.can_be_asked and any(map(_in_doubt, outcomes)):
            pairs = list(zip(batch, outcomes, strict=True))
            doubtful = [work for work, outcome in pairs if _in_doubt(outcome)]
            known = [pair for pair in pairs if not _in_doubt(pair[1])]
            batch, outcomes = [work for work, _ in known], [outcome for _, outcome in known]
        if batch:
            self.settle(batch, outcomes, target, seconds)
        if self._stopping.is_set():
            # No time to ask: their leases run out, and whoever rescues them does.
            self._settler.give_up(doubtful)
            return
        for work in doubtful:
            self.start(self.reconcile(work))

    async def _call(self, batch: Sequence[Work[Content]]) -> Sequence[Outcome]:
        """The one place where the sender is called; whatever happens becomes outcomes."""
        try:
            with self._time_limit.call():
                outcomes = await self._sender.send(batch, self._record)
            if len(outcomes) == len(batch):
                return outcomes
            detail = f"{len(outcomes)} outcomes for {len(batch)} pieces of work"
            log.error("the sender of lane %s answered %s", self._lane, detail)
            cut_short = self._ambiguous(Outcome.fault("sender_broken", detail))
        except TimeoutError:
            detail = f"no end within {self._sending.call_timeout:g} s"
            cut_short = self._ambiguous(Outcome.retry("timeout", detail))
        except asyncio.CancelledError:
            cut_short = Outcome.cut_short("shutdown", "the relay stopped during the call")
        except DatabaseUnavailable as gone:
            cut_short = self._ambiguous(Outcome.fault("database_unavailable", str(gone)))
        except Exception as bug:
            # The sender's boundary: a bug of ours must not cost the message a retry.
            log.exception("the sender of lane %s failed", self._lane)
            cut_short = self._ambiguous(Outcome.fault("internal_error", type(bug).__name__))
        return [cut_short] * len(batch)

    def _ambiguous(self, otherwise: Outcome) -> Outcome:
        """Where it would matter, a call that may have arrived is never just repeated."""
        if not (self._sending.at_most_once or self._sending.can_be_asked):
            return otherwise
        return Outcome.unknown(otherwise.code or "unknown", otherwise.detail)


def _in_doubt(outcome: Outcome) -> bool:
    return outcome.kind is OutcomeKind.UNKNOWN


def _batches(works: Sequence[Work[Content]], size: int) -> Sequence[Sequence[Work[Content]]]:
    if size == 1:
        return [[work] for work in works]
    return [works[start : start + size] for start in range(0, len(works), size)]
