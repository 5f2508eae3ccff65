"""ALIMTALK: template, variables and buttons; never a substitute of Solapi's."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from tests.channels.solapi_rig import KAKAO, solapi_rig

from allim.base.settings import Environment
from allim.channels import alimtalk
from allim.channels.channel import Draft
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, a_message, a_work

BUTTON = {"buttonName": "예약 보기", "buttonType": "WL", "linkMo": "https://allim.test/r/1"}
TEMPLATE = "#{name}님, #{date} 예약이 완료되었습니다."


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return solapi_rig("ALIMTALK", ALIMTALK_TIMEOUT_SECONDS="2")


def _problems(
    text: str | None, payload: dict[str, Any], settings: dict[str, str] | None = None
) -> list[tuple[str, str]]:
    usual = {"SOLAPI_API_KEY": "k", "SOLAPI_API_SECRET": "s", **KAKAO}
    environment = Environment({**usual, **(settings or {})})
    channel = alimtalk.make(environment, make_services(make_http(environment)))
    found = channel.check(Draft("01012345678", None, text, None, payload))
    return [(problem.place, problem.code) for problem in found]


async def test_with_variables_the_template_speaks() -> None:
    payload = {"variables": {"name": "홍길동", "#{date}": "3월 2일"}, "buttons": [BUTTON]}
    async with solapi_rig("ALIMTALK") as rig:
        outcome = await rig.text(message="문자로 갈 내용", payload=payload)
        (sent,) = rig.solapi.texts
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert "text" not in sent.body, "the message is for the fallback"
    assert (sent.body["type"], sent.body["to"]) == ("ATA", "01012345678")
    assert sent.body["kakaoOptions"] == {
        "pfId": "KA01PF0001",
        "templateId": "KA01TP0001",
        "disableSms": True,
        "variables": {"#{name}": "홍길동", "#{date}": "3월 2일"},
        "buttons": [BUTTON],
    }


@pytest.mark.parametrize("place", ["message", "payload"])
async def test_a_text_of_the_template_is_filled_in(place: str) -> None:
    payload: dict[str, Any] = {"variables": {"name": "홍길동", "date": "3월 2일"}}
    message = TEMPLATE
    if place == "payload":
        payload["template_text"], message = TEMPLATE, "다른 글"
    async with solapi_rig("ALIMTALK") as rig:
        await rig.text(message=message, payload=payload)
        assert await rig.received() == ["홍길동님, 3월 2일 예약이 완료되었습니다."]


async def test_a_delivery_may_name_its_own_channel_and_template() -> None:
    own = {"pf_id": "KA01PF0002", "template_id": "KA01TP0002", "sender": "1588-1234"}
    async with solapi_rig("ALIMTALK") as rig:
        await rig.text("010-0000-0001", payload=own)
        await rig.send(
            a_work(a_message("010-0000-0002", template_code="KA01TP0003", payload=own), 2)
        )
        bodies = [text.body for text in rig.solapi.texts]
    assert [body["kakaoOptions"]["templateId"] for body in bodies] == ["KA01TP0002", "KA01TP0003"]
    assert {body["kakaoOptions"]["pfId"] for body in bodies} == {"KA01PF0002"}
    assert {body["from"] for body in bodies} == {"15881234"}


@pytest.mark.parametrize(
    ("text", "payload", "expected"),
    [
        (None, {}, [("/message", "missing")]),
        ("가" * 1001, {}, [("/message", "too_long")]),
        (
            "#{a}",
            {"variables": {"a": "가" * 1001}},
            [("/payload/variables/a", "too_long"), ("/message", "too_long")],
        ),
        (
            TEMPLATE,
            {"variables": {"name": "홍길동"}},
            [("/payload/variables/date", "missing")],
        ),
        (
            TEMPLATE,
            {},
            [("/payload/variables/name", "missing"), ("/payload/variables/date", "missing")],
        ),
        ("a", {"variables": {"x": [1]}}, [("/payload/variables/x", "invalid")]),
        ("a", {"advertising": True}, [("/payload/advertising", "not_allowed")]),
        ("a", {"buttons": [BUTTON] * 6}, [("/payload/buttons", "invalid")]),
        ("a", {"buttons": "x"}, [("/payload/buttons", "invalid")]),
        ("a", {"buttons": [7]}, [("/payload/buttons/0", "invalid")]),
        (
            "a",
            {"buttons": [{**BUTTON, "buttonName": "가" * 15}]},
            [("/payload/buttons/0/buttonName", "invalid")],
        ),
        (
            "a",
            {"buttons": [BUTTON, {"buttonName": "a", "buttonType": "AL", "linkAnd": "app://"}]},
            [("/payload/buttons/1/linkIos", "missing")],
        ),
        (
            "a",
            {"buttons": [{"buttonName": "a", "buttonType": "??"}]},
            [("/payload/buttons/0/buttonType", "invalid")],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    text: str | None, payload: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert _problems(text, payload) == expected


def test_channel_and_template_are_needed_where_it_is_sent() -> None:
    nothing = dict.fromkeys(KAKAO, "")
    assert _problems("a", {}, nothing) == [
        ("/payload/pf_id", "missing"),
        ("/template_code", "missing"),
    ]
    assert _problems("a", {}, {**nothing, "SOLAPI_MOCK": "true"}) == []


@pytest.mark.parametrize("code", ["3104", "3107", "3101"])
async def test_who_is_not_on_kakao_is_refused_so_that_the_fallback_runs(code: str) -> None:
    async with solapi_rig("ALIMTALK") as rig:
        rig.solapi.refusals["01012345678"] = code
        outcome = await rig.text()
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, f"solapi_{code}")
