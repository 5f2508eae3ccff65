"""Quiet hours: the times, the rules, and deliveries that wait for their end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allim.channels.channel import Channel, Message
from allim.database.pool import Connection, Database
from allim.hub.delivery_box import DeliveryBox
from allim.hub.quiet_hours import SQL, KnownRules, QuietHoursPolicy, Rule, rules_for
from allim.hub.quiet_times import EVERY_DAY, QuietTimes, moment_of, quiet_until
from allim.relay.box import Claim
from allim.relay.retry import RetryPolicy
from allim.relay.settlement import decide
from tests.hub.conftest import NOTIFICATION, Api
from tests.hub.relaying import relaying, until

ZONES = [
    "Asia/Seoul", "UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe",
    "America/Santiago", "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Chatham",
]  # fmt: skip
CHANGES = [
    datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 9, 6, 4, tzinfo=UTC), datetime(2026, 4, 5, 3, tzinfo=UTC),
]  # fmt: skip
MINUTE = timedelta(minutes=1)


def first_minute_that_shows(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """By looking at the clocks, minute by minute."""
    shown = datetime.combine(day, clock)
    moment = shown.replace(tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(zone).replace(tzinfo=None) < shown:
        moment += MINUTE
    return moment


def by_looking(times: QuietTimes, now: datetime) -> datetime | None:
    ends = []
    for days in (-2, -1, 0, 1):
        day = now.astimezone(times.zone).date() + timedelta(days=days)
        if day.isoweekday() in times.days:
            begin = first_minute_that_shows(day, times.begins, times.zone)
            over = day if times.ends > times.begins else day + timedelta(days=1)
            end = first_minute_that_shows(over, times.ends, times.zone)
            if begin <= now < end:
                ends.append(end)
    return max(ends, default=None)


clocks = st.builds(
    time, st.integers(0, 23) | st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 15, 30, 59])
)
moments = st.builds(
    lambda near, minutes: near + timedelta(minutes=minutes),
    st.sampled_from(CHANGES),
    st.integers(-2000, 2000),
)


@settings(max_examples=60, deadline=None)
@given(
    begins=clocks,
    ends=clocks,
    zone=st.sampled_from(ZONES),
    days=st.just(EVERY_DAY) | st.frozensets(st.integers(1, 7), min_size=1),
    now=moments,
)
def test_a_window_is_what_the_clocks_on_the_wall_say(
    begins: time, ends: time, zone: str, days: frozenset[int], now: datetime
) -> None:
    times = QuietTimes(begins, ends, ZoneInfo(zone), days)

    end = times.end_of(now)

    assert end == by_looking(times, now)
    if end is not None:
        assert now < end <= now + timedelta(hours=26)


@settings(max_examples=60, deadline=None)
@given(
    windows=st.lists(
        st.builds(QuietTimes, clocks, clocks, st.sampled_from(ZONES).map(ZoneInfo)), max_size=3
    ),
    now=moments,
)
def test_waiting_ends_outside_of_every_window(windows: list[QuietTimes], now: datetime) -> None:
    until = quiet_until(windows, now)

    if until is None:
        assert all(window.end_of(now) is None for window in windows)
        return
    assert until > now
    never = until - now > timedelta(days=3)
    assert never or all(window.end_of(until) is None for window in windows)


def test_a_time_that_spring_leaves_out_is_the_change_itself() -> None:
    zone = ZoneInfo("America/New_York")
    change = datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert moment_of(date(2026, 3, 8), time(2, 30), zone) == change
    assert moment_of(date(2026, 3, 8), time(3), zone) == change
    assert moment_of(date(2026, 11, 1), time(1, 30), zone) == datetime(
        2026, 11, 1, 5, 30, tzinfo=UTC
    )


def test_the_most_particular_rules_hold_and_no_others() -> None:
    times = QuietTimes(time(21), time(8), ZoneInfo("Asia/Seoul"))

    def rule(tenant: int | None, channel: str | None) -> Rule:
        return Rule(tenant, channel, times, 0)

    everybody, slack, own, own_slack = (
        rule(None, None),
        rule(None, "SLACK"),
        rule(1, None),
        rule(1, "SLACK"),
    )
    rules = [everybody, slack, own, own_slack]
    assert rules_for(rules, 1, "SLACK") == [own_slack]
    assert rules_for(rules, 1, "EMAIL") == [own]
    assert rules_for(rules, 2, "SLACK") == [slack]
    assert rules_for(rules, None, "EMAIL") == [everybody]
    assert rules_for([own], 2, "SLACK") == ()


NIGHT = {"from": "21:00", "until": "08:00", "time_zone": "Asia/Seoul"}
AT_NIGHT = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)


async def at_night(_tx: Connection) -> datetime:
    return AT_NIGHT


async def by_day(_tx: Connection) -> datetime:
    return AT_NIGHT + timedelta(hours=12)


def to_log(**more: Any) -> dict[str, Any]:
    return {**NOTIFICATION, "deliveries": [{"channel": "LOG"}], **more}


async def first_delivery(api: Api, identity: str) -> Any:
    return (await api.get(f"/notifications/{identity}")).json["deliveries"][0]


async def test_what_is_due_at_night_waits_for_the_morning(
    api: Api, database: Database, channels: Mapping[str, Channel]
) -> None:
    assert (await api.post("/quiet-hours", json={**NIGHT, "channel": "log"})).status == 201
    mine = {**NIGHT, "channel": "LOG", "tenant_id": 7, "exempt": None, "until": "09:00"}
    assert (await api.post("/quiet-hours", json=mine)).status == 201
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    names = {
        "usual": to_log(),
        "high": to_log(priority="high"),
        "theirs": to_log(priority="high", tenant_id=7),
        "brief": to_log(expires_at=soon),
    }
    ids = {name: (await api.create(body)).json["id"] for name, body in names.items()}

    async def states() -> dict[str, tuple[str, str | None]]:
        found = {name: await first_delivery(api, identity) for name, identity in ids.items()}
        return {name: (each["status"], each["error_code"]) for name, each in found.items()}

    async with relaying(database, channels["LOG"], QuietHoursPolicy("LOG", KnownRules(), at_night)):

        async def all_is_told() -> bool:
            now = await states()
            return now["high"][0] == "SUCCESS" and {
                name: now[name] for name in ("usual", "theirs", "brief")
            } == {
                "usual": ("PENDING", "quiet_hours"),
                "theirs": ("PENDING", "quiet_hours"),
                "brief": ("EXPIRED", "expired"),
            }

        await until(all_is_told, "the night")
    usual, theirs = [await first_delivery(api, ids[name]) for name in ("usual", "theirs")]
    assert (usual["retry_count"], usual["attempts"][0]["outcome"]) == (0, "SNOOZED")
    assert usual["last_error"] == "quiet hours until 2026-11-22 08:00 (Asia/Seoul)"
    assert theirs["last_error"] == "quiet hours until 2026-11-22 09:00 (Asia/Seoul)"
    due = datetime.fromisoformat(usual["next_retry_at"])
    wait = due - datetime.fromisoformat(usual["attempts"][0]["finished_at"])
    assert abs(wait - timedelta(hours=8, minutes=30)) < MINUTE

    await database.fetch(
        "UPDATE delivery SET next_retry_at = now() WHERE status = 'PENDING' RETURNING id"
    )
    async with relaying(database, channels["LOG"], QuietHoursPolicy("LOG", KnownRules(), by_day)):

        async def morning() -> bool:
            now = await states()
            return {now["usual"][0], now["theirs"][0]} == {"SUCCESS"}

        await until(morning, "the morning")


async def test_what_waits_for_a_window_goes_when_that_is_removed(
    api: Api, database: Database, channels: Mapping[str, Channel]
) -> None:
    window = (await api.post("/quiet-hours", json={**NIGHT, "channel": "LOG"})).json
    # Relays go by what they have read: that must put nothing off when it is gone.
    rules = KnownRules(lambda: 0.0)
    policy = QuietHoursPolicy("LOG", rules, at_night)
    ids = [(await api.create(to_log())).json["id"]]
    async with relaying(database, channels["LOG"], policy):

        async def is_put_off() -> bool:
            found = await first_delivery(api, ids[0])
            return (found["status"], found["error_code"]) == ("PENDING", "quiet_hours")

        await until(is_put_off, "quiet hours")
        await api.call("DELETE", f"/quiet-hours/{window['id']}")
        ids.append((await api.create(to_log())).json["id"])

        async def all_is_sent() -> bool:
            return {(await first_delivery(api, each))["status"] for each in ids} == {"SUCCESS"}

        await until(all_is_sent, "what waited")


ASLEEP = "SELECT next_retry_at > now() + interval '1 minute' FROM delivery WHERE status = 'PENDING'"


class Night:
    """A relay taken apart, at night."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.box = DeliveryBox(database)
        self.policy = QuietHoursPolicy("LOG", KnownRules(), at_night)

    async def claim(self) -> Claim[Message]:
        claim = await self.box.claim(
            "LOG", limit=10, lease=60.0, worker="night", policy=self.policy
        )
        assert set(claim.refused) == {work.id for work in claim.works} != set()
        return claim

    async def settle(self, claim: Claim[Message]) -> None:
        settlements = [decide(w, claim.refused[w.id], RetryPolicy()) for w in claim.works]
        assert await self.box.settle(settlements, self.policy) == set(claim.refused)

    async def sleeps(self) -> list[bool]:
        return [row[0] for row in await self.database.fetch(ASLEEP)]


async def test_what_was_claimed_before_a_window_was_removed_does_not_sleep(
    api: Api, database: Database
) -> None:
    window = (await api.post("/quiet-hours", json={**NIGHT, "channel": "LOG"})).json
    await api.create(to_log())
    night = Night(database)
    claim = await night.claim()
    await api.call("DELETE", f"/quiet-hours/{window['id']}")
    await night.settle(claim)
    assert await night.sleeps() == [False]


async def test_what_was_claimed_before_a_window_was_shortened_sleeps_till_its_new_end(
    api: Api, database: Database
) -> None:
    await api.post("/quiet-hours", json={**NIGHT, "channel": "LOG"})
    await api.create(to_log(tenant_id=7))
    night = Night(database)
    claim = await night.claim()
    # A tenant's own window holds in place of everybody's: at half past eleven it is over at 0:00.
    mine = {**NIGHT, "channel": "LOG", "tenant_id": 7, "until": "00:00"}
    assert (await api.post("/quiet-hours", json=mine)).status == 201
    await night.settle(claim)
    ((minutes,),) = await database.fetch(
        "SELECT extract(epoch FROM next_retry_at - now())::float8 / 60 FROM delivery"
    )
    assert 25 < minutes <= 30


async def test_what_is_put_off_while_windows_change_is_judged_anew(
    api: Api, database: Database, database_url: str
) -> None:
    window = (await api.post("/quiet-hours", json={**NIGHT, "channel": "LOG"})).json
    await api.create(to_log())
    night = Night(database)
    claim = await night.claim()
    async with Database(database_url) as other, other.transaction() as tx:
        # As far as a removal has come that has seen what waits, and is not committed.
        await tx.execute(SQL["lock_change"])
        await tx.execute("DELETE FROM quiet_hours WHERE id = %s", [window["id"]])
        await night.settle(claim)
    assert await night.sleeps() == [False]


async def test_a_removal_waits_for_what_is_being_put_off_and_for_what_is_locked(
    api: Api, database: Database, database_url: str
) -> None:
    window = (await api.post("/quiet-hours", json={**NIGHT, "channel": "LOG"})).json
    for _ in range(2):
        await api.create(to_log())
    night = Night(database)
    await night.settle(await night.claim())
    assert await night.sleeps() == [True, True]
    async with Database(database_url) as other:
        async with other.transaction() as tx:
            # Somebody who looks at one and leaves it as it is, as a retry that is refused does.
            await tx.execute("SELECT FROM delivery ORDER BY id LIMIT 1 FOR NO KEY UPDATE")
            removing = asyncio.create_task(api.call("DELETE", f"/quiet-hours/{window['id']}"))

            async def it_waits() -> bool:
                rows = await database.fetch(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                )
                return bool(rows)

            await until(it_waits, "the removal to wait for the lock")
        assert (await removing).status == 204
    assert await night.sleeps() == [False, False]


async def test_without_windows_a_lane_is_not_slowed(database: Database) -> None:
    now = 0.0
    rules = KnownRules(lambda: now)
    policy = QuietHoursPolicy("LOG", rules)
    assert policy.joins_claim
    async with database.transaction() as tx:
        await rules.current(tx)
    assert not policy.joins_claim
    now = 6.0
    assert policy.joins_claim


async def test_windows_are_listed_and_removed(api: Api) -> None:
    weekend = {**NIGHT, "from": "00:00", "until": "00:00", "days": [7, 6, 6], "reason": "주말"}
    made = (await api.post("/quiet-hours", json=weekend)).json

    (shown,) = (await api.get("/quiet-hours")).json["items"]
    assert shown == made
    assert (shown["from"], shown["days"], shown["exempt"]) == ("00:00", [6, 7], "high")
    assert (await api.call("DELETE", f"/quiet-hours/{made['id']}")).status == 204
    assert (await api.call("DELETE", f"/quiet-hours/{made['id']}")).status == 404
    assert (await api.get("/quiet-hours")).json["items"] == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"from": "24:00"}, "/from"),
        ({"until": "8"}, "/until"),
        ({"time_zone": "Asia/Atlantis"}, "/time_zone"),
        ({"time_zone": "../../etc/passwd"}, "/time_zone"),
        ({"days": []}, "/days"),
        ({"days": [0]}, "/days/0"),
        ({"channel": "FAX"}, "/channel"),
        ({"until": "21:00"}, ""),
        ({"exempt": "urgent"}, "/exempt"),
    ],
)
async def test_windows_that_cannot_be_are_refused(
    api: Api, change: dict[str, Any], place: str
) -> None:
    answer = await api.post("/quiet-hours", json={**NIGHT, **change})
    assert answer.status == 422, answer.body
    assert [each["place"] for each in answer.json["errors"]] == [place]
