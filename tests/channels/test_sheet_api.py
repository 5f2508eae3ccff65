"""SHEET by the Sheets API on a local server that applies updates as Google does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from allim.base.settings import Environment
from allim.channels import sheet, sheet_api
from allim.channels.channel import Draft, Message
from allim.channels.google import ServiceAccount, Tokens
from allim.channels.registry import make_http, make_services
from allim.channels.sheet_api import MARK_KEY, MARKS_KEPT, mark_id, mark_value
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.work import Work
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    Mood,
    a_message,
    a_work,
    record_nothing,
    send_one,
    turn_http,
)
from allim.testing.http import Answer, Request
from allim.testing.sheets import FakeKey, FakeSheets, Spoiled

KEY = FakeKey()


class ApiRig(ChannelRig):
    bad_recipients = ("elsewhere",)
    secrets = ("s3cretTOKEN", "PRIVATE KEY")

    def __init__(self, google: FakeSheets, **settings: str) -> None:
        self.google = google
        self.recipient = google.tabs[0]
        self.environment = Environment(
            {**google.environment(), "SHEET_TIMEOUT_SECONDS": "20", **settings}
        )
        self.http = make_http(self.environment)
        self.channel = sheet.make(self.environment, make_services(self.http))

    async def turn(self, mood: Mood) -> None:
        await turn_http(self.google, mood)
        spoiled = {Mood.HANGING: Answer.hang(), Mood.GARBAGE: Answer.cut(b"\x00\xff\r\n\r\n")}
        self.google.always = spoiled.get(mood)

    async def received(self) -> Sequence[str]:
        return [row.cells[6] for row in reversed(self.google.rows)]

    async def all_closed(self) -> None:
        await self.http.close()
        await self.google.all_closed()

    async def send(self, *works: Work[Message]) -> Sequence[Outcome]:
        """Send a batch."""
        return await self.channel.send(works, record_nothing)


@asynccontextmanager
async def _rig(**settings: str) -> AsyncIterator[ApiRig]:
    async with FakeSheets(KEY) as google:
        rig = ApiRig(google, **settings)
        yield rig
        await rig.http.close()


@asynccontextmanager
async def _forgetful() -> AsyncIterator[ApiRig]:
    """The suite's messages are one delivery: here every row is another one all the same."""
    async with _rig(SHEET_TIMEOUT_SECONDS="2") as rig:
        usual = rig.google.right

        def forget_marks(request: Request) -> Answer:
            rig.google.marks.clear()
            return usual(request)

        rig.google.right = forget_marks  # type: ignore[method-assign]
        yield rig


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return _forgetful()


def _work(key: str, *, attempt: int = 1, **parts: Any) -> Work[Message]:
    work = a_work(a_message(None, row_key=key, **parts))
    work.attempt_no = attempt
    return work


async def test_a_batch_is_one_update_below_the_header_newest_on_top() -> None:
    async with _rig() as rig:
        google = rig.google
        outcomes = await rig.send(*[_work(f"k{number}") for number in range(40)])
        more = await rig.send(_work("k40", title="=1+1", message="+A1"))
        calls = [request.path.split("?")[0].rsplit("/", 1)[-1] for request in google.requests]

        assert {outcome.kind for outcome in [*outcomes, *more]} == {OutcomeKind.DELIVERED}
        assert google.updates == 2
        assert google.keys == [f"k{number}" for number in range(40, -1, -1)]
        assert google.rows[0].cells[6] == "=1+1\n+A1"
        assert google.tokens_given == 1
        # The marks are looked through once; the sheet's id is asked for once.
        assert calls.count("developerMetadata:search") == 1
        assert calls.count(google.SPREADSHEET) == 1
        marks = google.marks
    assert marks[mark_id("k7")][:2] == (MARK_KEY, mark_value("k7"))


async def test_a_repeat_writes_nothing_and_the_rest_of_its_batch_is_written() -> None:
    async with _rig() as rig:
        await rig.send(_work("warm"))
        # Google did it, and the answer was lost on the way.
        rig.google.spoil(Spoiled(Answer.cut(), after=True))
        lost = await rig.send(_work("a"), _work("b"))
        again = await rig.send(_work("a"), _work("c"), _work("b"))
        keys = rig.google.keys
    assert {outcome.kind for outcome in lost} == {OutcomeKind.RETRY}
    assert [(outcome.kind, outcome.code) for outcome in again] == [
        (OutcomeKind.DELIVERED, "duplicate"),
        (OutcomeKind.DELIVERED, None),
        (OutcomeKind.DELIVERED, "duplicate"),
    ]
    assert sorted(keys) == ["a", "b", "c", "warm"]


async def test_two_keys_of_one_hash_are_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sheet_api.mark_id
    monkeypatch.setattr(
        sheet_api, "mark_id", lambda key, probe=0: 5 if probe == 0 else real(key, probe)
    )
    async with _rig() as rig:
        within = await rig.send(_work("a"), _work("b"))
        later = await rig.send(_work("c"))
        repeats = await rig.send(_work("c"), _work("a"))
        keys = rig.google.keys
    assert {outcome.code for outcome in [*within, *later]} == {None}
    assert {outcome.code for outcome in repeats} == {"duplicate"}
    assert sorted(keys) == ["a", "b", "c"]


async def test_a_row_written_long_ago_is_found_without_its_mark() -> None:
    async with _rig() as rig:
        await rig.send(_work("old"))
        rig.google.marks.clear()
        outcomes = await rig.send(_work("old", attempt=2), _work("new", attempt=2))
        assert await rig.channel.reconcile(_work("old")) == outcomes[0]
        assert await rig.channel.reconcile(_work("never")) is None
        keys = rig.google.keys
    assert [outcome.code for outcome in outcomes] == ["duplicate", None]
    assert sorted(keys) == ["new", "old"]


async def test_marks_never_fill_the_sheet() -> None:
    async with _rig() as rig:
        for start in range(0, 2400, 100):
            outcomes = await rig.send(*[_work(f"{start + n}") for n in range(100)])
            assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}, start
        google = rig.google
        assert len(google.rows) == 2400
        assert MARKS_KEPT <= len(google.marks) < 2 * MARKS_KEPT
        assert mark_id("2399") in google.marks


async def test_marks_that_others_have_filled_the_sheet_with_are_pruned_on_the_way() -> None:
    async with _rig() as rig:
        await rig.send(*[_work(f"{n}") for n in range(100)])
        google = rig.google
        row = google.rows[-1]
        for number in range(1300):
            google.marks[10**9 + number] = (MARK_KEY, "x" * 16, row)
        outcomes = await rig.send(*[_work(f"more {n}") for n in range(100)])
        assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}
        assert len(google.rows) == 200


async def test_what_is_too_much_for_one_request_goes_in_several() -> None:
    async with _rig() as rig:
        outcomes = await rig.send(
            *[_work(f"k{n}", message="긴 글 " * 20_000) for n in range(25)], _work("short")
        )
        assert {outcome.kind for outcome in outcomes} == {OutcomeKind.DELIVERED}
        assert rig.google.updates > 1
        assert max(len(row.cells[6]) for row in rig.google.rows) == 50_000
        assert len(rig.google.rows) == 26


async def test_a_token_that_is_refused_is_renewed_once() -> None:
    async with _rig() as rig:
        await rig.send(_work("a"))
        rig.google.forget_tokens()
        (renewed,) = await rig.send(_work("b"))
        given = rig.google.tokens_given
        usual = rig.google.right

        def no_token_will_do(request: Request) -> Answer:
            if request.path != "/token":
                rig.google.forget_tokens()
            return usual(request)

        rig.google.right = no_token_will_do  # type: ignore[method-assign]
        (refused,) = await rig.send(_work("c"))
        asked = rig.google.tokens_given - given
    assert (renewed.kind, given) == (OutcomeKind.DELIVERED, 2)
    assert (refused.kind, refused.code, asked) == (OutcomeKind.RETRY, "http_401", 1)


async def test_a_login_that_google_refuses_waits_and_spends_nothing() -> None:
    async with _rig() as rig:
        rig.google.always = Answer.of(400, '{"error": "invalid_grant"}')
        (refused,) = await rig.send(_work("a"))
        rig.google.always = Answer.of(503)
        (later,) = await rig.send(_work("a"))
    assert (refused.kind, refused.code) == (OutcomeKind.FAULT, "google_login_refused")
    assert "invalid_grant" in str(refused.detail)
    assert (later.kind, later.code) == (OutcomeKind.RETRY, "google_login_failed")


async def test_one_token_is_fetched_however_many_ask_and_anew_before_its_end() -> None:
    async with FakeSheets(KEY) as google:
        http = make_http(Environment({}))
        clock = [1000.0]
        tokens = Tokens(
            ServiceAccount.read(KEY.file(f"{google.url}/token")),
            "scope",
            http=http,
            clock=lambda: clock[0],
        )
        first = set(await asyncio.gather(*(tokens.token(timeout=20) for _ in range(10))))
        clock[0] += 3599 - 61
        again = await tokens.token(timeout=20)
        clock[0] += 2
        renewed = await tokens.token(timeout=20)
        await http.close()
    assert first == {again}
    assert renewed != again
    assert google.tokens_given == 2


def _said(status: int, word: str) -> Answer:
    return Answer.of(status, json.dumps({"error": {"status": word, "message": "words"}}))


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer.of(429, headers={"Retry-After": "7"}), OutcomeKind.RETRY, "rate_limited"),
        (_said(403, "RESOURCE_EXHAUSTED"), OutcomeKind.RETRY, "rate_limited"),
        (Answer.of(500), OutcomeKind.RETRY, "http_500"),
        (_said(503, "UNAVAILABLE"), OutcomeKind.RETRY, "http_503"),
        (Answer.of(200, "<html>a proxy</html>"), OutcomeKind.RETRY, "bad_answer"),
        (_said(403, "PERMISSION_DENIED"), OutcomeKind.REFUSED, "http_403"),
        (_said(404, "NOT_FOUND"), OutcomeKind.REFUSED, "http_404"),
        (_said(400, "INVALID_ARGUMENT"), OutcomeKind.REFUSED, "http_400"),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: OutcomeKind, code: str) -> None:
    async with _rig() as rig:
        await rig.send(_work("warm"))
        rig.google.spoil(answer)
        outcomes = await rig.send(_work("a"), _work("b"))
        assert len(rig.google.rows) == 1
    assert {(outcome.kind, outcome.code) for outcome in outcomes} == {(kind, code)}
    if code == "http_403":
        assert FakeKey.EMAIL in str(outcomes[0].detail)


async def test_a_sheet_that_is_not_there_is_told() -> None:
    async with _rig(SHEET_NAME="nowhere") as rig:
        (outcome,) = await rig.send(_work("a"))
        assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "no_such_sheet")
        assert "nowhere" in str(await rig.channel.diagnose())
    async with _rig() as rig:
        assert await rig.channel.diagnose() is None
        assert [p.code for p in rig.channel.check(Draft("other", "t", "m", None, {}))] == [
            "unknown_sheet"
        ]


async def test_rows_beside_those_for_another_sheet_are_written() -> None:
    async with _rig() as rig:
        elsewhere = a_work(a_message("other", row_key="x"), 1)
        outcomes = await rig.send(_work("a"), elsewhere, _work("b"))
        assert sorted(rig.google.keys) == ["a", "b"]
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.DELIVERED,
        OutcomeKind.REFUSED,
        OutcomeKind.DELIVERED,
    ]


async def test_texts_that_no_cell_holds_are_made_to_fit() -> None:
    async with _rig() as rig:
        await send_one(rig.channel, a_message(None, message="\ud800\x00 x", data={"user_id": None}))
        (row,) = rig.google.rows
    assert row.cells[6] == "결제 실패\n? x"
    assert row.cells[5] == ""
