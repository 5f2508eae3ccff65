"""Text of others cannot command a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.base.visible import visible, visible_json, visible_lines

TURNING = "\u202e\u2066"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\rb\nc", "a\\rb\\nc"),
        ("\x9b2J", "\\x9b2J"),
        (f"abc{TURNING}", "abc\\u202e\\u2066"),
        ("결제 실패 👩‍💻 café — ok", "결제 실패 👩‍💻 café — ok"),
    ],
)
def test_what_commands_a_terminal_is_spelt_and_words_stay(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(st.text(st.characters(categories=("Cc", "Cs", "L", "Po")) | st.sampled_from(TURNING)))
def test_nothing_of_it_is_left(text: str) -> None:
    left = set(map(unicodedata.category, visible(text)))
    assert left.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert set(visible(text)).isdisjoint(TURNING)
    assert set(visible_lines(text)).isdisjoint("\x1b\r\x9b" + TURNING)
    assert visible_lines(text).count("\n") == text.count("\n")
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text
