"""Turns: publishing messages of some slots, judging what became of them, and writing that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol

from allim.base.clock import Clock
from allim.base.errors import DatabaseUnavailable
from allim.relay.ordered.box import Failure, Landed, OrderedBox, Settlement
from allim.relay.ordered.lease import Lease
from allim.relay.ordered.limits import OrderedLimits
from allim.relay.ordered.message import Line, Message
from allim.relay.ordered.observer import OrderedObserver
from allim.relay.ordered.pauses import Pauses
from allim.relay.ordered.publisher import NOT_HAD, NOT_TRIED, MaySend, Publisher, Superseded
from allim.relay.ordered.succession import Succession
from allim.relay.ordered.verdicts import judge
from allim.relay.outcomes import Outcome, OutcomeKind

log = logging.getLogger("allim.relay.ordered")

DATABASE_PAUSE_SECONDS = 0.2


class DeadLetters(Protocol[Message]):
    """Where copies of dead messages go."""

    async def publish(
        self, failures: Sequence[Failure[Message]], may_send: MaySend
    ) -> Sequence[Outcome]:
        """Publish a copy of each; one outcome each."""


@dataclass(frozen=True, slots=True)
class Ways(Generic[Message]):
    """Who publishes what: `route` names the publisher of a topic."""

    publishers: Mapping[str, Publisher[Message]]
    route: Callable[[str], str]
    dead_letters: DeadLetters[Message] | None = None

    def begin(self, relay: str) -> None:
        """Tell every publisher in whose name it publishes."""
        for publisher in self.publishers.values():
            publisher.begin(relay)

    async def purge(self) -> None:
        """Have every publisher let go of nothing more."""
        await asyncio.gather(*(publisher.purge() for publisher in self.publishers.values()))


@dataclass(frozen=True, slots=True)
class Turn(Generic[Message]):
    """Messages of slots that nothing else is in flight of.

    `waiting` belong to lines that are blocked. `drained` are the lines of messages that were
    parked; None for messages that were not.
    """

    slots: frozenset[int]
    messages: Sequence[Message]
    waiting: Sequence[Message] = ()
    drained: Collection[Line] | None = None


@dataclass(frozen=True, slots=True)
class TurnEnd(Generic[Message]):
    """How a turn ended; `landed` is None where nothing was written."""

    unsent: Sequence[Message]
    landed: Landed | None = None
    next_retry: float | None = None


class TurnTaker(Generic[Message]):
    """Takes turns under one lease."""

    def __init__(
        self,
        relay: str,
        box: OrderedBox[Message],
        ways: Ways[Message],
        lease: Lease,
        succession: Succession[Message],
        pauses: Pauses,
        *,
        limits: OrderedLimits,
        observer: OrderedObserver,
        clock: Clock,
    ) -> None:
        self._relay = relay
        self._box = box
        self._ways = ways
        self._lease = lease
        self._succession = succession
        self._pauses = pauses
        self._limits = limits
        self._observer = observer
        self._clock = clock

    async def take(self, turn: Turn[Message]) -> TurnEnd[Message]:
        """Publish a turn and write what became of it."""
        began = self._clock()
        outcomes = await self._publish(turn.messages)
        seconds = self._clock() - began
        verdicts = judge(
            turn.messages,
            outcomes,
            max_retries=self._limits.max_retries,
            retry_after=self._limits.retry_after,
        )
        buried, put_off = await self._copy_dead(verdicts.buried)
        settlement = Settlement(
            verdicts.sent,
            [*verdicts.retried, *put_off],
            buried,
            [*turn.waiting, *verdicts.followers],
            turn.drained,
        )
        if not settlement.sent and settlement.is_plain:
            return TurnEnd(verdicts.unsent)
        landed = await self._settle(settlement)
        if landed is None:
            return TurnEnd(turn.messages)
        self._observer.settled(settlement, seconds)
        delays = [each.delay for each in settlement.retried if each.delay is not None]
        return TurnEnd(verdicts.unsent, landed, min(delays, default=None))

    async def _publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        if not messages:
            return ()
        route = self._ways.route
        ways: dict[str, str] = {}
        groups: dict[str, list[int]] = {}
        for place, message in enumerate(messages):
            topic = message.topic
            name = ways.get(topic) or ways.setdefault(topic, route(topic))
            groups.setdefault(name, []).append(place)
        if len(groups) == 1:
            return await self._call(next(iter(groups)), messages)
        answers = await asyncio.gather(
            *(
                self._call(name, [messages[place] for place in places])
                for name, places in groups.items()
            )
        )
        outcomes: dict[int, Outcome] = {}
        for places, answer in zip(groups.values(), answers, strict=True):
            outcomes.update(zip(places, answer, strict=True))
        return [outcomes[place] for place in range(len(messages))]

    async def _call(self, name: str, messages: Sequence[Message]) -> Sequence[Outcome]:
        """The one place where publishers are called; whatever happens becomes outcomes."""
        try:
            await self._succession.ensure(name)
        except Exception as error:
            # The publisher's boundary, too.
            self._pauses.fault(name, f"relays that ended are not fenced yet: {error}")
            return [Outcome.fault("not_fenced", str(error))] * len(messages)
        try:
            outcomes = await self._ways.publishers[name].publish(messages, self._lease.holds)
            if len(outcomes) != len(messages):
                raise ValueError(f"{len(outcomes)} outcomes for {len(messages)} messages")
        except Superseded as error:
            log.warning("the publisher %s is fenced off: %s", name, error)
            self._lease.lose()
            return [NOT_TRIED] * len(messages)
        except Exception as bug:
            # The publisher's boundary: a bug of ours must not cost a message a retry.
            log.exception("the publisher %s failed", name)
            outcomes = [Outcome.fault("internal_error", type(bug).__name__)] * len(messages)
        fault = next((o for o in outcomes if o.kind in NOT_HAD), None)
        if fault is not None:
            self._pauses.fault(name, fault.detail or fault.code or "")
        elif any(o.kind is OutcomeKind.DELIVERED for o in outcomes):
            self._pauses.works(name)
        return outcomes

    async def _copy_dead(
        self, buried: Sequence[Failure[Message]]
    ) -> tuple[Sequence[Failure[Message]], Sequence[Failure[Message]]]:
        """Copy dead messages to where they go: those that are buried, those put off for it."""
        if not buried or self._ways.dead_letters is None:
            return buried, ()
        try:
            await self._succession.ensure_all()
            outcomes = await self._ways.dead_letters.publish(buried, self._lease.holds)
        except Superseded:
            self._lease.lose()
            outcomes = [NOT_TRIED] * len(buried)
        except Exception as bug:
            # As above.
            log.exception("dead letters could not be copied")
            outcomes = [Outcome.fault("internal_error", type(bug).__name__)] * len(buried)
        kept, put_off = [], []
        for failure, outcome in zip(buried, outcomes, strict=True):
            if outcome.kind in (OutcomeKind.RETRY, OutcomeKind.REFUSED):
                words = f"{failure.detail}; its copy was refused: {outcome.code} {outcome.detail}"
                kept.append(Failure(failure.message, failure.code, words))
            elif outcome.kind is OutcomeKind.DELIVERED:
                kept.append(failure)
            else:
                delay = outcome.retry_after or self._limits.retry_after
                spent = outcome.kind is not OutcomeKind.SNOOZED
                put_off.append(replace(failure, delay=delay, spent=spent))
        return kept, put_off

    async def _settle(self, settlement: Settlement[Message]) -> Landed | None:
        """Write it, again and again while the database is gone and the lease may hold."""
        while True:
            try:
                landed = await self._box.settle(self._relay, settlement)
            except DatabaseUnavailable as error:
                self._observer.database_lost(str(error))
                if not self._lease.holds():
                    return None
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)
                continue
            if landed is None:
                self._lease.lose()
            return landed
