"""From the queue into the box: each job one notification, whatever SQS does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from allim.base.errors import RequestError
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.creation import Created
from allim.hub.operations import Operations
from allim.messaging.consumer import Consumer
from allim.messaging.dead_letters import DeadLetterCopier, DeadLetterCopies
from allim.messaging.intake import Intake, Offer
from allim.messaging.queue import MessageQueue, Received
from allim.messaging.queues import redrive
from allim.messaging.tenant_model import TenantRequest
from allim.messaging.tenants import Tenants
from tests.messaging.conftest import Queues, make_consumer
from tests.messaging.money_rig import RETRY

PATIENCE_SECONDS = 90.0


def a_job(**fields: Any) -> str:
    return json.dumps({"to": "010-1234-5678", "text": "예약되었습니다", **fields})


@asynccontextmanager
async def running(consumer: Consumer) -> AsyncIterator[None]:
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        consumer.stop()
        await task


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.05)


async def notifications(database: Database) -> list[tuple[str, str, str]]:
    return [
        (row[0], row[1], row[2])
        for row in await database.fetch(
            "SELECT n.idempotency_key, d.recipient, d.channel"
            "  FROM notification n JOIN delivery d ON d.notification_id = n.id ORDER BY 1"
        )
    ]


async def test_each_job_becomes_one_notification_however_often_it_comes(
    database: Database, queues: Queues, channels: Mapping[str, Channel]
) -> None:
    jobs = [a_job(job_id=f"job-{number:02}") for number in range(30)]
    await queues.put(*jobs, *jobs[:10], *jobs[5:9])
    one, two = (make_consumer(database, queues, channels) for _ in range(2))

    async def all_taken() -> bool:
        return one.taken.received + two.taken.received >= 44 and await queues.waiting() == 0

    async with running(one), running(two):
        await until(all_taken)

    assert await notifications(database) == [
        (f"sqs:job-{number:02}", "01012345678", "SMS") for number in range(30)
    ]
    assert one.taken.stored + two.taken.stored == 30
    # At least 14: the stand-in gives a job once more when a busy machine outlasts its visibility.
    assert one.taken.replayed + two.taken.replayed == one.taken.received + two.taken.received - 30


async def test_a_job_without_an_id_is_known_by_its_message(
    consumer: Consumer, database: Database, queues: Queues
) -> None:
    await queues.put(a_job(), a_job())

    async def stored() -> bool:
        return consumer.taken.stored == 2

    async with running(consumer):
        await until(stored)

    assert len({key for key, _, _ in await notifications(database)}) == 2


async def test_what_can_never_be_sent_goes_to_the_dead_letters_and_its_reason_is_on_record(
    consumer: Consumer, database: Database, queues: Queues
) -> None:
    await queues.put(
        "not json",
        a_job(job_id="emoji", text="축하해요 🎉"),
        a_job(job_id="nobody", tenant_id=7),
        a_job(job_id="kakao", message_mode="alimtalk"),
        a_job(job_id="mode", message_mode="fax"),
        a_job(job_id="number", to="02-123-4567"),
        a_job(job_id="misspelt", tenat_id=3),
        a_job(job_id="good"),
    )
    found: dict[str, str] = {}

    async def seven_dead() -> bool:
        for letter in await queues.dead_letters():
            found[letter.message_id] = letter.body
        return len(found) == 7

    async with running(consumer):
        await until(seven_dead)

    reasons: dict[str, str] = dict(
        await database.fetch("SELECT message_id, reason || ' ' || receives FROM refused_job")
    )
    assert set(reasons) == set(found)
    told = {
        (json.loads(body).get("job_id") if body[:1] == "{" else None): reasons[message_id]
        for message_id, body in found.items()
    }
    for job, words in {
        None: "malformed_json",
        "emoji": "U+1F389",
        "nobody": "there is no such tenant",
        "kakao": "kakao_pf_id",
        "mode": "/message_mode",
        "number": "/to",
        "misspelt": "/tenat_id",
    }.items():
        assert words in told[job]
        assert told[job].endswith(" 3")
    assert [key for key, _, _ in await notifications(database)] == ["sqs:good"]


async def test_another_job_under_a_used_id_is_refused_and_not_lost_in_silence(
    consumer: Consumer, database: Database, queues: Queues
) -> None:
    await queues.put(a_job(job_id="a"))

    async def stored() -> bool:
        return consumer.taken.stored == 1

    async def refused() -> bool:
        return consumer.taken.refused >= 1

    async with running(consumer):
        await until(stored)
        await queues.put(a_job(job_id="a", text="다른 내용"))
        await until(refused)

    ((reason,),) = await database.fetch("SELECT reason FROM refused_job")
    assert reason == "idempotency_mismatch: the job id 'a' was used before, by another job"


async def test_jobs_wait_for_the_database_and_a_stop_gives_them_back_at_once(
    database_url: str, queues: Queues, channels: Mapping[str, Channel], database: Database
) -> None:
    gone = Database(
        database_url.replace("/test_", "/no_such_"), name="gone", timeout=0.2, min_size=0
    )
    async with _opened_elsewhere(gone):
        consumer = make_consumer(gone, queues, channels, messaging_sqs_visibility_seconds=600)
        await queues.put(*[a_job(job_id=f"job-{number}") for number in range(3)])

        async def in_hand() -> bool:
            return consumer.taken.received > 0

        async with running(consumer):
            await until(in_hand)
    another = make_consumer(database, queues, channels)

    async def stored() -> bool:
        return another.taken.stored == 3

    async with running(another):
        await until(stored)

    assert another.taken.refused == 0


@asynccontextmanager
async def _opened_elsewhere(database: Database) -> AsyncIterator[None]:
    """Pools of a database that went away: they open without waiting for it."""
    await database._pool.open(wait=False)
    await database._hot.open(wait=False)
    try:
        yield
    finally:
        await database.close()


async def test_an_idle_consumer_makes_one_call_in_twenty_seconds(
    database: Database, queues: Queues, channels: Mapping[str, Channel]
) -> None:
    client = _Waiting()
    queue = MessageQueue(client, queues.jobs.name, queues.jobs.url)
    settings = queues.settings.model_copy(update={"messaging_sqs_wait_seconds": 20})
    consumer = Consumer(queue, database, Intake(database, channels, Environment({})), settings)

    async with running(consumer):
        async with asyncio.timeout(PATIENCE_SECONDS):
            first = await client.asked.get()
            client.answered.set()
            second = await client.asked.get()
        calls = consumer.taken.calls

    # One call each time, of which SQS holds the answer for twenty seconds.
    assert [asked["WaitTimeSeconds"] for asked in (first, second)] == [20, 20]
    assert calls == 2


class _Waiting:
    """A client of SQS that has nothing, and says so once it is told to; then never again."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answered = asyncio.Event()

    async def receive_message(self, **asked: Any) -> dict[str, Any]:
        self.asked.put_nowait(asked)
        await self.answered.wait()
        self.answered.clear()
        return {}


class _Refusing:
    """A client of SQS that answers 200 and means no, the first time for each."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asked: list[int] = []

    async def delete_message_batch(self, *, QueueUrl: str, Entries: list[Any]) -> Any:  # noqa: N803
        self.asked.append(len(Entries))
        refused = [] if len(self.asked) > 1 else [{"Id": one["Id"]} for one in Entries[:2]]
        done = [one for one in Entries if {"Id": one["Id"]} not in refused]
        await self._client.delete_message_batch(QueueUrl=QueueUrl, Entries=done)
        return {"Failed": refused}


async def test_a_delete_that_half_fails_is_made_again_for_that_half(queues: Queues) -> None:
    await queues.put(*[a_job() for _ in range(4)])
    messages = await queues.jobs.receive(wait=1, visibility=60)
    client = _Refusing(queues.jobs._client)
    queue = MessageQueue(client, queues.jobs.name, queues.jobs.url)

    assert await queue.delete([message.receipt for message in messages]) == []

    assert client.asked == [len(messages), 2]
    assert await queues.waiting() == 4 - len(messages)


async def test_a_delivery_that_dies_is_copied_with_its_reason_and_redriven_itself(
    consumer: Consumer, database: Database, queues: Queues
) -> None:
    await queues.put(a_job(job_id="doomed"))

    async def stored() -> bool:
        return consumer.taken.stored == 1

    async with running(consumer):
        await until(stored)
    delivery = await _bury(database, "http_400")
    copier = DeadLetterCopier(database, queues.dead)

    assert await copier.copy() == 1
    assert await copier.copy() == 0

    (letter,) = await queues.dead_letters()
    body = json.loads(letter.body)
    assert letter.attributes["reason"] == body["reason"] == "http_400"
    assert body["delivery_id"] == delivery
    assert body["job"]["job_id"] == "doomed"
    assert body["job"]["to"] == "01012345678"

    async def retry(identity: int) -> str:
        await Operations(database).retry(identity)
        return "again"

    await queues.dead.hide([letter.receipt], 0)
    done = [one async for one in redrive(queues.jobs, queues.dead, retry, limit=10)]
    assert [one.done for one in done] == [True]
    ((status,),) = await database.fetch("SELECT status FROM delivery")
    assert status == "PENDING"
    assert await queues.dead_letters() == []


async def test_a_job_among_the_dead_letters_goes_back_to_the_queue(queues: Queues) -> None:
    body = a_job(job_id="later", tenant_id=3)
    assert not await queues.dead.send([_letter(body)])

    async def retry(_identity: int) -> str:
        raise AssertionError("there is no delivery")

    done = [one async for one in redrive(queues.jobs, queues.dead, retry, limit=10)]

    assert [one.done for one in done] == [True]
    (back,) = await queues.jobs.receive(wait=1, visibility=60)
    assert back.body == body


async def test_a_redriven_job_without_an_id_stays_known_by_its_first_message(
    database: Database, queues: Queues, channels: Mapping[str, Channel]
) -> None:
    await queues.put(a_job(tenant_id=3))

    async def buried() -> bool:
        return bool(await queues.dead_letters())

    async with running(make_consumer(database, queues, channels)):
        await until(buried)
    ((refused,),) = await database.fetch("SELECT message_id FROM refused_job")
    assert len(await _shown(queues)) == 1
    await Tenants(database).create(TenantRequest(id=3, name="의원"))

    async def retry(_identity: int) -> str:
        raise AssertionError("there is no delivery")

    class Stubborn(MessageQueue):
        """The dead letters where a redrive dies between its send and its delete."""

        async def delete(self, receipts: Sequence[str]) -> Sequence[str]:
            await self.hide(receipts, 0)
            return receipts

    dead = Stubborn(queues.dead._client, queues.dead.name, queues.dead.url)
    for letters in (dead, queues.dead):
        assert [one.done async for one in redrive(queues.jobs, letters, retry, limit=1)] == [True]

    again = make_consumer(database, queues, channels)

    async def taken() -> bool:
        return again.taken.received >= 2 and await queues.waiting() == 0

    async with running(again):
        await until(taken)
    assert [key for key, _, _ in await notifications(database)] == [f"sqs:{refused}"]
    assert again.taken.replayed == 1
    assert await database.fetch("SELECT FROM refused_job") == []


async def _shown(queues: Queues) -> Sequence[Received]:
    """The dead letters, which are to be had again at once."""
    letters = await queues.dead.receive(wait=5, visibility=30)
    await queues.dead.hide([letter.receipt for letter in letters], 0)
    return letters


def _letter(body: str) -> Any:
    from allim.messaging.queue import Letter

    return Letter(body)


async def _bury(database: Database, code: str) -> int:
    from allim.hub.delivery_box import DeliveryBox
    from allim.relay.outcomes import Outcome
    from allim.relay.settlement import decide

    box = DeliveryBox(database)
    policy = DeadLetterCopies()
    claim = await box.claim("SMS", limit=10, lease=60.0, worker="w", policy=None)
    (work,) = claim.works
    await box.settle([decide(work, Outcome.refused(code), RETRY)], policy)
    return work.id


async def test_a_bug_that_one_job_meets_does_not_take_the_others_with_it(
    database: Database, queues: Queues, channels: Mapping[str, Channel]
) -> None:
    class Buggy(Intake):
        async def store(self, offers: Sequence[Offer]) -> Sequence[Created | RequestError]:
            if any(offer.job.job_id == "bug" for offer in offers):
                raise ZeroDivisionError
            return await super().store(offers)

    consumer = Consumer(
        queues.jobs, database, Buggy(database, channels, Environment({})), queues.settings
    )
    await queues.put(*[a_job(job_id=name) for name in ("a", "bug", "b", "c")])

    async def buried() -> bool:
        return len(await queues.dead_letters()) == 1

    async with running(consumer):
        await until(buried)

    keys = [key for key, _, _ in await notifications(database)]
    assert keys == ["sqs:a", "sqs:b", "sqs:c"]
