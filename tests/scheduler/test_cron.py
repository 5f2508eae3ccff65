"""Cron expressions: the slots that they name, also where clocks are put forward and back."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allim.scheduler.cron import Cron, InvalidCron, InvalidTimezone

EXPRESSIONS = st.sampled_from(
    [
        "*/10 * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "0 0 * * *",
        "15 */2 * * *",
        "*/30 2 * * *",
        "30 0 * * SUN",
    ]
)
CHANGES = {
    # Every one on a day when clocks change; Beirut's and Asunción's at midnight.
    "Europe/Berlin": [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)],
    "America/New_York": [datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)],
    "Asia/Beirut": [datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 21, tzinfo=UTC)],
    "Australia/Lord_Howe": [
        datetime(2026, 4, 4, 15, tzinfo=UTC),
        datetime(2026, 10, 3, 15, tzinfo=UTC),
    ],
    "Asia/Seoul": [datetime(2026, 6, 1, tzinfo=UTC)],
}
PLACES = st.sampled_from([(zone, moment) for zone, days in CHANGES.items() for moment in days])


def between(cron: Cron, after: datetime, until: datetime) -> list[datetime]:
    return list(takewhile(lambda slot: slot <= until, cron.slots(after)))


def local(expression: str, zone: str, day: datetime, count: int) -> list[str]:
    slots = islice(Cron(expression, zone).slots(day), count)
    return [f"{slot.astimezone(ZoneInfo(zone)):%d %H:%M %z}" for slot in slots]


def test_seoul_has_slots_by_its_own_clock() -> None:
    midnight = datetime(2026, 11, 20, 15, tzinfo=UTC)
    assert local("0 9 * * MON-FRI", "Asia/Seoul", midnight, 3) == [
        "23 09:00 +0900",
        "24 09:00 +0900",
        "25 09:00 +0900",
    ]


def test_what_falls_into_the_gap_fires_right_after_it() -> None:
    evening = datetime(2026, 3, 28, 18, tzinfo=UTC)
    assert local("30 2 * * *", "Europe/Berlin", evening, 2) == ["29 03:00 +0200", "30 02:30 +0200"]


def test_what_comes_twice_fires_once() -> None:
    evening = datetime(2026, 10, 24, 18, tzinfo=UTC)
    assert local("30 2 * * *", "Europe/Berlin", evening, 2) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_what_goes_by_minutes_goes_by_real_time() -> None:
    before = datetime(2026, 10, 25, 0, 15, tzinfo=UTC)
    assert local("*/30 * * * *", "Europe/Berlin", before, 4) == [
        "25 02:30 +0200",
        "25 02:00 +0100",
        "25 02:30 +0100",
        "25 03:00 +0100",
    ]


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, PLACES, st.lists(st.integers(-90_000, 90_000), min_size=1, max_size=6))
@example("30 2 * * *", ("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC)), [4500])
def test_wherever_one_looks_from_the_slots_are_the_same(
    expression: str, place: tuple[str, datetime], steps: list[int]
) -> None:
    zone, change = place
    cron = Cron(expression, zone)
    begin, end = change - timedelta(hours=30), change + timedelta(hours=30)
    whole = between(cron, begin, end)
    assert whole == sorted(set(whole))
    assert all(slot > begin for slot in whole)

    looks = sorted({begin, end, *(change + timedelta(seconds=step) for step in steps)})
    looks = [look for look in looks if begin <= look <= end]
    pieces = [slot for since, until in pairwise(looks) for slot in between(cron, since, until)]

    assert pieces == whole


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "five fields"),
        ("* * * *", "it has 4"),
        ("* * * * * *", "it has 6"),
        ("61 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("0 0 31 2 *", "day-of-month"),
        ("@daily", "five fields"),
    ],
)
def test_what_is_wrong_is_said(expression: str, says: str) -> None:
    with pytest.raises(InvalidCron, match=says):
        Cron(expression, "Asia/Seoul")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("0123456789*/,-#LWMON", min_size=1, max_size=12), min_size=5, max_size=5),
    st.text(max_size=20),
)
@example(["9" * 5000, "*", "*", "*", "*"], "UTC")
def test_any_text_is_a_schedule_or_is_refused(parts: list[str], zone: str) -> None:
    with contextlib.suppress(InvalidCron):
        slot = Cron(" ".join(parts), "UTC").after(datetime(2026, 1, 1, tzinfo=UTC))
        assert slot is not None
    with contextlib.suppress(InvalidTimezone):
        Cron("* * * * *", zone)


@pytest.mark.parametrize("zone", ["Seoul", "", "../etc/passwd", "/etc/passwd", "Asia", "a\x00b"])
def test_a_zone_that_nobody_knows_is_refused(zone: str) -> None:
    with pytest.raises(InvalidTimezone):
        Cron("* * * * *", zone)
