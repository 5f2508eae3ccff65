"""Sending at once: `send_sms` makes the call to Solapi itself and answers with what came of it.

It goes the same way as everything else, only now: a notification is stored, its delivery claimed,
paid for, checked, sent and settled, so it can be traced, and if this process dies half way a
relay finishes the work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack
from uuid import UUID, uuid4

from allim.base.errors import RequestError
from allim.base.settings import Environment
from allim.channels.channel import Channel, Message
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.channels.sms import NAME as SMS
from allim.database.embedded import EmbeddedServer, EmbeddedSettings
from allim.database.migrate import migrate
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.delivery_box import DeliveryBox, works_of
from allim.hub.status import DeliveryStatus
from allim.messaging.intake import Intake, Offer
from allim.messaging.job import make_job
from allim.messaging.policies import messaging_policies
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.policy import ChannelPolicy, combine
from allim.relay.relay import worker_name
from allim.relay.settlement import decide
from allim.relay.work import Work

SQL = Statements.load("allim.messaging", "immediate.sql")

SOURCE = "send-sms"
GRACE_SECONDS = 30.0
"""By which the lease is longer than the call, and after which a relay takes over."""

SOURCES = (
    "DJANGO_SETTINGS_MODULE",
    "CANCELLATION_FUNCTION",
    "CANCELLATION_SQL",
    "CANCELLATION_URL",
)
"""Where cancellations are looked up: of no concern to a text that is for no reservation."""

Result = TypeVar("Result")


class SmsFields(TypedDict, total=False):
    """What may be said of a text beside whom it is for and what it says."""

    tenant_id: int | None
    reservation_id: int | str | None
    variables: dict[str, str] | None
    subject: str | None
    image_id: str | None
    advertising: bool | None


@dataclass(frozen=True, slots=True)
class SmsResult:
    """What came of a text; `group_id` and `message_id` are Solapi's."""

    notification_id: UUID
    delivery_id: int
    status: DeliveryStatus
    group_id: str | None
    message_id: str | None
    reason: str | None
    detail: str | None

    @property
    def ok(self) -> bool:
        """Whether it was taken by the provider (or printed, by a mock)."""
        return self.status in (DeliveryStatus.SUCCESS, DeliveryStatus.ACCEPTED)


def send_sms(
    to: str, text: str, *, environment: Environment | None = None, **more: Unpack[SmsFields]
) -> SmsResult:
    """Send a text now, and wait for what Solapi says; a second or two.

    Needs the settings of Solapi and the database. A tenant pays for it, and a cancelled
    reservation, an opt-out or the night (for advertising) keep it back: see `reason`. What
    failed in a way that may pass is tried again by a relay, if one runs. Blocks; on an event
    loop use `asend_sms`.

    Raises InvalidRequest naming every field that is wrong, ConfigurationError, DatabaseUnavailable
    (then nothing was sent).
    """
    return _blocking(asend_sms(to, text, environment=environment, **more))


async def asend_sms(
    to: str, text: str, *, environment: Environment | None = None, **more: Unpack[SmsFields]
) -> SmsResult:
    """`send_sms` for callers on an event loop."""
    job = make_job(to=to, text=text, message_mode="sms", **more).identified()
    environment = environment or Environment.of_process()
    if job.reservation_id is None:
        environment = environment.replacing(**dict.fromkeys(SOURCES, ""))
    with _database_url(environment) as url:
        http = make_http(environment)
        async with Database(url, name="allim send_sms", max_size=4) as database:
            channels = make_channels(environment, make_services(http))
            try:
                async with messaging_policies(database, channels, environment) as rules:
                    intake = Intake(database, channels, environment)
                    policy = combine(rules.of(SMS))
                    now = _Now(database, channels[SMS], policy)
                    return await now.send(intake, Offer(job, source=SOURCE))
            finally:
                await close_channels(channels)
                await http.close()


class _Now:
    """The one attempt that a caller waits for."""

    def __init__(
        self, database: Database, channel: Channel, policy: ChannelPolicy[Message] | None
    ) -> None:
        self._database = database
        self._channel = channel
        self._policy = policy
        self._box = DeliveryBox(database)
        self._lease = channel.limits.call_timeout + GRACE_SECONDS

    async def send(self, intake: Intake, offer: Offer) -> SmsResult:
        async with self._database.transaction() as tx:
            (stored,) = await intake.store_in(tx, [offer])
            if isinstance(stored, RequestError):
                raise stored
            delivery = stored.deliveries[0].id
            await tx.execute(SQL["park"], {"id": delivery, "seconds": self._lease})
        work, refusal = await self._claim(delivery)
        if work is not None:
            outcome = refusal or await self._guarded(work) or await self._call(work)
            # What nobody knows is left to its lease: a relay asks Solapi for the group.
            if outcome.kind is not OutcomeKind.UNKNOWN:
                settlement = decide(work, outcome, self._channel.limits.retry)
                await self._box.settle([settlement], self._policy)
        return await self._standing(delivery)

    async def _claim(self, delivery: int) -> tuple[Work[Message] | None, Outcome | None]:
        token, deadline = str(uuid4()), time.monotonic() + self._lease
        async with self._database.transaction() as tx:
            cursor = await tx.execute(
                SQL["claim_one"],
                {
                    "id": delivery,
                    "token": token,
                    "worker": f"{worker_name()} at once",
                    "lease": self._lease,
                },
            )
            works = works_of(await cursor.fetchall(), SMS, token, deadline)
            if not works:
                return None, None
            refused = await self._policy.on_attempt(tx, works) if self._policy else {}
        return works[0], refused.get(delivery)

    async def _guarded(self, work: Work[Message]) -> Outcome | None:
        if self._policy is None:
            return None
        try:
            async with asyncio.timeout(self._channel.limits.call_timeout):
                return (await self._policy.guard([work])).get(work.id)
        except Exception as error:
            # The policy's boundary: when the check itself fails, nothing is sent.
            return Outcome.fault("guard_failed", f"the check before the send failed: {error!r}")

    async def _call(self, work: Work[Message]) -> Outcome:
        try:
            async with asyncio.timeout(self._channel.limits.call_timeout):
                (outcome,) = await self._channel.send([work], self._box.record_provider_id)
                return outcome
        except Exception as error:
            # The channel's boundary, as in the relay: nobody can say whether it went out.
            return Outcome.unknown("internal_error", type(error).__name__)

    async def _standing(self, delivery: int) -> SmsResult:
        rows = await self._database.fetch(SQL["standing"], {"id": delivery})
        notification, status, code, error, group, message = rows[0]
        return SmsResult(
            notification, delivery, DeliveryStatus(status), group, message, code, error
        )


@contextmanager
def _database_url(environment: Environment) -> Iterator[str]:
    if url := environment.get("DATABASE_URL"):
        yield url
        return
    server = EmbeddedServer.open(environment.read(EmbeddedSettings).allim_home)
    try:
        migrate(server.url)
        yield server.url
    finally:
        server.close()


def _blocking(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; in a thread of its own where this one has a loop running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:  # Handed to the caller's thread as it is.
            failures.append(error)

    thread = threading.Thread(target=run, name="send_sms")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
