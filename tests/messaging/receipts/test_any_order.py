"""Whatever is said of texts, in whatever order: each ends as Solapi says, and only once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allim.database.pool import Database
from tests.messaging.receipts.rig import SMS, reports_rig

NUMBERS = ["01000000001", "01000000002", "01000000003"]
CODES = ["4000", "3050", "3012", "3054"]
LOG = [{"channel": "LOG", "max_attempts": 8}]

WORDS = st.one_of(
    st.tuples(st.just("report"), st.sampled_from(NUMBERS), st.sampled_from(CODES)),
    st.just(("hear", "", "")),
    st.just(("forged", "", "")),
    st.just(("look", "", "")),
    st.just(("two look", "", "")),
    st.just(("time passes", "", "")),
    st.just(("send", "", "")),
)


@pytest.fixture
def empty(database: Database) -> Database:
    return database


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORDS, max_size=14))
async def test_reports_in_any_order(empty: Database, words: list[tuple[str, str, str]]) -> None:
    async with reports_rig(empty) as rig:
        await rig.run("TRUNCATE notification, delivery, delivery_attempt, receipt_inbox")
        steps: dict[str, Any] = {"then_steps": LOG, "fallback_steps": LOG}
        ids = dict(zip(await rig.accepted(*NUMBERS, **steps), NUMBERS, strict=True))
        for word, number, code in [*words, ("time passes", "", ""), ("look", "", "")]:
            if word == "report":
                rig.solapi.report(code, to=number)
            elif word == "hear":
                await rig.hear_of_all()
            elif word == "forged":
                await rig.inbox.hear_of({"G-forged"})
            elif word == "look":
                await rig.check().look()
            elif word == "two look":
                await asyncio.gather(rig.check().look(), rig.check(poll=1.0).look())
            elif word == "time passes":
                await rig.hear_of_all()
                await rig.make_due()
            else:
                await rig.send(await rig.claim(SMS))

        for delivery, number in ids.items():
            sent = [text for text in rig.solapi.texts if text.to == number]
            last = rig.solapi.groups[sent[-1].group_id].messages[sent[-1].message_id]
            found = await rig.delivery(delivery)
            expected = {
                "3000": {"ACCEPTED"},
                "4000": {"SUCCESS"},
                "3050": {"DEAD"},
                "3054": {"DEAD"},
                "3012": {"DEAD"} if len(sent) == 3 else {"FAILED"},
            }[last["statusCode"]]
            assert found["status"] in expected, (number, last["statusCode"])
            assert found["retry_count"] <= len(sent) <= 3
            children = [child["step"] for child in await rig.children(delivery)]
            ends = {"SUCCESS": ["then"], "DEAD": ["fallback"]}
            assert children == ends.get(found["status"], [])
