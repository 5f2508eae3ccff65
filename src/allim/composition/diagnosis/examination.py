"""What `allim doctor` looks into: every connection, and what an operator should know of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from allim.base.errors import AllimError
from allim.base.settings import Environment
from allim.composition.diagnosis.database_checks import (
    check_clock,
    check_disk,
    check_keys,
    check_schema_number,
    check_server,
)
from allim.composition.diagnosis.feature_checks import (
    check_channel,
    check_deliveries,
    check_dkim,
    check_events,
    check_lease,
    check_lms,
    check_queue,
    check_schedules,
    check_targets,
)
from allim.composition.diagnosis.findings import Finding, good, wrong
from allim.composition.diagnosis.ingest_check import check_ingest
from allim.composition.opening import Store
from allim.composition.ways import open_channels
from allim.database.pool import Database


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
        for about, check in CHECKS.items():
            for finding in await _guarded(about, check, store, environment, database):
                yield finding
        async with open_channels(database, environment, print_line=lambda _line: None) as ways:
            findings = [
                *check_lease(ways.channels.values(), environment),
                *check_ingest(ways.channels, environment),
                *await asyncio.gather(*map(check_channel, ways.channels.values())),
            ]
        for finding in findings:
            yield finding
        for finding in await check_lms(environment):
            yield finding
    finally:
        await database.close()


Check = Callable[[Store, Environment, Database], Awaitable[Sequence[Finding]]]

CHECKS: Mapping[str, Check] = {
    "server": check_server,
    "schema": check_schema_number,
    "clock": check_clock,
    "disk": check_disk,
    "keys": check_keys,
    "deliveries": check_deliveries,
    "targets": check_targets,
    "events": check_events,
    "schedules": check_schedules,
    "queue": check_queue,
    "dkim": check_dkim,
}


async def _guarded(
    about: str, check: Check, store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    try:
        return await check(store, environment, database)
    except AllimError as error:
        return [wrong(about, str(error), "see above")]
    except Exception as error:
        # The doctor's own boundary: one check that fails must not hide the others' findings.
        return [wrong(about, f"could not be checked: {error!r}", "run `allim migrate` first")]
