"""What may go out: modes, cancelled reservations, opt-outs, the night."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from allim.base.errors import ConfigurationError, InvalidRequest
from allim.base.settings import Environment
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.messaging.alimtalk_templates import (
    build_replacements,
    template_context_from_reservation,
)
from allim.messaging.cancellation import CancellationPolicy, CancelRequest, Reservations
from allim.messaging.cancellation_sources import cancellation_source
from allim.messaging.job import job_schema, make_job, read_job
from allim.messaging.plan import SentBy, plan
from allim.messaging.quiet_hours import QuietHours
from allim.messaging.suppression import (
    SuppressionList,
    SuppressionRequest,
)
from allim.messaging.suppression_policy import SuppressionPolicy, phone_rules
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.settlement import decide
from allim.relay.work import Work
from allim.testing.channels import a_message, a_work
from allim.testing.http import Answer, HttpSink
from tests.messaging.money_rig import RETRY

KAKAO = SentBy(pf_id="PF1", template_id="TP1", sender="0212345678")


def the_plan(sent_by: SentBy = KAKAO, **fields: Any) -> dict[str, Any]:
    job = make_job(to="+82 10-1234-5678", text="안녕하세요", **fields)
    return plan(job, sent_by, source="test")


@pytest.mark.parametrize("fields", [{"message_mode": "both"}, {"use_alimtalk_first": True}])
def test_both_is_an_alimtalk_with_an_sms_behind_it(fields: dict[str, Any]) -> None:
    (delivery,) = the_plan(**fields, variables={"#{name}": "홍길동"}, reservation_id=5)[
        "deliveries"
    ]

    assert (delivery["channel"], delivery["template_code"]) == ("ALIMTALK", "TP1")
    assert delivery["payload"]["pf_id"] == "PF1"
    assert delivery["guard"] == {"reservation_id": 5}
    (fallback,) = delivery["fallback"]
    assert (fallback["channel"], fallback["recipient"]) == ("SMS", "01012345678")
    assert fallback["guard"] == {"reservation_id": 5}
    assert fallback["payload"]["sender"] == "0212345678"


@pytest.mark.parametrize(
    "fields",
    [{}, {"use_alimtalk_first": False}, {"message_mode": "sms", "use_alimtalk_first": True}],
)
def test_sms_is_an_sms_alone(fields: dict[str, Any]) -> None:
    planned = the_plan(**fields)
    (delivery,) = planned["deliveries"]
    assert (delivery["channel"], "fallback" in delivery) == ("SMS", False)
    assert "straight_to_sms" not in planned["data"]


def test_both_without_a_kakao_channel_is_an_sms_at_once_and_says_why() -> None:
    planned = the_plan(SentBy(), message_mode="both")

    assert [delivery["channel"] for delivery in planned["deliveries"]] == ["SMS"]
    assert "kakao_pf_id" in planned["data"]["straight_to_sms"]
    assert "template_id" in planned["data"]["straight_to_sms"]


def test_alimtalk_alone_has_no_fallback_and_needs_channel_and_template() -> None:
    (delivery,) = the_plan(message_mode="alimtalk")["deliveries"]
    assert (delivery["channel"], "fallback" in delivery) == ("ALIMTALK", False)
    with pytest.raises(InvalidRequest) as refused:
        the_plan(SentBy(), message_mode="alimtalk")
    assert [problem.code for problem in refused.value.problems] == ["no_pf_id", "no_template"]
    (own,) = the_plan(SentBy(pf_id="PF2"), message_mode="alimtalk", template_id="TP9")["deliveries"]
    assert own["template_code"] == "TP9"


def test_a_mock_asks_for_no_template() -> None:
    job = make_job(to="01012345678", text="안녕", message_mode="alimtalk")
    (printed,) = plan(job, SentBy(), source="t", is_mock=True)["deliveries"]
    assert (printed["channel"], printed["template_code"]) == ("ALIMTALK", None)


def test_the_door_names_everything_that_is_wrong() -> None:
    with pytest.raises(InvalidRequest) as refused:
        make_job(
            to="02-123-4567", text="안녕 🎉", tenant_id="x", message_mode="fax", subject="가" * 30
        )
    places = {problem.place for problem in refused.value.problems}
    assert places == {"/to", "/tenant_id", "/message_mode", "/subject"}
    with pytest.raises(InvalidRequest, match=r"U\+1F389"):
        make_job(to="01012345678", text="안녕 🎉")
    with pytest.raises(InvalidRequest, match="bytes"):
        make_job(to="01012345678", text="가" * 1001)
    with pytest.raises(InvalidRequest, match="Alimtalk"):
        make_job(to="01012345678", text="세일", advertising=True, message_mode="both")


def test_a_job_survives_its_way_as_json_and_is_known_by_what_it_asks() -> None:
    job = make_job(
        to="010 1234 5678", text="안녕", use_alimtalk_first=True, tenant_id=3, reservation_id="r-1"
    ).identified()
    again = read_job(job.body())
    assert again == job
    spelt_otherwise = make_job(
        to="+821012345678", text="안녕", message_mode="both", tenant_id=3, reservation_id="r-1"
    )
    assert spelt_otherwise.fingerprint() == job.fingerprint()
    assert make_job(to="01012345678", text="안녕!").fingerprint() != job.fingerprint()
    assert set(job_schema()["required"]) == {"to", "text"}


# Cancelled reservations


def bound(identity: int, reservation: int | str | None, tenant: int | None = 1) -> Work[Message]:
    guard = {} if reservation is None else {"reservation_id": reservation}
    return a_work(a_message("01012345678", guard=guard, tenant_id=tenant), work_id=identity)


async def kinds(policy: CancellationPolicy, works: Sequence[Work[Message]]) -> dict[int, str]:
    return {identity: one.code or "" for identity, one in (await policy.guard(works)).items()}


async def test_our_own_table_is_asked_for_a_whole_batch_by_tenant(database: Database) -> None:
    reservations = Reservations(database)
    await reservations.cancel("5", CancelRequest(tenant_id=1))
    await reservations.cancel("6", CancelRequest())
    await reservations.cancel("6", CancelRequest())
    policy = CancellationPolicy(database)

    against = await kinds(
        policy, [bound(1, 5), bound(2, 5, tenant=2), bound(3, "6"), bound(4, None), bound(5, 7)]
    )

    assert against == {1: "reservation_cancelled", 3: "reservation_cancelled"}


def is_cancelled(reservation_id: int) -> bool:
    if reservation_id == 13:
        raise RuntimeError("the table is locked")
    return reservation_id == 7


async def is_cancelled_async(reservation_id: int) -> bool:
    return is_cancelled(reservation_id)


WORKS = [(1, 7), (2, 8), (3, 13), (4, None)]
CHECKED = {1: "reservation_cancelled", 3: "cancellation_check_failed"}


@pytest.mark.parametrize("name", ["is_cancelled", "is_cancelled_async"])
async def test_a_function_is_asked_and_what_it_cannot_say_is_not_sent(
    name: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("some_clinic")
    setattr(module, name, globals()[name])
    monkeypatch.setitem(sys.modules, "some_clinic", module)
    environment = Environment({"CANCELLATION_FUNCTION": f"some_clinic.{name}"})
    source = cancellation_source(database, environment)
    assert source is not None
    policy = CancellationPolicy(database, source)
    works = [bound(*each) for each in WORKS]

    assert await kinds(policy, works) == CHECKED

    outcome = (await policy.guard(works))[3]
    assert outcome.kind is OutcomeKind.FAULT
    assert decide(works[2], outcome, RETRY).spent is False
    await source.close()


async def test_a_statement_is_asked_once_for_a_batch(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE booking (id bigint, status text)")
        await connection.execute("INSERT INTO booking VALUES (7, 'CANCELLED'), (8, 'OPEN')")
    sql = "SELECT id FROM booking WHERE id = ANY(%(reservation_ids)s) AND status = 'CANCELLED'"
    source = cancellation_source(database, Environment({"CANCELLATION_SQL": sql}))
    policy = CancellationPolicy(database, source)

    assert await kinds(policy, [bound(1, 7), bound(2, 8)]) == {1: "reservation_cancelled"}

    async with database.connection() as connection:
        await connection.execute("DROP TABLE booking")
    failed = await kinds(policy, [bound(1, 7), bound(2, 8)])
    assert failed == dict.fromkeys((1, 2), "cancellation_check_failed")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer.of(200, '{"cancelled": true}'), "reservation_cancelled"),
        (Answer.of(200, '{"cancelled": false}'), None),
        (Answer.of(200, "<html>"), "cancellation_check_failed"),
        (Answer.of(500, "{}"), "cancellation_check_failed"),
        (Answer.cut(), "cancellation_check_failed"),
    ],
)
async def test_a_url_is_asked(answer: Answer, code: str | None, database: Database) -> None:
    async with HttpSink() as sink:
        sink.answer(answer)
        url = f"{sink.url}/reservations/{{reservation_id}}"
        source = cancellation_source(database, Environment({"CANCELLATION_URL": url}))
        assert source is not None
        against = await kinds(CancellationPolicy(database, source), [bound(1, "a/b")])
        await source.close()
        assert against == ({} if code is None else {1: code})
        assert {request.path for request in sink.requests} == {"/reservations/a%2Fb"}


async def test_a_django_project_is_set_up_and_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    services = tmp_path / "apps" / "support" / "messaging"
    services.mkdir(parents=True)
    for folder in (services, services.parent, services.parent.parent):
        (folder / "__init__.py").write_text("")
    (services / "services.py").write_text(
        "from django.db import connection\n"
        "def is_reservation_cancelled(reservation_id):\n"
        "    with connection.cursor() as cursor:\n"
        "        cursor.execute('SELECT %s = 7', [reservation_id])\n"
        "        return bool(cursor.fetchone()[0])\n"
    )
    (tmp_path / "clinic_settings.py").write_text(
        "SECRET_KEY = 'x'\nUSE_TZ = True\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    script = (
        "import asyncio\n"
        "from allim.base.settings import Environment\n"
        "from allim.messaging.cancellation_sources import cancellation_source\n"
        "async def main():\n"
        "    source = cancellation_source(None, Environment("
        "{'DJANGO_SETTINGS_MODULE': 'clinic_settings'}))\n"
        "    print(dict(await source.cancelled([7, 8])))\n"
        "    await source.close()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "{7: True, 8: False}"


@pytest.mark.parametrize(
    "settings",
    [
        {"CANCELLATION_FUNCTION": "no.such.function"},
        {"CANCELLATION_FUNCTION": "os.path.sep"},
        {"CANCELLATION_SQL": "SELECT 1"},
        {"CANCELLATION_URL": "https://x.example/all"},
        {"CANCELLATION_URL": "https://x/{reservation_id}", "CANCELLATION_FUNCTION": "os.getcwd"},
        {"DJANGO_SETTINGS_MODULE": "no_such_project"},
    ],
)
async def test_a_source_that_cannot_be_stops_the_start(
    settings: Mapping[str, str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    with pytest.raises(ConfigurationError):
        cancellation_source(database, Environment(dict(settings)))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)


# Opt-outs and the night


async def test_who_opted_out_is_skipped_before_it_is_paid_for(database: Database) -> None:
    listed = SuppressionList(database)
    await listed.add(SuppressionRequest(recipient="010-1111-1111"))
    mine = await listed.add(SuppressionRequest(recipient="+82 10 2222 2222", tenant_id=1))
    policy = SuppressionPolicy(phone_rules())
    works = [
        a_work(a_message("01011111111", tenant_id=2), work_id=1),
        a_work(a_message("010-2222-2222", tenant_id=1), work_id=2),
        a_work(a_message("01022222222", tenant_id=2), work_id=3),
        a_work(a_message("01033333333", tenant_id=1), work_id=4),
    ]

    async with database.transaction() as tx:
        assert set(await policy.on_attempt(tx, works)) == {1, 2}
    await listed.remove(mine.id, own=1)
    async with database.transaction() as tx:
        assert set(await policy.on_attempt(tx, works)) == {1}


async def test_a_number_that_takes_nothing_more_is_learnt(database: Database) -> None:
    policy = SuppressionPolicy(phone_rules())
    gone = a_work(a_message("010-1234-5678"), work_id=1)
    other = a_work(a_message("010-8765-4321"), work_id=2)
    settled = [
        decide(gone, Outcome.refused("solapi_3054", "blocked"), RETRY),
        decide(other, Outcome.refused("solapi_3010", "wrong"), RETRY),
    ]
    assert policy.joins_settle(settled)
    for _ in range(2):
        async with database.transaction() as tx:
            await policy.on_settle(tx, settled)

    page = await SuppressionList(database).list()
    assert [(one.recipient, one.tenant_id, one.reason) for one in page.items] == [
        ("01012345678", None, "blocked")
    ]


@pytest.mark.parametrize(
    ("utc", "hours"),
    [("11:58", None), ("11:59", 11 + 1 / 60), ("12:00", 11), ("22:59", 1 / 60), ("23:00", None)],
)
async def test_advertising_waits_for_the_morning_in_korea(
    utc: str, hours: float | None, database: Database
) -> None:
    async def now(_tx: Connection) -> datetime:
        return datetime.fromisoformat(f"2026-11-21T{utc}:00").replace(tzinfo=UTC)

    policy = QuietHours(now)
    works = [
        a_work(a_message("01012345678", payload={"advertising": True}), work_id=1),
        a_work(a_message("01012345678", message="(광고) 세일"), work_id=2),
        a_work(a_message("01012345678", message="예약 안내"), work_id=3),
        a_work(a_message("01012345678", payload={"text": "(광고) 세일"}), work_id=4),
        a_work(a_message("01012345678", title="(광고) 세일", message=None), work_id=5),
        a_work(
            a_message(
                "01012345678", message="#{head} 세일", payload={"variables": {"head": "(광고)"}}
            ),
            work_id=6,
        ),
        a_work(
            a_message("01012345678", message="(광고) 세일", payload={"text": "예약 안내"}),
            work_id=7,
        ),
    ]
    async with database.transaction() as tx:
        against = await policy.on_attempt(tx, works)
    if hours is None:
        assert against == {}
    else:
        assert set(against) == {1, 2, 4, 5, 6}, "wherever the text stands that goes out"
        assert against[1].kind is OutcomeKind.SNOOZED
        assert against[1].retry_after == pytest.approx(hours * 3600)


# Variables


def test_a_reservation_gives_the_variables_of_a_template() -> None:
    class Customer:
        name = "홍길동"

    class Reservation:
        customer = Customer()
        starts_at = datetime(2026, 11, 23, 5, 30, tzinfo=UTC)
        clinic = types.SimpleNamespace(name="튼튼의원", address="서울시 중구 1")
        link = "https://example.com/r/1"
        title = None

    context = template_context_from_reservation(Reservation())

    assert build_replacements(context) == {
        "#{name}": "홍길동",
        "#{clinic_name}": "튼튼의원",
        "#{place}": "서울시 중구 1",
        "#{link}": "https://example.com/r/1",
        "#{date}": "2026년 11월 23일(월)",
        "#{time}": "14:30",
    }
    assert build_replacements({"#{name}": None, "n": 3}) == {"#{name}": "", "#{n}": "3"}
    assert template_context_from_reservation({"name": "김", "date": "11/2", "time": "3시"}) == {
        "name": "김",
        "date": "11/2",
        "time": "3시",
    }
