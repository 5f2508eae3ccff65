"""The doctor's checks of the database, the disk and the keys."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from allim.base.errors import AllimError, ConfigurationError
from allim.base.settings import Environment
from allim.composition.diagnosis.findings import Finding, good, note, wrong
from allim.composition.opening import Store
from allim.database.migrate import check_schema
from allim.database.pool import Database
from allim.web.settings import AccessSettings

OLDEST_MAJOR = 15
LEAST_FREE_BYTES = 1024**3
SKEW_SECONDS = 2.0


async def check_server(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    """Which PostgreSQL, and whether it keeps what it acknowledges."""
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


async def check_schema_number(
    store: Store, _environment: Environment, _database: Database
) -> Sequence[Finding]:
    """Whether the schema is this version's."""
    try:
        await asyncio.to_thread(check_schema, store.url)
    except AllimError as error:
        return [wrong("schema", str(error), "run `allim migrate` with this version of Allim")]
    return [good("schema", "is this version's")]


async def check_clock(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether this machine and the database agree on the time."""
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


async def check_disk(
    store: Store, _environment: Environment, _database: Database
) -> Sequence[Finding]:
    """How much room the embedded database has."""
    if store.server is None:
        return []
    home: Path = store.server.data
    free = shutil.disk_usage(home).free
    words = f"{free / 1024**3:.1f} GiB free under {home}"
    if free < LEAST_FREE_BYTES:
        return [wrong("disk", words, "make room, or set ALLIM_HOME to another disk")]
    return [good("disk", words)]


async def check_keys(
    _store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether the API would start, and for whom."""
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
