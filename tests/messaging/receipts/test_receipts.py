"""Reports: late, repeated or forged ones do no harm; what was accepted gets its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from allim.database.pool import Connection, Database
from allim.messaging.receipts import LANE, groups_in
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import decide
from allim.testing.solapi import Fault, Step
from tests.messaging.receipts.rig import ALIMTALK, RETRY, ReportsRig, reports_rig

LOG = [{"channel": "LOG", "max_attempts": 8}]
ONE, TWO, THREE = "01000000001", "01000000002", "01000000003"


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[ReportsRig]:
    async with reports_rig(database) as rig:
        yield rig


class Hand(OpenPolicy):
    """A policy that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str, str | None]] = []

    async def on_receipt(self, tx: Connection, ended: Sequence[int]) -> None:
        cursor = await tx.execute(
            "SELECT id, status, error_code FROM delivery WHERE id = ANY(%s) ORDER BY id",
            [list(ended)],
        )
        self.told += await cursor.fetchall()


async def test_a_group_is_asked_once_and_each_message_gets_its_end(rig: ReportsRig) -> None:
    rig.solapi.reports = {TWO: "3050"}
    steps: dict[str, Any] = {"then_steps": LOG, "fallback_steps": LOG}
    arrived, failed, waiting = await rig.accepted(ONE, TWO, THREE, **steps)
    rig.solapi.report(to=ONE)
    rig.solapi.report(to=TWO)
    hand = Hand()
    await rig.hear_of_all()

    assert await rig.check(policy=hand).look() == 1

    assert rig.solapi.count(Step.MESSAGES) == 1
    assert [await rig.status(d) for d in (arrived, failed, waiting)] == [
        "SUCCESS",
        "DEAD",
        "ACCEPTED",
    ]
    assert [c["step"] for c in await rig.children(arrived)] == ["then"]
    assert [c["step"] for c in await rig.children(failed)] == ["fallback"]
    assert (await rig.delivery(failed))["error_code"] == "solapi_3050"
    assert hand.told == [(arrived, "SUCCESS", None), (failed, "DEAD", "solapi_3050")]
    assert "LOG" in rig.woken
    (row,) = await rig.inbox_rows()
    assert row["asked"] == 1
    assert round(row["pause"].total_seconds()) == 60

    rig.solapi.report()
    await rig.make_due()
    await rig.check().look()
    assert await rig.status(waiting) == "SUCCESS"
    assert await rig.inbox_rows() == []


async def test_a_failed_report_of_alimtalk_starts_its_text(rig: ReportsRig) -> None:
    text = [{"channel": "SMS", "recipient": ONE, "max_attempts": 3}]
    (alimtalk,) = await rig.accepted(ONE, channel=ALIMTALK, fallback_steps=text)
    rig.solapi.report("3104")
    await rig.hear_of_all()
    await rig.check().look()
    assert await rig.status(alimtalk) == "DEAD"

    await rig.send(await rig.claim())

    assert [body.body["type"] for body in rig.solapi.texts] == ["ATA", "SMS"]


async def test_a_report_that_is_worth_another_try_gets_it_while_there_are_tries(
    rig: ReportsRig,
) -> None:
    (text,) = await rig.accepted(ONE, fallback_steps=LOG)
    for tries in (1, 2):
        rig.solapi.report("3012")
        await rig.hear_of_all()
        await rig.make_due()
        await rig.check().look()
        found = await rig.delivery(text)
        assert (found["status"], found["retry_count"]) == ("FAILED", tries)
        assert (found["error_code"], found["superseded_by"]) == ("solapi_3012", None)
        await rig.make_due()
        await rig.send(await rig.claim())
        assert len(rig.solapi.texts) == tries + 1

    rig.solapi.report("3012")
    await rig.hear_of_all()
    await rig.make_due()
    await rig.check().look()
    assert await rig.status(text) == "DEAD"
    assert len(await rig.children(text)) == 1
    assert len({sent.group_id for sent in rig.solapi.texts}) == 3


@pytest.mark.parametrize(("code", "least"), [("3042", 600), ("3108", 1), ("1030", 300)])
async def test_some_are_tried_later(rig: ReportsRig, code: str, least: int) -> None:
    (text,) = await rig.accepted(ONE)
    rig.solapi.report(code)
    await rig.hear_of_all()
    with capture_logs() as logs:
        await rig.check().look()
    found = await rig.delivery(text)
    assert found["status"] == "FAILED"
    assert (found["next_retry_at"] - found["updated_at"]).total_seconds() >= least - 1
    assert any(line["event"] == "solapi_alarm" for line in logs) == (code == "1030")


async def test_what_is_uncertain_waits(rig: ReportsRig) -> None:
    (alimtalk,) = await rig.accepted(ONE, channel=ALIMTALK, fallback_steps=LOG)
    rig.solapi.report("3005")
    await rig.hear_of_all()
    await rig.check().look()
    assert await rig.status(alimtalk) == "ACCEPTED"
    assert await rig.children(alimtalk) == []
    for group in rig.solapi.groups.values():
        for message in group.messages.values():
            message["statusCode"] = "4000"
    await rig.make_due()
    await rig.check().look()
    assert await rig.status(alimtalk) == "SUCCESS"


async def test_a_message_without_its_key_is_told_by_its_id_or_number(rig: ReportsRig) -> None:
    one, two = await rig.accepted(ONE, TWO)
    (group,) = rig.solapi.groups.values()
    for message in group.messages.values():
        del message["customFields"]
    await rig.run(f"UPDATE delivery SET provider_message_id = NULL WHERE id = {two}")
    rig.solapi.report()
    await rig.hear_of_all()
    await rig.check().look()
    assert [await rig.status(one), await rig.status(two)] == ["SUCCESS", "SUCCESS"]


async def test_a_report_that_overtakes_the_settle_waits_for_it(rig: ReportsRig) -> None:
    text = await rig.add(ONE)
    works = await rig.claim()
    outcomes = await rig.channels["SMS"].send(works, rig.box.record_provider_id)
    rig.solapi.report()
    await rig.hear_of_all()
    await rig.check().look()
    assert await rig.status(text) == "PROCESSING"
    (row,) = await rig.inbox_rows()
    assert row["wait"].total_seconds() <= 5

    await rig.box.settle([decide(works[0], outcomes[0], RETRY)], None)
    await rig.make_due()
    await rig.check().look()
    assert await rig.status(text) == "SUCCESS"


# Asking unheard


async def test_what_nobody_reports_is_asked_for_later_each_time(rig: ReportsRig) -> None:
    (text,) = await rig.accepted(ONE)
    check = rig.check(poll=30.0)
    assert await check.look() == 0, "too early"
    await rig.age(40)
    assert await check.look() == 1
    waits = []
    for _ in range(8):
        await rig.make_due()
        assert await check.look() == 1
        waits.append(round((await rig.inbox_rows())[0]["pause"].total_seconds()))
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    rig.solapi.report()
    await rig.make_due()
    await check.look()
    assert await rig.status(text) == "SUCCESS"
    assert await check.look() == 0


async def test_many_relays_ask_for_a_group_once(rig: ReportsRig) -> None:
    for number in range(20):
        await rig.accepted(f"0100000{number:04d}")
    await rig.age(100)
    rig.solapi.report()

    looked = await asyncio.gather(*(rig.check(poll=30.0).look() for _ in range(4)))

    assert sum(looked) == 20
    assert rig.solapi.count(Step.MESSAGES) == 20
    assert await rig.inbox_rows() == []


async def test_while_solapi_is_away_nothing_is_lost_and_it_is_not_besieged(
    rig: ReportsRig,
) -> None:
    ids = [(await rig.accepted(f"0100000{number:04d}"))[0] for number in range(8)]
    rig.solapi.report()
    await rig.hear_of_all()
    rig.solapi.fail_always(Fault.status(503))
    assert await rig.check().look() == 8
    assert rig.solapi.count(Step.MESSAGES) == 8
    assert {await rig.status(delivery) for delivery in ids} == {"ACCEPTED"}

    rig.solapi.fail_always(None)
    await rig.make_due()
    await rig.check().look()
    assert {await rig.status(delivery) for delivery in ids} == {"SUCCESS"}


# Webhooks that lie


async def test_a_webhook_only_says_where_to_look(rig: ReportsRig) -> None:
    (text,) = await rig.accepted(ONE, fallback_steps=LOG)
    await rig.hear_of_all()  # says whatever it says
    await rig.check().look()
    assert await rig.status(text) == "ACCEPTED"


async def test_groups_of_nobody_are_not_asked_for_and_forgotten(rig: ReportsRig) -> None:
    await rig.inbox.hear_of({"G-forged", "G-of-another-installation"})
    assert rig.woken == [LANE]
    assert await rig.check().look() == 2
    assert rig.solapi.calls == []
    assert len(await rig.inbox_rows()) == 2, "they may be on their way into the database"
    await rig.run("UPDATE receipt_inbox SET created_at = now() - interval '11 minutes'")
    await rig.make_due()
    await rig.check().look()
    assert await rig.inbox_rows() == []


async def test_however_often_a_group_is_spoken_of_it_is_asked_for_every_two_seconds(
    rig: ReportsRig,
) -> None:
    await rig.accepted(ONE)
    check = rig.check()
    began = time.monotonic()
    for _ in range(5):
        await rig.hear_of_all()
        await check.look()
    assert rig.solapi.count(Step.MESSAGES) <= 1 + (time.monotonic() - began) // 2
    (row,) = await rig.inbox_rows()
    assert row["wait"].total_seconds() <= 2


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        ([{"groupId": "G1"}, {"groupId": "G2"}, {"groupId": "G1"}], {"G1", "G2"}),
        ([{"eventDataId": "E", "data": {"groupId": "G1"}, "retryCount": 1}], {"G1"}),
        ({"groupId": "G1"}, {"G1"}),
        ([7, None, "x", [], {"groupId": 7}, {"data": "x"}, {"data": {"groupId": None}}], set()),
        ("x", set()),
        (None, set()),
    ],
)
def test_bodies_of_every_shape_are_read(body: Any, groups: set[str]) -> None:
    assert groups_in(body) == groups
