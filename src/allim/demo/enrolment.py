"""Two enrolment syncs with changes between them, and the chain of alerts running dry."""

from __future__ import annotations

import asyncio
from typing import Any

from allim.demo.speaking import LOOK_SECONDS, PATIENCE_SECONDS, Say, call
from allim.demo.stage import Stage
from allim.testing.http import Answer
from allim.testing.sheets import HTML

CATEGORY = 303
SHOWN = 8


async def tell_enrolment(stage: Stage, first: int, say: Say) -> bool:
    """Run both syncs, numbered from `first`; whether every alert went all its way."""
    say(f"\n{first}. An academy's LMS is looked at: who enrolled?")
    good = await _sync(stage, say)
    say(f"\n{first + 1}. Ten minutes later it is looked at again, and the sheet has a hiccup")
    stage.sheet.script.spoil(Answer.of(200, HTML))
    good &= await _sync(stage, say)
    emptied = await call(stage, "POST", "/jobs/outbox/dispatch")
    left = emptied["sheet"]["claimed"] + emptied["notification"]["claimed"]
    say(f"   POST /jobs/outbox/dispatch  finds {left} left to send: the relays were faster")
    return good and left == 0


async def _sync(stage: Stage, say: Say) -> bool:
    rows_before, posts_before = len(stage.sheet.rows), len(stage.sheet.script.requests)
    notices_before = len(stage.kakao.requests)
    body = {"category_id": CATEGORY, "trigger_type": "SCHEDULER", "max_users_per_course": 500}
    answered = await call(stage, "POST", "/jobs/enrolment-sync", json=body)
    summary = answered["summary"]
    say(
        f"   POST /jobs/enrolment-sync   {summary['status_rows_processed']} enrolments and"
        f" {summary['details_processed']} users in {summary['courses_processed']} courses:"
        f" {summary['new_records']} new, {summary['changed_records']} changed"
    )
    alerts = await _alerts_of(stage, answered["run_id"])
    for alert in alerts[:SHOWN]:
        say(f"   {alert['severity']:<7} {alert['message']}")
    if len(alerts) > SHOWN:
        say(f"   …       and {len(alerts) - SHOWN} more")
    await _dry(stage)
    rows = len(stage.sheet.rows) - rows_before
    posts = len(stage.sheet.script.requests) - posts_before
    notices = len(stage.kakao.requests) - notices_before
    if posts > rows:
        say(f"   The sheet was posted {posts} times: it answered {posts - rows} with an error page")
    good: bool = rows == notices == len(alerts) == summary["created_alerts"]
    verdict = "as it should" if good else "NOT AS IT SHOULD"
    say(f"   → {rows} rows in the sheet, then {notices} notices by Kakao, {verdict}")
    return good


async def _alerts_of(stage: Stage, run: int) -> list[dict[str, Any]]:
    page = await call(stage, "GET", "/alerts", params={"limit": "250"})
    return [alert for alert in reversed(page["items"]) if alert["run_id"] == run]


async def _dry(stage: Stage) -> None:
    """Wait until the alerts of the syncs are all told, each step of them."""
    wanted = [("source", "enrolment-sync"), ("status", "PENDING"), ("status", "PROCESSING")]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if not (await call(stage, "GET", "/notifications", params=wanted))["items"]:
                return
            await asyncio.sleep(LOOK_SECONDS)
