"""What `allim doctor` looks into: every connection, and what an operator should know of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import LiteralString

from allim.base.errors import AllimError, ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.delivering import refuse_short_lease
from allim.composition.opening import Store
from allim.composition.publishing import open_publishers
from allim.composition.settings import RelaySettings
from allim.composition.ways import open_channels
from allim.database.migrate import check_schema
from allim.database.pool import Database
from allim.enrolment.lms.making import lms_is_set, make_lms
from allim.enrolment.lms.settings import LmsKind
from allim.enrolment.scheduled import JOB_KINDS, SYNC_JOB
from allim.events.relaying.figures import OutboxFigures
from allim.hub.delivery_box import DeliveryBox
from allim.hub.reading import PAGE_LIMIT
from allim.scheduler.fires import FireStatus
from allim.scheduler.schedules import Schedules
from allim.web.settings import AccessSettings

OLDEST_MAJOR = 15
LEAST_FREE_BYTES = 1024**3
SKEW_SECONDS = 2.0
LATE_SECONDS = 60.0
DIAGNOSE_SECONDS = 60.0

RELAYS: LiteralString = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'allim listener'
"""


class Verdict(StrEnum):
    """How a finding stands."""

    GOOD = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked into; `remedy` says what to do where something is wrong."""

    about: str
    verdict: Verdict
    words: str
    remedy: str = ""


def good(about: str, words: str) -> Finding:
    """All is well."""
    return Finding(about, Verdict.GOOD, words)


def note(about: str, words: str, remedy: str = "") -> Finding:
    """Works, but should be known."""
    return Finding(about, Verdict.NOTE, words, remedy)


def wrong(about: str, words: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(about, Verdict.WRONG, words, remedy)


async def examine(store: Store, environment: Environment) -> AsyncIterator[Finding]:
    """Look into everything, one finding after the other."""
    try:
        # A first look without the pool's patience.
        database = Database(store.url, name="allim doctor", max_size=4)
        await database.open()
    except AllimError as error:
        yield wrong("database", f"{store.shown}: {error}", "check DATABASE_URL and the server")
        return
    try:
        yield good("database", f"reachable: {store.shown}")
        for check in (_server, _schema, _clock, _disk, _keys, _deliveries, _events, _schedules):
            for finding in await _guarded(check, store, environment, database):
                yield finding
        async with open_channels(database, environment, print_line=lambda _line: None) as ways:
            findings = [
                *_lease(ways.channels.values(), environment),
                *await asyncio.gather(*map(_channel, ways.channels.values())),
            ]
        for finding in findings:
            yield finding
        for finding in await _lms(environment):
            yield finding
    finally:
        await database.close()


Check = Callable[[Store, Environment, Database], Awaitable[Sequence[Finding]]]


async def _guarded(
    check: Check, store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    about = check.__name__.strip("_")
    try:
        return await check(store, environment, database)
    except AllimError as error:
        return [wrong(about, str(error), "see above")]
    except Exception as error:
        # The doctor's own boundary: one check that fails must not hide the others' findings.
        return [wrong(about, f"could not be checked: {error!r}", "run `allim migrate` first")]


async def _server(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    rows = await database.fetch(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('fsync'), current_setting('synchronous_commit'),"
        " current_setting('full_page_writes'), pg_is_in_recovery()"
    )
    number, version, fsync, synchronous, pages, recovering = rows[0]
    findings = []
    if number // 10000 < OLDEST_MAJOR:
        findings.append(
            wrong("server", f"PostgreSQL {version}", f"needs PostgreSQL {OLDEST_MAJOR} or newer")
        )
    else:
        findings.append(good("server", f"PostgreSQL {version}"))
    if recovering:
        findings.append(
            wrong("server", "is a read-only replica", "point DATABASE_URL at the primary")
        )
    if fsync != "on" or pages != "on":
        findings.append(
            wrong(
                "durability",
                f"fsync is {fsync}, full_page_writes is {pages}: a power cut loses or ruins data",
                "set both to on in postgresql.conf",
            )
        )
    elif synchronous == "off":
        findings.append(
            note(
                "durability",
                "synchronous_commit is off: a crash may lose what was answered with 202",
                "set synchronous_commit to on for this database",
            )
        )
    else:
        findings.append(good("durability", f"fsync on, synchronous_commit {synchronous}"))
    if database.pooler:
        findings.append(
            note(
                "pooler",
                "a transaction-mode pooler stands before the database: relays poll twice a second"
                " instead of being woken",
                "give relays a direct URL for faster pick-up",
            )
        )
    return findings


async def _schema(
    store: Store, _environment: Environment, _database: Database
) -> Sequence[Finding]:
    try:
        await asyncio.to_thread(check_schema, store.url)
    except AllimError as error:
        return [wrong("schema", str(error), "run `allim migrate` with this version of Allim")]
    return [good("schema", "is this version's")]


async def _clock(_store: Store, _environment: Environment, database: Database) -> Sequence[Finding]:
    asked = time.time()
    rows = await database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")
    answered = time.time()
    skew = float(rows[0][0]) - (asked + answered) / 2
    if abs(skew) > SKEW_SECONDS + (answered - asked) / 2:
        return [
            wrong(
                "clock",
                f"this machine and the database differ by {skew:+.1f} s",
                "let both keep time by NTP; signatures of webhooks carry this machine's time",
            )
        ]
    return [good("clock", f"differs from the database's by {abs(skew) * 1000:.0f} ms")]


async def _disk(store: Store, _environment: Environment, _database: Database) -> Sequence[Finding]:
    if store.server is None:
        return []
    home: Path = store.server.data
    free = shutil.disk_usage(home).free
    words = f"{free / 1024**3:.1f} GiB free under {home}"
    if free < LEAST_FREE_BYTES:
        return [wrong("disk", words, "make room, or set ALLIM_HOME to another disk")]
    return [good("disk", words)]


async def _keys(_store: Store, environment: Environment, database: Database) -> Sequence[Finding]:
    from allim.web.access import refuse_open_bind
    from allim.web.keys import keys_exist

    settings = environment.read(AccessSettings)
    exist = await keys_exist(database, environment)
    try:
        refuse_open_bind(settings.allim_host, exist)
    except ConfigurationError as error:
        return [wrong("access", str(error), "the API refuses to start like this")]
    if not exist:
        return [note("access", f"no API key: answers anybody on {settings.allim_host}")]
    return [good("access", f"keys are needed; listens on {settings.allim_host}")]


async def _deliveries(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    backlog = await DeliveryBox(database).backlog()
    findings = []
    late = {
        name: figures.oldest_due_age
        for name, figures in backlog.items()
        if (figures.oldest_due_age or 0.0) > LATE_SECONDS
    }
    for name, age in sorted(late.items()):
        findings.append(
            wrong(
                "deliveries",
                f"{name}: the oldest that is due has waited {age:.0f} s",
                "start a relay (`allim relay`, `allim up`), or see whether one is stuck",
            )
        )
    dead = {name: figures.dead for name, figures in backlog.items() if figures.dead}
    if dead:
        told = ", ".join(f"{count} of {name}" for name, count in sorted(dead.items()))
        findings.append(
            note("deliveries", f"dead letters: {told}", "see GET /deliveries?status=DEAD")
        )
    if not late:
        findings.append(good("deliveries", "nothing is late"))
    if not database.pooler:
        relays = (await database.fetch(RELAYS))[0][0]
        words = f"{relays} listening" if relays else "none is listening now"
        findings.append(
            good("relays", words)
            if relays
            else note("relays", words, "deliveries wait until `allim up` or `allim relay` runs")
        )
    return findings


async def _events(_store: Store, environment: Environment, database: Database) -> Sequence[Finding]:
    findings = []
    async with open_publishers(environment, print_line=lambda _line: None) as publishing:
        for name, publisher in publishing.publishers.items():
            trouble = await publisher.diagnose()
            about = f"publisher {name}"
            if trouble:
                findings.append(wrong(about, trouble, "check KAFKA_*, EVENTS_ROUTES and AWS_*"))
            elif name == "log":
                findings.append(note(about, "events are only written to the log"))
            else:
                findings.append(good(about, "answers"))
    figures = OutboxFigures(database)
    backlog = (await figures.backlog())[figures.lane]
    age = backlog.oldest_due_age or 0.0
    if age > LATE_SECONDS:
        findings.append(
            wrong(
                "events",
                f"the oldest that is due has waited {age:.0f} s ({backlog.waiting:,} wait)",
                "start a relay (`allim relay`, `allim up`), or see whether its publisher answers",
            )
        )
    else:
        findings.append(good("events", "nothing is late"))
    if backlog.failed:
        words = f"{backlog.failed} failed and will be tried again"
        findings.append(note("events", words, "see `allim events blocked`"))
    if backlog.dead:
        findings.append(
            note("events", f"dead letters: {backlog.dead}", "see `allim events list --status DEAD`")
        )
    return findings


def _lease(channels: Iterable[Channel], environment: Environment) -> Sequence[Finding]:
    try:
        refuse_short_lease(channels, environment.read(RelaySettings).limits().lease)
    except ConfigurationError as error:
        return [wrong("lease", str(error), "relays refuse to start like this")]
    return []


async def _schedules(
    _store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    page = await Schedules(database, JOB_KINDS).list(limit=PAGE_LIMIT)
    enabled = [schedule for schedule in page.items if schedule.enabled]
    findings = []
    for schedule in enabled:
        name, late = schedule.name, schedule.overdue_since
        if late is not None and (datetime.now(UTC) - late).total_seconds() > LATE_SECONDS:
            remedy = "start `allim up` (SCHEDULER_ENABLED) or `allim schedule run`"
            words = f"no scheduler has come to {name} since {late:%Y-%m-%d %H:%M} UTC"
            findings.append(wrong("schedules", words, remedy))
        elif schedule.job == SYNC_JOB and not lms_is_set(environment):
            words = f"{name} has no LMS to look at"
            findings.append(wrong("schedules", words, "set LMS_KIND, and what it needs"))
        elif schedule.last_fire is not None and schedule.last_fire.status is FireStatus.FAILED:
            remedy = "see docs/runbook/a-sync-failed.md"
            words = f"{name} failed last: {schedule.last_fire.error}"
            findings.append(note("schedules", words, remedy))
    if enabled and not findings:
        findings.append(good("schedules", f"{len(enabled)}, none is late"))
    return findings


async def _lms(environment: Environment) -> Sequence[Finding]:
    if not lms_is_set(environment):
        return []
    try:
        lms = make_lms(environment)
    except ConfigurationError as error:
        return [wrong("lms", str(error), "no sync can run like this")]
    try:
        async with asyncio.timeout(DIAGNOSE_SECONDS):
            trouble = await lms.diagnose()
    except TimeoutError:
        trouble = f"no answer within {DIAGNOSE_SECONDS:.0f} s"
    finally:
        await lms.close()
    if trouble:
        return [wrong("lms", f"{lms.kind}: {trouble}", f"see docs/how-to/connect-{lms.kind}.md")]
    if lms.kind == LmsKind.SAMPLE:
        return [note("lms", "sample: a built-in data set, not your academy's")]
    return [good("lms", f"{lms.kind}: logs in and lists categories")]


async def _channel(channel: Channel) -> Finding:
    about = f"channel {channel.name}"
    configured = channel.configured()
    try:
        async with asyncio.timeout(DIAGNOSE_SECONDS):
            trouble = await channel.diagnose()
    except TimeoutError:
        trouble = f"no answer within {DIAGNOSE_SECONDS:.0f} s"
    except Exception as error:
        # A channel's own code, asked for its health: whatever it raises is the finding.
        trouble = f"could not be checked: {type(error).__name__}"
    if trouble:
        return wrong(about, trouble, "see docs/how-to, and the settings of this channel")
    if configured.mode != "live":
        return note(about, f"{configured.mode}: {configured.detail}")
    return good(about, configured.detail)
