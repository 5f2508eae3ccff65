"""A text that Alimtalk cannot deliver, and its SMS; paid for once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from allim.demo.speaking import LOOK_SECONDS, PATIENCE_SECONDS, Say, call
from allim.demo.stage import WEBHOOK_SECRET, Stage
from allim.testing.solapi import ARRIVED, Step

PHONE = "01020000001"
NO_KAKAO = "3104"
"""Solapi's code for a number that is not on KakaoTalk."""
CREDIT = 1000


async def tell_messaging(stage: Stage, number: int, say: Say) -> bool:
    """Send one text by `message_mode: both`; whether it arrived, and the ledger is right."""
    say(f"\n{number}. A clinic texts a patient: Alimtalk first, SMS where that does not arrive")
    tenant = int(time.time())  # a new one at every run, since the demo's database stays
    opening = {"id": tenant, "name": "가람의원", "balance": CREDIT}
    await call(stage, "POST", "/tenants", json=opening)
    job = {
        "tenant_id": tenant,
        "to": "010-2000-0001",
        "text": "김민준님, 11월 23일 10:30 가람의원 예약이 완료되었습니다.",
        "message_mode": "both",
        "template_id": "RESERVED",
    }
    queued = await call(stage, "POST", "/messages", json=job)
    identity = queued["id"]
    say(f"   POST /messages   both, to {PHONE}   {identity}")
    await stage.solapi.called(Step.SEND, 1 + stage.texts_sent)
    await _reported(stage, NO_KAKAO, 1)
    await stage.solapi.called(Step.SEND, 2 + stage.texts_sent)
    await _reported(stage, ARRIVED, 2)
    stage.texts_sent += 2
    shown = await _ended(stage, identity)
    for delivery in shown["deliveries"]:
        why = f" ({delivery['error_code']})" if delivery["error_code"] else ""
        say(f"   {delivery['channel']:<8} {delivery['status']}{why}  {delivery['provider_id']}")
    page = await call(stage, "GET", f"/tenants/{tenant}/ledger")
    for entry in reversed(page["items"]):
        say(f"   {entry['amount']:>+6} KRW  {entry['kind']}")
    balance = (await call(stage, "GET", f"/tenants/{tenant}"))["balance"]
    sums = balance == sum(entry["amount"] for entry in page["items"])
    good = shown["status"] == "COMPLETED" and sums and balance < CREDIT
    verdict = "as it should" if good else "NOT AS IT SHOULD"
    say(f"   → {shown['status']}, {balance} KRW left: the Alimtalk was refunded, {verdict}")
    return bool(good)


async def _reported(stage: Stage, code: str, sends: int) -> None:
    """Be Solapi: the carrier reports, and the webhook says so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        # The report may come before Allim has stored that it sent; it is asked again then.
        while True:
            stage.solapi.report(code, to=PHONE)
            items = stage.solapi.webhook_items()
            await call(
                stage,
                "POST",
                "/receipts/solapi",
                json=items,
                headers=stage.solapi.webhook_headers(WEBHOOK_SECRET),
            )
            if len(items) >= stage.texts_sent + sends:
                return
            await asyncio.sleep(LOOK_SECONDS)


async def _ended(stage: Stage, identity: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            shown = await call(stage, "GET", f"/notifications/{identity}")
            if shown["status"] not in ("PENDING", "PROCESSING"):
                return shown
            await asyncio.sleep(LOOK_SECONDS)
