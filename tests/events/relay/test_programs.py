"""`allim relay events` and `allim up` publish; the doctor says where to."""

from __future__ import annotations

import json

import psycopg

from allim.database.pool import Database
from tests.events.relay.conftest import Outbox
from tests.programs import allim, an_empty_directory, programs


async def test_a_relay_of_events_publishes_to_the_log_and_stops_gracefully(
    database_url: str, database: Database, outbox: Outbox
) -> None:
    await outbox.put(("a", "one"), ("a", "two"))
    with an_empty_directory() as home:
        async with programs(home) as start:
            relay = await start(
                "relay",
                "events",
                until="relay ",
                DATABASE_URL=database_url,
                ALLIM_LOG_FORMAT="json",
                ALLIM_RELAY_METRICS_PORT="0",
            )
            await relay.says("events are only written to the log")
            await outbox.until_all_are("SENT")
            with psycopg.connect(database_url) as connection:
                held = connection.execute(
                    "SELECT count(*) FROM relay_slot WHERE relay_id IS NOT NULL"
                ).fetchone()
            assert held == (64,)
            where = str((await relay.says("metrics on "))["event"]).split(" ")[2]
            async with relay.session.get(where) as answer:
                metrics = await answer.text()
            assert 'allim_events_total{outcome="sent",topic="orders"} 2.0' in metrics
            assert "allim_slots_held 64.0" in metrics
            assert metrics.count("# TYPE allim_waiting gauge") == 1
            assert await relay.terminate() == 0
            lines = [json.loads(line) for line in relay.out]
    assert [(line["topic"], line["key"], line["payload"]) for line in lines] == [
        ("orders", "a", "one"),
        ("orders", "a", "two"),
    ]
    assert lines[0]["headers"]["eventId"] == lines[0]["event"]
    free = await database.fetch("SELECT count(*) FROM relay_slot WHERE relay_id IS NULL")
    assert free == [(64,)]


async def test_the_doctor_says_where_events_go(database_url: str) -> None:
    with an_empty_directory() as home:
        told = await allim("doctor", cwd=home, DATABASE_URL=database_url)
        assert "events are only written to the log" in told.out
        told = await allim(
            "doctor", cwd=home, DATABASE_URL=database_url, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
        )
    assert told.code == 1
    assert "no broker of 127.0.0.1:1 answers" in told.out


async def test_the_doctor_tells_of_events_that_fail(database: Database, database_url: str) -> None:
    await Outbox(database).put(("a", "1"), ("b", "2"))
    await database.fetch(
        "UPDATE outbox_messages SET status = 'FAILED', parked = true,"
        " next_retry_at = now() + interval '1 hour' WHERE message_key = 'a' RETURNING 1"
    )
    with an_empty_directory() as home:
        told = await allim("doctor", cwd=home, DATABASE_URL=database_url)
    assert "1 failed and will be tried again" in told.out
    assert "allim events blocked" in told.out


async def test_a_route_that_names_no_publisher_stops_the_start(database_url: str) -> None:
    with an_empty_directory() as home:
        told = await allim(
            "relay", "events", cwd=home, DATABASE_URL=database_url, EVENTS_ROUTES="orders=rabbit"
        )
    assert told.code != 0
    assert "EVENTS_ROUTES: entry 1 names no publisher" in told.err
