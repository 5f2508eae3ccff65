"""Templates of JSON: no value can become structure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allim.hub.templates.approved import Approved
from allim.hub.templates.blocks import Blocks
from allim.hub.templates.sandbox import MissingVariables, RenderingFailed

AS_TEXT = """[
  {"type": "header", "text": {"type": "plain_text", "text": "주문 {{ name }}"}},
  {% for item in items %}
  {"type": "section", "text": {"type": "mrkdwn", "text": "{{ loop.index }}. {{ item }} \\"x\\""},
   "n": {{ loop.index }}, "raw": {{ item|tojson }}}{{ "," if not loop.last }}
  {% endfor %}
]"""
AS_JSON = json.dumps(
    {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": '{{ data["name"] }}!'}}]}
)

words = st.text(max_size=20) | st.sampled_from(
    ['"', '\\', '"}, {"a": "', "\n", "\ue000", "\ue0001:0\ue001", "{{ name }}", "]", "\u2028"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(name=words, items=st.lists(words, min_size=1, max_size=4))
def test_a_value_stays_a_value(name: str, items: list[str]) -> None:
    blocks = Blocks.compile(AS_TEXT).render({"name": name, "items": items})

    assert [set(block) for block in blocks[1:]] == [{"type", "text", "n", "raw"}] * len(items)
    assert blocks[0]["text"]["text"] == f"주문 {name}"
    for at, (block, item) in enumerate(zip(blocks[1:], items, strict=True), 1):
        assert block["text"]["text"] == f'{at}. {item} "x"'
        assert (block["n"], block["raw"]) == (at, item)


def test_json_as_block_kit_builder_gives_it_is_rendered_text_by_text() -> None:
    (block,) = Blocks.compile(AS_JSON).render({"data": {"name": '"kim'}})
    assert block["text"]["text"] == '"kim!'


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[{{ x }}{% if 1 %}]{% endif %}", {"x": "1, 2"}),
        ('["{{ x|tojson }}"{% if 1 %}]{% endif %}', {"x": ", "}),
        ('["{{ x }}"', {"x": "a"}),
        ("{% for i in x %}[{% endfor %}", {"x": [1] * 300}),
    ],
)
def test_what_is_no_json_once_rendered_is_refused(text: str, values: dict[str, Any]) -> None:
    with pytest.raises(RenderingFailed):
        Blocks.compile(text).render(values)


def test_what_is_missing_is_named_in_both_ways() -> None:
    for text in (AS_TEXT, AS_TEXT.replace("{% for", "{% if 1 %}{% endif %}{% for")):
        with pytest.raises(MissingVariables) as missing:
            Blocks.compile(text).render({})
        assert missing.value.names == ("name", "items")


APPROVED = Approved.of("#{name}님, #{item} 주문이 완료되었습니다.\r\n감사합니다")


def fill(values: dict[str, Any], **more: Any) -> tuple[str, dict[str, Any]]:
    usual: dict[str, Any] = {"payload": {}, "own_message": None, "message": None}
    return APPROVED.fill(values, **{**usual, **more})


def test_variables_come_from_the_payload_then_the_data() -> None:
    text, payload = fill({"name": "홍길동", "item": 3}, payload={"variables": {"#{item}": "책"}})

    assert text == "홍길동님, 책 주문이 완료되었습니다.\n감사합니다"
    assert payload["variables"] == {"name": "홍길동", "item": "책"}


def test_what_the_approved_text_needs_is_named() -> None:
    with pytest.raises(MissingVariables, match=r"#\{item\}"):
        fill({"name": "홍길동", "item": ["no", "text"]})


def test_words_of_ones_own_must_be_the_approved_ones() -> None:
    said = "홍길동님, 책 주문이 완료되었습니다.\n감사합니다"
    values = {"name": "홍길동", "item": "책"}
    assert fill(values, own_message=said)[0] == said
    assert fill({}, own_message=said)[0] == said
    assert fill({}, message=said)[0] == said
    assert fill(values, own_message=APPROVED.text)[0] == said
    for wrong in ("홍길동님, 책 주문이 취소되었습니다.\n감사합니다", "", said + "!"):
        with pytest.raises(RenderingFailed, match="from character"):
            fill({}, own_message=wrong)
    with pytest.raises(RenderingFailed):
        fill({"name": "김", "item": "책"}, own_message=said)
    with pytest.raises(RenderingFailed, match="template_text"):
        fill(values, payload={"template_text": "#{name}"})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab#{}", max_size=3), min_size=1, max_size=4), st.text("ab", max_size=3))
def test_a_filled_text_always_matches(literals: list[str], value: str) -> None:
    literals = [each.replace("#", "").replace("{", "").replace("}", "") for each in literals]
    approved = Approved.of("#{x}".join(literals))
    assert approved.matches(value.join(literals))
    assert not approved.matches(value.join(literals) + "c") or literals[-1] == ""
