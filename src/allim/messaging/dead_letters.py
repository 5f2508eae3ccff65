"""Deliveries that died, copied to the dead-letter queue of the queue that their job came from.

That a copy is due is written in the transaction that buries the delivery, and forgotten once the
queue has confirmed it: no copy is lost, whatever crashes. One may be made twice, where a process
dies between the two; both carry the same `copy_id`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from allim.base.errors import AllimError, DatabaseUnavailable
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.messaging.queue import ENTRIES, Letter, MessageQueue, QueueError
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement, Transition

SQL = Statements.load("allim.messaging", "dead_letters.sql")

log = logging.getLogger("allim.messaging")

COPY_EVERY_SECONDS = 5.0


class DeadLetterCopies(OpenPolicy):
    """Notes deliveries that are buried, where their job came from a queue."""

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Where something dies, or may have been reported as failed before its settle."""
        return any(map(_may_die, settlements))

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Note those that died."""
        if ids := [each.work.id for each in settled if _may_die(each)]:
            await tx.execute(SQL["remember"], {"ids": ids})

    async def on_receipt(self, tx: Connection, ended: Sequence[int]) -> None:
        """Note those that died by a report."""
        await tx.execute(SQL["remember"], {"ids": list(ended)})


def _may_die(settlement: Settlement[Message]) -> bool:
    return settlement.transition in (Transition.BURY, Transition.ACCEPT) and (
        "queue" in settlement.work.content.data
    )


class DeadLetterCopier:
    """Copies what was noted to the dead-letter queue; runs beside a consumer."""

    def __init__(
        self, database: Database, dead_letters: MessageQueue, *, every: float = COPY_EVERY_SECONDS
    ) -> None:
        self._database = database
        self._queue = dead_letters
        self._every = every

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until told to stop; then once more."""
        while True:
            stopping = stop.is_set()
            try:
                while await self.copy():
                    pass
            except DatabaseUnavailable as error:
                log.warning("dead letters wait: %s", error)
            except QueueError as error:
                log.warning("dead letters could not be copied: %s", error)
            except AllimError:
                log.exception("dead letters could not be copied")
            if stopping:
                return
            try:
                async with asyncio.timeout(self._every):
                    await stop.wait()
            except TimeoutError:
                pass

    async def copy(self) -> int:
        """Copy up to ten; how many the queue confirmed. Raises QueueError, DatabaseUnavailable."""
        async with self._database.transaction() as tx:
            rows = await (await tx.execute(SQL["due"], {"limit": ENTRIES})).fetchall()
            if not rows:
                await tx.execute(SQL["orphans"])
                return 0
            letters = [_letter(row) for row in rows]
            failed = await self._queue.send(letters)
            confirmed = [row for at, row in enumerate(rows) if at not in failed]
            await tx.execute(
                SQL["copied"],
                {
                    "ids": [row[0] for row in confirmed],
                    "attempts": [row[1] for row in confirmed],
                },
            )
        if failed:
            log.warning("the dead-letter queue refused %d copies: %s", len(failed), failed)
        return len(confirmed)


def _letter(row: Sequence[Any]) -> Letter:
    delivery, attempt, queue, job_id, tenant, channel, recipient, code, error = row[:9]
    provider_id, notification, died_at, text, reservation, mode = row[9:]
    job = {
        "job_id": job_id,
        "tenant_id": tenant,
        "to": recipient,
        "text": text,
        "reservation_id": reservation,
        "message_mode": mode,
    }
    body = {
        "job": {name: value for name, value in job.items() if value is not None},
        "queue": queue,
        "notification_id": notification,
        "delivery_id": delivery,
        "channel": channel,
        "group_id": provider_id,
        "reason": code,
        "error": error,
        "died_at": died_at,
    }
    return Letter(
        body=to_json(body).decode(),
        attributes={
            "copy_id": f"{delivery}:{attempt}",
            "delivery_id": str(delivery),
            "reason": code or "unknown",
        },
    )
