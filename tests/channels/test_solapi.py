"""The group API: every doubt is asked for, a bad number sinks nobody, every code has its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.channels.solapi_rig import SolapiRig, solapi_rig

from allim.base.errors import DatabaseUnavailable
from allim.base.settings import Environment
from allim.channels.channel import Message
from allim.channels.http.client import HttpClient
from allim.channels.registry import make_http
from allim.channels.solapi import codes
from allim.channels.solapi.answers import read_messages, read_registration
from allim.channels.solapi.client import Credentials, SolapiClient, SolapiFailure, Stage
from allim.channels.solapi.codes import Verdict, suppresses, verdict_of
from allim.channels.solapi.letters import delivery_of
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.work import Work
from allim.testing.channels import a_message, a_work
from allim.testing.solapi import KEY, SECRET, FakeSolapi, Fault, Step

NOON = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
FACTS: Mapping[Verdict, Sequence[str]] = {
    Verdict.DELIVERED: ["4000"],
    Verdict.ON_ITS_WAY: ["2000", "3000"],
    Verdict.RETRY: ["1024", "2024", "3012", "3024", "3053"],
    Verdict.LATER: ["3040", "3041", "3043", "3046", "3056", "3057"],
    Verdict.PERMANENT: [
        *("1010", "1019", "1025", "1029", "1031", "1034", "1040", "1059"),
        *("3010", "3032", "3047", "3050", "9999", ""),
    ],
    Verdict.NO_BALANCE: ["1030", "2230"],
    Verdict.BAD_SENDER: ["1062", "2062", "3013", "3059"],
    Verdict.SUPPRESS: ["1060", "1061", "1064", "2060", "3061", "3064", "3054", "3055"],
    Verdict.NOT_ON_KAKAO: ["3104", "3107"],
    Verdict.BAD_TEMPLATE: ["3101", "3103", "3105", "3106"],
    Verdict.IN_THE_MORNING: ["3108"],
    Verdict.UNCERTAIN: ["3005"],
}
KINDS = {
    Verdict.DELIVERED: OutcomeKind.DELIVERED,
    Verdict.ON_ITS_WAY: OutcomeKind.ACCEPTED,
    Verdict.UNCERTAIN: OutcomeKind.ACCEPTED,
    Verdict.RETRY: OutcomeKind.RETRY,
    Verdict.LATER: OutcomeKind.RETRY,
    Verdict.IN_THE_MORNING: OutcomeKind.SNOOZED,
    Verdict.NO_BALANCE: OutcomeKind.SNOOZED,
}
EVERY_CODE = [(verdict, code) for verdict, listed in FACTS.items() for code in listed]
QUICK = {"SMS_TIMEOUT_SECONDS": "0.5"}


def _works(count: int, **parts: Any) -> list[Work[Message]]:
    """Works to as many numbers."""
    return [
        a_work(a_message(f"010-0000-{number:04d}", delivery_id=number, **parts), number)
        for number in range(1, count + 1)
    ]


def _again(work: Work[Message], rig: SolapiRig) -> Work[Message]:
    """The same work as its next claim, or a rescue, finds it: with the id stored last."""
    ids = [group_id for works, group_id in rig.recorded if work.id in works]
    message = replace(work.content, provider_id=ids[-1] if ids else None)
    return a_work(message, work.id)


async def _until_known(rig: SolapiRig, work: Work[Message], *, doubtful: bool = False) -> Outcome:
    """What the engine does: send what was certainly not sent, ask for what is in doubt."""
    for _ in range(30):
        work = _again(work, rig)
        if doubtful:
            outcome = await rig.channel.reconcile(work)
        else:
            (outcome,) = await rig.send(work)
        if outcome is None or outcome.kind in (OutcomeKind.RETRY, OutcomeKind.SNOOZED):
            doubtful = False
        elif outcome.kind is OutcomeKind.UNKNOWN:
            doubtful = True
        else:
            return outcome
    raise AssertionError(f"no end in sight: {outcome}")


# Codes


@pytest.mark.parametrize(("verdict", "code"), EVERY_CODE)
def test_every_code_has_its_place(verdict: Verdict, code: str) -> None:
    assert verdict_of(code) is verdict
    outcome = codes.outcome_of(code, "말", NOON)
    assert outcome.kind is KINDS.get(verdict, OutcomeKind.REFUSED)
    if outcome.kind not in (OutcomeKind.DELIVERED, OutcomeKind.ACCEPTED):
        assert outcome.code == f"solapi_{code}"
        assert outcome.detail == f"Solapi says {code}: 말"
    assert suppresses(f"solapi_{code}") == (verdict is Verdict.SUPPRESS)
    assert not suppresses(code)
    if verdict is Verdict.IN_THE_MORNING:
        assert outcome.retry_after == 20 * 3600


@pytest.mark.parametrize("verdict", list(FACTS))
async def test_a_code_that_is_given_at_once_stops_that_message_only(verdict: Verdict) -> None:
    if verdict in (Verdict.DELIVERED, Verdict.ON_ITS_WAY, Verdict.UNCERTAIN):
        return
    async with solapi_rig() as rig:
        rig.solapi.refusals["01000000002"] = FACTS[verdict][0]
        with capture_logs() as logs:
            outcomes = await rig.send(*_works(3))
        sent = sorted(text.to for text in rig.solapi.texts)
    assert sent == ["01000000001", "01000000003"]
    kinds = [outcome.kind for outcome in outcomes]
    assert (kinds[0], kinds[2]) == (OutcomeKind.ACCEPTED, OutcomeKind.ACCEPTED)
    assert kinds[1] is KINDS.get(verdict, OutcomeKind.REFUSED)
    alarmed = any(line["event"] == "solapi_alarm" for line in logs)
    assert alarmed == (verdict in codes.ALARMING)


async def test_an_empty_account_pauses_what_comes_after() -> None:
    async with solapi_rig() as rig:
        rig.solapi.balance = 0
        with capture_logs() as logs:
            first = await rig.send(*_works(2))
        calls = len(rig.solapi.calls)
        second = await rig.send(*_works(2))
        assert "0 won" in (await rig.channel.diagnose() or "")
        assert len(rig.solapi.calls) == calls + 1
        assert rig.solapi.texts == []
        assert {group.status for group in rig.solapi.groups.values()} == {"DELETED"}
    assert [outcome.code for outcome in first] == ["solapi_balance"] * 2
    assert [outcome.code for outcome in second] == ["solapi_paused"] * 2
    assert {outcome.kind for outcome in [*first, *second]} == {OutcomeKind.SNOOZED}
    assert any(line["event"] == "solapi_alarm" for line in logs)


# Groups


async def test_a_batch_shares_a_group_and_its_id_is_stored_first() -> None:
    async with solapi_rig() as rig:
        outcomes = await rig.send(*_works(100))
        assert [rig.solapi.count(step) for step in (Step.CREATE, Step.ADD, Step.SEND)] == [1, 1, 1]
        ((ids, group_id),) = rig.recorded
        assert rig.solapi.calls[0].body == {"allowDuplicates": True}
    assert ids == list(range(1, 101))
    assert {outcome.provider_id for outcome in outcomes} == {group_id}
    assert len({outcome.provider_message_id for outcome in outcomes}) == 100


async def test_a_number_stands_once_in_a_group() -> None:
    works = [a_work(a_message("01012345678", delivery_id=n), n) for n in range(1, 13)]
    async with solapi_rig() as rig:
        outcomes = await rig.send(*works, *_works(3)[1:])
        groups = [[m["to"] for m in g.messages.values()] for g in rig.solapi.groups.values()]
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}
    assert len(groups) == 12
    assert all(len(set(numbers)) == len(numbers) for numbers in groups)


async def test_a_batch_that_is_refused_whole_is_narrowed_down() -> None:
    async with solapi_rig() as rig:
        refused = Fault.status(400, "ValidationError")
        # The whole, its second half, and of that the second.
        rig.solapi.fail(Step.ADD, refused)
        outcomes = await rig.send(*_works(4))
        assert sorted(text.to[-1] for text in rig.solapi.texts) == ["1", "2", "3", "4"]
        statuses = [group.status for group in rig.solapi.groups.values()]
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}
    assert statuses == ["DELETED", "SENDING", "SENDING"]


async def test_of_a_batch_that_is_refused_only_the_bad_one_dies() -> None:
    async with solapi_rig() as rig:
        refused = Fault.status(400, "ValidationError")
        rig.solapi.fail(Step.ADD, refused, refused)
        outcomes = await rig.send(*_works(2))
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.REFUSED, OutcomeKind.ACCEPTED]


async def test_what_is_not_ours_any_more_is_not_sent() -> None:
    async with solapi_rig() as rig:
        rig.ours = False
        outcomes = await rig.send(*_works(2))
        assert rig.solapi.count(Step.ADD) == 0
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.SNOOZED}


async def test_without_a_database_nothing_is_sent_and_nothing_spent() -> None:
    async with solapi_rig() as rig:

        async def gone(works: Sequence[Work[Message]], provider_id: str) -> bool:
            raise DatabaseUnavailable("gone")

        (outcome,) = await rig.channel.send(_works(1), gone)
        assert rig.solapi.count(Step.ADD) == 0
    assert outcome.kind is OutcomeKind.SNOOZED


async def test_what_is_cancelled_at_the_last_moment_is_taken_out() -> None:
    async with solapi_rig() as rig:

        async def cancelled(works: Sequence[Work[Message]]) -> Mapping[int, Outcome]:
            assert rig.solapi.count(Step.ADD) == 1
            return {2: Outcome.skip("reservation_cancelled")}

        rig.channel.check_again(cancelled)
        outcomes = await rig.send(*_works(3))
        assert sorted(text.to[-1] for text in rig.solapi.texts) == ["1", "3"]
    assert [o.kind for o in outcomes] == [
        OutcomeKind.ACCEPTED,
        OutcomeKind.SKIPPED,
        OutcomeKind.ACCEPTED,
    ]


@pytest.mark.parametrize("breaks", ["check", "removal"])
async def test_a_last_check_that_fails_sends_nothing(breaks: str) -> None:
    async with solapi_rig() as rig:

        async def check(works: Sequence[Work[Message]]) -> Mapping[int, Outcome]:
            if breaks == "check":
                raise ZeroDivisionError
            rig.solapi.fail(Step.REMOVE, Fault.cut())
            return {2: Outcome.skip("reservation_cancelled")}

        rig.channel.check_again(check)
        outcomes = await rig.send(*_works(3))
        assert rig.solapi.texts == []
        assert {group.status for group in rig.solapi.groups.values()} == {"DELETED"}
    skipped = {o.kind for o in outcomes} - {OutcomeKind.SNOOZED}
    assert skipped == (set() if breaks == "check" else {OutcomeKind.SKIPPED})


# Doubt

FAULTS = {
    "hang": Fault.hang(),
    "hang, done": Fault.hang(done=True),
    "cut": Fault.cut(),
    "cut, done": Fault.cut(done=True),
    "html": Fault.html(),
    "html, done": Fault.html(done=True),
    "500": Fault.status(500),
    "500, done": Fault.status(500, done=True),
    "duplicate, done": Fault.status(403, "DuplicatedSignature", done=True),
    "429": Fault.status(429, "TooManyRequests", headers={"Retry-After": "7"}),
    "late": Fault.late(),
}
IRREVOCABLE = (Step.CREATE, Step.ADD, Step.SEND)


@pytest.mark.parametrize("step", IRREVOCABLE)
@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_breaks_the_text_goes_out_once(step: Step, name: str) -> None:
    async with solapi_rig(**QUICK) as rig:
        rig.solapi.fail(step, FAULTS[name])
        outcome = await _until_known(rig, _works(1)[0])
        rig.solapi.release()
        assert outcome.kind is OutcomeKind.ACCEPTED
        assert list(rig.solapi.times_out().values()) == [1]


async def test_a_send_whose_end_was_not_seen_is_asked_for_at_once() -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(Step.SEND, Fault.cut(done=True))
        outcomes = await rig.send(*_works(2))
        assert rig.solapi.count(Step.SEND) == 1
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.ACCEPTED}


async def test_a_send_that_came_too_late_finds_the_group_deleted() -> None:
    async with solapi_rig(SMS_TIMEOUT_SECONDS="4") as rig:
        rig.solapi.fail(Step.SEND, Fault.late())
        (outcome,) = await rig.send(_works(1)[0])
        rig.solapi.release()
        assert rig.solapi.texts == []
        assert {group.status for group in rig.solapi.groups.values()} == {"DELETED"}
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "timeout")


async def test_a_group_whose_deletion_is_not_confirmed_may_still_go_out() -> None:
    async with solapi_rig(SMS_TIMEOUT_SECONDS="2") as rig:
        rig.solapi.fail(Step.SEND, Fault.late())
        rig.solapi.fail(Step.DELETE, *[Fault.status(503)] * 4)
        (work,) = _works(1)
        (outcome,) = await rig.send(work)
        assert outcome.kind is OutcomeKind.UNKNOWN
        rig.solapi.release()
        known = await _until_known(rig, work, doubtful=True)
        assert known.kind is OutcomeKind.ACCEPTED
        assert list(rig.solapi.times_out().values()) == [1]


async def test_while_nobody_answers_nothing_is_decided() -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(Step.SEND, Fault.cut(done=True))
        rig.solapi.fail(Step.GROUP, *[Fault.status(503)] * 2)
        (work,) = _works(1)
        (outcome,) = await rig.send(work)
        asked = [await rig.channel.reconcile(_again(work, rig)) for _ in range(2)]
    kinds = [one and one.kind for one in (outcome, *asked)]
    assert kinds == [OutcomeKind.UNKNOWN, OutcomeKind.UNKNOWN, OutcomeKind.ACCEPTED]


async def test_whoever_broke_off_the_call_itself_can_ask_for_its_group() -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(Step.SEND, Fault.hang(done=True))
        (work,) = _works(1)
        sending = asyncio.create_task(rig.send(work))
        await rig.solapi.called(Step.SEND)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        outcome = await rig.channel.reconcile(work)
    assert outcome is not None
    assert outcome.kind is OutcomeKind.ACCEPTED


async def test_a_key_that_is_revoked_before_the_send_leaves_no_doubt() -> None:
    async with solapi_rig() as rig:
        refused = Fault.status(403, "InvalidAPIKey")
        rig.solapi.fail(Step.SEND, refused)
        rig.solapi.fail(Step.GROUP, refused)
        rig.solapi.fail(Step.DELETE, refused)
        (outcome,) = await rig.send(_works(1)[0])
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "InvalidAPIKey")


@pytest.mark.parametrize("code", ["GroupInProcessing", "AlreadySent", "ScheduledGroup"])
async def test_sent_before_is_sent(code: str) -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(Step.SEND, Fault.status(409, code, done=True))
        (outcome,) = await rig.send(_works(1)[0])
        assert rig.solapi.count(Step.GROUP) == 0
    assert outcome.kind is OutcomeKind.ACCEPTED


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault.status(403, "InvalidAPIKey"), OutcomeKind.REFUSED, "InvalidAPIKey"),
        (Fault.status(403, "SignatureDoesNotMatch"), OutcomeKind.REFUSED, "SignatureDoesNotMatch"),
        (Fault.status(403, "RequestTimeTooSkewed"), OutcomeKind.SNOOZED, "clock_skew"),
        (Fault.status(404, "ResourceNotFound"), OutcomeKind.REFUSED, "ResourceNotFound"),
        (Fault.status(413), OutcomeKind.REFUSED, "InternalError"),
        (Fault.status(429, "Slow"), OutcomeKind.RETRY, "Slow"),
        (Fault.status(503, "Down"), OutcomeKind.RETRY, "Down"),
        (Fault.status(402, "NotEnoughBalance"), OutcomeKind.SNOOZED, "solapi_balance"),
        (Fault.html(), OutcomeKind.RETRY, "bad_answer"),
    ],
)
@pytest.mark.parametrize("step", [Step.CREATE, Step.ADD, Step.SEND])
async def test_every_answer_of_a_call_has_its_meaning(
    step: Step, fault: Fault, kind: OutcomeKind, code: str
) -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(step, fault)
        with capture_logs() as logs:
            (outcome,) = await rig.send(_works(1)[0])
        assert rig.solapi.texts == []
    assert (outcome.kind, outcome.code) == (kind, code)
    alarmed = {line["event"] for line in logs if line["log_level"] == "error"}
    assert bool(alarmed) == (
        code in {"InvalidAPIKey", "SignatureDoesNotMatch", "clock_skew", "solapi_balance"}
    )


async def test_a_pause_that_is_asked_for_is_kept() -> None:
    async with solapi_rig() as rig:
        rig.solapi.fail(Step.CREATE, FAULTS["429"])
        (outcome,) = await rig.send(_works(1)[0])
    assert (outcome.http_status, outcome.retry_after) == (429, 7.0)


async def test_a_retry_looks_what_became_of_the_group_before() -> None:
    async with solapi_rig() as rig:
        (work,) = _works(1)
        await rig.send(work)
        (again,) = await rig.send(_again(work, rig))
        assert again.kind is OutcomeKind.ACCEPTED
        assert len(rig.solapi.texts) == 1
        rig.solapi.report("3012")
        (anew,) = await rig.send(_again(work, rig))
        assert anew.kind is OutcomeKind.ACCEPTED
        assert len(rig.solapi.texts) == 2


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (None, OutcomeKind.ACCEPTED),
        ("4000", OutcomeKind.DELIVERED),
        ("3054", OutcomeKind.REFUSED),
        ("3012", OutcomeKind.RETRY),
    ],
)
async def test_reconcile_tells_what_was_reported(report: str | None, kind: OutcomeKind) -> None:
    async with solapi_rig() as rig:
        (work, other) = _works(2)
        await rig.send(work)
        if report:
            rig.solapi.report(report)
        outcome = await rig.channel.reconcile(_again(work, rig))
        stranger = replace(other.content, provider_id=rig.recorded[0][1])
        assert await rig.channel.reconcile(a_work(stranger, 2)) is None
    assert outcome is not None
    assert outcome.kind is kind
    assert outcome.provider_id == rig.recorded[0][1]


async def test_what_has_no_group_was_never_sent() -> None:
    async with solapi_rig() as rig:
        assert await rig.channel.reconcile(_works(1)[0]) is None
        assert rig.solapi.calls == []
    async with solapi_rig(SMS_AT_MOST_ONCE="true") as rig:
        outcome = await rig.channel.reconcile(_works(1)[0])
        assert outcome is not None
        assert outcome.kind is OutcomeKind.SNOOZED


async def test_a_group_that_is_nowhere_is_no_proof_of_anything() -> None:
    async with solapi_rig() as rig:
        work = a_work(a_message("01012345678", provider_id="G-of-another-account"))
        outcome = await rig.channel.reconcile(work)
    assert outcome is not None
    assert outcome.kind is OutcomeKind.UNKNOWN


async def test_one_question_serves_a_whole_batch() -> None:
    async with solapi_rig() as rig:
        works = _works(50)
        await rig.send(*works)
        outcomes = await asyncio.gather(
            *(rig.channel.reconcile(_again(work, rig)) for work in works)
        )
        assert rig.solapi.count(Step.GROUP) <= 2
    assert {outcome.kind for outcome in outcomes if outcome} == {OutcomeKind.ACCEPTED}


faulty = st.sampled_from([FAULTS[name] for name in FAULTS if not name.startswith("hang")])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=st.lists(st.tuples(st.sampled_from(list(Step)), faulty), max_size=8))
async def test_no_sequence_of_faults_doubles_or_loses_a_text(
    plan: list[tuple[Step, Fault]],
) -> None:
    async with solapi_rig(**QUICK) as rig:
        for step, fault in plan:
            rig.solapi.fail(step, fault)
        works = _works(2)
        for work in works:
            outcome = await _until_known(rig, work)
            assert outcome.kind is OutcomeKind.ACCEPTED
            rig.solapi.release()
        assert sorted(rig.solapi.times_out().values()) == [1, 1]


# The client and its answers


def _client(http: HttpClient, solapi: FakeSolapi, **more: Any) -> SolapiClient:
    return SolapiClient(http, solapi.url, Credentials(KEY, more.pop("secret", SECRET)), **more)


async def test_the_fake_checks_signatures_as_solapi_does() -> None:
    http = make_http(Environment({}))
    async with FakeSolapi() as solapi:
        for client, code in (
            (_client(http, solapi, secret="wrong"), "SignatureDoesNotMatch"),
            (_client(http, solapi, now=lambda: time.time() - 1000), "RequestTimeTooSkewed"),
        ):
            with pytest.raises(SolapiFailure) as failure:
                await client.create_group(timeout=10)
            assert failure.value.code == code
        well = _client(http, solapi)
        assert len({await well.create_group(timeout=10) for _ in range(3)}) == 3
        assert await well.balance(timeout=10) == 100_000
        await http.close()


async def test_all_pages_of_a_group_are_read() -> None:
    async with solapi_rig() as rig:
        rig.solapi.page = 7
        await rig.send(*_works(30))
        assert rig.channel.client is not None
        found = await rig.channel.client.messages(rig.recorded[0][1], timeout=10)
    assert sorted(delivery_of(message.delivery_key) or 0 for message in found) == [*range(1, 31)]


async def test_answers_in_the_other_shape_are_read_too() -> None:
    told = read_registration(
        {
            "groupInfo": {"groupId": "G"},
            "failedMessageList": [{"to": "010", "statusCode": "1062", "statusMessage": "미등록"}],
            "messageList": [{"to": "011", "statusCode": 2000, "messageId": "M"}],
        }
    )
    assert [(message.to, message.code) for message in told] == [("011", "2000"), ("010", "1062")]
    assert read_registration({"resultList": None}) == []
    assert read_messages({"messageList": "?"}) == (None, None)
    assert read_messages({"messageList": {"M": {"statusCode": "4000"}, "N": 1}, "nextKey": ""}) == (
        read_registration({"resultList": [{"messageId": "M", "statusCode": "4000"}]}),
        None,
    )


async def test_a_path_is_never_more_than_an_id() -> None:
    async with solapi_rig() as rig:
        assert rig.channel.client is not None
        with pytest.raises(SolapiFailure) as failure:
            await rig.channel.client.group("../../cash/v1/balance", timeout=10)
    assert failure.value.stage is Stage.NEVER
