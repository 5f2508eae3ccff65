"""Digests: one message of a key in a window, the rest folded into the next, nothing lost."""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from allim.base.errors import ConfigurationError, Conflict
from allim.base.logging import LogWriter, json_line
from allim.base.settings import Environment
from allim.channels.channel import Channel, Message
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.database.pool import Connection, Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.digest import TAKEN_AT_ONCE, DigestPolicy, DigestSettings, digest_key
from allim.hub.operations import Operations
from allim.hub.quiet_hours import KnownRules, QuietHoursPolicy
from allim.hub.service import Hub
from allim.relay.box import Claim
from allim.relay.outcomes import Outcome
from allim.relay.policy import combine
from allim.relay.rates import RESERVED
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from allim.relay.several import SeveralObservers
from allim.relay.tally import DELIVERY, DeliveryTally, Tally
from allim.relay.telemetry import RelayTelemetry
from allim.testing.channels import a_message
from allim.testing.http import Answer, HttpSink
from tests.hub.relaying import relaying, until
from tests.programs import allim as run_allim
from tests.programs import an_empty_directory, programs

WINDOW = 3600.0
"""Never over by itself: tests open it."""


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    async with HttpSink() as sink:
        yield sink


MORE = """
WITH made AS (
    INSERT INTO delivery (notification_id, step, channel, payload, priority, status, max_attempts,
                          attempts, error_code, next_retry_at)
    SELECT notification_id, 'root', channel, jsonb_build_object('title', 'n' || n, 'message',
           repeat('word ', 400)), priority, 'PENDING', max_attempts, 1, 'digest', next_retry_at
      FROM delivery, generate_series(1, %(count)s) AS n WHERE id = %(carrier)s
    RETURNING id)
INSERT INTO digest_member (delivery_id, key)
SELECT made.id, m.key FROM made, digest_member AS m WHERE m.delivery_id = %(carrier)s
RETURNING delivery_id
"""
"""Many more that wait, with long texts."""


class Desk:
    """Somebody who sends to one Slack webhook, and looks at what came of it."""

    def __init__(self, database: Database, hub: Hub, slack: Channel) -> None:
        self.database = database
        self.hub = hub
        self.slack = slack

    async def tell(self, title: str, **more: Any) -> int:
        delivery = {"channel": "SLACK", **more.pop("delivery", {})}
        fields: Any = {"source": "t", "type": "ALERT", "title": title, "deliveries": [delivery]}
        async with self.database.transaction() as tx:
            created = await self.hub.notify(tx, **{**fields, **more})
        return int(created.deliveries[0].id)

    async def rows(self) -> dict[int, tuple[str, str | None, str | None]]:
        found = await self.database.fetch(
            "SELECT id, status, error_code, last_error FROM delivery ORDER BY id"
        )
        return {row[0]: tuple(row[1:]) for row in found}

    async def wait_in_line(self, *ids: int) -> None:
        async def they_do() -> bool:
            rows = await self.rows()
            return all(rows[each][:2] == ("PENDING", "digest") for each in ids)

        await until(they_do, f"{ids} to wait")

    async def end(self, *ids: int, status: str = "SUCCESS") -> None:
        async def they_have() -> bool:
            rows = await self.rows()
            return all(rows[each][0] == status for each in ids)

        await until(they_have, f"{ids} to be {status}")

    async def pass_the_window(self) -> None:
        async with self.database.transaction() as tx:
            await tx.execute("UPDATE digest SET next_at = now()")
            await tx.execute(
                "UPDATE delivery SET next_retry_at = now() WHERE status = 'PENDING'"
                " AND next_retry_at > now()"
            )


@pytest.fixture
def at_most_once(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "false"))


@pytest.fixture
async def desk(database: Database, sink: HttpSink, at_most_once: str) -> AsyncIterator[Desk]:
    environment = Environment(
        {
            "SLACK_AT_MOST_ONCE": at_most_once,
            "SLACK_WEBHOOK_URL": f"{sink.url}/hook",
            "SLACK_RETRY_BASE_SECONDS": "0.05",
            "SLACK_RETRY_MAX_SECONDS": "0.1",
            "SLACK_RATE_PER_SECOND": "0",
        }
    )
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    yield Desk(database, Hub(channels), channels["SLACK"])
    await close_channels(channels)
    await http.close()


async def test_what_comes_too_often_goes_with_the_next(desk: Desk, sink: HttpSink) -> None:
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        first = await desk.tell("first")
        await desk.end(first)
        rest = [await desk.tell(f"n{n} <b>", message=f"words {n}") for n in range(24)]
        other = await desk.tell("of another kind", type="OTHER")
        own = await desk.tell("by its own key", data={"digest_key": "disk"})
        await desk.end(other, own)
        await desk.wait_in_line(*rest)
        assert len(sink.requests) == 3
        await desk.pass_the_window()
        await desk.end(*rest)

    assert len(sink.requests) == 4
    text = sink.requests[3].json["text"]
    carrier, *folded = rest
    rows = await desk.rows()
    assert rows[carrier] == ("SUCCESS", None, None)
    assert {rows[each] for each in folded} == {
        ("SUCCESS", "digested", f"carried by delivery {carrier}")
    }
    assert text.startswith("*n0 &lt;b&gt;*\nwords 0\n\n+23:\n• n1 &lt;b&gt; words 1\n")
    assert text.endswith("… 3 more")
    ((payload, attempts),) = await desk.database.fetch(
        "SELECT payload -> 'digest', (SELECT array_agg(a.outcome ORDER BY attempt_no)"
        " FROM delivery_attempt a WHERE a.delivery_id = %(last)s)"
        " FROM delivery WHERE id = %(carrier)s",
        {"carrier": carrier, "last": folded[-1]},
    )
    assert payload == folded
    assert (attempts[0], attempts[-1]) == ("SNOOZED", "DELIVERED")
    assert await desk.database.fetch("SELECT count(*) FROM digest_member") <= [(1,)]


async def test_what_follows_a_folded_delivery_follows_it(desk: Desk) -> None:
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        await desk.end(await desk.tell("first"))
        carrier = await desk.tell("second")
        steps = {"delivery": {"then": [{"channel": "LOG", "title": "child"}]}}
        folded = await desk.tell("third", **steps)
        await desk.wait_in_line(carrier, folded)
        await desk.pass_the_window()
        await desk.end(carrier, folded)
    children = await desk.database.fetch("SELECT parent_id, status FROM delivery WHERE step='then'")
    assert children == [(folded, "PENDING")]


async def test_a_carrier_that_fails_takes_its_burden_along_and_one_that_dies_leaves_it(
    desk: Desk, sink: HttpSink
) -> None:
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        await desk.end(await desk.tell("first"))
        doomed, second, third = [await desk.tell(f"n{n}") for n in range(3)]
        await desk.wait_in_line(doomed, second, third)
        sink.answer(Answer.of(500), Answer.of(400, "invalid_payload"), Answer.of(200, "ok"))
        await desk.pass_the_window()
        await desk.end(doomed, status="DEAD")
        rows = await desk.rows()
        assert {rows[each][0] for each in (second, third)} == {"PENDING"}
        await desk.pass_the_window()
        await desk.end(second, third)

    assert [request.json["text"].count("•") for request in sink.requests] == [0, 2, 2, 1]
    assert (await desk.rows())[third][2] == f"carried by delivery {second}"


@pytest.mark.parametrize("at_most_once", ["true"], indirect=True)
async def test_what_may_have_been_told_is_held_with_its_carrier(desk: Desk, sink: HttpSink) -> None:
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        await desk.end(await desk.tell("first"))
        carrier, folded = await desk.tell("carrier"), await desk.tell("folded")
        await desk.wait_in_line(carrier, folded)
        sink.answer(Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\no"))
        await desk.pass_the_window()
        await desk.end(carrier, folded, status="HELD")
    assert (await desk.rows())[folded][1:] == ("digested", f"carried by delivery {carrier}")


async def test_what_was_cancelled_or_is_bound_to_a_condition_is_not_carried(
    desk: Desk, sink: HttpSink
) -> None:
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        await desk.end(await desk.tell("first"))
        carrier, gone = await desk.tell("carrier"), await desk.tell("gone")
        bound = await desk.tell("bound", delivery={"guard": {"reservation_id": 1}})
        await desk.wait_in_line(carrier, gone, bound)
        ((notification,),) = await desk.database.fetch(
            "SELECT notification_id FROM delivery WHERE id = %(id)s", {"id": gone}
        )
        await Operations(desk.database).cancel(notification)
        await desk.pass_the_window()
        await desk.end(carrier)
        await desk.wait_in_line(bound)

    assert sink.requests[-1].json["text"] == "*carrier*"
    assert (await desk.rows())[gone][0] == "CANCELED"


async def test_relays_side_by_side_share_one_window(
    desk: Desk, sink: HttpSink, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            database = await stack.enter_async_context(Database(database_url))
            policy = DigestPolicy(WINDOW)
            await stack.enter_async_context(
                relaying(database, desk.slack, policy, claim_batch=4, poll_max=0.05)
            )
        ids: list[int] = []
        rounds = 0

        async def settled() -> bool:
            rows = await desk.rows()
            return all(row[0] == "SUCCESS" or row[1] == "digest" for row in rows.values())

        while True:
            ids += [await desk.tell(f"n{len(ids) + n}") for n in range(15 if rounds < 3 else 0)]
            await until(settled, "all to be sent or to wait")
            rounds += 1
            assert len(sink.requests) <= rounds, "one message a window"
            if all(row[0] == "SUCCESS" for row in (await desk.rows()).values()):
                break
            await desk.pass_the_window()

    rows = await desk.rows()
    carriers = [each for each in ids if rows[each][1] is None]
    assert len(sink.requests) == len(carriers)
    told = [request.json["text"] for request in sink.requests]
    for at, each in enumerate(ids):
        if rows[each][1] is not None:
            carrier = int((rows[each][2] or "").rpartition(" ")[2])
            assert carrier in carriers
            assert any(f"*n{ids.index(carrier)}*" in text for text in told)
        assert rows[each][0] == "SUCCESS", at


async def test_blocks_carry_too_while_there_is_room(desk: Desk, sink: HttpSink) -> None:
    divider = {"type": "divider"}
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW)):
        await desk.end(await desk.tell("first"))
        full = await desk.tell("full", delivery={"payload": {"blocks": [divider] * 50}})
        roomy = await desk.tell("roomy", delivery={"payload": {"blocks": [divider]}})
        last = await desk.tell("last & least")
        await desk.wait_in_line(full, roomy, last)
        await desk.pass_the_window()
        await desk.end(full)
        await desk.wait_in_line(roomy, last)
        await desk.pass_the_window()
        await desk.end(roomy, last)
    section = sink.requests[-1].json["blocks"][1]
    assert section["text"]["text"] == "+1:\n• last &amp; least"


async def test_a_relay_killed_with_a_digest_in_its_hands_loses_nothing(
    database: Database, database_url: str, desk: Desk, sink: HttpSink
) -> None:
    variables = {
        "DATABASE_URL": database_url,
        "SLACK_WEBHOOK_URL": f"{sink.url}/hook",
        "SLACK_TIMEOUT_SECONDS": "2",
        "SLACK_RATE_PER_SECOND": "0",
        "DELIVERY_LEASE_SECONDS": "8",
        "DELIVERY_RESCUE_SECONDS": "0.2",
        "DIGEST_CHANNELS": "slack",
        "DIGEST_WINDOW_SECONDS": "3600",
    }
    arguments = ("relay", "deliveries", "--channel", "SLACK")
    with an_empty_directory() as place:
        async with programs(place) as start:
            doomed = await start(*arguments, until="relay ", **variables)
            await desk.end(await desk.tell("first"))
            ids = [await desk.tell(f"n{n}") for n in range(5)]
            await desk.wait_in_line(*ids)
            sink.answer(Answer.hang())
            await desk.pass_the_window()
            await sink.received(2)
            await doomed.kill()
            sink.answer(Answer.of(200, "ok"))
            heir = await start(*arguments, until="relay ", **variables)
            await desk.end(*ids)
            await heir.terminate()

    delivered = await desk.database.fetch(
        "SELECT sum(delivered)::int FROM metric_rollup WHERE channel = 'SLACK' GROUP BY worker"
    )
    assert (5,) in delivered, "those that were carried are counted too"
    rows = await desk.rows()
    assert rows[ids[0]][0] == "SUCCESS"
    assert {rows[each][1:] for each in ids[1:]} == {("digested", f"carried by delivery {ids[0]}")}
    assert sink.requests[-1].json["text"].count("•") == 4


class Hands:
    """A relay taken apart: what it has claimed, and what is to become of that."""

    def __init__(self, desk: Desk) -> None:
        self.box = DeliveryBox(desk.database)
        self.policy = DigestPolicy(WINDOW)

    async def claim(self) -> Claim[Message]:
        """What is due; what the digest puts off is settled at once."""
        claim = await self.box.claim(
            "SLACK", limit=50, lease=60.0, worker="hands", policy=self.policy
        )
        await self.end(claim, claim.refused)
        return claim

    async def end(self, claim: Claim[Message], outcomes: Mapping[int, Outcome]) -> None:
        works = [work for work in claim.works if work.id in outcomes]
        settlements = [decide(work, outcomes[work.id], RetryPolicy()) for work in works]
        landed = await self.box.settle(settlements, self.policy)
        assert landed == set(outcomes)

    def sent(self, claim: Claim[Message]) -> list[int]:
        return [work.id for work in claim.works if work.id not in claim.refused]


async def test_others_wait_while_one_is_on_its_way_or_has_its_turn(desk: Desk) -> None:
    hands = Hands(desk)
    first = await desk.tell("first")
    on_its_way = await hands.claim()
    assert hands.sent(on_its_way) == [first]
    await desk.tell("second")
    await desk.pass_the_window()
    assert hands.sent(await hands.claim()) == [], "the call takes longer than the window"
    await hands.end(on_its_way, {first: Outcome.snooze(RESERVED, 30.0)})
    await desk.database.fetch("UPDATE digest SET next_at = now() RETURNING key")
    await desk.tell("third")
    assert hands.sent(await hands.claim()) == [], "its place in the line is paid for"
    await desk.pass_the_window()
    claim = await hands.claim()
    assert hands.sent(claim) == [first]
    await desk.database.fetch("UPDATE digest SET next_at = now() RETURNING key")
    await hands.end(claim, {first: Outcome.delivered()})
    ((left,),) = await desk.database.fetch(
        "SELECT extract(epoch FROM next_at - now())::float8 FROM digest"
    )
    assert left > WINDOW / 2, "the window begins when the message has arrived"
    assert {row[0] for row in (await desk.rows()).values()} == {"SUCCESS"}


async def test_two_relays_that_claim_at_the_same_moment_send_one_of_a_key(
    desk: Desk, database_url: str
) -> None:
    for n in range(40):
        await desk.tell(f"n{n}", data={"digest_key": n % 3})
    async with AsyncExitStack() as stack:
        boxes = [
            DeliveryBox(await stack.enter_async_context(Database(database_url))) for _ in range(4)
        ]
        claims = await asyncio.gather(
            *(
                box.claim("SLACK", limit=10, lease=60.0, worker="r", policy=DigestPolicy(WINDOW))
                for box in boxes
            )
        )
    sent = [
        work.content.data["digest_key"]
        for claim in claims
        for work in claim.works
        if work.id not in claim.refused
    ]
    assert sorted(sent) == [0, 1, 2]


async def test_thousands_that_wait_are_told_by_one_message(desk: Desk) -> None:
    hands = Hands(desk)
    first = await desk.tell("first")
    await hands.end(await hands.claim(), {first: Outcome.delivered()})
    carrier = await desk.tell("carrier")
    await hands.claim()
    await desk.database.fetch(MORE, {"carrier": carrier, "count": 6000})
    await desk.pass_the_window()
    claim = await hands.claim()
    (sent,) = hands.sent(claim)
    (work,) = [work for work in claim.works if work.id == sent]
    assert len(work.content.message or "") < 3000
    await hands.end(claim, {sent: Outcome.delivered()})
    ended = Counter(row[:2] for row in (await desk.rows()).values())
    assert ended["SUCCESS", "digested"] >= TAKEN_AT_ONCE
    for _ in range(2):
        await desk.pass_the_window()
        claim = await hands.claim()
        await hands.end(claim, dict.fromkeys(hands.sent(claim), Outcome.delivered()))
    assert {row[0] for row in (await desk.rows()).values()} == {"SUCCESS"}


async def test_what_another_attempt_told_of_is_not_told_by_this_one(
    desk: Desk, database_url: str
) -> None:
    hands = Hands(desk)
    first = await desk.tell("first")
    await hands.end(await hands.claim(), {first: Outcome.delivered()})
    carrier, folded = await desk.tell("carrier"), await desk.tell("folded")
    await hands.claim()
    await desk.pass_the_window()
    claim = await hands.claim()
    await hands.end(claim, {carrier: Outcome.retry("http_500", "ill")})
    await desk.database.fetch(
        "UPDATE delivery SET next_retry_at = now() WHERE status = 'FAILED' RETURNING id"
    )
    async with Database(database_url) as other, other.transaction() as tx:
        await tx.execute("SELECT FROM delivery WHERE id = %s FOR NO KEY UPDATE", [folded])
        claim = await hands.claim()
    (again,) = [work for work in claim.works if work.id == carrier]
    assert "folded" not in (again.content.message or "")
    await hands.end(claim, {carrier: Outcome.delivered()})

    assert (await desk.rows())[folded][0] == "PENDING", "nobody was told of it"
    await desk.pass_the_window()
    assert hands.sent(await hands.claim()) == [folded]


async def test_what_is_on_its_way_with_a_carrier_is_too_late_to_cancel(desk: Desk) -> None:
    hands, operations = Hands(desk), Operations(desk.database)
    first = await desk.tell("first")
    await hands.end(await hands.claim(), {first: Outcome.delivered()})
    carrier, folded = await desk.tell("carrier"), await desk.tell("folded")
    await hands.claim()
    await desk.pass_the_window()
    claim = await hands.claim()
    ((notification,),) = await desk.database.fetch(
        "SELECT notification_id FROM delivery WHERE id = %(id)s", {"id": folded}
    )
    with pytest.raises(Conflict):
        await operations.cancel(notification)
    await hands.end(claim, {carrier: Outcome.retry("http_500", "ill")})
    await operations.cancel(notification)
    assert (await desk.rows())[folded][0] == "CANCELED"


async def test_what_expired_on_its_way_with_a_carrier_was_told(desk: Desk) -> None:
    hands = Hands(desk)
    first = await desk.tell("first")
    await hands.end(await hands.claim(), {first: Outcome.delivered()})
    carrier, folded = await desk.tell("carrier"), await desk.tell("folded")
    await hands.claim()
    await desk.pass_the_window()
    claim = await hands.claim()
    await desk.database.fetch(
        "UPDATE delivery SET expires_at = now() WHERE id = %(id)s RETURNING id", {"id": folded}
    )
    await hands.box.expire()
    await hands.end(claim, {carrier: Outcome.delivered()})
    assert (await desk.rows())[folded][:2] == ("SUCCESS", "digested")


async def test_at_night_all_wait_and_in_the_morning_one_tells_them(
    desk: Desk, sink: HttpSink
) -> None:
    await desk.database.fetch(
        "INSERT INTO quiet_hours (channel, begins, ends, time_zone, days, created_by)"
        " VALUES ('SLACK', '21:00', '08:00', 'Asia/Seoul', '{1,2,3,4,5,6,7}', 'test') RETURNING id"
    )
    moments = [datetime(2026, 11, 21, 14, 30, tzinfo=UTC)]

    async def now(_tx: Connection) -> datetime:
        return moments[-1]

    quiet = QuietHoursPolicy("SLACK", KnownRules(), now)
    policy = combine([quiet, DigestPolicy(WINDOW)])
    assert policy is not None
    async with relaying(desk.database, desk.slack, policy):
        ids = [await desk.tell(f"n{n}") for n in range(5)]

        async def all_sleep() -> bool:
            return {row[:2] for row in (await desk.rows()).values()} == {("PENDING", "quiet_hours")}

        await until(all_sleep, "the night")
        assert not sink.requests
        moments.append(moments[0] + timedelta(hours=12))
        await desk.pass_the_window()
        await desk.end(ids[0])
        await desk.pass_the_window()
        await desk.end(*ids)
    assert len(sink.requests) <= 2
    told = "".join(request.json["text"] for request in sink.requests)
    assert all(f"n{n}" in told for n in range(5))


async def test_what_was_carried_is_counted_once_as_delivered(desk: Desk) -> None:
    tally, lines = Tally(), io.StringIO()
    telemetry = RelayTelemetry("relay", LogWriter(json_line, lines, logging.INFO))
    observer = SeveralObservers(telemetry, DeliveryTally(tally))
    async with relaying(desk.database, desk.slack, DigestPolicy(WINDOW), observer):
        ids = [await desk.tell("first")]
        await desk.end(*ids)
        ids += [await desk.tell(f"n{n}") for n in range(4)]
        await desk.wait_in_line(*ids[1:])
        await desk.pass_the_window()
        await desk.end(*ids)

    assert tally.sums(DELIVERY, "SLACK").delivered == 5
    reasons = {
        sample.labels["reason"]: sample.value
        for metric in telemetry.collect()
        if metric.name == "allim_attempts"
        for sample in metric.samples
        if sample.labels["outcome"] == "delivered"
    }
    assert reasons == {"": 2.0, "digested": 3.0}
    assert lines.getvalue().count('"code":"digested"') == 3


def test_keys_tell_tenant_recipient_and_kind_apart() -> None:
    messages = [
        a_message("ops"),
        a_message("dev"),
        a_message("ops", tenant_id=1),
        a_message("ops", type="OTHER"),
        a_message("ops", data={"digest_key": "PAYMENT_FAILED"}),
        a_message("ops", data={"digest_key": 1}),
        a_message("ops", data={"digest_key": "1"}),
    ]
    assert len({digest_key(message) for message in messages}) == len(messages)
    assert digest_key(a_message("ops", title="x")) == digest_key(a_message("ops", data={}))


async def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot fold messages of SHEET, SMS"):
        Environment({"DIGEST_CHANNELS": "slack, sms,sheet"}).read(DigestSettings)
    with an_empty_directory() as place:
        ended = await run_allim("relay", cwd=place, DIGEST_CHANNELS="FAX")
    assert ended.code != 0
    assert "DIGEST_CHANNELS: there is no channel FAX" in ended.err
