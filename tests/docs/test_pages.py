"""What single pages promise of themselves: the pictures of states, the parts of the runbook."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from allim.events.views import EventStatus
from allim.hub.status import DeliveryStatus
from tests.docs.blocks import ROOT
from tests.hub.engine.test_state_diagram import EDGES

EDGE = re.compile(r'data-edge="([^"]+)"')
NAME = re.compile(r'class="name"[^>]*>(\w+)<')
# Edges that need a second actor in the middle, each with a test elsewhere.
TOGETHER = {
    ("ACCEPTED", "FAILED"): "tests/messaging/receipts/test_receipts.py",
    ("PROCESSING", "CANCELED"): "tests/hub/engine/test_any_order.py",
}


def drawn(picture: str) -> tuple[set[str], set[tuple[str, str]]]:
    """The states and edges of a picture."""
    text = (ROOT / "docs" / "pictures" / picture).read_text("utf-8")
    edges = {
        (pair.split()[0], pair.split()[1])
        for several in EDGE.findall(text)
        for pair in several.split("; ")
    }
    return set(NAME.findall(text)), edges


def test_the_picture_of_deliveries_has_every_edge_that_is_walked_and_no_other() -> None:
    states, edges = drawn("delivery-states.svg")
    walked = {(str(one), str(two)) for verb in EDGES.values() for one, two in verb.items()}
    assert states == {str(status) for status in DeliveryStatus}
    assert edges == walked | set(TOGETHER)
    for test in TOGETHER.values():
        assert (ROOT / test).exists()


def test_the_picture_of_events_has_every_status() -> None:
    states, edges = drawn("event-states.svg")
    assert states == {str(status) for status in EventStatus}
    assert {state for edge in edges for state in edge} == states


def sections() -> Mapping[str, str]:
    text = (ROOT / "docs" / "runbook" / "alerts.md").read_text("utf-8")
    parts = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("alert", sections())
def test_each_alert_says_what_to_do(alert: str) -> None:
    words = sections()[alert]
    places = [words.find(part) for part in ("**Means.**", "**Look.**", "**Mend.**", "**Wake")]
    assert -1 not in places
    assert places == sorted(places)
