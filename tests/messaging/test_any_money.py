"""Whatever happens to messages, in whatever order: every won is accounted for.

Hypothesis plays relays that come and go, providers that report late, people who cancel and people
who pay. After every move an auditor adds up every ledger and looks at every debit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from allim.base.errors import Conflict
from allim.channels.channel import Message
from allim.database.pool import Database
from allim.hub.operations import Operations
from allim.messaging.tenant_model import CreditRequest
from allim.relay.outcomes import Outcome
from allim.relay.work import Work
from tests.messaging.money_rig import LANE, PRICE, Money

Result = TypeVar("Result")

TENANTS = (1, 2)
OUTCOMES = [
    Outcome.delivered(),
    Outcome.accepted(),
    Outcome.accepted(),
    Outcome.retry("http_500", "ill"),
    Outcome.refused("http_400", "no"),
    Outcome.snooze("later", 600.0),
    Outcome.skip("suppressed"),
    Outcome.fault("bug"),
    Outcome.unknown("timeout"),
    Outcome.cut_short("shutdown"),
    Outcome.released(),
]
tenants = st.sampled_from(TENANTS)
places = st.integers(0, 7)


class Accounts(RuleBasedStateMachine):
    """Everything that may happen to tenants' money."""

    database_url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(self.database_url, min_size=1, max_size=3)
        self.run(self.database.open())
        self.money = Money(self.database)
        self.operations = Operations(self.database)
        self.works: list[Work[Message]] = []
        self.stale: list[Work[Message]] = []
        self.ids: list[int] = []
        self.reported: list[tuple[int, str]] = []
        self.unpaid: set[int] = set()
        """Refused at their claim, and not settled: whoever rescues them finds them unsent."""
        self.keys = 0
        self.run(
            self.money.run(
                "TRUNCATE tenant, tenant_ledger, tenant_hold, delivery, delivery_attempt,"
                " notification, reservation_cancellation"
            )
        )

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(self._end())
        self.run(self.database.close())
        self.runner.close()

    async def _end(self) -> None:
        """Everything comes to its end; then nothing may be open that did not arrive."""
        await self.money.run(
            "UPDATE delivery SET expires_at = now() WHERE status IN ('PENDING', 'FAILED')"
        )
        await self.money.settle(self.works, Outcome.refused("end"))
        await self.money.box.expire()
        await self.money.holds.refund()
        await self.money.audit()
        held = await self.database.fetch(
            "SELECT count(*) FROM tenant_hold AS h JOIN delivery AS d ON d.id = h.delivery_id"
            " WHERE d.status NOT IN ('HELD', 'PENDING')"
        )
        assert held[0][0] == 0

    @initialize()
    def opening(self) -> None:
        for tenant in TENANTS:
            self.run(self.money.open(tenant, 3 * PRICE))

    @invariant()
    def every_won_is_accounted_for(self) -> None:
        self.run(self.money.audit())

    @rule(tenant=tenants, fallback=st.booleans())
    def queue(self, tenant: int, fallback: bool) -> None:
        self.ids += self.run(self.money.add(tenant, fallback=fallback))

    @rule(limit=st.integers(2, 6))
    def claim(self, limit: int) -> None:
        works, refused = self.run(self.money.claim(limit=limit))
        self.works += works
        for work in works:
            self.run(self.money.box.record_provider_id([work], f"g-{work.id}-{work.attempt_no}"))
            self.reported.append((work.id, f"g-{work.id}-{work.attempt_no}"))
        self.unpaid.update(refused)

    @rule(count=st.integers(1, 4), outcome=st.sampled_from(OUTCOMES))
    def settle(self, count: int, outcome: Outcome) -> None:
        works, self.works = self.works[:count], self.works[count:]
        self.run(self.money.settle(works, outcome))
        self.stale += works

    @rule(outcome=st.sampled_from(OUTCOMES))
    def settle_again(self, outcome: Outcome) -> None:
        assert self.run(self.money.settle(self.stale[-5:], outcome)) == set()

    @rule(outcome=st.sampled_from(OUTCOMES))
    def crash_and_rescue(self, outcome: Outcome) -> None:
        self.stale += self.works
        self.works = []
        self.run(
            self.money.run(
                "UPDATE delivery SET lease_until = now() - interval '1 s'"
                " WHERE status = 'PROCESSING'"
            )
        )
        rescued = self.run(self.money.box.rescue(LANE, limit=50, lease=60.0, worker="r"))
        unsent = [work for work in rescued if work.id in self.unpaid]
        self.run(self.money.settle(unsent, Outcome.snooze("not_sent", 0.0)))
        self.run(self.money.settle([w for w in rescued if w not in unsent], outcome))
        self.unpaid.clear()
        self.stale += rescued

    @rule(place=places, arrived=st.booleans())
    def report(self, place: int, arrived: bool) -> None:
        if self.reported:
            delivery, group = self.reported[-1 - place % len(self.reported)]
            self.run(self.money.receive(delivery, group, "DELIVERED" if arrived else "FAILED"))

    @rule(place=places)
    def cancel_a_reservation(self, place: int) -> None:
        if self.ids:
            self.run(self.money.cancel(self.ids[-1 - place % len(self.ids)]))

    @rule(place=places)
    def try_again(self, place: int) -> None:
        if self.ids:
            with suppress(Conflict):
                self.run(self.operations.retry(self.ids[-1 - place % len(self.ids)]))

    @rule()
    def time_passes(self) -> None:
        self.run(self.money.make_due())
        self.run(self.money.holds.refund())

    @rule(
        tenant=tenants, amount=st.sampled_from([-PRICE, PRICE, 3 * PRICE, 7]), again=st.booleans()
    )
    def top_up(self, tenant: int, amount: int, again: bool) -> None:
        self.keys += not again
        with suppress(Conflict):
            self.run(
                self.money.tenants.credit(
                    tenant, CreditRequest(amount=amount), idempotency_key=f"{amount}:{self.keys}"
                )
            )


def test_every_won_is_accounted_for_whatever_happens(database_url: str) -> None:
    Accounts.database_url = database_url
    run_state_machine_as_test(
        Accounts,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
