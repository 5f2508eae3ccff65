"""The doctor's checks of deliveries, events, texts, schedules, the LMS and the channels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import LiteralString
from urllib.parse import urlsplit

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.dkim import DkimSettings
from allim.channels.email import EmailSettings
from allim.channels.mail import parse_sender
from allim.composition.delivering import refuse_short_lease
from allim.composition.diagnosis.findings import Finding, good, note, wrong
from allim.composition.opening import Store
from allim.composition.publishing import open_publishers
from allim.composition.settings import RelaySettings
from allim.database.pool import Database
from allim.enrolment.lms.making import lms_is_set, make_lms
from allim.enrolment.lms.settings import LmsKind
from allim.enrolment.scheduled import JOB_KINDS, SYNC_JOB
from allim.events.relaying.figures import OutboxFigures
from allim.hub.delivery_box import DeliveryBox
from allim.hub.endpoints import EndpointBook
from allim.hub.reading import PAGE_LIMIT
from allim.scheduler.fires import FireStatus
from allim.scheduler.schedules import Schedules

LATE_SECONDS = 60.0
DIAGNOSE_SECONDS = 60.0
TARGETS_SHOWN = 5

QUEUE_IN_USE = (
    "MESSAGING_SQS_QUEUE_NAME",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SQS",
    "MESSAGING_SPOT_WATCH",
)
"""Settings of which each says that jobs come by SQS."""

RELAYS: LiteralString = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'allim listener'
"""


async def check_deliveries(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether any wait too long, or died."""
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
        findings.append(note("deliveries", f"dead letters: {told}", "see `allim replay --dry-run`"))
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


async def check_targets(
    _store: Store, _environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether any target is not called any more, because it said that it is gone.

    One of the settings is the operator's to mend; a caller's URL may well be gone for good.
    """
    disabled, count = await EndpointBook(database).disabled(limit=TARGETS_SHOWN)
    findings = []
    for each in disabled:
        is_of_caller = "://" in each.url
        where = urlsplit(each.url).netloc.rpartition("@")[2] if is_of_caller else each.url
        words = f"{each.channel} {where} is not called: {each.disabled_reason}"
        remedy = (
            f"once it is right again, POST /endpoints/{each.id}/enable, or Channels in the console;"
            " then `allim replay --error-code endpoint_disabled`"
        )
        tell = note if is_of_caller else wrong
        findings.append(tell(f"target {each.id}", words, remedy))
    if more := count - len(disabled):
        findings.append(note("targets", f"{more} more are not called", "see GET /endpoints"))
    return findings or [good("targets", "none is disabled")]


async def check_events(
    _store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether publishers answer, and events leave."""
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


async def check_queue(
    _store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    """The queue of messaging jobs, where the settings say anything of one."""
    from allim.messaging.queue import sqs_client
    from allim.messaging.queues import queue_state
    from allim.messaging.settings import QueueSettings

    if not any(environment.get(name) for name in QUEUE_IN_USE):
        return []
    settings = environment.read(QueueSettings)
    name, dead_name = settings.messaging_sqs_queue_name, settings.dead_letter_queue_name
    async with sqs_client(settings) as client:
        jobs, dead = await queue_state(client, name), await queue_state(client, dead_name)
    missing = [each for each, state in ((name, jobs), (dead_name, dead)) if state is None]
    if jobs is None or dead is None:
        words = f"there is no {' and no '.join(missing)} in {settings.aws_region}"
        return [wrong("queue", words, "run `allim sqs create`, or set MESSAGING_SQS_QUEUE_NAME")]
    findings = [good("queue", f"{name}: {jobs.waiting} waiting, {jobs.in_flight} in flight")]
    if dead_name not in jobs.redrive:
        words = f"{name} does not give to {dead_name} what cannot be taken"
        findings.append(wrong("queue", words, "run `allim sqs create`: it sets the queue right"))
    if dead.waiting:
        words = f"{dead.waiting} dead letters in {dead_name}"
        findings.append(note("queue", words, "see `allim sqs status`"))
    return findings


def check_lease(channels: Iterable[Channel], environment: Environment) -> Sequence[Finding]:
    """Whether a call could outlive its lease."""
    try:
        refuse_short_lease(channels, environment.read(RelaySettings).limits().lease)
    except ConfigurationError as error:
        return [wrong("lease", str(error), "relays refuse to start like this")]
    return []


async def check_dkim(
    _store: Store, environment: Environment, _database: Database
) -> Sequence[Finding]:
    """Whether mails are signed, and what must stand in the DNS for that."""
    signer = environment.read(DkimSettings).signer()
    if signer is None:
        return []
    name, record = signer.record()
    sender = parse_sender(environment.read(EmailSettings).smtp_from).domain
    if sender != signer.domain and not sender.endswith(f".{signer.domain}"):
        words = f"mails come from {sender}, but are signed for {signer.domain}"
        return [wrong("dkim", words, "set DKIM_DOMAIN to the domain of SMTP_FROM: DMARC wants it")]
    return [good("dkim", f'signs for {signer.domain}; publish {name} TXT "{record}"')]


async def check_schedules(
    _store: Store, environment: Environment, database: Database
) -> Sequence[Finding]:
    """Whether every schedule is seen to."""
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


async def check_lms(environment: Environment) -> Sequence[Finding]:
    """Whether the LMS answers."""
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


async def check_channel(channel: Channel) -> Finding:
    """How a channel is set up, and whether it answers."""
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
