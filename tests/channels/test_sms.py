"""SMS: what is written, what is refused at the door, and what is said without an account."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from tests.channels.solapi_rig import solapi_rig

from allim.base.errors import ConfigurationError, FieldProblem
from allim.base.settings import Environment
from allim.channels import sms
from allim.channels.channel import Draft
from allim.channels.korean_sms import TextKind
from allim.channels.registry import make_http, make_services
from allim.channels.sms import SmsChannel
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, a_message

ADS = {"SOLAPI_AD_SENDER_NAME": "[알림의원]", "SOLAPI_AD_OPT_OUT": "080-123-4567"}


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return solapi_rig(SMS_TIMEOUT_SECONDS="2")


def _channel(**settings: str) -> SmsChannel:
    environment = Environment({"SOLAPI_API_KEY": "k", "SOLAPI_API_SECRET": "s", **settings})
    return sms.make(environment, make_services(make_http(environment)))


def _problems(text: str | None, payload: dict[str, Any] | None = None) -> list[FieldProblem]:
    channel = _channel(SOLAPI_SENDER="02-123-4567")
    return list(channel.check(Draft("01012345678", None, text, None, payload or {})))


async def test_a_text_goes_out_with_its_delivery_key() -> None:
    async with solapi_rig() as rig:
        outcome = await rig.text("+82 10-1234-5678", message="예약이 확정되었습니다", title="알림")
        (sent,) = rig.solapi.texts
        (message,) = rig.solapi.groups[sent.group_id].messages.values()
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert (outcome.provider_id, outcome.provider_message_id) == (sent.group_id, sent.message_id)
    assert {name: sent.body[name] for name in ("to", "from", "type", "text")} == {
        "to": "01012345678",
        "from": "0212345678",
        "type": "SMS",
        "text": "예약이 확정되었습니다",
    }
    assert "subject" not in sent.body
    key = message["customFields"]["deliveryKey"]
    assert key == "0190163d-8694-739b-aea5-966c26f8ad91:4711"
    assert len(key) <= 100


@pytest.mark.parametrize(
    ("text", "payload", "kind", "subject"),
    [
        ("가" * 45, {}, "SMS", None),
        ("a" * 90, {}, "SMS", None),
        ("가" * 45 + "a", {}, "LMS", "제목"),
        ("짧다", {"subject": "따로"}, "LMS", "따로"),
        ("그림", {"image_id": "IM1"}, "MMS", "제목"),
    ],
)
async def test_the_kind_follows_from_length_and_picture(
    text: str, payload: dict[str, str], kind: str, subject: str | None
) -> None:
    async with solapi_rig() as rig:
        await rig.text(message=text, title="제목", payload=payload)
        assert isinstance(rig.channel, SmsChannel)
        priced = rig.channel.kind(a_message("01012345678", message=text, payload=payload))
        (sent,) = rig.solapi.texts
    assert (sent.body["type"], sent.body.get("subject")) == (kind, subject)
    assert sent.body.get("imageId") == payload.get("image_id")
    assert priced is TextKind(kind)


async def test_a_title_becomes_a_subject_as_far_as_it_can() -> None:
    async with solapi_rig() as rig:
        await rig.text("010-0000-0001", message="가" * 50, title="가" * 30)
        await rig.text("010-0000-0002", message="가" * 50, title="😀")
        cut, left_out = (text.body.get("subject") for text in rig.solapi.texts)
    assert (cut, left_out) == ("가" * 20, None)


async def test_letters_of_a_mac_are_composed() -> None:
    async with solapi_rig() as rig:
        await rig.text(message="한글")
        assert await rig.received() == ["한글"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("감사합니다😀", "'😀' (U+1F600 GRINNING FACE) at character 6"),
        ("10:00–11:00", "'–' (U+2013 EN DASH) at character 6, write '-'"),
        ("a\u00a0b", "(U+00A0 NO-BREAK SPACE) at character 2, write a space"),
        ("a\u200bb", "(U+200B ZERO WIDTH SPACE) at character 2, write nothing"),
        ("똠방각하", "'똠' (U+B620 HANGUL SYLLABLE DDOM) at character 1"),
        ("힣", "'힣' (U+D7A3 HANGUL SYLLABLE HIH) at character 1"),
        ("a\x07b", "(U+0007 control character) at character 2"),
    ],
)
def test_a_character_that_cannot_be_sent_is_named_with_its_place(text: str, words: str) -> None:
    (problem,) = _problems(text)
    assert (problem.place, problem.code) == ("/message", "unsendable_character")
    assert words in problem.message


def test_many_of_them_are_named_in_short() -> None:
    (problem,) = _problems("😀" * 9)
    assert problem.message.endswith("; and 4 more")


@pytest.mark.parametrize(
    ("text", "payload", "expected"),
    [
        (None, {}, ("/message", "missing")),
        ("  \n", {}, ("/message", "missing")),
        ("가" * 1001, {}, ("/message", "too_long")),
        ("a", {"subject": "가" * 21}, ("/payload/subject", "too_long")),
        ("a", {"subject": "😀"}, ("/payload/subject", "unsendable_character")),
        ("a", {"text": "😀"}, ("/payload/text", "unsendable_character")),
        ("a", {"text": 7}, ("/payload/text", "invalid")),
        ("a", {"image_id": []}, ("/payload/image_id", "invalid")),
        ("a", {"sender": "12"}, ("/payload/sender", "invalid_sender")),
        ("#{name}님", {"variables": {"date": "1"}}, ("/payload/variables/name", "missing")),
        ("a", {"variables": ["x"]}, ("/payload/variables", "invalid")),
        ("a", {"advertising": True}, ("/payload/advertising", "advertising_not_set_up")),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    text: str | None, payload: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert [(p.place, p.code) for p in _problems(text, payload)] == [expected]


def test_a_text_needs_a_sender_of_somebody() -> None:
    draft = Draft("01012345678", None, "a", None, {})
    (problem,) = _channel().check(draft)
    assert (problem.place, problem.code) == ("/payload/sender", "missing")
    own = Draft("01012345678", None, "a", None, {"sender": "1588-1234"})
    assert list(_channel().check(own)) == []


async def test_variables_are_put_in() -> None:
    variables = {"#{name}": "홍길동", "time": "10:00"}
    async with solapi_rig() as rig:
        await rig.text(message="#{name}님, #{time}", payload={"variables": variables})
        assert await rig.received() == ["홍길동님, 10:00"]


@pytest.mark.parametrize("text", ["봄맞이 할인", "(광고)[알림의원]\n봄맞이 할인"])
async def test_an_advertisement_has_its_marks_once(text: str) -> None:
    async with solapi_rig(**ADS) as rig:
        await rig.text("010-0000-0001", message=text, payload={"advertising": True})
        (first,) = await rig.received()
        await rig.text("010-0000-0002", message=first)
        assert (await rig.received())[1] == first
    assert first == "(광고)[알림의원]\n봄맞이 할인\n무료수신거부 080-123-4567"


async def test_without_a_key_success_says_that_nothing_was_called() -> None:
    async with solapi_rig(SOLAPI_API_KEY="", SOLAPI_API_SECRET="") as rig:
        outcome = await rig.text()
        assert rig.channel.configured().mode == "not_configured"
        assert await rig.channel.diagnose() is None
        assert rig.solapi.calls == []
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


@pytest.mark.parametrize("switch", [{"SOLAPI_MOCK": "true"}, {"DEBUG": "True"}])
async def test_a_mock_prints_and_calls_nobody(switch: dict[str, str]) -> None:
    async with solapi_rig(**switch) as rig:
        outcome = await rig.text(message="안녕하세요")
        assert rig.channel.configured().mode == "mock"
        assert rig.solapi.calls == []
        (printed,) = rig.printed
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "mock")
    assert json.loads(printed)["text"] == "안녕하세요"
    assert '\n  "to": "01012345678"' in printed


async def test_another_programs_debug_is_no_mock() -> None:
    async with solapi_rig(DEBUG="express:*") as rig:
        assert rig.channel.configured().mode == "live"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SOLAPI_API_SECRET": ""}, "needed together"),
        ({"SOLAPI_SENDER": "abc"}, "SOLAPI_SENDER"),
        ({"SOLAPI_BASE_URL": "ftp://x"}, "SOLAPI_BASE_URL"),
        ({"SOLAPI_AD_OPT_OUT": "010-1234-5678"}, "SOLAPI_AD_OPT_OUT"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _channel(**settings)
