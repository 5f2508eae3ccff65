"""What the engine asks of whoever takes work out into the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.work import Content, Work


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `per_second` calls to one target, after a burst of `burst`; shared by all relays."""

    per_second: float
    burst: int = 1


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """How a sender wants to be called.

    `batch` is how many pieces of work one call of `send` takes; `concurrency` how many
    calls may run at once in one relay, `per_target` how many of them to one target (None:
    a quarter of them, or all where there is one target only). `call_timeout` is seconds: the
    longest that one `send` may take. No call is started that could outlive its lease.
    `at_most_once` holds work for an operator when nobody can say whether it arrived.
    `can_be_asked` says that `reconcile` finds out for certain: what nobody saw the end of is then
    never settled by a guess, but asked for until there is an answer.
    """

    batch: int = 1
    concurrency: int = 32
    per_target: int | None = None
    call_timeout: float = 30.0
    rate: RateLimit | None = None
    at_most_once: bool = False
    can_be_asked: bool = False
    retry: RetryPolicy = field(default_factory=RetryPolicy)


RecordProviderId = Callable[[Sequence[Work[Content]], str], Awaitable[bool]]
"""Stores a provider's id on the running attempts before anything irrevocable is sent.

Durable when it returns True. False: at least one claim is no longer ours, so do not send.
"""


class Sender(Protocol[Content]):
    """Takes work out into the world.

    `send` must not raise for what the other side does: that is an outcome. Whatever it does
    raise is taken for a bug of ours, recorded, and retried without spending an attempt.
    """

    @property
    def limits(self) -> SendingLimits:
        """How this sender wants to be called."""

    @property
    def only_target(self) -> str | None:
        """The one target, where there is only one: while its breaker is open nothing is claimed."""

    def target(self, content: Content) -> str:
        """Who is called: what rate, breaker and concurrency are kept by (host, webhook, server).

        Never a secret: it stands in metrics and logs.
        """

    async def send(
        self, batch: Sequence[Work[Content]], record: RecordProviderId[Content]
    ) -> Sequence[Outcome]:
        """Send a batch of one target; answer with one outcome each, in the same order."""

    async def reconcile(self, work: Work[Content]) -> Outcome | None:
        """Find out what became of a call whose end nobody saw; None where it can't be known.

        An outcome of kind SNOOZED means «certainly not sent»: it is sent again. Where the other
        side can be asked, but does not answer now, it raises or says UNKNOWN.
        """

    async def close(self) -> None:
        """Give back connections."""
