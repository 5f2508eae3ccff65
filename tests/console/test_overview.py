"""The overview: what is stuck, and where it is mended."""

from __future__ import annotations

import json
import re
from typing import Any

from allim.console.durations import duration
from allim.console.standing import SQL, EventRelay
from allim.database.pool import PIN_PLANS, Database
from allim.hub.rollups import SQL as ROLLUPS
from allim.hub.rollups import Rollups
from allim.relay.tally import Cell, Sums
from tests.console.conftest import READ, Open, Visitor
from tests.console.standing import add_deliveries, add_events, add_hour, add_trouble


async def test_a_fresh_installation_is_told_what_to_do_next(
    visitor: Visitor, database: Database
) -> None:
    page = await visitor.get("/")
    assert "What to do next" in page.words
    assert "No relay is alive" in page.words
    assert "allim up" in page.words

    await Rollups(database).beat("w", ["EMAIL"], slots=0, broken=[])
    page = await visitor.get("/")
    assert "A relay is alive" in page.words
    assert "Nothing needs you." in page.words

    await add_events(database, 1)
    assert "What to do next" not in (await visitor.get("/")).words


async def test_everything_that_is_stuck_is_said_with_where_it_is_mended(
    guarded: Visitor, database: Database
) -> None:
    await add_trouble(database)
    await guarded.log_in(READ)

    page = await guarded.get("/")

    said = {
        re.sub(r"6m \d+s", "6m", text): to
        for to, text in re.findall(
            r'<li class="\w+"><a href="([^"]*)"><span>([^<]*)</span>', page.text
        )
    }
    assert said["SLACK: the oldest has been due for 6m, 412 in all"].startswith(
        "/console/notifications?channel=SLACK"
    )
    assert said["SLACK: hooks.slack.com #3f2a fails and is left alone for a while"] == (
        "/console/channels#SLACK"
    )
    assert said["One alert of high severity is open"] == (
        "/console/enrolment/alerts?severity=high&amp;state=open"
    )
    assert said["13 dead letters · mostly SLACK: HTTP 503: the other side is down"] == (
        "/console/dead-letters"
    )
    assert "Send again or discard" in page.words
    assert said["One key waits behind an event that failed"] == "/console/events#blocked"
    assert said["Events: no relay reads 2 slots"] == "/console/events"
    assert said["One webhook target is disabled"] == "/console/channels#endpoints"
    assert 'badge error" title="error">failed' in page.text, "a sync run"
    assert "host-1-abcdef" in page.words


async def test_work_that_no_relay_takes_is_said(visitor: Visitor, database: Database) -> None:
    await add_deliveries(database, "SMS", 1, age=120)
    await Rollups(database).beat("w", ["EMAIL"], slots=0, broken=[])
    assert "SMS: no relay takes this channel, and one is due" in (await visitor.get("/")).words

    await database.fetch("UPDATE relay_beat SET updated_at = now() - interval '1 min' RETURNING 1")
    words = (await visitor.get("/")).words
    assert "No relay is alive" in words
    assert "Relay w no longer beats" in words


async def test_what_is_later_is_not_due(visitor: Visitor, database: Database) -> None:
    await add_deliveries(database, "EMAIL", 3, next_=3600, age=7200)
    await add_deliveries(database, "EMAIL", 2, next_=-30, status="FAILED", age=7200)

    page = await visitor.get("/")
    row = re.search(r"<tr>(?:(?!</tr>).)*#EMAIL.*?</tr>", page.text, re.DOTALL)
    assert row is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)
    numbers = [re.sub(r"<[^>]+>|\s", "", cell) for cell in cells[1:]]
    assert numbers[:2] == ["2", "3"]
    assert numbers[2] in {f"{n}s" for n in range(30, 60)} | {"1m"}


async def test_the_charts_have_every_step_of_their_window(
    visitor: Visitor, database: Database
) -> None:
    await add_hour(database)
    old = {Cell(3600 * 100, "delivery", "SMS"): Sums(9)}
    await Rollups(database).write("w", old)

    shown: dict[str, Any] = {}
    for window, steps in (("hour", 60), ("day", 144), ("week", 168), ("bogus", 60)):
        answer = await visitor.get(f"/overview/series?range={window}")
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        shown[window] = json.loads(answer.text)
        lists = [shown[window]["at"], *shown[window]["deliveries"].values()]
        lists += [*shown[window]["events"].values(), *shown[window]["errors"].values()]
        assert {len(each) for each in lists} == {steps}

    hour = shown["hour"]
    assert list(hour["errors"]) == ["EMAIL", "SLACK"], "what lies outside the window is left out"
    assert hour["deliveries"]["delivered"][-2] > 100
    assert max(hour["errors"]["SLACK"]) > 15
    sent = sum(hour["deliveries"]["delivered"][1:-1])
    day = sum(10 * rate for rate in shown["day"]["deliveries"]["delivered"])
    assert day > 0.9 * sent


async def test_the_series_need_a_login(guarded: Visitor) -> None:
    answer = await guarded.get("/overview/series", follow=False)
    assert answer.status == 303


async def test_a_poll_gets_its_part_only(visitor: Visitor) -> None:
    part = await visitor.get("/", headers={"HX-Request": "true", "HX-Target": "state"})
    assert "<html" not in part.text
    assert "charts" not in part.text
    assert "Backlog" in part.text


async def test_a_channel_that_is_not_live_is_marked(open_console: Open) -> None:
    visitor = await open_console()
    page = await visitor.get("/")
    assert re.search(r'badge mock" title="mock">mock', page.text)
    assert "not configured" in page.words


async def test_every_figure_comes_from_an_index(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            "INSERT INTO delivery (notification_id, channel, status, max_attempts)"
            " SELECT gen_random_uuid(), 'EMAIL', 'SUCCESS', 8 FROM generate_series(1, 20000)"
        )
        await tx.execute(
            "INSERT INTO outbox_messages (id, topic, slot, payload, status)"
            " SELECT gen_random_uuid(), 't', 0, '', 'SENT' FROM generate_series(1, 20000)"
        )
    await add_deliveries(database, "EMAIL", 500)
    await database.fetch("SELECT 1")
    everything = {"channels": ["EMAIL", "SLACK"], "most": 100_000}
    for name in ("deliveries", "events", "event_relays"):
        async with database.transaction() as tx:
            await tx.execute(PIN_PLANS)
            cursor = await tx.execute("EXPLAIN (ANALYZE, BUFFERS) " + SQL[name], everything)
            plan = "\n".join(line for (line,) in await cursor.fetchall())
        assert "Seq Scan on delivery" not in plan, plan
        assert "Seq Scan on outbox_messages" not in plan, plan
        assert "delivery_pkey" not in plan, plan
        assert "outbox_messages_pkey" not in plan, plan
        assert int(re.findall(r"Buffers: shared hit=(\d+)", plan)[0]) < 3_000, plan

    for name, parameters in (
        ("series", {"step": 60, "since": 0, "spans": ["minute"]}),
        ("compact", {"minutes": 86400}),
        ("prune", {"hours": 86400}),
        ("count_deliveries", {"settle": 0, "most": 1000}),
    ):
        async with database.transaction() as tx:
            await tx.execute(PIN_PLANS)
            cursor = await tx.execute("EXPLAIN " + ROLLUPS[name], parameters)
            plan = "\n".join(line for (line,) in await cursor.fetchall())
        assert not re.search(r"Seq Scan on (metric_rollup|delivery)\b", plan), plan


def test_spans_of_time_are_short() -> None:
    spans = [None, 0.04, 12.7, 61, 3600, 90061]
    assert [duration(each) for each in spans] == ["–", "0.0s", "12s", "1m 1s", "1h", "1d 1h"]


def test_slots_are_written_as_ranges() -> None:
    relay = EventRelay("r", None, None, True, [0, 1, 2, 5, 7, 8], None)
    assert relay.slot_ranges == "0–2, 5, 7–8"
