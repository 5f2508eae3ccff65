"""Rollups: written by many, never twice, and kept small."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg.errors import UndefinedTable

from allim.composition.recording import Recorder
from allim.database.pool import Database
from allim.hub import rollups
from allim.hub.rollups import Point, Rollups, Window
from allim.relay.tally import Broken, Cell, Sums, Tally
from tests.foundations import a_foundation
from tests.hub.conftest import NOTIFICATION, Api


async def minute_of(database: Database, ago: float = 0.0) -> int:
    """The beginning of the database's minute, some seconds ago."""
    [(now,)] = await database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")
    return int((now - ago) // 60) * 60


async def totals(database: Database) -> Sequence[tuple[Any, ...]]:
    """What is stored, all workers together."""
    return await database.fetch(
        "SELECT span, box, channel, sum(created)::int, sum(delivered)::int, sum(errors)::int"
        "  FROM metric_rollup GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )


async def test_a_write_that_is_repeated_counts_once_and_workers_add_up(database: Database) -> None:
    book = Rollups(database)
    cell = Cell(await minute_of(database), "delivery", "LOG")

    await book.write("one", {cell: Sums(delivered=3)})
    for _ in range(2):
        await book.write("one", {cell: Sums(delivered=5, retried=1, dead=1)})
    await book.write("two", {cell: Sums(delivered=10, calls=4, call_seconds=2.0, slowest=1.5)})

    series = await book.series(Window.HOUR)
    assert series.points == [Point(cell.minute, "delivery", "LOG", 0, 15, 1, 1, 4, 2.0, 1.5)]
    assert await totals(database) == [("minute", "delivery", "LOG", 0, 15, 2)]


async def test_old_minutes_become_hours_and_old_hours_go(database: Database) -> None:
    book = Rollups(database)
    day = 26 * 3600.0
    old = int(await minute_of(database, day) // 3600) * 3600
    for worker in ("one", "two"):
        sums = {Cell(old + 60 * n, "delivery", "LOG"): Sums(delivered=1) for n in range(60)}
        await book.write(worker, sums)
    ancient = await minute_of(database, 36 * 24 * 3600.0)
    await book.write("one", {Cell(ancient, "delivery", "LOG"): Sums(delivered=7)})
    await book.write("one", {Cell(await minute_of(database), "delivery", "LOG"): Sums(delivered=1)})

    before = await book.series(Window.WEEK)
    await asyncio.gather(*(book.keep() for _ in range(3)))
    await book.keep()

    assert await totals(database) == [
        ("hour", "delivery", "LOG", 0, 120, 0),
        ("minute", "delivery", "LOG", 0, 1, 0),
    ]
    assert (await book.series(Window.WEEK)).points == before.points
    # One that comes late is added, not lost.
    await book.write("slow", {Cell(old, "delivery", "LOG"): Sums(delivered=4)})
    await book.keep()
    assert (await totals(database))[0][4] == 124


async def test_what_comes_into_the_boxes_is_counted_once(
    api: Api, database: Database, monkeypatch: Any
) -> None:
    monkeypatch.setattr(rollups, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(rollups, "COUNTED_AT_ONCE", 3)
    book = Rollups(database)
    for _ in range(4):
        assert (await api.create({**NOTIFICATION})).status == 202
    event = {"topic": "orders", "key": "a", "payload": {"n": 1}}
    assert (await api.post("/events", json=event)).status in (201, 202)

    for _ in range(6):
        await asyncio.gather(*(book.count_created() for _ in range(3)))

    assert [row[:4] for row in await totals(database)] == [
        ("minute", "delivery", "EMAIL", 4),
        ("minute", "delivery", "SLACK", 4),
        ("minute", "outbox", "", 1),
    ]


async def test_events_are_spread_over_the_minutes_in_which_they_came(database: Database) -> None:
    book = Rollups(database)
    await database.fetch("SELECT nextval('outbox_seq') FROM generate_series(1, 1001)")
    await database.fetch(
        "UPDATE metric_mark SET next_at = clock_timestamp() - interval '10 minutes' RETURNING box"
    )

    await book.count_created()
    await book.count_created()

    rows = await database.fetch("SELECT created::int FROM metric_rollup ORDER BY starts_at")
    counts = [count for (count,) in rows]
    assert sum(counts) == 1001
    assert len(counts) in (10, 11)
    assert all(99 <= count <= 101 for count in counts[1:-1])


async def test_a_relay_beats_with_its_breakers_and_leaves(database: Database) -> None:
    book = Rollups(database)
    broken = [Broken("SLACK", "hooks.slack.com #1", 1000.0)]
    await book.beat("lost", ["EMAIL"], slots=0, broken=broken)
    await database.fetch("UPDATE relay_beat SET updated_at = now() - interval '40 s' RETURNING 1")
    await book.beat("alive", ["events", "SLACK"], slots=64, broken=broken)

    lost, alive = await book.relays()
    assert (lost.worker, lost.alive) == ("lost", False)
    assert (alive.lanes, alive.slots, alive.alive) == (["events", "SLACK"], 64, True)
    assert [(b.lane, b.target) for b in alive.breakers] == [("SLACK", "hooks.slack.com #1")]

    await book.leave("alive")
    await database.fetch("UPDATE relay_beat SET updated_at = now() - interval '2 h' RETURNING 1")
    await book.keep()
    assert await book.relays() == []


async def test_a_program_writes_what_it_did_when_it_ends(database: Database) -> None:
    async with a_foundation(database, {}) as base:
        base.watch.relays(["LOG"])
        base.watch._tally.sums("delivery", "LOG").add("delivered", 3)
        await base.watch._recorder.write()
        [relay] = await Rollups(database).relays()
        assert (relay.worker, relay.alive) == (base.worker, True)
        base.watch._tally.sums("delivery", "LOG").add("delivered", 4)

    assert [row[4] for row in await totals(database)] == [7]
    assert await Rollups(database).relays() == []


async def test_what_could_not_be_written_is_written_the_next_time(database_url: str) -> None:
    tally = Tally()
    async with Database(database_url) as database:
        recorder = Recorder(database, tally, "worker")
        tally.sums("delivery", "LOG").add("delivered", 1)
        async with database.transaction() as tx:
            await tx.execute("ALTER TABLE metric_rollup RENAME TO elsewhere")
        with pytest.raises(UndefinedTable):
            await recorder.write()
        async with database.transaction() as tx:
            await tx.execute("ALTER TABLE elsewhere RENAME TO metric_rollup")
        tally.sums("delivery", "LOG").add("delivered", 1)
        await recorder.write()
        assert [row[4] for row in await totals(database)] == [2]
