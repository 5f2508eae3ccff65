"""The operators' SQL, statement by statement as their documents have it, after real syncs.

The statements stand in `operators_sql/`, named after document and section.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import aiohttp
import pytest

from allim.app import create_app
from allim.composition.delivering import make_passes
from allim.composition.syncing import syncing
from allim.database.pool import Database
from allim.enrolment.calls import SyncCalls
from allim.testing.http import Answer, HttpSink
from allim.testing.lms.faults import Fault
from allim.testing.lms.kvca import COURSES, ROSTER, FakeKvca
from tests.foundations import a_foundation
from tests.serving import serving

STATEMENTS = Path(__file__).with_name("operators_sql")
RUNBOOK = Path(__file__).parents[2] / "docs/runbook/a-sync-failed.md"
COURSE = 447
SYNC = {
    "category_id": 303,
    "trigger_type": "MANUAL",
    "max_categories": 1,
    "max_users_per_course": 500,
}
DISPATCH = {"sheet_batch_size": 50, "notification_batch_size": 50}
TAKEN = Answer.of(200, '{"ok":true}', {"Content-Type": "application/json"})
ERROR_PAGE = Answer.of(200, "<html>Script function not found</html>", {"Content-Type": "text/html"})
DOWN = Answer.of(503, "down")


class Desk:
    """What operators have: a server to call, and a database to ask."""

    def __init__(
        self, database: Database, url: str, session: aiohttp.ClientSession, kvca: FakeKvca
    ) -> None:
        self.database = database
        self.kvca = kvca
        self._url = url
        self._session = session
        self.sheet = HttpSink()
        self.kakao = HttpSink()

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with self._session.post(self._url + path, json=body) as answer:
            return answer.status, await answer.json()

    async def sync(self, **more: Any) -> int:
        status, _ = await self.post("/jobs/enrolment-sync", {**SYNC, **more})
        return status

    async def ask(self, statement: str) -> list[dict[str, Any]]:
        """Run one of the operators' statements, letter by letter."""
        (file,) = STATEMENTS.glob(f"step?_{statement}.sql")
        async with self.database.connection() as connection:
            cursor = await connection.execute(file.read_bytes())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        kvca = await stack.enter_async_context(FakeKvca())
        kvca.add_course(303, COURSE, "파이썬 데이터 분석")
        for number in range(4):
            kvca.enrol(COURSE, f"user{number}")
        sheet = await stack.enter_async_context(HttpSink())
        kakao = await stack.enter_async_context(HttpSink())
        settings = {
            **kvca.environment(),
            "LMS_RETRIES": "0",
            "LMS_TIMEOUT_SECONDS": "5",
            "SHEET_WEBHOOK_URL": sheet.url + "/exec",
            "KAKAO_WEBHOOK_URL": kakao.url + "/send",
        }
        base = await stack.enter_async_context(a_foundation(database, settings))
        sync = await stack.enter_async_context(syncing(base))
        app = create_app(
            database,
            base.channels,
            base.environment,
            sync_calls=SyncCalls(sync),
            run_pass=make_passes(base),
        )
        url = await stack.enter_async_context(serving(app))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        desk = Desk(database, url, session, kvca)
        desk.sheet, desk.kakao = sheet, kakao
        sheet.answer(TAKEN)
        kakao.answer(TAKEN)
        yield desk
        kvca.heal()


def column(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


async def test_every_statement_of_the_documents_is_here() -> None:
    assert sorted(file.stem for file in STATEMENTS.iterdir()) == [
        *(f"step1_3-{number}" for number in range(1, 8)),
        *(f"step3_4-{number}" for number in range(1, 6)),
    ]


async def test_what_the_runbook_asks_is_answered(desk: Desk) -> None:
    assert await desk.sync() == 200
    page = RUNBOOK.read_text(encoding="utf-8").replace("kim.minjun", "user1")
    statements = [dedent(body) for body in re.findall(r"```sql\n(.*?)```", page, re.DOTALL)]
    assert len(statements) >= 7
    answers = []
    for statement in statements:
        async with desk.database.connection() as connection:
            answers.append(await (await connection.execute(statement.encode())).fetchall())
    assert [len(answer) for answer in answers if answer] == [2, 2], "user1's alerts and records"


async def test_runs_failures_alerts_and_locks(desk: Desk) -> None:
    kvca = desk.kvca
    assert await desk.sync() == 200
    kvca.change(COURSE, "user1", status="GC", gc_date="2026-03-05 14:20:00")
    assert await desk.sync(trigger_type="SCHEDULER") == 200
    for fault in (Fault.status(409), Fault.status(503), Fault.maintenance(), Fault.hang()):
        kvca.fail(COURSES, fault)
        assert await desk.sync(trigger_type="RETRY") == 502
    kvca.fail(ROSTER, Fault.status(409))
    assert await desk.sync(trigger_type="RETRY") == 502

    gate = kvca.hold(ROSTER)
    running = asyncio.create_task(desk.sync(trigger_type="SCHEDULER"))
    await gate.reached()
    assert await desk.sync() == 409

    (lock,) = await desk.ask("3-7")
    assert list(lock) == ["job_name", "locked_by", "locked_at", "lock_expires_at"]
    assert "303" in lock["job_name"]
    assert lock["lock_expires_at"] > lock["locked_at"]
    newest = (await desk.ask("3-1"))[1]
    assert (newest["status"], newest["finished_at"]) == ("RUNNING", None)

    failed = await desk.ask("3-2")
    assert {row["error_group"]: row["cnt"] for row in await desk.ask("3-3")} == {
        "HTTP_409": 2,
        "HTTP_5XX": 2,
        "TIMEOUT": 1,
        "LOCK_CONFLICT": 1,
    }
    assert column(failed, "trigger_type") == ["MANUAL"] + ["RETRY"] * 5
    assert all(row["finished_at"] >= row["started_at"] for row in failed)

    unresolved = await desk.ask("3-5")
    assert sorted(column(unresolved, "alert_type")) == ["CHANGED", "FAILED", "FAILED"]
    (changed,) = [row for row in unresolved if row["alert_type"] == "CHANGED"]
    assert changed["source_id"] == f"303:{COURSE}:user1"
    assert "결제완료" in changed["message"]

    gate.open()
    assert await running == 200
    assert await desk.ask("3-7") == []
    runs = await desk.ask("3-1")
    assert list(runs[0])[:6] == [
        "id", "trigger_type", "status", "total_records", "changed_records", "created_alerts",
    ]  # fmt: skip
    by_id = sorted(runs, key=lambda row: int(row["id"]))
    assert column(by_id, "status") == ["SUCCESS"] * 2 + ["FAILED"] * 5 + ["SUCCESS", "FAILED"]
    assert column(by_id[:2], "total_records") == [4, 4]
    assert column(by_id[:2], "changed_records") == [0, 1]
    assert column(by_id[:2], "created_alerts") == [8, 1]
    # The success resolved the failures, and nothing else.
    assert column(await desk.ask("3-5"), "alert_type") == ["CHANGED"]

    spread = {(row["alert_type"], row["severity"]): row["cnt"] for row in await desk.ask("3-4")}
    assert spread[("CHANGED", "high")] == 1
    assert sum(count for (kind, _), count in spread.items() if kind == "NEW") == 8
    assert spread[("FAILED", "low")] == 1, "the lock conflict"
    assert spread[("FAILED", "medium")] == 1, "both 409: the second one is counted in the first"
    assert spread[("FAILED", "high")] == 2, "5xx, and the timeout"

    records = await desk.ask("3-6")
    assert len(records) == 4
    (paid,) = [row for row in records if row["user_id"] == "user1"]
    assert (paid["course_id"], paid["status"], paid["status_msg"]) == ("447", "GC", "결제완료")
    # 14:20 in Seoul.
    assert paid["gc_date"] == datetime(2026, 3, 5, 5, 20, tzinfo=UTC)
    assert paid["sjc_date"] is None
    assert records[0]["updated_at"] >= records[-1]["updated_at"]


async def test_the_chain_from_sheet_to_kakao(desk: Desk) -> None:
    assert await desk.sync() == 200
    assert await desk.ask("4-1") == [{"status": "PENDING", "cnt": 8}]
    assert await desk.ask("4-2") == []
    assert {row["noti_status"] for row in await desk.ask("4-5")} == {None}

    desk.sheet.answer(*[TAKEN] * 6, ERROR_PAGE, DOWN)
    desk.kakao.answer(*[TAKEN] * 4, DOWN)
    status, answer = await desk.post("/jobs/outbox/dispatch", DISPATCH)
    assert (status, answer["ok"]) == (200, True)
    assert answer["sheet"] == {"claimed": 8, "sent": 6, "failed": 2, "dead": 0, "created": 6}
    assert answer["notification"] == {
        "claimed": 6, "sent": 4, "failed": 2, "dead": 0, "created": 0,
    }  # fmt: skip

    for statement, sent in (("4-1", 6), ("4-2", 4)):
        assert await desk.ask(statement) == [
            {"status": "FAILED", "cnt": 2},
            {"status": "SENT", "cnt": sent},
        ]
    rows = await desk.ask("4-3")
    assert column(rows, "retry_count") == [1, 1]
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert all(row["next_retry_at"] < soon and row["last_error"] for row in rows)
    assert all(row["row_key"].endswith(f"{row['source_id']}:NEW:r1") for row in rows)
    notices = await desk.ask("4-4")
    assert column(notices, "template_code") == ["KVCA_ALERT"] * 2
    assert column(notices, "recipient") == ["ops"] * 2
    assert column(notices, "channel") == ["KAKAO"] * 2

    chain = await desk.ask("4-5")
    assert len(chain) == 8
    pairs = sorted((row["sheet_status"], row["noti_status"] or "") for row in chain)
    assert pairs == [("FAILED", "")] * 2 + [("SENT", "FAILED")] * 2 + [("SENT", "SENT")] * 4
    for row in chain:
        if row["noti_id"] is not None:
            assert row["noti_source_id"].endswith(f"{row['sheet_source_id']}:NEW:r1")

    # Their next try, which an operator need not wait for.
    await desk.database.fetch(
        "UPDATE delivery SET next_retry_at = now() WHERE status = 'FAILED' RETURNING id"
    )
    desk.sheet.answer(TAKEN)
    desk.kakao.answer(TAKEN)
    await desk.post("/jobs/outbox/sheet-dispatch", {"batch_size": 50})
    await desk.post("/jobs/outbox/notification-dispatch", {"batch_size": 50})
    assert await desk.ask("4-1") == await desk.ask("4-2") == [{"status": "SENT", "cnt": 8}]
    assert await desk.ask("4-3") == await desk.ask("4-4") == []
    assert {row["noti_status"] for row in await desk.ask("4-5")} == {"SENT"}
