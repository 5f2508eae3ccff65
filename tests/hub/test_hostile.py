"""Requests that cannot be: each is refused with its place, and nothing is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from allim.database.pool import Database
from tests.hub.conftest import NOTIFICATION, Answer, Api, count

DEEP: Any = 1
for _ in range(40):
    DEEP = {"a": DEEP}


def but(**changes: Any) -> bytes:
    return json.dumps({**NOTIFICATION, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in NOTIFICATION.items() if k != name}).encode()


def delivery(**fields: Any) -> bytes:
    return but(deliveries=[{"channel": "LOG", **fields}])


def chain(length: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"channel": "LOG"}
    for _ in range(length - 1):
        entry = {"channel": "LOG", "then": [entry]}
    return entry


CASES: dict[str, tuple[bytes, int, str, str | None]] = {
    "nothing": (b"", 400, "malformed_json", None),
    "half": (b'{"source":', 400, "malformed_json", None),
    "not utf-8": (b'{"source":"\xff"}', 400, "malformed_json", None),
    "lone surrogate": (b'{"source":"\\ud800"}', 400, "malformed_json", None),
    "recursion": (b"[" * 5000, 400, "malformed_json", None),
    "huge number": (b'{"data":' + b"9" * 5000 + b"}", 400, "malformed_json", None),
    "a list": (b"[]", 422, "model_type", ""),
    "no source": (without("source"), 422, "missing", "/source"),
    "no type": (without("type"), 422, "missing", "/type"),
    "no deliveries": (without("deliveries"), 422, "missing", "/deliveries"),
    "empty deliveries": (but(deliveries=[]), 422, "too_short", "/deliveries"),
    "many deliveries": (but(deliveries=[{"channel": "LOG"}] * 101), 422, "too_long", "/deliveries"),
    "empty source": (but(source=""), 422, "string_too_short", "/source"),
    "long source": (but(source="x" * 201), 422, "string_too_long", "/source"),
    "long title": (but(title="x" * 1001), 422, "string_too_long", "/title"),
    "long message": (but(message="x" * 100_001), 422, "string_too_long", "/message"),
    "number for text": (but(source=5), 422, "string_type", "/source"),
    "text for number": (but(tenant_id="5"), 422, "int_type", "/tenant_id"),
    "text for data": (but(data="x"), 422, "dict_type", "/data"),
    "unknown field": (but(sauce="x"), 422, "unknown_field", "/sauce"),
    "unknown priority": (but(priority="urgent"), 422, "enum", "/priority"),
    "tenant out of range": (but(tenant_id=2**63), 422, "less_than_equal", "/tenant_id"),
    "NUL in text": (but(source="a\0b"), 422, "nul_character", "/source"),
    "NUL in data": (but(data={"a/b": ["x", "\0"]}), 422, "nul_character", "/data/a~1b/1"),
    "NUL in a key": (but(data={"\0": 1}), 422, "nul_character", "/data/\0"),
    "NaN": (but(data={"a": float("nan")}), 422, "number_range", "/data/a"),
    "infinite": (but().replace(b'"A-1024"', b"1e999"), 422, "number_range", "/data/order_id"),
    "deep": (but(data=DEEP), 422, "too_deep", "/data" + "/a" * 32),
    "naive time": (
        but(scheduled_at="2030-01-01T00:00:00"),
        422,
        "timezone_aware",
        "/scheduled_at",
    ),
    "no time": (but(scheduled_at="tomorrow"), 422, "datetime_parsing", "/scheduled_at"),
    "time before time": (
        but(scheduled_at="0001-01-01T00:00:00+14:00"),
        422,
        "datetime_range",
        "/scheduled_at",
    ),
    "expired before begun": (
        but(scheduled_at="2030-01-02T00:00:00Z", expires_at="2030-01-01T00:00:00Z"),
        422,
        "expires_too_early",
        "/expires_at",
    ),
    "unknown channel": (
        but(deliveries=[{"channel": "PIGEON"}]),
        422,
        "unknown_channel",
        "/deliveries/0/channel",
    ),
    "bad address": (
        but(deliveries=[{"channel": "EMAIL", "recipient": "nobody"}]),
        422,
        "invalid_address",
        "/deliveries/0/recipient",
    ),
    "nested bad address": (
        delivery(fallback=[{"channel": "LOG"}, {"channel": "EMAIL", "recipient": "nobody"}]),
        422,
        "invalid_address",
        "/deliveries/0/fallback/1/recipient",
    ),
    "nested unknown channel": (
        delivery(then=[{"channel": "LOG", "fallback": [{"channel": "PIGEON"}]}]),
        422,
        "unknown_channel",
        "/deliveries/0/then/0/fallback/0/channel",
    ),
    "long recipient": (delivery(recipient="가" * 700), 422, "too_long", "/deliveries/0/recipient"),
    "NUL in payload": (
        delivery(payload={"x": "\0"}),
        422,
        "nul_character",
        "/deliveries/0/payload/x",
    ),
    "NUL in a step": (
        delivery(then=[{"channel": "LOG", "guard": {"x": "\0"}}]),
        422,
        "nul_character",
        "/deliveries/0/then/0/guard/x",
    ),
    "deep payload": (
        delivery(payload=DEEP),
        422,
        "too_deep",
        "/deliveries/0/payload" + "/a" * 32,
    ),
    "title in payload": (
        delivery(payload={"title": "x"}),
        422,
        "reserved",
        "/deliveries/0/payload/title",
    ),
    "no attempts": (
        delivery(max_attempts=0),
        422,
        "greater_than_equal",
        "/deliveries/0/max_attempts",
    ),
    "repeated row key": (
        delivery(row_key="A", then=[{"channel": "LOG", "row_key": "A"}]),
        422,
        "row_key_repeated",
        "/deliveries/0/then/0/row_key",
    ),
    "a long branch": (but(deliveries=[chain(11)]), 422, "too_many_steps", "/deliveries/0"),
}


def problem(answer: Answer) -> Any:
    assert answer.headers["Content-Type"] == "application/problem+json"
    found = answer.json
    assert found["status"] == answer.status
    assert {"type", "title", "code", "detail"} <= set(found)
    return found


async def test_what_cannot_be_is_refused_with_its_place(api: Api, database: Database) -> None:
    missed = {}
    for name, (body, status, code, place) in CASES.items():
        answer = await api.post(
            "/notifications", data=body, headers={"Content-Type": "application/json"}
        )
        found = problem(answer)
        told = [(e["place"], e["code"]) for e in found.get("errors", ())]
        fits = found["code"] == code if place is None else (place, code) in told
        if answer.status != status or not fits:
            missed[name] = (answer.status, found)

    assert missed == {}
    assert await count(database, "notification") == 0
    assert (await api.create()).status == 202


async def test_every_bad_field_is_told_at_once(api: Api) -> None:
    answer = await api.post(
        "/notifications",
        data=json.dumps({"title": 5, "deliveries": [{"channel": "LOG"}, {}]}),
        headers={"Content-Type": "application/json"},
    )

    assert [e["place"] for e in answer.json["errors"]] == [
        "/source",
        "/type",
        "/title",
        "/deliveries/1/channel",
    ]


async def test_malformed_json_is_told_with_its_position(api: Api) -> None:
    answer = await api.post(
        "/notifications", data=b'{"source":\n  x}', headers={"Content-Type": "application/json"}
    )

    assert "line 2 column 3" in problem(answer)["detail"]


async def test_a_branch_of_ten_is_taken(api: Api) -> None:
    answer = await api.create({**NOTIFICATION, "deliveries": [chain(10)]})

    assert answer.status == 202


async def test_only_json_is_read(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        for path in ("/notifications", "/endpoints"):
            answer = await api.post(path, data=but(), headers={"Content-Type": kind})
            assert (answer.status, problem(answer)["code"]) == (415, "not_json")


async def test_no_body_is_told_what_is_missing(api: Api) -> None:
    answer = await api.post("/deliveries/1/discard")

    assert (answer.status, problem(answer)["errors"][0]["code"]) == (422, "missing")


async def test_a_large_body_is_refused_before_it_is_read(api: Api) -> None:
    head = (
        b"POST /notifications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 300000\r\n\r\n"
    )

    answer = await raw(api, head)

    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_large_body_in_chunks_is_refused_without_reading_on(api: Api) -> None:
    head = (
        b"POST /notifications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"

    # The body never ends; the answer comes all the same, and the connection with it.
    answer = await raw(api, head + chunk * 12)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"body_too_large"' in answer


async def test_a_large_body_is_refused_on_other_routes_too(api: Api) -> None:
    async def body() -> Any:
        for _ in range(12):
            yield b" " * 0x8000

    answer = await api.post("/endpoints", data=body(), headers={"Content-Type": "application/json"})

    assert (answer.status, problem(answer)["code"]) == (413, "body_too_large")


async def test_an_idempotency_key_is_printable_and_short(api: Api, database: Database) -> None:
    for key in ("", "x" * 256, "tab\there", "é"):
        await refuse_key(api, key)
    assert await count(database, "notification") == 0


async def refuse_key(api: Api, key: str) -> None:
    head = (
        f"POST /notifications HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nIdempotency-Key: {key}\r\nContent-Length: {len(but())}\r\n\r\n"
    ).encode()

    answer = await raw(api, head + but())

    assert answer.startswith(b"HTTP/1.1 422")
    assert b'"place":"Idempotency-Key"' in answer


PARAMETERS = [
    ("/notifications?cursor=%00", 400, "cursor"),
    ("/notifications?cursor=nonsense!", 400, "cursor"),
    ("/notifications?cursor=AAAA", 400, "cursor"),
    ("/deliveries?cursor=bgAAAAAAAAAAAAAAAAAAAAAA", 400, "cursor"),
    ("/deliveries?cursor=ZP__________", 400, "cursor"),
    ("/notifications?limit=0", 422, "limit"),
    ("/notifications?limit=251", 422, "limit"),
    ("/notifications?limit=99999999999999999999", 422, "limit"),
    ("/notifications?status=LOST", 422, "status"),
    ("/notifications?source=%00", 422, "source"),
    ("/notifications?q=%00", 422, "q"),
    ("/notifications?from=yesterday", 422, "from"),
    ("/notifications?colour=red", 422, "colour"),
    ("/notifications?tenant_id=9223372036854775808", 422, "tenant_id"),
    ("/notifications/nonsense", 422, "notification_id"),
    ("/deliveries/0", 422, "delivery_id"),
    ("/deliveries/9223372036854775808", 422, "delivery_id"),
    ("/deliveries?recipient=%00", 422, "recipient"),
]


async def test_a_bad_parameter_is_named(api: Api) -> None:
    missed = []
    for path, status, place in PARAMETERS:
        answer = await api.get(path)
        places = [e["place"] for e in problem(answer)["errors"]]
        if (answer.status, places) != (status, [place]):
            missed.append((path, answer.status, places))

    assert missed == []


async def test_unknown_paths_and_methods_are_problems_too(api: Api) -> None:
    missing = await api.get("/nowhere")
    wrong = await api.call("DELETE", "/notifications")

    assert (missing.status, problem(missing)["code"]) == (404, "no_route")
    assert (wrong.status, problem(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET, POST"


async def test_ids_that_nobody_has_are_404(api: Api) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    for method, path in [
        ("GET", f"/notifications/{nobody}"),
        ("POST", f"/notifications/{nobody}/cancel"),
        ("GET", "/deliveries/9223372036854775807"),
        ("POST", "/deliveries/9223372036854775807/retry"),
        ("POST", "/endpoints/9223372036854775807/rotate"),
    ]:
        answer = await api.call(method, path)
        assert (answer.status, problem(answer)["code"][-9:]) == (404, "not_found")


async def raw(api: Api, sent: bytes) -> bytes:
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer
