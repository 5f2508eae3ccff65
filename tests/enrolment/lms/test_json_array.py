from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allim.enrolment.lms.json_array import JsonArray, NotAnArray

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> str:
    indent = draw(st.sampled_from([None, 0, 2]))
    text = json.dumps(draw(st.lists(VALUES, max_size=6)), ensure_ascii=False, indent=indent)
    blank = st.text(" \n\r\t", max_size=2)
    return draw(blank) + text + draw(blank)


def read_in_pieces(text: str, cuts: list[int]) -> list[Any]:
    array, items, begin = JsonArray(), [], 0
    for cut in [*sorted(cuts), len(text)]:
        items += array.feed(text[begin:cut])
        begin = cut
    return items + array.end()


@settings(max_examples=300)
@given(documents(), st.data())
def test_any_pieces_give_the_same_items(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert read_in_pieces(text, cuts) == json.loads(text)


@given(documents())
def test_single_characters_give_the_same_items(text: str) -> None:
    assert read_in_pieces(text, list(range(len(text)))) == json.loads(text)


@settings(max_examples=300)
@given(documents(), st.data())
def test_a_listing_that_was_cut_off_is_never_a_short_one(text: str, data: st.DataObject) -> None:
    whole = text.rstrip()
    end = data.draw(st.integers(0, len(whole) - 1))
    cuts = data.draw(st.lists(st.integers(0, end), max_size=4))
    with pytest.raises(NotAnArray):
        read_in_pieces(whole[:end], cuts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("<!DOCTYPE html><html>", "HTML instead of JSON"),
        ('{"error":"x"}', "an object where an array is expected"),
        ("null", "not a JSON array"),
        ("[1,]", "malformed"),
        ("[1 2]", "malformed"),
        ('["a" "b"]', "malformed"),
        ("[NaN]", "malformed"),
        ("[1]]", "more after its end"),
        ('[{"a":1}]{}', "more after its end"),
        ("[" * 100_000, "nested too deeply"),
        ("[[1,2]", "ends in the middle"),
    ],
)
def test_what_is_no_array_is_said_in_words(text: str, words: str) -> None:
    with pytest.raises(NotAnArray, match=words):
        read_in_pieces(text, [])


def test_an_item_is_bounded() -> None:
    array = JsonArray(item_limit=1000)
    assert array.feed('["short", "') == ["short"]
    with pytest.raises(NotAnArray, match="too long"):
        array.feed("x" * 2000)
