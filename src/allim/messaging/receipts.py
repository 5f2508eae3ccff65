"""Reports of texts: which groups are to be asked for, and what their messages say.

A webhook's body is not signed, so nothing in it is believed: it only says where to look. What
counts is what Solapi answers when it is asked for the group. So reports may come late, twice,
in any order, or from somebody else, and all that happens is a question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from allim.base.errors import AllimError, DatabaseUnavailable
from allim.base.tasks import cancel_and_wait
from allim.channels.channel import Message
from allim.channels.korean_sms import BadNumber, normalise_number
from allim.channels.solapi.answers import SolapiMessage
from allim.channels.solapi.client import SolapiClient, SolapiFailure
from allim.channels.solapi.codes import (
    AGAIN,
    ALARMING,
    NOT_YET,
    PREFIX,
    Verdict,
    retry_delay,
    verdict_of,
)
from allim.channels.solapi.letters import delivery_of
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.receipts import Receipt, apply_receipts
from allim.relay.policy import ChannelPolicy
from allim.relay.retry import RetryPolicy

SQL = Statements.load("allim.messaging", "receipts.sql")

LANE = "SOLAPI_RECEIPTS"
"""What is woken when a webhook spoke of groups."""
GROUPS_AT_ONCE = 50
CALLS_AT_ONCE = 4
APPLIED_AT_ONCE = 200
CALL_SECONDS = 10.0
LOOK_SECONDS = 5.0
"""How often the inbox is looked into where no wake is heard."""
HEARD_PAUSE_SECONDS = 60.0
"""After which a group that was heard of is asked for again, where nothing is polled."""

Wake = Callable[[Collection[str]], None]

log = logging.getLogger("allim.messaging")
alarms = structlog.get_logger("allim.messaging.receipts")


class ReceiptInbox:
    """Takes in what webhooks speak of; `wake` is told where something is to be asked."""

    def __init__(self, database: Database, wake: Callable[[set[str]], None]) -> None:
        self._database = database
        self._wake = wake

    async def hear_of(self, groups: Collection[str]) -> None:
        """Have groups asked for soon. Raises DatabaseUnavailable."""
        if not groups:
            return
        async with self._database.connection() as connection:
            await connection.execute(SQL["hear_of"], {"groups": sorted(groups)})
        self._wake({LANE})


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A delivery that waits for its report."""

    group_id: str
    id: int
    recipient: str | None
    channel: str
    settled: bool
    message_id: str | None


class ReceiptCheck:
    """Asks for groups and takes in what their messages say.

    Any number of processes may run it: a group is asked for by one at a time. `channels` are
    those that go by Solapi, with their retry policies. `poll` (seconds) is how long after its
    send a group is asked for unheard; 0 is never.
    """

    def __init__(
        self,
        database: Database,
        client: SolapiClient,
        *,
        channels: Mapping[str, RetryPolicy],
        policy: ChannelPolicy[Message] | None,
        wake: Wake,
        poll: float,
        woken: asyncio.Event | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._client = client
        self._channels = channels
        self._policy = policy
        self._wake = wake
        self._poll = poll
        self._woken = woken or asyncio.Event()
        self._now = now
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ReceiptCheck:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def look(self) -> int:
        """Ask for every group that is due now; how many. Raises DatabaseUnavailable."""
        if self._poll:
            async with self._database.connection() as connection:
                about = {"channels": list(self._channels), "patience": self._poll}
                await connection.execute(SQL["miss"], about)
        looked = 0
        while taken := await self._take():
            looked += len(taken)
            if not await self._look_into(taken):
                break
        return looked

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.look()
            except DatabaseUnavailable as error:
                log.warning("reports could not be looked at: %s", error)
            except AllimError:
                log.exception("reports could not be taken in")
            except Exception:
                # The loop's own boundary: a bug must not end the taking in of reports.
                log.exception("reports could not be taken in")
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, self._poll or LOOK_SECONDS)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _take(self) -> Mapping[str, bool]:
        """Groups to be asked for by us; whether each was heard of only lately."""
        rows = await self._database.fetch(
            SQL["take"], {"limit": GROUPS_AT_ONCE, "pause": self._poll or HEARD_PAUSE_SECONDS}
        )
        return dict(rows)

    async def _look_into(self, taken: Mapping[str, bool]) -> bool:
        """Ask for groups; False when Solapi does not answer, so that no more are asked for."""
        waiting = await self._waiting_in(list(taken))
        # Nothing waits there (any more): whose group that is, or whether it is one, is no matter.
        # One that was heard of lately may still be on its way into the database.
        done = [group for group, lately in taken.items() if group not in waiting and not lately]
        places = asyncio.Semaphore(CALLS_AT_ONCE)

        async def ask(group_id: str) -> Sequence[SolapiMessage] | None:
            async with places:
                return await self._ask(group_id)

        answers = dict(zip(waiting, await asyncio.gather(*map(ask, waiting)), strict=True))
        receipts: list[Receipt] = []
        unsettled: list[str] = []
        for group_id, deliveries in waiting.items():
            found = answers[group_id]
            if found is None:
                continue
            settled = [delivery for delivery in deliveries if delivery.settled]
            told = [r for d in settled if (r := self._receipt(d, found)) is not None]
            receipts.extend(told)
            if len(settled) < len(deliveries):
                unsettled.append(group_id)
            elif len(told) == len(deliveries):
                done.append(group_id)
        for start in range(0, len(receipts), APPLIED_AT_ONCE):
            await apply_receipts(
                self._database,
                receipts[start : start + APPLIED_AT_ONCE],
                wake=self._wake,
                policy=self._policy,
            )
        await self._finish(done, unsettled)
        return None not in answers.values()

    async def _waiting_in(self, groups: Sequence[str]) -> Mapping[str, Sequence[_Waiting]]:
        rows = await self._database.run_pinned(SQL["waiting_in"], {"groups": groups})
        waiting: dict[str, list[_Waiting]] = {}
        for group_id, delivery, _, recipient, channel, status, message_id in rows:
            one = _Waiting(group_id, delivery, recipient, channel, status == "ACCEPTED", message_id)
            waiting.setdefault(group_id, []).append(one)
        return waiting

    async def _ask(self, group_id: str) -> Sequence[SolapiMessage] | None:
        try:
            return await self._client.messages(group_id, timeout=CALL_SECONDS)
        except SolapiFailure as failure:
            log.warning("group %s could not be asked for: %s", group_id, failure)
            return [] if failure.status == 404 else None

    def _receipt(self, delivery: _Waiting, found: Sequence[SolapiMessage]) -> Receipt | None:
        """What a group's messages say of a delivery; None while there is no last word."""
        said = _message_of(delivery, found)
        if said is None:
            return None
        verdict = verdict_of(said.code)
        if verdict in NOT_YET:
            return None
        if verdict is Verdict.DELIVERED:
            return Receipt(delivery.id, delivery.group_id, "DELIVERED")
        if verdict in ALARMING:
            alarms.error("solapi_alarm", code=said.code, verdict=verdict.value, words=said.words)
        return Receipt(
            delivery.id,
            delivery.group_id,
            "FAILED",
            code=f"{PREFIX}{said.code}",
            detail=f"Solapi reports {said.code}" + (f": {said.words}" if said.words else ""),
            retry=self._channels.get(delivery.channel) if verdict in AGAIN else None,
            retry_after=retry_delay(verdict, self._now()),
        )

    async def _finish(self, done: Sequence[str], unsettled: Sequence[str]) -> None:
        async with self._database.connection() as connection:
            if done:
                await connection.execute(SQL["done_with"], {"groups": list(done)})
            if unsettled:
                await connection.execute(SQL["look_again_soon"], {"groups": list(unsettled)})


def groups_in(report: Any) -> set[str]:
    """The groups that a webhook's body speaks of, whatever else stands in it.

    A JSON array, its items flat or as `{"eventDataId", "data": {…}, "retryCount"}`.
    """
    items = report if isinstance(report, list) else [report]
    found: set[str] = set()
    for item in items:
        if isinstance(item, dict):
            data = item.get("data")
            for part in (item, data if isinstance(data, dict) else {}):
                group_id = part.get("groupId")
                if isinstance(group_id, str):
                    found.add(group_id)
    return found


def _message_of(delivery: _Waiting, found: Sequence[SolapiMessage]) -> SolapiMessage | None:
    for said in found:
        if delivery_of(said.delivery_key) == delivery.id:
            return said
    try:
        number = normalise_number(delivery.recipient or "")
    except BadNumber:
        number = None
    for said in found:
        if said.delivery_key is None and (
            (said.message_id is not None and said.message_id == delivery.message_id)
            or (number is not None and said.to == number)
        ):
            return said
    return None
