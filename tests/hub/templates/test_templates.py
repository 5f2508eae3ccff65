"""Templates through the API and in callers' transactions: stored, chosen, rendered, refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from allim.base.errors import InvalidRequest
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.database.transactions import Ask
from allim.hub.service import Hub
from allim.hub.templates.naming import Named
from allim.hub.templates.shelf import TemplateShelf
from tests.hub.conftest import NOTIFICATION, Answer, Api, Start, count

MAIL = {
    "code": "ORDER_DONE",
    "channel": "EMAIL",
    "subject": "{{ name }}님, 주문 {{ order_id }}",
    "html": "<style>p { color: red }</style><p>{{ name }}님 <a href='https://s.kr/{{ order_id }}'>"
    "주문</a></p>",
}
ALIMTALK = {
    "code": "KA01TP",
    "channel": "ALIMTALK",
    "body": "#{name}님, 주문 #{order_id}이 완료되었습니다.",
}
KEYS = (("boss", ""), ("one", ":1"), ("two", ":2"))
DATA = {"name": "김<철수>", "order_id": "A-1"}


async def stored(api: Api, **fields: Any) -> Any:
    answer = await api.post("/templates", json=fields)
    assert answer.status == 201, answer.json
    return answer.json


def asking(*deliveries: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {**NOTIFICATION, "data": DATA, **more, "deliveries": list(deliveries)}


def to_kim(**more: Any) -> dict[str, Any]:
    return {"channel": "EMAIL", "recipient": "kim@example.com", **more}


async def sent(api: Api, body: Any, **headers: str) -> list[Any]:
    answer = await api.create(body, **headers)
    assert answer.status == 202, answer.json
    shown = (await api.get(f"/notifications/{answer.json['id']}")).json
    deliveries: list[Any] = shown["deliveries"]
    return deliveries


def problems(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 422, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    return [(each["place"], each["code"]) for each in answer.json["errors"]]


async def test_a_mail_is_rendered_when_it_is_posted(api: Api, database: Database) -> None:
    await stored(api, **MAIL)

    (delivery,) = await sent(api, asking(to_kim(template_code="ORDER_DONE")))

    payload = delivery["payload"]
    assert delivery["template_code"] == "ORDER_DONE"
    assert payload["title"] == "김<철수>님, 주문 A-1"
    assert '<p style="color: red;">김&lt;철수&gt;님' in payload["html"]
    assert payload["message"] == "김<철수>님 주문 (https://s.kr/A-1)"
    assert payload["template"] == {"version": 1, "language": None}
    # What was promised is sent, whatever becomes of the template.
    await api.call("DELETE", "/templates/ORDER_DONE")
    assert await count(database, "delivery") == 1
    gone = await api.create(asking(to_kim(template_code="ORDER_DONE")))
    assert problems(gone) == [("/deliveries/0/template_code", "unknown_template")]


async def test_what_is_missing_is_told_with_its_place_at_any_depth(api: Api) -> None:
    await stored(api, **MAIL)
    await stored(api, code="T", channel="LOG", body="{{ a }} {{ name }} {{ b.c }}")
    await stored(api, **ALIMTALK)
    log = {"channel": "LOG", "template_code": "T"}
    talk = {"channel": "ALIMTALK", "recipient": "01012345678", "template_code": "KA01TP"}
    body = asking(
        to_kim(template_code="ORDER_DONE", then=[{"channel": "LOG", "fallback": [log]}]),
        {"channel": "SLACK", "fallback": [talk]},
        data={"order_id": 1},
    )

    answer = await api.create(body)

    deep = "/deliveries/0/then/0/fallback/0/template_code"
    assert problems(answer) == [
        ("/deliveries/0/template_code", "missing_variable"),
        (deep, "missing_variable"),
        (deep, "missing_variable"),
        (deep, "missing_variable"),
        ("/deliveries/1/fallback/0/template_code", "missing_variable"),
    ]
    told = " ".join(each["message"] for each in answer.json["errors"])
    for name in ("needs name,", "needs a,", "needs b,", "needs #{name},"):
        assert name in told


async def test_children_are_rendered_too_each_for_itself(api: Api, database: Database) -> None:
    await stored(api, **MAIL)
    await stored(api, code="T", channel="LOG", language="ko", body="{{ message }} {{ recipient }}")
    body = asking(
        to_kim(
            template_code="ORDER_DONE",
            language="ko-KR",
            then=[
                {"channel": "LOG", "recipient": "x", "template_code": "T"},
                {"channel": "LOG"},
                {"channel": "EMAIL", "recipient": "lee@example.com"},
            ],
        )
    )

    (delivery,) = await sent(api, body)

    log, plain, mail = delivery["then"]
    assert log["payload"]["message"] == f"{NOTIFICATION['message']} x"
    assert log["payload"]["template"] == {"version": 1, "language": "ko"}
    # A child with neither template nor words says what its parent was given to say.
    assert "payload" not in plain
    assert "김&lt;철수&gt;" in mail["payload"]["html"]


async def test_the_newest_version_in_use_is_taken_unless_one_is_named(api: Api) -> None:
    for text in ("one", "two", "three"):
        await stored(api, code="T", channel="LOG", body=text)
    same = await api.post("/templates", json={"code": "T", "channel": "LOG", "body": "three"})
    assert (same.status, same.json["version"]) == (200, 3)

    async def said(**more: Any) -> str:
        (delivery,) = await sent(api, asking({"channel": "LOG", "template_code": "T", **more}))
        return str(delivery["payload"]["message"])

    assert [await said(), await said(template_version=1)] == ["three", "one"]
    assert (await api.call("DELETE", "/templates/T?version=3")).status == 204
    assert await said() == "two"
    refused = await api.create(
        asking({"channel": "LOG", "template_code": "T", "template_version": 3})
    )
    assert problems(refused) == [("/deliveries/0/template_code", "unknown_template")]
    versions = (await api.get("/templates/T?limit=2")).json
    assert [(v["version"], v["active"]) for v in versions["items"]] == [(3, False), (2, True)]
    rest = (await api.get(f"/templates/T?cursor={versions['next']}")).json
    assert [v["version"] for v in rest["items"]] == [1]
    assert (await stored(api, code="T", channel="LOG", body="three"))["version"] == 4
    assert [t["version"] for t in (await api.get("/templates?channel=log")).json["items"]] == [4]
    assert (await api.call("DELETE", "/templates/T")).status == 204
    assert (await api.call("DELETE", "/templates/T")).status == 404
    assert (await api.get("/templates/nothing")).json["code"] == "template_not_found"


async def test_the_language_that_is_nearest_is_taken(api: Api) -> None:
    await stored(api, code="T", channel="LOG", language="ko", body="안녕")
    refused = await api.create(asking({"channel": "LOG", "template_code": "T"}))
    assert "there is: ko" in refused.json["errors"][0]["message"]
    await stored(api, code="T", channel="LOG", body="hello")
    await stored(api, code="T", channel="LOG", language="ko-KP", body="반갑습네다")

    languages = ("ko", "ko-KR", "KO-kp", "fr", None)
    deliveries = await sent(
        api,
        asking(
            *(
                {"channel": "LOG", "template_code": "T", **({"language": each} if each else {})}
                for each in languages
            )
        ),
    )

    assert [d["payload"]["message"] for d in deliveries] == [
        "안녕", "안녕", "반갑습네다", "hello", "hello",
    ]  # fmt: skip


async def test_a_tenant_has_its_own_and_sees_no_other(start_api: Start) -> None:
    keys = ",".join(f"{who}:{who}-secret-secret:admin{tenant}" for who, tenant in KEYS)
    api = await start_api(ALLIM_API_KEYS=keys)

    async def ask(who: str, method: str, path: str, **more: Any) -> Answer:
        headers = {"Authorization": f"Bearer {who}-secret-secret"}
        return await api.call(method, path, headers=headers, **more)

    log = {"code": "T", "channel": "LOG"}
    assert (await ask("boss", "POST", "/templates", json={**log, "body": "all"})).status == 201
    assert (await ask("one", "POST", "/templates", json={**log, "body": "ours"})).status == 201
    body = asking({"channel": "LOG", "template_code": "T"})
    said = []
    for who in ("one", "two"):
        created = (await ask(who, "POST", "/notifications", json=body)).json
        shown = (await ask(who, "GET", f"/notifications/{created['id']}")).json
        said.append(shown["deliveries"][0]["payload"]["message"])
    assert said == ["ours", "all"]
    assert len((await ask("two", "GET", "/templates")).json["items"]) == 1
    assert (await ask("two", "DELETE", "/templates/T")).status == 404
    stolen = await ask("two", "POST", "/templates", json={**log, "body": "x", "tenant_id": 1})
    assert problems(stolen) == [("/tenant_id", "tenant_mismatch")]


async def test_a_code_that_is_not_stored_stays_the_providers(api: Api) -> None:
    deliveries = await sent(
        api,
        asking(
            {"channel": "ALIMTALK", "recipient": "01012345678", "template_code": "PAY_FAIL"},
            {"channel": "KAKAO", "template_code": "KVCA", "language": "ko"},
        ),
    )
    assert [d["template_code"] for d in deliveries] == ["PAY_FAIL", "KVCA"]
    assert all("template" not in d["payload"] for d in deliveries)


async def test_alimtalk_is_held_against_the_approved_text(start_api: Start) -> None:
    api = await start_api(SOLAPI_KAKAO_PF_ID="PF1")
    await stored(api, **ALIMTALK)
    talk = {"channel": "ALIMTALK", "recipient": "01012345678", "template_code": "KA01TP"}

    (delivery,) = await sent(api, asking(talk))

    payload = delivery["payload"]
    assert payload["message"] == "김<철수>님, 주문 A-1이 완료되었습니다."
    assert payload["variables"] == {"name": "김<철수>", "order_id": "A-1"}
    wrong = await api.create(asking({**talk, "message": "김철수님, 주문이 취소되었습니다."}))
    assert problems(wrong) == [("/deliveries/0/template_code", "template_failed")]
    assert "not the approved text" in wrong.json["errors"][0]["message"]
    job = {"to": "01012345678", "text": "아무 말", "message_mode": "alimtalk"}
    refused = await api.post("/messages", json={**job, "template_id": "KA01TP"})
    assert {place for place, _ in problems(refused)} == {"/template_id"}
    said = {**job, "text": "홍길동님, 주문 7이 완료되었습니다.", "template_id": "KA01TP"}
    assert (await api.post("/messages", json=said)).status == 202
    filled = {**job, "template_id": "KA01TP", "variables": {"#{name}": "홍", "#{order_id}": "1"}}
    assert (await api.post("/messages", json=filled)).status == 202


async def test_slack_blocks_are_checked_once_rendered(api: Api) -> None:
    loop = '[{% for n in lines %}{"type": "section", "text": {"type": "mrkdwn", "text": "{{ n }}"}}'
    await stored(
        api,
        code="S",
        channel="SLACK",
        body="{{ lines|length }} lines",
        blocks=loop + "{{ ',' if not loop.last }}{% endfor %}]",
    )
    slack = {"channel": "SLACK", "template_code": "S"}

    (delivery,) = await sent(api, asking(slack, data={"lines": ['a"}, {', "b"]}))
    assert [b["text"]["text"] for b in delivery["payload"]["blocks"]] == ['a"}, {', "b"]
    assert delivery["payload"]["message"] == "2 lines"
    many = await api.create(asking(slack, data={"lines": ["x"] * 51}))
    assert problems(many) == [("/deliveries/0/payload/blocks", "invalid")]
    assert "(as the template 'S' renders it)" in many.json["errors"][0]["message"]
    long = await api.create(asking(slack, data={"lines": ["x" * 3001]}))
    assert problems(long) == [("/deliveries/0/payload/blocks/0/text", "too_long")]
    as_list = [{"type": "section", "text": {"type": "mrkdwn", "text": "{{ data['n'] }}"}}]
    await stored(api, code="L", channel="SLACK", blocks=as_list)
    (listed,) = await sent(api, asking({**slack, "template_code": "L"}, data={"n": '"'}))
    assert listed["payload"]["blocks"][0]["text"]["text"] == '"'


async def test_what_can_be_no_template_is_refused_with_its_place(api: Api) -> None:
    async def refused(**fields: Any) -> list[tuple[str, str]]:
        return problems(await api.post("/templates", json={"code": "T", **fields}))

    assert await refused(channel="LOG", body="{% if %}", subject="{{ x") == [
        ("/subject", "template_syntax"),
        ("/body", "template_syntax"),
    ]
    assert await refused(channel="LOG", html="<p>", blocks=[]) == [
        ("/html", "not_of_channel"),
        ("/blocks", "not_of_channel"),
    ]
    assert await refused(channel="ALIMTALK", subject="x") == [
        ("/body", "missing"),
        ("/subject", "not_of_channel"),
    ]
    assert await refused(channel="FAX", body="x") == [("/channel", "unknown_channel")]
    assert await refused(channel="LOG") == [("", "empty")]
    assert await refused(channel="LOG", body="x", language="k0rean!") == [
        ("/language", "string_pattern_mismatch")
    ]
    assert (await api.get("/templates")).json["items"] == []


async def test_a_preview_shows_what_would_be_sent_and_sends_nothing(
    api: Api, database: Database
) -> None:
    await stored(api, **MAIL)
    path = "/templates/ORDER_DONE/preview"

    shown = await api.post(path, json={"channel": "EMAIL", "data": DATA})

    assert shown.status == 200, shown.json
    assert shown.json["title"] == "김<철수>님, 주문 A-1"
    assert "color: red" in shown.json["payload"]["html"]
    missing = await api.post(path, json={"channel": "EMAIL", "data": {"name": "x"}})
    assert problems(missing) == [("/template_code", "missing_variable")]
    assert (await api.post(path, json={"channel": "LOG"})).status == 404
    assert await count(database, "notification") == 0


async def test_bulk_asks_once_and_answers_each(api: Api) -> None:
    await stored(api, code="T", channel="LOG", body="{{ n }}")
    items = [
        asking({"channel": "LOG", "template_code": "T"}, data={"n": n} if n % 3 else {})
        for n in range(9)
    ]

    answer = await api.post("/notifications/bulk", json={"notifications": items})

    statuses = [result["status"] for result in answer.json["results"]]
    assert statuses == [422 if n % 3 == 0 else 202 for n in range(9)]
    first = answer.json["results"][0]["problem"]["errors"][0]
    assert (first["place"], first["code"]) == ("/deliveries/0/template_code", "missing_variable")


async def test_without_a_template_nothing_is_looked_up(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = Database.fetch

    async def watched(self: Database, statement: Any, parameters: Any = None) -> Any:
        if "template" in statement:
            asked.append(statement)
        return await fetch(self, statement, parameters)

    monkeypatch.setattr(Database, "fetch", watched)
    body = asking(to_kim(then=[{"channel": "LOG"}]), {"channel": "KAKAO"})
    assert (await api.create(body)).status == 202
    assert asked == []
    await api.create(asking({"channel": "KAKAO", "template_code": "K"}))
    assert len(asked) == 1


async def test_a_programs_transaction_sees_the_template_that_it_wrote(
    api: Api, channels: Mapping[str, Channel], database: Database, database_url: str
) -> None:
    await stored(api, **MAIL)
    hub = Hub(channels)
    fields: Any = {
        "source": "shop",
        "type": "T",
        "deliveries": [to_kim(template_code="ORDER_DONE")],
    }
    with psycopg.connect(database_url) as connection:
        with pytest.raises(InvalidRequest, match="needs order_id"):
            hub.notify(connection, **fields, data={"name": "x"})
        connection.execute("UPDATE template SET digest = 'other', body = 'now {{ name }}'")
        hub.notify(connection, **fields, data=DATA)
    async with database.transaction() as tx:
        with pytest.raises(InvalidRequest, match="needs name"):
            await hub.notify(tx, **fields)
        await hub.notify(tx, **fields, data=DATA)

    rows = await database.fetch("SELECT payload ->> 'message' FROM delivery")
    assert rows == [("now 김<철수>",)] * 2


async def test_versions_written_at_once_are_numbered_one_by_one(api: Api) -> None:
    answers = await asyncio.gather(
        *(
            api.post("/templates", json={"code": "T", "channel": "LOG", "body": f"v{n}"})
            for n in range(6)
        )
    )
    assert sorted(answer.json["version"] for answer in answers) == [1, 2, 3, 4, 5, 6]


async def test_a_repeat_with_its_key_finds_the_first_whatever_the_template_says_now(
    api: Api,
) -> None:
    await stored(api, code="T", channel="LOG", body="one")
    body = asking({"channel": "LOG", "template_code": "T"})
    first = await api.create(body, Idempotency_Key="k")
    await stored(api, code="T", channel="LOG", body="two")
    again = await api.create(body, Idempotency_Key="k")
    assert json.loads(again.body) == json.loads(first.body)
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_html_without_its_library_says_what_to_install(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.hub.templates.book.has_inliner", lambda: False)
    answer = await api.post("/templates", json=MAIL)
    assert problems(answer) == [("/html", "not_configured")]
    assert "allim[email]" in answer.json["errors"][0]["message"]


async def test_a_repeat_gets_the_first_answer_though_its_template_is_gone(
    api: Api, database: Database, channels: Mapping[str, Channel]
) -> None:
    await stored(api, **MAIL)
    body = asking(to_kim(template_code="ORDER_DONE"))
    first = await api.create(body, **{"Idempotency-Key": "k"})
    await api.call("DELETE", "/templates/ORDER_DONE")

    again = await api.create(body, **{"Idempotency-Key": "k"})

    assert (again.status, again.json) == (202, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await api.create({**body, "title": "another"}, **{"Idempotency-Key": "k"})
    assert problems(other) == [("/deliveries/0/template_code", "unknown_template")]
    assert problems(await api.create(body, **{"Idempotency-Key": "l"}))
    items = [{**body, "idempotency_key": key} for key in ("k", "l")]
    bulk = await api.post("/notifications/bulk", json={"notifications": items})
    found, refused = bulk.json["results"]
    assert (found["replayed"], found["notification"]["id"]) == (True, first.json["id"])
    assert refused["status"] == 422
    async with database.transaction() as tx:
        told = await Hub(channels).notify(tx, **body, idempotency_key="k")
    assert (str(told.id), told.replayed) == (first.json["id"], True)
    assert await count(database, "notification") == 1


async def test_what_templates_make_for_all_recipients_is_bounded(api: Api) -> None:
    large = "{% for i in range(90) %}" + "x" * 1000 + "{% endfor %}"
    await stored(api, code="LARGE", channel="EMAIL", subject="s", body=large)
    people = [f"p{at}@example.com" for at in range(1000)]
    mail = {"channel": "EMAIL", "recipients": people}
    for delivery in (
        {**mail, "template_code": "LARGE"},
        {**mail, "fallback": [to_kim(template_code="LARGE")]},
    ):
        answer = await api.create(asking(delivery))
        assert problems(answer) == [("/deliveries/0/recipients", "too_large")]
    steps = {"then": [to_kim(template_code="LARGE")] * 9}
    many = asking(*({**to_kim(), **steps} for _ in range(100)))
    assert {code for _, code in problems(await api.create(many))} == {"template_failed"}


async def test_a_template_that_makes_room_while_it_is_looked_up_is_used_all_the_same(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(api, **MAIL)
    await stored(api, **{**MAIL, "code": "OTHER", "subject": "another"})
    monkeypatch.setattr("allim.hub.templates.shelf.COMPILED", 1)
    shelf = TemplateShelf()
    done, other = ((None, Named("EMAIL", code, None, None)) for code in ("ORDER_DONE", "OTHER"))
    await shelf.find(database, {done})
    asked = shelf.look_up({done})
    ask = next(asked)
    assert isinstance(ask, Ask)
    await shelf.find(database, {other})
    rows = await database.fetch(ask.statement, {"batch": ask.batch})
    with pytest.raises(StopIteration) as found:
        asked.send(rows)
    assert found.value.value[done].version == 1
