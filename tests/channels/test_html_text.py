"""Words of HTML, however broken it is, in linear time."""

from __future__ import annotations

import time

import pytest

from allim.channels.html_text import text_of_html

BROKEN = ["<a ", "<", "</", "<!", "<?", "<!--", "<a b='", '<a b="', "<![CDATA[", "<![CDATA[>", "&"]
NESTED = ["<a>x", "<a href='https://s.kr'>x", "<p>", "<title>"]


@pytest.mark.parametrize("part", BROKEN)
@pytest.mark.parametrize("beginning", ["", "<title>", "<script>"])
def test_broken_html_is_read_in_linear_time(beginning: str, part: str) -> None:
    html = beginning + part * (100_000 // len(part))
    began = time.process_time()
    text_of_html(html)
    # A quadratic reader takes minutes.
    assert time.process_time() - began < 10


@pytest.mark.parametrize("part", NESTED)
def test_what_is_nested_is_read_in_linear_time(part: str) -> None:
    count = 400_000 // len(part)
    began = time.process_time()
    text_of_html(part * count + f"</{part[1:].partition('>')[0].split()[0]}>" * count)
    # A quadratic reader takes half a minute.
    assert time.process_time() - began < 10


def test_what_is_whole_is_read_as_it_was() -> None:
    html = (
        "<!DOCTYPE html><!--[if mso]><b>no</b><![endif]--><p>1 < 2 &amp; 3 > 2</p>"
        "<p>a<br/>b <a href='https://s.kr/?a=1&b=2'>c</a></p>"
    )
    assert text_of_html(html) == "1 < 2 & 3 > 2\na\nb c (https://s.kr/?a=1&b=2)"


def test_a_link_that_is_its_own_words_stands_once() -> None:
    html = "<a href='https://s.kr'>https://s.kr</a> <a href='https://b.kr'>b<a href='/c'> c</a> d"
    assert text_of_html(html) == "https://s.kr b (https://b.kr) c d"
