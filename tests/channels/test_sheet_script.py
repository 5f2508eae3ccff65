"""SHEET by an Apps Script on local servers that answer as Google's do."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import sheet
from allim.channels.channel import Draft
from allim.channels.http.client import HttpClient
from allim.channels.registry import make_http, make_services
from allim.channels.ssrf import AddressGuard
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    Mood,
    a_message,
    send_one,
    turn_http,
)
from allim.testing.http import Answer, Then
from allim.testing.sheets import HTML, FakeAppsScript, Spoiled

ROW_KEY = "enrolment_status:303:447:u1:CHANGED:r2"
DATA = {
    "source_type": "enrolment_status",
    "source_id": "303:447:u1",
    "severity": "high",
    "category_id": 303,
    "course_id": 447,
    "course_name": "파이썬 입문",
    "user_id": "u1",
}


class ScriptRig(ChannelRig):
    secrets = ("s3cretDEPLOYMENT",)

    def __init__(self, app: FakeAppsScript, **settings: str) -> None:
        self.app = app
        self.environment = Environment(
            {"SHEET_WEBHOOK_URL": app.url, "SHEET_TIMEOUT_SECONDS": "20", **settings}
        )
        self.http = make_http(self.environment)
        self.channel = sheet.make(self.environment, make_services(self.http))

    async def turn(self, mood: Mood) -> None:
        await turn_http(self.app.script, mood)
        hanging = {Mood.HANGING: Answer.hang(), Mood.GARBAGE: Answer.cut(b"\x00\xff\r\n\r\n")}
        self.app.script.always = hanging.get(mood)

    async def received(self) -> Sequence[str]:
        return [row["cells"][6] for row in self.app.rows]

    async def all_closed(self) -> None:
        await self.http.close()
        await self.app.script.all_closed()
        await self.app.content.all_closed()


@asynccontextmanager
async def _rig(**settings: str) -> AsyncIterator[ScriptRig]:
    async with FakeAppsScript() as app:
        rig = ScriptRig(app, **settings)
        yield rig
        await rig.http.close()


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return _fresh_rows()


@asynccontextmanager
async def _fresh_rows() -> AsyncIterator[ScriptRig]:
    """The suite's messages are one delivery, so here no row is a duplicate."""
    async with _rig(SHEET_TIMEOUT_SECONDS="2") as rig:
        rig.app.run = lambda posted: rig.app.rows.append(posted) or {"ok": True}  # type: ignore[func-returns-value, method-assign]
        yield rig


async def test_a_row_is_posted_once_and_its_answer_fetched() -> None:
    async with _rig() as rig:
        message = a_message(None, row_key=ROW_KEY, data=DATA, title="수강 변경", message="DS → GC")
        outcome = await send_one(rig.channel, message)
        (posted,) = rig.app.script.requests
        (fetched,) = rig.app.content.requests

    assert outcome.kind is OutcomeKind.DELIVERED
    assert (posted.method, fetched.method, fetched.body) == ("POST", "GET", b"")
    said = posted.json
    assert {name: said[name] for name in ("row_key", "source_id", "source_type", "type")} == {
        "row_key": ROW_KEY,
        "source_id": "303:447:u1",
        "source_type": "enrolment_status",
        "type": "PAYMENT_FAILED",
    }
    assert (said["title"], said["message"], said["data"]) == ("수강 변경", "DS → GC", DATA)
    assert said["delivery_id"] == 4711
    assert said["cells"] == [
        "2026-01-02 12:04:05",
        "PAYMENT_FAILED",
        "high",
        "303",
        "파이썬 입문 (447)",
        "u1",
        "수강 변경\nDS → GC",
        ROW_KEY,
    ]


async def test_keys_of_tenants_and_of_deliveries_without_one_tell_rows_apart() -> None:
    async with _rig() as rig:
        for parts in (
            {"row_key": "A"},
            {"row_key": "A", "tenant_id": 7},
            {"delivery_id": 1},
            {"delivery_id": 2},
        ):
            await send_one(rig.channel, a_message(None, **parts))
        keys = [row["row_key"] for row in rig.app.rows]
    assert keys[:2] == ["A", "tenant 7: A"]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("lost", [Answer.cut(), Answer.of(404, HTML), Answer.of(200, HTML)])
async def test_an_answer_that_is_lost_after_the_row_was_written_makes_no_second_row(
    lost: Answer,
) -> None:
    async with _rig() as rig:
        rig.app.content.spoil(lost, lost)  # the client itself asks twice where it may
        message = a_message(None, row_key=ROW_KEY)
        first = await send_one(rig.channel, message)
        rig.app.content.heal()
        second = await send_one(rig.channel, message)
        rows, runs = rig.app.rows, rig.app.runs
    assert first.kind is OutcomeKind.RETRY
    assert (second.kind, second.code) == (OutcomeKind.DELIVERED, "duplicate")
    assert (len(rows), runs) == (1, 2)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer.of(200, HTML), OutcomeKind.RETRY, "bad_answer"),
        (Answer.of(200, "[1]"), OutcomeKind.RETRY, "bad_answer"),
        (Answer.of(200, '{"result": "fine"}'), OutcomeKind.RETRY, "bad_answer"),
        (Answer.of(200, '{"ok": "true"}'), OutcomeKind.RETRY, "bad_answer"),
        (Answer.of(200, '{"ok": false, "error": "lock"}'), OutcomeKind.RETRY, "not_ok"),
        (Answer.of(200, '{"ok": false, "retry": false}'), OutcomeKind.REFUSED, "not_ok"),
        (Answer.of(200, '{"ok": true}'), OutcomeKind.DELIVERED, None),
        (Answer.of(429, headers={"Retry-After": "7"}), OutcomeKind.RETRY, "rate_limited"),
        (Answer.of(500), OutcomeKind.RETRY, "http_500"),
        (Answer.of(503), OutcomeKind.RETRY, "http_503"),
        (Answer.of(401), OutcomeKind.RETRY, "http_401"),
        (Answer.of(400), OutcomeKind.REFUSED, "http_400"),
        (Answer.of(403), OutcomeKind.REFUSED, "http_403"),
        (Answer.of(404), OutcomeKind.REFUSED, "http_404"),
        (Answer.of(204), OutcomeKind.REFUSED, "http_204"),
        (Answer.of(307, headers={"Location": "/else"}), OutcomeKind.REFUSED, "http_307"),
        (Answer.of(302), OutcomeKind.REFUSED, "bad_redirect"),
        (Answer.of(302, headers={"Location": "ftp://x/"}), OutcomeKind.REFUSED, "bad_redirect"),
        (
            Answer.of(302, headers={"Location": "https://accounts.google.com/ServiceLogin"}),
            OutcomeKind.RETRY,
            "login_page",
        ),
        (
            Answer.cut(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ok": true}'),
            OutcomeKind.RETRY,
            "bad_answer",
        ),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: OutcomeKind, code: str | None) -> None:
    async with _rig() as rig:
        rig.app.script.spoil(answer)
        outcome = await send_one(rig.channel, a_message(None))
        assert len(rig.app.script.requests) == 1
        assert rig.app.content.requests == []
    assert (outcome.kind, outcome.code) == (kind, code)
    if code == "rate_limited":
        assert outcome.retry_after == 7.0


async def test_an_answer_is_followed_once_and_never_by_a_post() -> None:
    async with _rig() as rig:
        elsewhere = Answer.of(302, headers={"Location": rig.app.content.url + "/more"})
        rig.app.content.spoil(elsewhere)
        outcome = await send_one(rig.channel, a_message(None))
        assert [request.method for request in rig.app.content.requests] == ["GET"]
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "answer_lost")


class _Names(AbstractResolver):
    """A public name, as far as anybody can tell from the URL, for this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        assert host == "script.example.com"
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


async def test_a_public_script_leads_nobody_into_our_network() -> None:
    async with FakeAppsScript() as app:
        url = app.url.replace("127.0.0.1", "script.example.com")
        environment = Environment({"SHEET_WEBHOOK_URL": url})
        http = HttpClient(AddressGuard(), resolver=_Names())
        channel = sheet.make(environment, make_services(http))
        outcome = await send_one(channel, a_message(None))
        await http.close()
        assert app.runs == 1
        assert app.content.requests == []
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "blocked_address")


async def test_with_at_most_once_nothing_in_doubt_is_posted_again() -> None:
    async with _rig(SHEET_AT_MOST_ONCE="true") as rig:
        outcomes: list[Outcome] = []
        for spoiled in (
            Spoiled(Answer.cut(), after=True),
            Spoiled(Answer.of(200, HTML), after=True),
        ):
            rig.app.script.spoil(spoiled)
            outcomes.append(await send_one(rig.channel, a_message(None)))
        rig.app.content.spoil(Answer.cut(), Answer.cut())
        outcomes.append(await send_one(rig.channel, a_message(None)))
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.UNKNOWN}


async def test_post_and_get_share_one_time_limit() -> None:
    async with _rig(SHEET_TIMEOUT_SECONDS="1") as rig:
        rig.app.content.always = Answer(b"", Then.HANG)
        outcome = await send_one(rig.channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "answer_lost")


async def test_without_a_sheet_success_says_that_nothing_was_called() -> None:
    environment = Environment({"SHEET_WEBHOOK_URL": ""})
    channel = sheet.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    assert channel.check(Draft(None, None, None, None, {})) == []
    outcome = await send_one(channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SHEET_WEBHOOK_URL": "script.google.com/x"}, "SHEET_WEBHOOK_URL"),
        ({"SHEET_WEBHOOK_URL": "https://x/", "SHEET_SPREADSHEET_ID": "abc"}, "both set"),
        ({"SHEET_SPREADSHEET_ID": "abc"}, "neither is set"),
        ({"SHEET_SPREADSHEET_ID": "https://docs.google.com/d/x"}, "SHEET_SPREADSHEET_ID"),
        (
            {"SHEET_SPREADSHEET_ID": "abc", "GOOGLE_SERVICE_ACCOUNT_FILE": "/no/such.json"},
            "/no/such.json cannot be read",
        ),
        ({"SHEET_SPREADSHEET_ID": "abc", "GOOGLE_SERVICE_ACCOUNT_JSON": "{"}, "is not JSON"),
        (
            {
                "SHEET_SPREADSHEET_ID": "abc",
                "GOOGLE_SERVICE_ACCOUNT_JSON": '{"client_email": "a@b", "private_key": "s3cret"}',
            },
            "private_key that cannot be read",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, str], words: str) -> None:
    environment = Environment(settings)
    with pytest.raises(ConfigurationError, match=words) as raised:
        sheet.make(environment, make_services(make_http(environment)))
    assert "s3cret" not in str(raised.value)


async def test_the_doctor_is_told_of_a_script_that_is_not_there() -> None:
    async with _rig() as rig:
        rig.app.script.spoil(Answer.of(404, HTML))
        assert await rig.channel.diagnose() == "answered 404"
        rig.app.script.spoil(
            Answer.of(302, headers={"Location": "https://accounts.google.com/v3/signin"})
        )
        assert "Anyone" in str(await rig.channel.diagnose())
        rig.app.script.spoil(Answer.of(200, HTML))
        assert await rig.channel.diagnose() is None
        assert {request.method for request in rig.app.script.requests} == {"GET"}
