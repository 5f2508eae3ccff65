"""Runs the scenarios and tells what the API says of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from allim.demo.enrolment import tell_enrolment
from allim.demo.events import tell_events
from allim.demo.messaging import tell_messaging
from allim.demo.speaking import LOOK_SECONDS, PATIENCE_SECONDS, Say, call
from allim.demo.stage import Stage
from allim.demo.story import Scenario, scenarios
from allim.testing.http import Answer

OPEN = frozenset({"PENDING", "PROCESSING"})


async def tell(stage: Stage, say: Say) -> bool:
    """Run every scenario; whether each ended as it should."""
    say("")
    say(f"  database  {stage.database}, embedded, data under {stage.home}")
    say(f"  API       {stage.url}   (up in {stage.started_in:.1f} s, database included)")
    say("  e-mail    printed, since no SMTP server is set")
    say(f"  Slack     a local server that answers like Slack: {stage.slack.url}")
    say("  sheet     a local server like Google's Apps Script; Kakao, Solapi and the LMS too")
    stage.partner.answer(Answer.of(400, "we do not know this order"))
    good = True
    acts = scenarios(stage)
    for number, scenario in enumerate(acts, start=1):
        good &= await _play(number, scenario, stage, say)
    good &= await tell_enrolment(stage, len(acts) + 1, say)
    good &= await tell_messaging(stage, len(acts) + 3, say)
    good &= await tell_events(stage, len(acts) + 4, say)
    await _sum_up(stage, say)
    return good


async def _play(number: int, scenario: Scenario, stage: Stage, say: Say) -> bool:
    stage.slack.answer(*(scenario.slack_answers or (Answer.of(200, "ok"),)))
    slack_before, printed_before = len(stage.slack.requests), len(stage.printed)
    say(f"\n{number}. {scenario.heading}")
    if scenario.template is not None:
        stored = await call(stage, "POST", "/templates", json=scenario.template)
        say(f"   POST /templates      {stored['code']}, version {stored['version']}")
    began = time.perf_counter()
    created = await call(stage, "POST", "/notifications", json=scenario.body)
    took = time.perf_counter() - began
    say(f"   POST /notifications  202 in {took * 1000:.1f} ms  {created['id']}")
    shown = await _ended(stage, created["id"])
    for delivery in shown["deliveries"]:
        _tell_delivery(delivery, say)
    answers = scenario.slack_answers or (Answer.of(200, "ok"),)
    for nth, request in enumerate(stage.slack.requests[slack_before:]):
        status = answers[min(nth, len(answers) - 1)].status
        say(f"   Slack answered {status} to: {_slack_text(request.json)}")
    await _mails_printed(stage, printed_before, shown["deliveries"])
    for line in stage.printed[printed_before:]:
        if not line.startswith("─"):
            say(f"   │ {line}".rstrip())
    if scenario.remark:
        say(f"   {scenario.remark}")
    verdict = "as it should" if shown["status"] == scenario.ends else "NOT AS IT SHOULD"
    say(f"   → {shown['status']}, {verdict}")
    return bool(shown["status"] == scenario.ends)


def _tell_delivery(delivery: Mapping[str, Any], say: Say) -> None:
    to = delivery["recipient"] or "(the channel's own)"
    born = (
        "" if delivery["step"] == "root" else f"  [{delivery['step']} of {delivery['parent_id']}]"
    )
    say(f"   {delivery['channel']:<8} {to}  {delivery['status']}{born}")
    for attempt in delivery["attempts"]:
        what = " ".join(
            str(part)
            for part in (attempt["outcome"], attempt["http_status"], attempt["error_code"])
            if part
        )
        since = _seconds(delivery["created_at"], attempt["finished_at"]) * 1000
        say(f"     attempt {attempt['attempt_no']}: {what}, {since:.0f} ms after it was stored")


async def _ended(stage: Stage, identity: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            shown = await call(stage, "GET", f"/notifications/{identity}")
            if shown["status"] not in OPEN:
                return shown
            await asyncio.sleep(LOOK_SECONDS)


async def _mails_printed(stage: Stage, since: int, deliveries: Sequence[Mapping[str, Any]]) -> None:
    """Wait until what the mock printed has come through the pipe."""
    mails = sum(d["channel"] == "EMAIL" and d["status"] == "SUCCESS" for d in deliveries)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(line.startswith("─") for line in stage.printed[since:]) < 2 * mails:
            stage.arrived.clear()
            await stage.arrived.wait()


async def _sum_up(stage: Stage, say: Say) -> None:
    page = await call(stage, "GET", "/notifications", params={"limit": "250"})
    kept = len(page["items"])
    more = " or more" if page["next"] else ""
    dead = await call(stage, "GET", "/deliveries", params={"status": "DEAD", "limit": "250"})
    letters = "1 dead letter" if len(dead["items"]) == 1 else f"{len(dead['items'])} dead letters"
    say(f"\nOn record: {kept}{more} notifications, {letters}.")
    say(f"  the operators' console     {stage.url}/console")
    say(f"  documentation of the API   {stage.url}/docs")
    say(f"  everything                 curl {stage.url}/notifications")
    say(f"  dead letters               curl '{stage.url}/deliveries?status=DEAD'")
    say(f"  metrics                    curl {stage.url}/metrics")


def _slack_text(body: Mapping[str, Any]) -> str:
    text = str(body.get("text", ""))
    return " / ".join(line for line in text.splitlines() if line.strip())


def _seconds(since: str, until: str) -> float:
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
