"""Whatever an LMS says, in whatever order: alerts and deliveries are the real changes, once each.

Hypothesis plays an academy and its faults; after every sync the database must be what a model
without a database says (reference.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.database.pool import Database
from allim.enrolment.model import SyncRequest
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.testing.lms.memory import SERVER_ERROR, MemoryLms
from tests.enrolment.reference import Reference

COURSES, USERS = ("1", "2"), ("ann", "bob", "cho")
MANY = 2
which = st.sampled_from([0, 0, 0, 1])
course, user = st.sampled_from(COURSES), st.sampled_from(USERS)

enrolments = st.tuples(
    st.just("enrol"),
    which,
    course,
    user,
    st.sampled_from(["DS", "SJC", "GC"]),
    st.sampled_from([None, "2026-11-21 14:00:00"]),
)
moves = st.one_of(
    enrolments,
    enrolments,
    st.tuples(st.just("leave"), which, course, user),
    st.tuples(st.just("drop"), which, course),
    st.tuples(st.just("detail"), user, st.sampled_from(["1", "2"])),
)
faults = st.fixed_dictionaries(
    {
        "no_courses": st.sampled_from([None] * 9 + [SERVER_ERROR]),
        "breaks": st.dictionaries(course, st.integers(0, 3), max_size=1),
        "incomplete": st.sets(course, max_size=1),
        "repeats": st.sets(course, max_size=1),
        "no_detail": st.sets(user, max_size=1),
    }
)
rounds = st.tuples(
    st.lists(moves, min_size=1, max_size=8),
    st.one_of(st.just({}), faults),
    st.sampled_from([None, None, None, 1, 2]),
    which,
    st.integers(1, 3),
)
first_id = count(1)


def play(lms: MemoryLms, categories: tuple[int, int], move: tuple[Any, ...]) -> None:
    """Change the academy."""
    match move:
        case ("enrol", at, course_, user_, status, date):
            fields = {"status": status} | ({"gc_date": date} if date else {})
            lms.enrol(categories[at], course_, user_, fields)
        case ("leave", at, course_, user_):
            lms.categories.get(categories[at], {}).get(course_, {}).pop(user_, None)
        case ("drop", at, course_):
            lms.categories.get(categories[at], {}).pop(course_, None)
        case ("detail", user_, phone):
            lms.users[user_] = {"user": user_, "phone": phone}


async def check(database: Database, reference: Reference) -> None:
    """The database is what the model says, and each alert has its delivery."""
    at = {"category": reference.category}
    stored = await database.fetch(
        "SELECT source_id, revision, missing_since IS NOT NULL, payload FROM source_record"
        " WHERE category_id = %(category)s",
        at,
    )
    assert {(*row[:3], str(sorted(row[3].items()))) for row in stored} == reference.state()
    told = await database.fetch(
        "SELECT concat_ws(':', source_type, source_id, alert_type, 'r' || revision) FROM alert"
        " WHERE category_id = %(category)s AND alert_type <> 'FAILED'",
        at,
    )
    assert Counter(row[0] for row in told) == reference.due
    sent = await database.fetch(
        "SELECT s.row_key FROM sheet_outbox s"
        " WHERE (s.payload ->> 'category_id')::bigint = %(category)s AND s.alert_type <> 'FAILED'",
        at,
    )
    assert Counter(row[0] for row in sent) == reference.due


async def live(
    database: Database, channels: Mapping[str, Channel], history: list[tuple[Any, ...]]
) -> None:
    """One history, in two categories that nobody else has."""
    categories = (next(first_id), next(first_id))
    lms = MemoryLms()
    references = [Reference(category, MANY) for category in categories]
    for changes, faulty, limit, at, concurrency in history:
        for move in changes:
            play(lms, categories, move)
        fresh = MemoryLms(categories=lms.categories, users=lms.users)
        for name, value in faulty.items():
            setattr(fresh, name, value)
        sync = EnrolmentSync(
            database,
            fresh,
            channels,
            Environment({"ENROLMENT_COURSE_CONCURRENCY": str(concurrency)}).read(EnrolmentSettings),
        )
        result = await sync.run(SyncRequest(category_id=categories[at], max_users_per_course=limit))
        assert result.ok == references[at].sync(fresh, limit)
        assert len(fresh.asked_details) == len(set(fresh.asked_details))
        for reference in references:
            await check(database, reference)


@pytest.mark.timeout(280)
def test_every_real_change_is_told_exactly_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small that courses of three take more than one.
    monkeypatch.setattr("allim.enrolment.course.BATCH", 2)
    monkeypatch.setattr("allim.enrolment.storing.BATCH", 2)
    monkeypatch.setattr("allim.enrolment.packs.PLAIN", 1)
    monkeypatch.setattr("allim.enrolment.details.PLAIN", 1)
    monkeypatch.setattr("allim.enrolment.course.MANY", MANY)
    with asyncio.Runner() as runner:
        environment = Environment({})
        http = make_http(environment)
        channels = make_channels(environment, make_services(http))
        database = Database(database_url, max_size=4)
        runner.run(database.open())

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(rounds, min_size=4, max_size=8))
        def histories(history: list[tuple[Any, ...]]) -> None:
            runner.run(live(database, channels, history))

        try:
            histories()
        finally:
            runner.run(database.close())
            runner.run(close_channels(channels))
            runner.run(http.close())
