"""What children inherit, resolved when the caller posts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Channel, Draft, RecipientKind
from allim.hub.model import NotificationRequest
from allim.hub.resolution import resolve
from allim.relay.sender import SendingLimits


@dataclass
class Stand:
    """A channel as far as resolution looks at it; says no to drafts without a needed recipient."""

    name: str
    recipient_kind: RecipientKind
    needs_recipient: bool = False
    limits: SendingLimits = field(default_factory=SendingLimits)

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        if self.needs_recipient and draft.recipient is None:
            return [FieldProblem("/recipient", "missing", "is required")]
        return []


KINDS = {
    "ALIMTALK": RecipientKind.PHONE,
    "SMS": RecipientKind.PHONE,
    "EMAIL": RecipientKind.EMAIL,
    "SLACK": RecipientKind.SLACK_WEBHOOK,
    "LOG": RecipientKind.ANY,
}
CHANNELS = cast(
    Mapping[str, Channel],
    {name: Stand(name, kind, needs_recipient=name == "EMAIL") for name, kind in KINDS.items()},
)


def resolved(*deliveries: dict[str, Any], **fields: Any) -> Sequence[dict[str, Any]]:
    request = NotificationRequest.model_validate(
        {"source": "s", "type": "t", **fields, "deliveries": list(deliveries)}
    )
    return resolve(request, CHANNELS)


def test_a_fallback_inherits_recipient_and_words_but_not_the_row_key() -> None:
    [entry] = resolved(
        {
            "channel": "ALIMTALK",
            "recipient": "01012345678",
            "template_code": "PAY_FAIL",
            "message": "own words",
            "payload": {"buttons": []},
            "row_key": "A",
            "max_attempts": 5,
            "guard": {"reservation_id": 1},
            "fallback": [{"channel": "SMS"}],
        }
    )

    assert entry["fallback"] == [
        {
            "channel": "SMS",
            "recipient": "01012345678",
            "payload": {"message": "own words"},
            "guard": {"reservation_id": 1},
            "max_attempts": 8,
        }
    ]


def test_the_same_channel_also_inherits_payload_and_template() -> None:
    [entry] = resolved(
        {
            "channel": "ALIMTALK",
            "recipient": "1",
            "template_code": "T",
            "payload": {"x": 1},
            "then": [{"channel": "ALIMTALK", "recipient": "2"}],
        }
    )

    assert entry["then"][0]["template_code"] == "T"
    assert entry["then"][0]["payload"] == {"x": 1}
    assert entry["then"][0]["recipient"] == "2"


def test_a_recipient_of_another_kind_is_not_inherited() -> None:
    [entry] = resolved({"channel": "SMS", "recipient": "010", "fallback": [{"channel": "SLACK"}]})

    assert "recipient" not in entry["fallback"][0]


def test_a_child_left_without_its_recipient_is_a_problem_at_its_place() -> None:
    with pytest.raises(InvalidRequest) as raised:
        resolved(
            {
                "channel": "SMS",
                "recipient": "010",
                "fallback": [{"channel": "LOG", "then": [{"channel": "EMAIL"}]}],
            }
        )

    assert [p.place for p in raised.value.problems] == ["/deliveries/0/fallback/0/then/0/recipient"]


def test_a_channel_is_told_whose_each_delivery_is() -> None:
    seen = []

    class Listening(Stand):
        def check(self, draft: Draft) -> Sequence[FieldProblem]:
            seen.append(draft.tenant_id)
            return []

    channels = cast(Mapping[str, Channel], {"LOG": Listening("LOG", RecipientKind.ANY)})
    log = {"channel": "LOG"}
    many = {"channel": "LOG", "recipients": ["a", "b"]}
    body = {"source": "s", "type": "t", "deliveries": [{**log, "then": [log]}, many]}
    resolve(NotificationRequest.model_validate(body), channels, tenant=7)
    assert seen == [7, 7, 7, 7]


def test_all_of_a_chain_inherit_from_its_parent_not_from_each_other() -> None:
    [entry] = resolved(
        {
            "channel": "ALIMTALK",
            "recipient": "1",
            "fallback": [{"channel": "SMS", "recipient": "2"}, {"channel": "SMS"}],
        }
    )

    assert [step["recipient"] for step in entry["fallback"]] == ["2", "1"]


Tree = dict[str, Any]


@st.composite
def trees(draw: st.DrawFn, budget: int = 9) -> Tree:
    tree: Tree = {"channel": draw(st.sampled_from(sorted(KINDS)))}
    for name in ("recipient", "title", "message", "row_key"):
        if draw(st.booleans()):
            # Distinct, so that row keys never repeat and each value tells where it came from.
            tree[name] = f"{name}-{draw(st.uuids())}"
    if tree["channel"] == "EMAIL":
        tree.setdefault("recipient", "email@example.com")
    budget = min(budget, 9)
    for step in ("then", "fallback"):
        children = draw(st.integers(0, min(2, budget)))
        budget -= children
        if children:
            share = budget // (children * 2)
            budget -= share * children
            tree[step] = [draw(trees(budget=share)) for _ in range(children)]
    return tree


def pairs(
    asked: Tree, entry: Tree, parents: tuple[Tree, ...] = ()
) -> Iterator[tuple[Tree, Tree, tuple[Tree, ...]]]:
    yield asked, entry, parents
    for step in ("then", "fallback"):
        assert len(asked.get(step, ())) == len(entry.get(step, ()))
        for child, resolved_child in zip(asked.get(step, ()), entry.get(step, ()), strict=True):
            yield from pairs(child, resolved_child, (asked, *parents))


@given(trees())
def test_whatever_the_tree_every_entry_is_complete_in_itself(tree: Tree) -> None:
    [root] = resolved(tree)

    for asked, entry, parents in pairs(tree, root):
        line = (asked, *parents)
        assert entry["channel"] == asked["channel"]
        assert entry["max_attempts"] == 8
        assert entry.get("row_key") == asked.get("row_key")
        for words in ("title", "message"):
            named = next((a[words] for a in line if words in a), None)
            assert entry.get("payload", {}).get(words) == named
        assert entry.get("recipient") == expected_recipient(line)


def expected_recipient(line: tuple[Tree, ...]) -> str | None:
    asked, *parents = line
    if "recipient" in asked:
        return str(asked["recipient"])
    if not parents:
        return None
    kind = KINDS[asked["channel"]]
    if kind is not RecipientKind.ANY and kind is not KINDS[parents[0]["channel"]]:
        return None
    return expected_recipient(tuple(parents))
