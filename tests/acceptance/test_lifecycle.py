"""How programs begin, end and come back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import psycopg

from allim.testing.http import Answer, HttpSink
from tests.programs import PATIENCE_SECONDS, Start, allim

QUICK = {
    "DELIVERY_LEASE_SECONDS": "7",
    "DELIVERY_RESCUE_SECONDS": "0.2",
}
"""Calls that end soon, so that leases may too."""


async def test_sigterm_ends_a_quiet_program_with_0_and_leaves_no_server(
    start: Start, place: Path
) -> None:
    program = await start("up")
    identity = await program.create(message="hi", deliveries=[{"channel": "LOG"}])
    await program.attempts(identity, 1)

    assert await program.terminate() == 0

    assert not (place / ".allim" / "postgres" / "data" / "postmaster.pid").exists()
    assert any("has stopped" in event["event"] for event in program.events)


async def test_sigterm_releases_a_call_that_does_not_end(
    start: Start, database_url: str, slack: HttpSink
) -> None:
    slack.answer(Answer.hang())
    program = await start(
        "up",
        DATABASE_URL=database_url,
        SLACK_WEBHOOK_URL=slack.url + "/x",
        ALLIM_SHUTDOWN_SECONDS="0.2",
    )
    await program.create(message="hi", deliveries=[{"channel": "SLACK"}])
    await slack.received(1)

    assert await program.terminate() == 0

    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT d.status, a.outcome, a.error_code, a.finished_at IS NOT NULL, d.retry_count"
            "  FROM delivery AS d JOIN delivery_attempt AS a ON a.delivery_id = d.id"
        ).fetchall()
    assert rows == [("PENDING", "UNKNOWN", "shutdown", True, 0)]


async def test_kill_9_loses_nothing_that_was_acknowledged(start: Start, slack: HttpSink) -> None:
    slack.answer(Answer.hang())
    settings = {"SLACK_WEBHOOK_URL": slack.url + "/x", **QUICK}
    program = await start("up", **settings)
    identity = await program.create(
        message="hi", deliveries=[{"channel": "SLACK"}, {"channel": "LOG"}]
    )
    await slack.received(1)
    await program.kill()
    slack.answer(Answer.of(200, "ok"))

    again = await start("up", **settings)
    await again.said(
        lambda event: (
            event.get("notification_id") == identity
            and event["channel"] == "SLACK"
            and event["outcome"] == "DELIVERED"
        )
    )

    # The other one was under way too when the program was killed, or not.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (shown := await again.show(identity))["status"] != "COMPLETED":
            await asyncio.sleep(0.05)
    attempts = {d["channel"]: d["attempts"] for d in shown["deliveries"]}
    assert [a["outcome"] for a in attempts["SLACK"]] == ["UNKNOWN", "DELIVERED"]


async def test_an_embedded_server_that_is_killed_comes_back(start: Start, place: Path) -> None:
    program = await start("up")
    before = await program.create(message="before", deliveries=[{"channel": "LOG"}])
    postmaster = place / ".allim" / "postgres" / "data" / "postmaster.pid"
    os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGKILL)
    await program.says("the embedded PostgreSQL is gone")

    body = {
        "source": "test",
        "type": "TEST",
        "message": "after",
        "deliveries": [{"channel": "LOG"}],
    }
    await program.says("the embedded PostgreSQL runs again")
    status, after = await program.call("POST", "/notifications", json=body)
    while status == 503:  # a connection of before the fall; the server is there for the next
        status, after = await program.call("POST", "/notifications", json=body)
    assert status == 202
    await program.attempts(after["id"], 1)
    await program.attempts(before, 1)


async def test_api_and_relay_run_apart(start: Start, database_url: str) -> None:
    api = await start("api", DATABASE_URL=database_url)
    relay = await start(
        "relay",
        "deliveries",
        "--channel",
        "log",
        until="relay ",
        DATABASE_URL=database_url,
        ALLIM_RELAY_METRICS_PORT="0",
    )
    identity = await api.create(message="hi", deliveries=[{"channel": "LOG"}])
    await relay.attempts(identity, 1)

    assert (await api.show(identity))["status"] == "COMPLETED"
    where = str((await relay.says("metrics on"))["event"]).split(" ")[2]
    async with relay.session.get(where) as answer:
        figures = await answer.text()
    assert 'allim_attempts_total{channel="LOG",outcome="delivered",reason=""} 1.0' in figures
    assert 'allim_channel_mode{channel="EMAIL",mode="mock"} 1.0' in figures
    ready = where.replace("/metrics", "/health/ready")
    async with relay.session.get(ready) as answer:
        assert answer.status == 200
    _, of_api = await api.call("GET", "/metrics")
    assert "allim_database_up 1.0" in of_api


async def test_the_demo_ends_with_0_without_a_terminal(place: Path) -> None:
    demo = await allim("demo", cwd=place, ALLIM_PORT="0")

    assert demo.code == 0, demo.out + demo.err
    assert "김민수 고객님, 주문하신 상품(주문번호 A-1024)의 결제가" in demo.out
    assert "*결제 실패*" in demo.out
    assert demo.out.count("COMPLETED, as it should") == 5
    assert "RETRY 503" in demo.out
    assert re.search(r"operators' console +http://127.0.0.1:\d+/console\n", demo.out)
    assert "[fallback of" in demo.out
    assert "20 rows in the sheet, then 20 notices by Kakao, as it should" in demo.out
    assert "[변경] 이서연 (파이썬 데이터 분석 입문) 상태: 대기 → 결제완료" in demo.out
    assert "6 rows in the sheet, then 6 notices by Kakao, as it should" in demo.out
    assert "980 KRW left: the Alimtalk was refunded, as it should" in demo.out
    assert "A-1024: created → paid → packed → shipped → delivered" in demo.out
