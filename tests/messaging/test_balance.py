"""Debits and refunds, one way at a time."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from allim.base.errors import Conflict, IdempotencyMismatch, NotFound
from allim.database.pool import Database
from allim.messaging.balance import HeldDebits
from allim.messaging.tenant_model import CreditRequest
from allim.relay.outcomes import Outcome
from tests.messaging.money_rig import LANE, PRICE, Money

SENT = Outcome.delivered()


@pytest.fixture
def money(database: Database) -> Money:
    return Money(database)


async def test_what_arrives_is_paid_and_what_does_not_is_given_back(money: Money) -> None:
    await money.open(1, 100)
    (arrives,) = await money.add(1)
    await money.round(SENT)
    (dies,) = await money.add(1)
    await money.round(Outcome.refused("http_400"))

    assert await money.balance(1) == 100 - PRICE
    page = await money.tenants.ledger(1, month=None)
    assert [(row.kind, row.amount, row.balance_after, row.delivery_id) for row in page.items] == [
        ("refund", PRICE, 80, dies),
        ("debit", -PRICE, 60, dies),
        ("debit", -PRICE, 80, arrives),
        ("opening", 100, 100, None),
    ]
    await money.audit()


async def test_without_money_nothing_is_sent_and_operators_are_warned_once(money: Money) -> None:
    await money.open(1, 2 * PRICE + 5)
    ids = await money.add(1, count=4)

    await money.round(SENT)

    states = [await money.status(identity) for identity in ids]
    assert [status for status, _ in states] == ["SUCCESS", "SUCCESS", "DEAD", "DEAD"]
    assert states[2][1] == "insufficient_balance"
    assert await money.balance(1) == 5
    assert [(low.tenant_id, low.balance, low.refused) for low in money.warned] == [(1, 5, 2)]
    await money.add(1, count=2)
    await money.round(SENT)
    assert len(money.warned) == 1
    await money.tenants.credit(1, CreditRequest(amount=20), idempotency_key=None)
    await money.add(1, count=2)
    await money.round(SENT)
    assert len(money.warned) == 2
    await money.audit()


async def test_nobody_pays_for_what_has_no_tenant_and_an_unknown_one_sends_nothing(
    money: Money,
) -> None:
    (own,) = await money.add(None)
    (lost,) = await money.add(77)

    await money.round(SENT)

    assert await money.status(own) == ("SUCCESS", None)
    assert await money.status(lost) == ("DEAD", "unknown_tenant")


async def test_a_failed_report_gives_the_money_back_before_the_fallback_is_charged(
    money: Money,
) -> None:
    await money.open(1, PRICE)
    (alimtalk,) = await money.add(1, fallback=True)
    (work,), _ = await money.claim()
    await money.box.record_provider_id([work], "g-1")
    await money.settle([work], Outcome.accepted(provider_id="g-1"))
    assert await money.balance(1) == 0

    await money.receive(alimtalk, "g-1", "FAILED")

    assert await money.status(alimtalk) == ("DEAD", "receipt_failed")
    assert await money.balance(1) == PRICE
    assert len(await money.round(SENT)) == 1
    assert await money.balance(1) == 0
    await money.receive(alimtalk, "g-1", "FAILED")
    assert await money.balance(1) == 0
    await money.audit()


async def test_a_report_that_comes_before_the_settle_is_refunded_by_it(money: Money) -> None:
    await money.open(1, 100)
    (delivery,) = await money.add(1)
    (work,), _ = await money.claim()
    await money.box.record_provider_id([work], "g-1")
    await money.receive(delivery, "g-1", "FAILED")

    await money.settle([work], Outcome.accepted(provider_id="g-1"))

    assert (await money.status(delivery))[0] == "DEAD"
    assert await money.balance(1) == 100
    await money.audit()


async def test_a_report_of_arrival_keeps_the_money_of_what_looked_failed(money: Money) -> None:
    await money.open(1, 100)
    (delivery,) = await money.add(1)
    (work,), _ = await money.claim()
    await money.box.record_provider_id([work], "g-1")
    await money.receive(delivery, "g-1", "DELIVERED")

    await money.settle([work], Outcome.retry("timeout"))

    assert (await money.status(delivery))[0] == "SUCCESS"
    assert await money.balance(1) == 100 - PRICE
    await money.audit()


async def test_a_crash_before_the_send_goes_on_with_the_same_debit(money: Money) -> None:
    await money.open(1, PRICE)
    (delivery,) = await money.add(1)
    await money.claim()
    await money.run("UPDATE delivery SET lease_until = now() - interval '1 s'")
    (work,) = await money.box.rescue(LANE, limit=10, lease=60.0, worker="rescuer")
    await money.settle([work], Outcome.snooze("not_sent", 0.0))
    (other,) = await money.add(1)

    await money.make_due()
    await money.round(SENT)

    assert await money.status(delivery) == ("SUCCESS", None)
    assert await money.status(other) == ("DEAD", "insufficient_balance")
    kinds = [row.kind for row in (await money.tenants.ledger(1, month=None)).items]
    assert kinds == ["debit", "opening"]
    await money.audit()


async def test_what_is_cancelled_while_it_waits_with_its_debit_is_given_back(money: Money) -> None:
    await money.open(1, 100)
    (first,) = await money.add(1)
    (second,) = await money.add(1)
    await money.round(Outcome.snooze("later", 600.0))
    assert await money.balance(1) == 100 - 2 * PRICE
    await money.cancel(first)
    assert await money.balance(1) == 100 - PRICE

    await money.run("UPDATE delivery SET status = 'EXPIRED' WHERE status = 'PENDING'")
    assert await money.holds.refund() == 1

    assert [await money.status(one) for one in (first, second)] == [
        ("CANCELED", "reservation_cancelled"),
        ("EXPIRED", "later"),
    ]
    assert await money.balance(1) == 100
    assert await money.holds.refund() == 0
    await money.audit()


async def test_a_round_that_fails_does_not_end_the_giving_back(database: Database) -> None:
    failures = [psycopg.errors.DeadlockDetected("of all transactions ours")]
    again = asyncio.Event()

    class FailsAtFirst(HeldDebits):
        async def refund(self) -> int:
            if failures:
                raise failures.pop()
            again.set()
            return 0

    async with FailsAtFirst(database, every=0.0), asyncio.timeout(30):
        await again.wait()


async def test_top_ups_count_once_and_cannot_go_below_nothing(money: Money) -> None:
    await money.open(1, 0)
    with pytest.raises(Conflict, match="there is a tenant 1"):
        await money.open(1, 5)
    credit = money.tenants.credit
    first = await credit(1, CreditRequest(amount=500, note="카드"), idempotency_key="k-1")
    again = await credit(1, CreditRequest(amount=500, note="카드"), idempotency_key="k-1")
    assert (first.replayed, again.replayed, again.id) == (False, True, first.id)
    with pytest.raises(IdempotencyMismatch):
        await credit(1, CreditRequest(amount=600), idempotency_key="k-1")
    with pytest.raises(Conflict, match="500"):
        await credit(1, CreditRequest(amount=-501), idempotency_key=None)
    with pytest.raises(NotFound):
        await credit(2, CreditRequest(amount=1), idempotency_key=None)
    await credit(1, CreditRequest(amount=-500), idempotency_key=None)
    assert await money.balance(1) == 0
    await money.audit()


async def test_the_ledger_is_append_only(money: Money) -> None:
    await money.open(1, 100)
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        await money.run("UPDATE tenant_ledger SET amount = 1")
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        await money.run("DELETE FROM tenant_ledger")


async def test_many_relays_spend_no_won_twice(money: Money) -> None:
    for tenant in (1, 2, 3):
        await money.open(tenant, 17 * PRICE)
    for _ in range(10):
        for tenant in (3, 1, 2):
            await money.add(tenant, count=2)
    outcomes = [SENT, Outcome.refused("no"), Outcome.retry("ill"), Outcome.snooze("later", 0.0)]

    async def relay(turn: int) -> None:
        rig = Money(money.database)
        for step in range(12):
            works, _ = await rig.claim(limit=7)
            await rig.settle(works, outcomes[(turn + step) % len(outcomes)])
            await rig.make_due()
            await rig.tenants.credit(
                1 + step % 3, CreditRequest(amount=7), idempotency_key=f"{turn}:{step}"
            )
            await rig.holds.refund()

    await asyncio.gather(*map(relay, range(4)))

    await money.audit()
