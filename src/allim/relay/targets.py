"""The targets of one lane: who may be called now, by how many at once, and who waits."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Generic

from allim.base.clock import Clock
from allim.relay.breaker import Breaker, BreakerLimits
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.work import Content, Work

TARGETS_KEPT = 10_000
SPREAD_SECONDS = 0.01
SPREAD_LIMIT_SECONDS = 600.0
PAUSE_LIMIT_SECONDS = 300.0
TOO_MANY_REQUESTS = 429
ANSWERED = frozenset({OutcomeKind.DELIVERED, OutcomeKind.ACCEPTED, OutcomeKind.REFUSED})
FAILED = frozenset({OutcomeKind.RETRY, OutcomeKind.UNKNOWN})


class Target(Generic[Content]):
    """One target: what waits for it, its places, its breaker, and the rest it asked for."""

    def __init__(self, name: str, places: int, limits: BreakerLimits, clock: Clock) -> None:
        self.name = name
        self.places = places
        self.serving = 0
        """How many of its places are taken."""
        self.waiting: deque[tuple[float, Sequence[Work[Content]]]] = deque()
        """Batches ready to be sent, and since when (process clock)."""
        self.forming: list[Work[Content]] | None = None
        """The last batch that waits for its turn in the rate; more may go with it."""
        self._breaker = Breaker(limits, clock)
        self._clock = clock
        self._paused_until = 0.0
        self._held_back = 0
        self._call_seconds = 0.0
        self._line_end = 0.0

    @property
    def is_open(self) -> bool:
        """Whether its breaker is open."""
        return self._breaker.is_open

    @property
    def is_idle(self) -> bool:
        """Whether little would be lost by forgetting it: at most that a probe was due."""
        return not (self.waiting or self.forming or self.serving or self.seconds_closed())

    def seconds_closed(self) -> float:
        """Seconds until a call makes sense; 0 when it does now. Asking does not take the probe."""
        return max(self._breaker.seconds_left(), self._paused_until - self._clock(), 0.0)

    def held_back(self) -> Outcome | None:
        """A snooze when no call should be made now; None lets one through.

        Snoozes are spread out, so that the backlog of a dead target is not claimed over and
        over.
        """
        paused = self._paused_until - self._clock()
        code = "target_paused" if paused > 0 else "circuit_open"
        wait = paused if paused > 0 else self._breaker.wait()
        if wait <= 0:
            return None
        self._held_back += 1
        return Outcome.snooze(
            code, wait + min(self._held_back * SPREAD_SECONDS, SPREAD_LIMIT_SECONDS)
        )

    def next_batch(self, limit: int) -> Sequence[Work[Content]]:
        """Take out what goes next: as many of the waiting batches as one call takes together."""
        _, batch = self.waiting.popleft()
        while self.waiting and len(batch) + len(self.waiting[0][1]) <= limit:
            batch = [*batch, *self.waiting.popleft()[1]]
        return batch

    def join(self, works: Sequence[Work[Content]], limit: int) -> int:
        """Have works go with the batch that waits for its turn in the rate; how many did.

        Without it work that trickles in would take a turn each, however much a call takes.
        """
        if self.forming is None:
            return 0
        joined = works[: max(limit - len(self.forming), 0)]
        self.forming += joined
        return len(joined)

    def impatient(self, patience: float) -> Iterable[tuple[Sequence[Work[Content]], Outcome]]:
        """Take out what has waited longer than `patience`, each with a snooze to about its turn."""
        now = self._clock()
        while self.waiting and now - self.waiting[0][0] >= patience:
            _, batch = self.waiting.popleft()
            turn = self._call_seconds / self.places
            self._line_end = max(self._line_end, now + patience) + turn
            wait = min(self._line_end - now, SPREAD_LIMIT_SECONDS)
            yield batch, Outcome.snooze("target_busy", wait)

    def abandon_probe(self) -> None:
        """A call that was let through is not made after all."""
        self._breaker.abandon_probe()

    def record(self, outcomes: Sequence[Outcome], seconds: float, *, probes: bool = True) -> bool:
        """Take in the outcomes of one call; True when that opened or closed the breaker.

        Faults of our own and calls that were never made say nothing about the target; nor do,
        while the breaker is open, calls but the one that `probes`.
        """
        was_open = self._breaker.is_open
        self._call_seconds += (seconds - self._call_seconds) / 8
        failed = answered = False
        for outcome in outcomes:
            if outcome.http_status == TOO_MANY_REQUESTS:
                # «Slow down» is the answer of a healthy target, and is obeyed by a pause.
                pause = min(outcome.retry_after or 0.0, PAUSE_LIMIT_SECONDS)
                self._paused_until = max(self._paused_until, self._clock() + pause)
            elif outcome.kind in FAILED and not outcome.interrupted:
                failed = True
            elif outcome.kind in ANSWERED:
                answered = True
        if was_open and not probes:
            return False
        if failed or answered:
            self._breaker.record(failed=failed)
        else:
            self._breaker.abandon_probe()
        if not self._breaker.is_open:
            self._held_back = 0
        return was_open != self._breaker.is_open


class Targets(Generic[Content]):
    """The targets of a lane by name; the least recently used idle ones are forgotten."""

    def __init__(self, places: int, limits: BreakerLimits, clock: Clock) -> None:
        self._places = places
        self._limits = limits
        self._clock = clock
        self._targets: OrderedDict[str, Target[Content]] = OrderedDict()

    def __getitem__(self, name: str) -> Target[Content]:
        target = self._targets.get(name)
        if target is not None:
            self._targets.move_to_end(name)
            return target
        if len(self._targets) >= TARGETS_KEPT:
            # Not the oldest only: one that stays closed would keep all the others.
            idle = (each for each, target in self._targets.items() if target.is_idle)
            self._targets.pop(next(idle, name), None)
        target = self._targets[name] = Target(name, self._places, self._limits, self._clock)
        return target

    def with_waiting(self) -> list[Target[Content]]:
        """Those for which something waits."""
        return [target for target in self._targets.values() if target.waiting]
