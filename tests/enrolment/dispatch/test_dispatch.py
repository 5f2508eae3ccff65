"""The dispatch endpoints: what they send, what they answer, and how they fail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from allim.app import create_app
from allim.base.errors import ConfigurationError, DatabaseUnavailable
from allim.base.settings import Environment
from allim.database.pool import Database
from allim.relay.single_pass import PassFigures
from allim.testing.http import Answer, HttpSink
from allim.testing.sheets import HTML, FakeAppsScript, FakeKey, FakeSheets, Spoiled
from tests.enrolment.dispatch.conftest import (
    CHAIN,
    NOTIFICATION,
    SHEET,
    Chain,
    Open,
    summary,
)
from tests.programs import an_empty_directory, programs
from tests.serving import serving


async def test_one_call_takes_the_chain_to_its_end(chain: Chain) -> None:
    keys = [f"k{number}" for number in range(7)]
    await chain.alert(*keys)

    answer = await chain.dispatch(CHAIN, {"sheet_batch_size": 50, "notification_batch_size": 50})

    assert answer == {
        "ok": True,
        "sheet": summary(claimed=7, sent=7, created=7),
        "notification": summary(claimed=7, sent=7),
    }
    assert chain.rows == keys
    notices = [request.json for request in chain.kakao.requests]
    assert sorted(notice["message"] for notice in notices) == [f"{key} 신규" for key in keys]
    assert {(n["recipient"], n["template_code"]) for n in notices} == {("ops", "KVCA_ALERT")}
    assert await chain.states("sheet_outbox") == {"SENT": 7}
    assert await chain.states("notification_outbox") == {"SENT": 7}
    again = await chain.dispatch(CHAIN)
    assert again == {"ok": True, "sheet": summary(), "notification": summary()}


async def test_each_half_goes_by_itself_and_as_far_as_it_is_asked(chain: Chain) -> None:
    await chain.alert(*[f"k{number}" for number in range(5)])

    nothing = await chain.dispatch(NOTIFICATION, {"batch_size": 10})
    first = await chain.dispatch(SHEET, {"batch_size": 3})
    second = await chain.dispatch(SHEET, {"batch_size": 3})
    notices = await chain.dispatch(NOTIFICATION, {"batch_size": 4})

    assert nothing == {"ok": True, "summary": summary()}
    assert first == {"ok": True, "summary": summary(claimed=3, sent=3, created=3)}
    assert second == {"ok": True, "summary": summary(claimed=2, sent=2, created=2)}
    assert notices == {"ok": True, "summary": summary(claimed=4, sent=4)}
    assert await chain.states("notification_outbox") == {"SENT": 4, "PENDING": 1}


async def test_a_call_without_a_body_takes_the_sizes_of_the_settings(open_chain: Open) -> None:
    chain = await open_chain(SHEET_DISPATCH_BATCH_SIZE="2", NOTI_DISPATCH_BATCH_SIZE="1")
    await chain.alert("a", "b", "c")

    answer = await chain.api.post(CHAIN)
    assert (answer.status, answer.json) == (
        200,
        {
            "ok": True,
            "sheet": summary(claimed=2, sent=2, created=2),
            "notification": summary(claimed=1, sent=1),
        },
    )
    empty = await chain.api.post(SHEET, data=b"", headers={"Content-Type": "application/json"})
    assert empty.json == {"ok": True, "summary": summary(claimed=1, sent=1, created=1)}
    unsaid = await chain.api.post(NOTIFICATION, json={"batch_size": None})
    assert unsaid.json == {"ok": True, "summary": summary(claimed=1, sent=1)}


async def test_empty_urls_succeed_without_a_call_and_say_so(open_chain: Open) -> None:
    chain = await open_chain(SHEET_WEBHOOK_URL="", KAKAO_WEBHOOK_URL="")
    await chain.alert("a")

    answer = await chain.dispatch(CHAIN)

    assert answer["sheet"] == summary(claimed=1, sent=1, created=1)
    assert answer["notification"] == summary(claimed=1, sent=1)
    assert (chain.script.runs, chain.kakao.requests) == (0, [])
    codes = await chain.database.fetch(
        "SELECT status, error_code, last_error FROM sheet_outbox"
        " UNION ALL SELECT status, error_code, last_error FROM notification_outbox"
    )
    assert codes == [("SENT", "not_configured", None)] * 2
    attempts = await chain.database.fetch("SELECT error_code FROM delivery_attempt")
    assert attempts == [("not_configured",)] * 2


RETRIED = [
    Answer.of(429, headers={"Retry-After": "900"}),
    Answer.of(500),
    Answer.of(401),
    Answer.cut(),
]
REFUSED = [Answer.of(400), Answer.of(403), Answer.of(404)]


@pytest.mark.parametrize("failure", [*RETRIED, Answer.of(200, HTML)])
async def test_a_row_that_fails_waits_and_goes_on_later(chain: Chain, failure: Answer) -> None:
    await chain.alert("a")
    chain.script.script.spoil(Spoiled(failure, after=True))

    assert (await chain.dispatch(SHEET))["summary"] == summary(claimed=1, failed=1)
    ((status, waits, retries),) = await chain.database.fetch(
        "SELECT status, extract(epoch FROM next_retry_at - now())::int, retry_count"
        "  FROM sheet_outbox"
    )
    assert (status, retries) == ("FAILED", 1)
    wanted = 900 if b" 429 " in failure.wire else 60
    assert wanted * 0.8 - 30 <= waits <= wanted * 1.2
    assert (await chain.dispatch(SHEET))["summary"] == summary()

    await chain.make_due()
    assert (await chain.dispatch(SHEET))["summary"] == summary(claimed=1, sent=1, created=1)
    # Google had written it the first time: once is what stands there.
    assert (chain.rows, chain.script.runs) == (["a"], 2)


@pytest.mark.parametrize("failure", REFUSED)
async def test_a_row_that_is_refused_is_dead_until_an_operator_says_otherwise(
    chain: Chain, failure: Answer
) -> None:
    await chain.alert("a")
    chain.script.script.spoil(failure)

    assert (await chain.dispatch(CHAIN))["sheet"] == summary(claimed=1, dead=1)
    ((status, next_retry, identity),) = await chain.database.fetch(
        "SELECT status, next_retry_at, id FROM sheet_outbox"
    )
    assert (status, next_retry) == ("FAILED", None)
    assert await chain.states("notification_outbox") == {}

    await chain.api.post(f"/deliveries/{identity}/retry")
    assert (await chain.dispatch(SHEET))["summary"] == summary(claimed=1, sent=1, created=1)


@pytest.mark.parametrize("failure", [*RETRIED, *REFUSED])
async def test_notices_fail_in_the_same_ways(chain: Chain, failure: Answer) -> None:
    await chain.alert("a")
    chain.kakao.answer(failure, Answer.of(200, "ok"))

    answer = await chain.dispatch(CHAIN)

    dead = failure in REFUSED
    assert answer["sheet"] == summary(claimed=1, sent=1, created=1)
    assert answer["notification"] == summary(claimed=1, dead=int(dead), failed=int(not dead))
    assert await chain.states("notification_outbox") == {"FAILED": 1}
    assert await chain.states("sheet_outbox") == {"SENT": 1}
    if not dead:
        await chain.make_due()
        assert (await chain.dispatch(NOTIFICATION))["summary"] == summary(claimed=1, sent=1)


async def test_tries_that_are_spent_are_a_dead_letter(open_chain: Open) -> None:
    chain = await open_chain(SHEET_MAX_ATTEMPTS="2")
    await chain.alert("a")
    chain.script.script.always = Answer.of(503)

    assert (await chain.dispatch(SHEET))["summary"] == summary(claimed=1, failed=1)
    await chain.make_due()
    assert (await chain.dispatch(SHEET))["summary"] == summary(claimed=1, dead=1)


async def test_calls_at_once_send_everything_once(chain: Chain) -> None:
    keys = sorted(f"k{number}" for number in range(40))
    await chain.alert(*keys)

    answers: list[Any] = await asyncio.gather(
        *(chain.dispatch(CHAIN, {"sheet_batch_size": 15}) for _ in range(6))
    )
    answers += [await chain.dispatch(CHAIN)]

    assert sum(answer["sheet"]["sent"] for answer in answers) == 40
    assert sum(answer["sheet"]["created"] for answer in answers) == 40
    assert sum(answer["notification"]["sent"] for answer in answers) == 40
    assert (chain.rows, chain.script.runs) == (keys, 40)
    assert len({r.json["dedupe_key"] for r in chain.kakao.requests}) == 40
    assert len(chain.kakao.requests) == 40


async def test_by_the_sheets_api_a_pass_is_one_update(open_chain: Open) -> None:
    async with FakeSheets(FakeKey()) as google:
        chain = await open_chain(SHEET_WEBHOOK_URL="", **google.environment())
        await chain.alert(*[f"k{number}" for number in range(30)])
        # The first answer is lost on its way; Google has done it all the same.
        await chain.dispatch(SHEET, {"batch_size": 1})
        google.spoil(Spoiled(Answer.cut(), after=True))
        lost = await chain.dispatch(SHEET, {"batch_size": 20})
        await chain.make_due()
        rest = await chain.dispatch(SHEET, {"batch_size": 50})
        assert lost["summary"] == summary(claimed=20, failed=20)
        assert rest["summary"] == summary(claimed=29, sent=29, created=29)
        assert sorted(google.keys) == sorted(f"k{number}" for number in range(30))
        assert google.updates == 3


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (SHEET, {"batch_size": 0}, "/batch_size"),
        (SHEET, {"batch_size": 501}, "/batch_size"),
        (SHEET, {"batch_size": "50"}, "/batch_size"),
        (NOTIFICATION, {"batch_size": 1.5}, "/batch_size"),
        (NOTIFICATION, {"batchsize": 5}, "/batchsize"),
        (CHAIN, {"sheet_batch_size": -1}, "/sheet_batch_size"),
        (CHAIN, {"batch_size": 5}, "/batch_size"),
        (CHAIN, [], ""),
    ],
)
async def test_bad_bodies_are_refused_in_the_jobs_shape(
    chain: Chain, path: str, body: Any, place: str
) -> None:
    answer = await chain.api.post(path, json=body)
    assert answer.status == 422
    assert answer.json["ok"] is False
    assert place in answer.json["error"]
    assert [problem["place"] for problem in answer.json["errors"]] == [place]


async def test_what_is_no_json_is_refused_in_the_jobs_shape(chain: Chain) -> None:
    broken = await chain.api.post(
        CHAIN, data=b'{"sheet', headers={"Content-Type": "application/json"}
    )
    form = await chain.api.post(CHAIN, data=b"batch_size=5")
    assert (broken.status, broken.json["ok"]) == (400, False)
    assert (form.status, form.json["ok"]) == (415, False)


async def test_only_an_operator_of_all_tenants_may_dispatch(open_chain: Open) -> None:
    keys = {"reader": "read", "sender": "send", "ops": "operate", "shop": "operate:5"}
    chain = await open_chain(
        ALLIM_API_KEYS=",".join(f"{name}:{name}-secret-0123456789:{s}" for name, s in keys.items())
    )
    for name in keys:
        answer = await chain.api.post(
            CHAIN, headers={"Authorization": f"Bearer {name}-secret-0123456789"}
        )
        assert (answer.status, answer.json["ok"]) == (
            (200, True) if name == "ops" else (403, False)
        ), name


async def test_without_its_database_or_anything_to_send_with_it_says_so(
    database: Database, chain: Chain
) -> None:
    async def gone(channel: str, limit: int) -> PassFigures:
        raise DatabaseUnavailable("gone")

    for more, words in (({"run_pass": gone}, "database"), ({}, "anything to send with")):
        app = create_app(database, {}, Environment({}), **more)  # type: ignore[arg-type]
        async with serving(app) as url, chain.api.session.post(url + SHEET) as answer:
            said = await answer.json()
            assert (answer.status, said["ok"]) == (503, False)
            assert words in said["error"]


async def test_a_lease_that_a_call_may_outlive_ends_the_start_and_no_call(open_chain: Open) -> None:
    with pytest.raises(ConfigurationError, match="KAKAO 105 s"):
        await open_chain(KAKAO_TIMEOUT_SECONDS="100")


async def test_the_endpoints_are_documented_with_their_shapes(chain: Chain) -> None:
    document = (await chain.api.get("/openapi.json")).json
    for path in (SHEET, NOTIFICATION, CHAIN):
        operation = document["paths"][path]["post"]
        assert not operation["requestBody"].get("required", False)
        assert operation["responses"]["422"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/JobRefused"
        }
    summary_ = document["components"]["schemas"]["DispatchSummary"]["properties"]
    assert set(summary_) == {"claimed", "sent", "failed", "dead", "created"}


async def test_an_api_without_any_relay_delivers_the_chain_when_asked() -> None:
    async with FakeAppsScript() as script, HttpSink() as kakao:
        with an_empty_directory() as place:
            async with programs(Path(place)) as start:
                api = await start("api", SHEET_WEBHOOK_URL=script.url, KAKAO_WEBHOOK_URL=kakao.url)
                identity = await api.create(
                    deliveries=[
                        {"channel": "SHEET", "row_key": "A", "then": [{"channel": "KAKAO"}]}
                    ]
                )
                status, body = await api.call("POST", CHAIN)
                assert (status, body["ok"]) == (200, True)
                assert body["notification"]["sent"] == 1
                assert (await api.show(identity))["status"] == "COMPLETED"
                assert (await api.call("GET", "/metrics"))[1].count("# TYPE allim_attempts") == 1
                assert await api.terminate() == 0
        assert (len(script.rows), len(kakao.requests)) == (1, 1)
