"""From the queue into the box: long polls, one transaction a batch, then the deletes.

A job is deleted only when its notification is committed, and its key makes a redelivery find
that notification: whatever crashes in between, each job becomes one notification. What can never
become one is left to the queue's redrive, its reason on record in `refused_job`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from allim.base.errors import DatabaseUnavailable, RequestError
from allim.base.tasks import cancel_and_wait
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.messaging.intake import Intake, Offer
from allim.messaging.job import JOB_ID_LIMIT, MessageJob, phone_of, read_job
from allim.messaging.queue import MessageQueue, QueueError, Received
from allim.messaging.settings import QueueSettings

SQL = Statements.load("allim.messaging", "consumer.sql")

log = logging.getLogger("allim.messaging.consumer")

SOURCE = "sqs"
MANY = 5
"""So many in one poll say that there are more. SQS seldom gives all ten that it could."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
POLL_GRACE_SECONDS = 1.0
"""How long a poll that waits for jobs may go on after a stop."""
_REASON_LIMIT = 2000


@dataclass(slots=True)
class Taken:
    """What a consumer did so far."""

    received: int = 0
    stored: int = 0
    replayed: int = 0
    refused: int = 0
    calls: int = 0


class Consumer:
    """Takes jobs from the queue until it is stopped. Any number of processes may run one."""

    def __init__(
        self,
        queue: MessageQueue,
        database: Database,
        intake: Intake,
        settings: QueueSettings,
    ) -> None:
        self._queue = queue
        self._database = database
        self._intake = intake
        self._wait = settings.messaging_sqs_wait_seconds
        self._visibility = settings.messaging_sqs_visibility_seconds
        self._concurrency = settings.messaging_sqs_concurrency
        self._stopping = asyncio.Event()
        self.taken = Taken()

    def stop(self) -> None:
        """Receive no more; `run` ends when the batches in hand are done, or shown again."""
        self._stopping.set()

    async def run(self) -> None:
        """Poll and take until stopped. While there is nothing, one call waits 20 seconds."""
        log.info("consuming %s", self._queue.name)
        await self._forget()
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                messages = await self._poll()
                pause = FIRST_PAUSE_SECONDS
            except QueueError as error:
                log.warning("%s", error)
                await self._rest(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            await self._take(messages)
            if len(messages) >= MANY:
                # There may be more: several at a time take it until one comes back with little.
                await asyncio.gather(*(self._drain() for _ in range(self._concurrency)))
        log.info("consumed %d jobs of %s", self.taken.stored, self._queue.name)

    async def _forget(self) -> None:
        """Reasons of long ago are of no use to anybody."""
        try:
            async with self._database.connection() as connection:
                await connection.execute(SQL["forget"])
        except DatabaseUnavailable as error:
            log.warning("old refusals were not forgotten: %s", error)

    async def _drain(self) -> None:
        while not self._stopping.is_set():
            try:
                self.taken.calls += 1
                messages = await self._queue.receive(wait=0, visibility=self._visibility)
            except QueueError as error:
                log.warning("%s", error)
                return
            await self._take(messages)
            if len(messages) < MANY:
                return

    async def _poll(self) -> Sequence[Received]:
        """One long poll, which a stop cuts short; what it brought then is shown again."""
        self.taken.calls += 1
        polling = asyncio.create_task(
            self._queue.receive(wait=self._wait, visibility=self._visibility)
        )
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not polling.done():
                await asyncio.wait({polling}, timeout=POLL_GRACE_SECONDS)
            if not polling.done():
                return ()
            return polling.result()
        finally:
            await cancel_and_wait(stopping)
            if not polling.done():
                await cancel_and_wait(polling)

    async def _take(self, messages: Sequence[Received]) -> None:
        """Store a batch, then delete what was stored; extended while that takes long."""
        if not messages:
            return
        self.taken.received += len(messages)
        if self._stopping.is_set():
            await self._show(messages)
            return
        beating = asyncio.create_task(self._extend(messages))
        try:
            done = await self._store(messages)
        finally:
            await cancel_and_wait(beating)
        if done is None:
            await self._show(messages)
            return
        try:
            if left := await self._queue.delete([message.receipt for message in done]):
                log.warning("%d jobs could not be deleted; they come again, harmlessly", len(left))
        except QueueError as error:
            log.warning("stored jobs could not be deleted; they come again, harmlessly: %s", error)

    async def _store(self, messages: Sequence[Received]) -> Sequence[Received] | None:
        """Store a batch, however long the database takes to come back; what may be deleted.

        None where a stop came first: a job that waits for the database must not be received
        over and over until its receives are spent.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._store_once(messages)
            except DatabaseUnavailable as error:
                log.warning("jobs wait for the database: %s", error)
            except Exception:
                # The consumer's boundary (a bug that one job meets): the others must not share
                # its end, and what cannot be taken is the redrive's.
                log.exception("%d jobs could not be taken", len(messages))
                if len(messages) == 1:
                    return ()
                done: list[Received] = []
                for message in messages:
                    done += await self._store([message]) or ()
                return done
            await self._rest(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            if self._stopping.is_set():
                return None

    async def _store_once(self, messages: Sequence[Received]) -> Sequence[Received]:
        offers: list[tuple[Received, MessageJob]] = []
        refused: list[tuple[Received, MessageJob | None, RequestError]] = []
        for message in messages:
            try:
                offers.append((message, _job(message)))
            except RequestError as error:
                refused.append((message, None, error))
        results = await self._intake.store(
            [Offer(job, source=SOURCE, queue=self._queue.name) for _, job in offers]
        )
        done: list[Received] = []
        again: list[str] = []
        for (message, job), result in zip(offers, results, strict=True):
            if isinstance(result, RequestError):
                refused.append((message, job, result))
                continue
            done.append(message)
            self.taken.replayed += result.replayed
            self.taken.stored += not result.replayed
            if message.receives > 1 or message.first_id != message.message_id:
                again.append(message.first_id)
        if again:
            await self._database.fetch(SQL["accepted"] + " RETURNING message_id", {"ids": again})
        await self._refuse(refused)
        return done

    async def _refuse(
        self, refused: Sequence[tuple[Received, MessageJob | None, RequestError]]
    ) -> None:
        for message, job, error in refused:
            self.taken.refused += 1
            reason = f"{error.code}: {error.message}"[:_REASON_LIMIT]
            reason = reason.replace("\0", "").encode(errors="replace").decode()
            job_id = job.job_id if job is not None else None
            log.error(
                "job %s (message %s, receive %d) is refused: %s",
                job_id or "without an id",
                message.message_id,
                message.receives,
                reason,
            )
            async with self._database.connection() as connection:
                await connection.execute(
                    SQL["refuse"],
                    {
                        "message_id": message.first_id,
                        "job_id": job_id,
                        "tenant_id": None if job is None else job.tenant_id,
                        "recipient": phone_of(message.body) if job is None else job.to,
                        "reason": reason,
                        "receives": message.receives,
                    },
                )

    async def _extend(self, messages: Sequence[Received]) -> None:
        receipts = [message.receipt for message in messages]
        while True:
            await asyncio.sleep(self._visibility / 3)
            try:
                await self._queue.hide(receipts, self._visibility)
            except QueueError as error:
                log.warning("jobs in hand could not be kept: %s", error)

    async def _show(self, messages: Sequence[Received]) -> None:
        """Let other consumers have these at once."""
        try:
            await self._queue.hide([message.receipt for message in messages], 0)
        except QueueError as error:
            log.warning("jobs could not be given back; they come again later: %s", error)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _job(message: Received) -> MessageJob:
    """The job of a message; one that has no id of its own is known by its first message's."""
    job = read_job(message.body)
    if job.job_id is not None:
        return job
    return job.model_copy(update={"job_id": message.first_id[:JOB_ID_LIMIT]})
