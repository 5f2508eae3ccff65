"""Listings that nobody would believe at once, and those that left something out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.testing.lms.memory import MemoryLms
from tests.enrolment.conftest import CATEGORY, Academy

MANY = 500


@pytest.fixture
def academy(database: Database, channels: Mapping[str, Channel]) -> Academy:
    """An academy with a large course and a small one, all of it told already."""
    lms = MemoryLms()
    for number in range(MANY):
        lms.enrol(CATEGORY, "447", f"u{number}", {"status": "GC"})
    lms.enrol(CATEGORY, "448", "u0", {"status": "DS"})
    return Academy(database, lms, channels)


async def missing(academy: Academy) -> int:
    rows = await academy.rows("SELECT count(*) FROM source_record WHERE missing_since IS NOT NULL")
    return int(rows[0][0])


async def test_a_large_course_that_comes_back_empty_is_believed_the_second_time(
    academy: Academy,
) -> None:
    await academy.sync()
    users = dict(academy.lms.categories[CATEGORY]["447"])
    academy.lms.categories[CATEGORY]["447"].clear()
    academy.lms.enrol(CATEGORY, "448", "u0", {"status": "GC"})

    doubted = await academy.sync()

    assert not doubted.ok
    assert doubted.error == (
        "upstream: course #447 lists almost nobody (gone=500, known=500);"
        " nobody is reported missing unless the next run is told the same"
    )
    assert not re.search(" 5.. | 409 ", doubted.error), "the operators' SQL would misread it"
    assert (doubted.summary.failed_courses, doubted.summary.courses_processed) == (1, 1)
    assert (doubted.summary.missing_records, doubted.summary.changed_records) == (0, 1)
    assert await missing(academy) == 0

    academy.lms.breaks["447"] = 0
    assert not (await academy.sync()).ok, "who saw nothing confirms nothing"
    assert await missing(academy) == 0
    academy.lms.breaks.clear()

    academy.lms.categories[CATEGORY]["447"].update(users)
    assert (await academy.sync()).ok
    academy.lms.categories[CATEGORY]["447"].clear()
    assert not (await academy.sync()).ok, "the listing between them was right"
    believed = await academy.sync()

    assert believed.ok
    assert believed.summary.missing_records == await missing(academy) == MANY
    assert await academy.rows("SELECT * FROM doubted_course") == []


async def test_a_large_course_that_is_off_the_list_is_believed_the_second_time(
    academy: Academy,
) -> None:
    await academy.sync()
    del academy.lms.categories[CATEGORY]["447"]

    doubted = await academy.sync()
    assert doubted.error is not None
    assert doubted.error.startswith("upstream: course #447 is gone from the list of courses (")
    assert await missing(academy) == 0

    assert (await academy.sync()).summary.missing_records == MANY


@pytest.mark.parametrize("left", [51, MANY - 19])
async def test_what_a_day_may_bring_is_believed_at_once(academy: Academy, left: int) -> None:
    await academy.sync()
    for number in range(left, MANY):
        academy.lms.leave(CATEGORY, "447", f"u{number}")

    result = await academy.sync()

    assert result.ok
    assert result.summary.missing_records == MANY - left


async def test_what_was_left_out_of_a_listing_is_told(academy: Academy) -> None:
    academy.lms.incomplete.add("447")

    result = await academy.sync()

    assert result.ok
    assert result.error is None
    assert result.warning == "incomplete: course #447: rows were left out"
    assert await academy.rows("SELECT status, error_message FROM run_log") == [
        ("SUCCESS", result.warning)
    ]
