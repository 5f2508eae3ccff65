"""A relay is killed at each step; another one finishes its work, and every id is checked."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest

from allim.testing.http import Answer, HttpSink
from tests.crash.conftest import Deliveries, Launch, another_relay, arrivals, until
from tests.crash.relay_process import LONG_LEASE

COUNT = 20

CALLED_AND_NOT_SETTLED = {"after the call", "before commit"}
"""These moments always leave a call behind that nobody could write down."""


def calls_of(row: Mapping[str, Any]) -> list[str]:
    """The outcomes of its attempts; where the machine is busy some wait for their turn."""
    return [outcome for outcome in row["log"] if outcome != "SNOOZED"]


@pytest.mark.parametrize(
    "moment",
    [
        "before the claim",
        "in the claim",
        "after the claim",
        "before the call",
        "after the call",
        "before commit",
        "after commit",
    ],
)
async def test_a_relay_killed_at_any_step_loses_nothing(
    moment: str, database_url: str, deliveries: Deliveries, sink: HttpSink, launch: Launch
) -> None:
    await deliveries.add(sink, COUNT, with_steps=True)

    doomed = await launch(database_url, kill_at=moment, kill_on=2)
    assert await doomed.death() == -signal.SIGKILL
    # A claim that it had sent off may still be committed by its backend.
    await until(deliveries.untouched, "the dead relay's connections to end")
    left = {row["id"]: row for row in await deliveries.all()}
    async with another_relay(database_url):
        await until(deliveries.are_final, "every delivery to end")

    found = await deliveries.all()
    assert len(found) == 2 * COUNT
    in_doubt = set()
    for row in found:
        assert row["status"] == "SUCCESS"
        assert row["retry_count"] == 0, "a crash of ours spends nothing"
        assert len(row["log"]) == row["attempts"]
        assert row["log"][-1] == "DELIVERED"
        before = left.get(row["id"])
        if before is not None and before["status"] == "PROCESSING":
            assert calls_of(row) == ["UNKNOWN", "DELIVERED"]
            in_doubt.add(row["recipient"].removeprefix(sink.url))
        else:
            assert calls_of(row) == ["DELIVERED"]

    times = arrivals(sink)
    assert len(times) == 2 * COUNT
    doubled = {path for path, count in times.items() if count > 1}
    assert doubled <= in_doubt, "only what was in doubt goes out again"
    assert max(times.values()) <= 2
    assert doubled or moment not in CALLED_AND_NOT_SETTLED


async def test_a_relay_killed_in_the_middle_of_its_calls_loses_nothing(
    database_url: str, deliveries: Deliveries, sink: HttpSink, launch: Launch
) -> None:
    sink.answer(*[Answer.hang()] * 4, Answer.of(200, "ok"))
    await deliveries.add(sink, 4)

    doomed = await launch(database_url)
    await sink.received(4)
    doomed.send(signal.SIGKILL)
    await doomed.death()
    async with another_relay(database_url):
        await until(deliveries.are_final, "every delivery to end")

    for row in await deliveries.all():
        assert (row["status"], row["retry_count"]) == ("SUCCESS", 0)
        assert calls_of(row) == ["UNKNOWN", "DELIVERED"]
    assert set(arrivals(sink).values()) == {2}


async def test_a_relay_that_sleeps_past_its_lease_settles_nothing_when_it_wakes(
    database_url: str, deliveries: Deliveries, sink: HttpSink, launch: Launch
) -> None:
    sink.answer(Answer.hang(), Answer.of(200, "ok"))
    await deliveries.add(sink, 1)
    sleeper = await launch(database_url)
    await sink.received(1)
    sleeper.send(signal.SIGSTOP)

    async with another_relay(database_url):
        await until(deliveries.are_final, "the other relay to finish the work")
    (done,) = await deliveries.all()
    assert (done["status"], calls_of(done)) == ("SUCCESS", ["UNKNOWN", "DELIVERED"])
    sleeper.send(signal.SIGCONT)

    async def it_has_tried() -> bool:
        return bool(sleeper.refused)

    await until(it_has_tried, "the woken relay to try to settle")
    assert sleeper.landed == []
    assert await deliveries.all() == [done]


async def test_relays_side_by_side_send_everything_once(
    database_url: str, deliveries: Deliveries, sink: HttpSink, launch: Launch
) -> None:
    one, two = [await launch(database_url, lease=LONG_LEASE) for _ in range(2)]

    async def both_run() -> bool:
        return bool(one.said and two.said)

    await until(both_run, "both to run")
    await deliveries.add(sink, 200, with_steps=True)
    await until(deliveries.are_final, "every delivery to end")

    async def all_came() -> bool:
        return len(await deliveries.all()) == 400 and await deliveries.are_final()

    await until(all_came, "the children to end")
    assert set(arrivals(sink).values()) == {1}
    assert len(arrivals(sink)) == 400
    assert all(calls_of(row) == ["DELIVERED"] for row in await deliveries.all())
    for relay in (one, two):
        relay.send(signal.SIGTERM)
        assert await relay.death() == 0
    assert {*one.landed, *two.landed} == {row["id"] for row in await deliveries.all()}
    assert one.refused == two.refused == []
