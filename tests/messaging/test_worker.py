"""The worker as a process: killed again and again, it sends every job once and no won is lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psycopg
from botocore.exceptions import NoCredentialsError  # type: ignore[import-untyped]
from psycopg.rows import dict_row

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.messaging.cancellation import CancelRequest, Reservations
from allim.messaging.immediate import SmsResult, asend_sms, send_sms
from allim.messaging.intake import Intake, Offer
from allim.messaging.job import make_job
from allim.messaging.queue import queue_error
from allim.messaging.tenant_model import TenantRequest
from allim.messaging.tenants import Tenants
from allim.testing.solapi import FakeSolapi, Step
from tests.changes import changes
from tests.messaging.conftest import Queues
from tests.messaging.money_rig import AUDIT
from tests.programs import allim, an_empty_directory, clean_environment, programs

PATIENCE_SECONDS = 200.0
COUNT = 48
PRICE = 20
FINAL = {"SUCCESS", "SKIPPED", "CANCELED", "DEAD"}


async def states(url: str) -> list[dict[str, object]]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        cursor = await connection.execute(
            "SELECT n.idempotency_key AS key, d.id, d.status, d.error_code"
            "  FROM notification n JOIN delivery d ON d.notification_id = n.id ORDER BY d.id"
        )
        return await cursor.fetchall()


async def test_a_worker_that_is_killed_again_and_again_sends_every_job_once(
    database_url: str, database: Database, queues: Queues
) -> None:
    """Tenant 1 has money for all but two of its jobs; every fourth reservation is cancelled."""
    cancelled = {number for number in range(COUNT) if number % 4 == 3}
    paid = COUNT - len(cancelled) - 2
    await Tenants(database).create(TenantRequest(id=1, name="의원", balance=paid * PRICE))
    for number in cancelled:
        await Reservations(database).cancel(f"r-{number}", CancelRequest())
    bodies = [
        json.dumps(
            {
                "tenant_id": 1,
                "to": f"0101234{number:04}",
                "text": f"예약 안내 {number}",
                "reservation_id": f"r-{number}",
                "job_id": f"job-{number:02}",
            }
        )
        for number in range(COUNT)
    ]
    async with FakeSolapi() as solapi:
        solapi.reports_at_once = True
        solapi.delay = 0.05
        settings = {
            **queues.environment,
            **solapi.environment(),
            "DATABASE_URL": database_url,
            "SOLAPI_REPORT_POLL_SECONDS": "1",
            "OUTBOX_RETRY_BASE_SECONDS": "0.5",
            "OUTBOX_RETRY_MAX_SECONDS": "1",
            "SMS_TIMEOUT_SECONDS": "2",
            "ALIMTALK_TIMEOUT_SECONDS": "2",
            "DELIVERY_LEASE_SECONDS": "8",
            "DELIVERY_RESCUE_SECONDS": "1",
            "MESSAGING_SQS_WAIT_SECONDS": "1",
            "MESSAGING_SQS_VISIBILITY_SECONDS": "10",
            "EMAIL_TIMEOUT_SECONDS": "2",
            "SLACK_TIMEOUT_SECONDS": "2",
            "WEBHOOK_TIMEOUT_SECONDS": "2",
            "LOG_TIMEOUT_SECONDS": "2",
        }
        with an_empty_directory() as place:
            async with programs(place) as start:
                for turn in range(3):
                    worker = await start("messaging-worker", until="consuming", **settings)
                    await queues.put(*bodies[turn * 16 : turn * 16 + 16])
                    await _something_new(solapi, turn)
                    await worker.kill()
                await queues.put(*bodies[:10])
                settings["ALLIM_RELAY_METRICS_PORT"] = "0"
                last = await start("messaging-worker", until="consuming", **settings)
                await _all_final(database_url)
                shown = str((await last.says("metrics on"))["event"]).split(" ")[2]
                async with last.session.get(shown) as answer:
                    assert 'allim_queue_jobs_total{result="stored"}' in await answer.text()
                assert await last.terminate() == 0

    found = await states(database_url)
    assert [row["key"] for row in sorted(found, key=lambda row: str(row["key"]))] == [
        f"sqs:job-{number:02}" for number in range(COUNT)
    ]
    by_status = Counter(row["status"] for row in found)
    assert by_status == {"SUCCESS": paid, "SKIPPED": len(cancelled), "DEAD": 2}
    assert {row["error_code"] for row in found if row["status"] == "DEAD"} == {
        "insufficient_balance"
    }
    assert set(solapi.times_out().values()) == {1}, "no message goes out twice"
    numbers = {text.to for text in solapi.texts}
    assert len(numbers) == paid
    assert not numbers & {f"0101234{number:04}" for number in cancelled}
    assert [row[0] for row in await database.fetch(AUDIT)] == []
    assert (await Tenants(database).show(1)).balance == 0


async def _something_new(solapi: FakeSolapi, turn: int) -> None:
    """Wait until this worker has begun to call; each turn a little deeper into it."""
    calls = len(solapi.calls)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await solapi.until(lambda: len(solapi.calls) > calls + turn)


async def _all_final(url: str) -> None:
    async def holds() -> bool:
        found = await states(url)
        return len(found) == COUNT and {row["status"] for row in found} <= FINAL

    async with changes(url, patience=PATIENCE_SECONDS) as until:
        await until(holds)


async def test_a_text_is_sent_at_once_and_can_be_traced(
    database_url: str, database: Database
) -> None:
    await Tenants(database).create(TenantRequest(id=1, name="의원", balance=PRICE))
    await Reservations(database).cancel("5", CancelRequest())
    async with FakeSolapi() as solapi:
        environment = Environment({**solapi.environment(), "DATABASE_URL": database_url})

        sent = await asyncio.to_thread(
            send_sms, "010-1234-5678", "안녕하세요", tenant_id=1, environment=environment
        )
        poor = await asend_sms("01012345678", "또", tenant_id=1, environment=environment)
        skipped = await asend_sms("01012345678", "예약", reservation_id=5, environment=environment)
        # A blocking call on an event loop runs in a thread; the loop that answers must be free.
        inside = await asyncio.to_thread(_inside_a_loop, environment)

        assert sent.ok
        assert sent.group_id == solapi.texts[0].group_id
        assert sent.message_id == solapi.texts[0].message_id
        assert (poor.ok, poor.reason) == (False, "insufficient_balance")
        assert (skipped.ok, skipped.reason) == (False, "reservation_cancelled")
        assert inside.ok
        assert [text.body["text"] for text in solapi.texts] == ["안녕하세요", "안에서"]
    ended = await allim("trace", "+82 10-1234-5678", cwd=Path("/"), DATABASE_URL=database_url)
    assert ended.code == 0, ended.err
    assert f"group: {sent.group_id}" in ended.out
    assert f"ACCEPTED  HTTP 200  group {sent.group_id}" in ended.out, "one line, also in a pipe"
    assert "insufficient_balance: 테넌트 잔액이 부족해" in ended.out
    by_id = await allim("trace", str(sent.message_id), cwd=Path("/"), DATABASE_URL=database_url)
    assert f"{sent.message_id}: 1 delivery" in by_id.out
    assert [row[0] for row in await database.fetch(AUDIT)] == []


async def test_a_database_that_is_lost_after_the_send_makes_nobody_send_again(
    database_url: str, database: Database
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    outside = psycopg.conninfo.make_conninfo(database_url, dbname="postgres")
    async with FakeSolapi() as solapi:
        sent = solapi.delay_of[Step.SEND] = asyncio.Event()
        environment = Environment({**solapi.environment(), "DATABASE_URL": database_url})
        sending = asyncio.create_task(asend_sms("01012345678", "한 번만", environment=environment))
        await solapi.called(Step.SEND)
        async with await psycopg.AsyncConnection.connect(outside, autocommit=True) as other:
            await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            sent.set()
            result = await sending
            await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

        assert (result.status, result.reason) == ("PROCESSING", "database_unavailable")
        assert result.group_id == solapi.texts[0].group_id
        assert result.message_id == solapi.texts[0].message_id
        assert len(solapi.texts) == 1


def _inside_a_loop(environment: Environment) -> SmsResult:
    async def caller() -> SmsResult:
        return send_sms("01011112222", "안에서", environment=environment)

    return asyncio.run(caller())


async def test_the_commands_create_a_queue_and_a_stress_run_finds_every_message(
    database_url: str, queues: Queues
) -> None:
    settings = {**queues.environment, "DATABASE_URL": database_url}
    with an_empty_directory() as place:
        unmade = await allim(
            "doctor", cwd=place, **{**settings, "MESSAGING_SQS_QUEUE_NAME": "no-such-queue"}
        )
        assert "there is no no-such-queue and no no-such-queue-dlq" in unmade.out
        created = await allim("sqs", "create", cwd=place, **settings)
        assert created.code == 0, created.err
        assert created.out.count(queues.settings.messaging_sqs_queue_name) == 2
        run = await allim("stress", "--count", "40", "--run-worker", cwd=place, **settings)
        assert run.code == 0, run.err
        assert "nothing lost, nothing doubled" in run.out
        status = await allim("sqs", "status", cwd=place, **settings)
        assert " 0 waiting" in status.out
        healthy = await allim("doctor", cwd=place, **settings)
        assert f"{queues.settings.messaging_sqs_queue_name}: 0 waiting" in healthy.out
        live = await allim(
            "stress",
            cwd=place,
            SOLAPI_API_KEY="k",
            SOLAPI_API_SECRET="s",
            SOLAPI_SENDER="0212345678",
            **settings,
        )
        assert (live.code, "really be sent" in live.err) == (2, True)


async def test_tenants_are_opened_and_listed(database_url: str) -> None:
    with an_empty_directory() as place:
        none = await allim("tenant", "list", cwd=place, DATABASE_URL=database_url)
        assert "allim tenant create" in none.err
        for identity, name in (("7", "강남학원"), ("3", "튼튼의원")):
            await allim("tenant", "create", identity, name, cwd=place, DATABASE_URL=database_url)
        listed = await allim("tenant", "list", cwd=place, DATABASE_URL=database_url)
    assert listed.out.splitlines() == ["3  튼튼의원  0 KRW", "7  강남학원  0 KRW"]


def test_without_credentials_it_says_which_to_set() -> None:
    said = queue_error(NoCredentialsError(), "jobs")

    assert str(said).startswith("queue jobs: ")
    assert "AWS_ACCESS_KEY_ID" in str(said)


async def test_a_producer_queues_from_plain_code_and_from_a_loop(queues: Queues) -> None:
    code = (
        "import asyncio\n"
        "from allim.messaging import aenqueue_sms, enqueue_sms\n"
        "from allim.base.errors import InvalidRequest\n"
        "print(enqueue_sms(tenant_id=1, to='01012345678', text='내용', reservation_id=123,"
        " use_alimtalk_first=True, job_id='sync-1'))\n"
        "print(asyncio.run(aenqueue_sms(tenant_id=1, to='010-1234-5678', text='내용')))\n"
        "try:\n"
        "    enqueue_sms(to='1', text='')\n"
        "except InvalidRequest as error:\n"
        "    print(sorted(problem.place for problem in error.problems))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env=clean_environment(**queues.environment),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    first, second, wrong = out.decode().splitlines()
    assert (first, wrong) == ("sync-1", "['/text', '/to']")
    jobs = {
        job["job_id"]: job
        for message in [
            *await queues.jobs.receive(wait=1, visibility=60),
            *await queues.jobs.receive(wait=1, visibility=60),
        ]
        for job in [json.loads(message.body)]
    }
    assert jobs["sync-1"] == {
        "tenant_id": 1,
        "to": "01012345678",
        "text": "내용",
        "reservation_id": 123,
        "use_alimtalk_first": True,
        "job_id": "sync-1",
    }
    assert jobs[second]["to"] == "01012345678"


async def test_an_alimtalk_reported_as_failed_is_refunded_and_an_sms_goes_in_its_place(
    database_url: str, database: Database, channels: Mapping[str, Channel]
) -> None:
    await Tenants(database).create(
        TenantRequest(id=1, name="의원", balance=20, kakao_pf_id="PF1", sender="0299998888")
    )
    job = make_job(
        to="01012345678",
        text="예약되었습니다",
        tenant_id=1,
        message_mode="both",
        template_id="TP1",
        job_id="both-1",
    )
    await Intake(database, channels, Environment({})).store([Offer(job, source="test")])
    async with FakeSolapi() as solapi:
        with an_empty_directory() as place:
            async with programs(place) as start:
                await start(
                    "relay",
                    until="database",
                    **solapi.environment(),
                    DATABASE_URL=database_url,
                    SOLAPI_REPORT_POLL_SECONDS="1",
                )
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await solapi.until(lambda: len(solapi.texts) == 1)
                    solapi.report("3104")
                    await solapi.until(lambda: len(solapi.texts) == 2)
                solapi.report()

                async def arrived() -> bool:
                    return (await states(database_url))[-1]["status"] == "SUCCESS"

                async with changes(database_url, patience=PATIENCE_SECONDS) as until:
                    await until(arrived)

    alimtalk, text = solapi.texts
    assert alimtalk.body["kakaoOptions"]["pfId"] == "PF1"
    assert alimtalk.body["kakaoOptions"]["disableSms"] is True
    assert (text.body["type"], text.body["from"]) == ("SMS", "0299998888")
    found = await states(database_url)
    assert [row["status"] for row in found] == ["DEAD", "SUCCESS"]
    rows = (await Tenants(database).ledger(1, month=None)).items
    assert [(row.kind, row.message_kind, row.amount) for row in reversed(rows)] == [
        ("opening", None, 20),
        ("debit", "ALIMTALK", -15),
        ("refund", "ALIMTALK", 15),
        ("debit", "SMS", -20),
    ]
    assert [row[0] for row in await database.fetch(AUDIT)] == []
