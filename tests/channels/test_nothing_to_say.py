"""Blank words are none: no channel that says something takes a draft of them alone."""

from __future__ import annotations

import pytest
from tests.foundations import open_channels

from allim.base.settings import Environment
from allim.channels.channel import Draft

SAYING = ["EMAIL", "SLACK", "DISCORD", "TEAMS", "TELEGRAM", "APPRISE", "WEBPUSH", "SMS", "ALIMTALK"]


@pytest.mark.parametrize("blank", [None, "", "  ", "\n\t\u00a0\u3000"])
async def test_blank_title_and_message_are_nothing_to_say(blank: str | None) -> None:
    draft = Draft(None, blank, blank, None, {})
    async with open_channels(Environment({})) as channels:
        told = {
            name
            for name in SAYING
            if ("/message", "missing") in {(p.place, p.code) for p in channels[name].check(draft)}
        }
        assert told == set(SAYING)
        for name, part in (("SLACK", "text"), ("EMAIL", "html")):
            other = Draft(None, blank, blank, None, {part: "<p>words</p>"})
            assert "/message" not in {p.place for p in channels[name].check(other)}
            other = Draft(None, blank, blank, None, {part: blank})
            assert "/message" in {p.place for p in channels[name].check(other)}
