"""Words of HTML, however broken it is, in linear time."""

from __future__ import annotations

import time

import pytest

from allim.channels.mail import text_of_html
from allim.ingest.notify_call import text_of

BROKEN = ["<a ", "<", "</", "<!", "<?", "<!--", "<a b='", '<a b="', "<![CDATA[", "<![CDATA[>", "&"]


@pytest.mark.parametrize("part", BROKEN)
@pytest.mark.parametrize("beginning", ["", "<title>", "<script>"])
def test_broken_html_is_read_in_linear_time(beginning: str, part: str) -> None:
    html = beginning + part * (100_000 // len(part))
    began = time.process_time()
    text_of(html)
    text_of_html(html)
    # A quadratic reader takes minutes.
    assert time.process_time() - began < 10


def test_what_is_whole_is_read_as_it_was() -> None:
    html = (
        "<!DOCTYPE html><!--[if mso]><b>no</b><![endif]--><p>1 < 2 &amp; 3 > 2</p>"
        "<p>a<br/>b <a href='https://s.kr/?a=1&b=2'>c</a></p>"
    )
    assert text_of(html) == "1 < 2 & 3 > 2\na\nb c"
    assert "https://s.kr/?a=1&b=2" in text_of_html(html)
