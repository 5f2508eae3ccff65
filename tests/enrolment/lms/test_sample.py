from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from allim.enrolment.lms.protocol import Course, FailureGroup, LmsError, Roster
from allim.enrolment.lms.sample import CATEGORY, PYTHON, SAFETY, Sample
from tests.enrolment.lms.conversation import read
from tests.programs import allim

Seen = dict[tuple[str, str], dict[str, object]]


async def seen_at(runs: int) -> Seen:
    """Every enrolment that the run after `runs` others sees."""

    async def finished(category: int) -> int:
        assert category == CATEGORY
        return runs

    seen: Seen = {}
    async with Sample(finished).session() as session:
        for course in await session.courses(CATEGORY):
            for row in (await read(session, course.id)).rows:
                seen[course.id, row.user_id] = dict(row.fields)
                await session.detail(CATEGORY, row)
    return seen


async def test_the_second_run_sees_new_changed_forward_and_back_and_gone() -> None:
    first, second = await seen_at(0), await seen_at(1)
    assert set(second) - set(first) == {(PYTHON.id, "han.sohee")}
    assert set(first) - set(second) == {(PYTHON.id, "jung.hajun")}
    changed = {key for key in first.keys() & second.keys() if first[key] != second[key]}
    assert changed == {(PYTHON.id, "lee.seoyeon"), (PYTHON.id, "choi.jiwoo")}
    paid, taken_back = second[PYTHON.id, "lee.seoyeon"], second[PYTHON.id, "choi.jiwoo"]
    assert (paid["status"], taken_back["status"]) == ("GC", "SJC")
    assert taken_back["gc_date"] == first[PYTHON.id, "choi.jiwoo"]["gc_date"]


async def test_every_later_run_sees_a_change() -> None:
    seen = [await seen_at(runs) for runs in range(8)]
    assert all(before != after for before, after in itertools.pairwise(seen))
    assert (PYTHON.id, "jung.hajun") in seen[2]
    assert seen[3] == seen[5] == seen[7]
    assert seen[4] == seen[6]


async def test_the_same_run_sees_the_same_wherever_it_is_made() -> None:
    assert await seen_at(1) == await seen_at(1)


async def test_a_user_whose_detail_changes_is_in_two_courses() -> None:
    async def one(category: int) -> int:
        return 1

    phones = set()
    for lms in (Sample(), Sample(one)):
        async with lms.session() as session:
            rows = [*(await read(session, PYTHON.id)).rows, *(await read(session, SAFETY.id)).rows]
            mine = [row for row in rows if row.user_id == "park.doyun"]
            assert len(mine) == 2
            phones |= {(await session.detail(CATEGORY, row))["phone"] for row in mine}
    assert len(phones) == 2


async def test_limits_and_unknown_categories_are_as_with_a_real_one() -> None:
    async with Sample().session() as session:
        cut = await read(session, PYTHON.id, limit=2)
        assert (len(cut.rows), cut.roster.complete, cut.roster.truncated) == (2, False, True)
        assert (await read(session, "none")).roster == Roster()
        with pytest.raises(LmsError) as caught:
            await session.courses(404)
    assert caught.value.group is FailureGroup.CONFIGURATION
    assert await Sample().diagnose() is None
    assert Course("447", PYTHON.name) == PYTHON


async def test_two_syncs_find_what_the_steps_say(database_url: str, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        ended = await allim(
            "sync", "--category", "303", cwd=tmp_path, DATABASE_URL=database_url, LMS_KIND="sample"
        )
        assert ended.code == 0, ended.err
        found.append(dict(re.findall(r"^(\w+) +(\d+)$", ended.out, re.MULTILINE)))
    first, second = found
    assert (first["status_rows_processed"], first["details_processed"]) == ("11", "9")
    assert (first["new_records"], first["changed_records"]) == ("20", "0")
    # New is 한소희, in the course and as a user; changed are two enrolments, one telephone
    # number, and the one that is gone.
    assert (second["new_records"], second["changed_records"]) == ("2", "4")
    assert second["missing_records"] == "1"
