"""Low-water marks: they pass over what is done, and never over what is to come."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allim.relay.low_water import LowWaterMarks, Snapshot
from allim.testing.clock import HandClock

LONG = 1e9


@dataclass
class Store:
    """A table as transactions see it: ids drawn after transaction ids, commits in any order."""

    next_xid: int = 100
    next_id: int = 1
    latest_completed: int = 99
    open: dict[int, list[int]] = field(default_factory=dict)
    visible: set[int] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)

    def begin(self) -> int:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.open[xid] = []
        return xid

    def insert(self, xid: int) -> int:
        drawn, self.next_id = self.next_id, self.next_id + 1
        self.open[xid].append(drawn)
        return drawn

    def end(self, xid: int, *, commit: bool) -> None:
        ids = self.open.pop(xid)
        self.latest_completed = max(self.latest_completed, xid)
        if commit:
            self.visible.update(ids)
            self.committed.update(ids)

    def snapshot(self) -> Snapshot:
        xmax = self.latest_completed + 1
        listed = ",".join(str(xid) for xid in sorted(self.open) if xid < xmax)
        xmin = min([*self.open, xmax])
        return Snapshot.parse(f"{xmin}:{xmax}:{listed}", self.next_xid - xmax)


def claim(store: Store, marks: LowWaterMarks, limit: int) -> bool:
    """What the claim statement does; True when it is to be repeated at once."""
    (mark,), (highest,) = asked_from, _ = marks.current(), marks.highest
    snapshot = store.snapshot()
    own = store.begin()
    waiting = sorted(delivery for delivery in store.visible if delivery > mark)
    taken = [delivery for delivery in waiting if delivery not in store.locked][:limit]
    top = max([highest, *taken])
    left = [delivery for delivery in waiting if delivery <= top and delivery not in taken]
    store.visible.difference_update(taken)
    store.claimed.update(taken)
    again = marks.advance([left[0] - 1 if left else top], snapshot, asked_from)
    store.end(own, commit=True)
    return again or len(taken) >= limit


steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("insert"), st.integers(0, 20)),
        st.tuples(st.just("commit"), st.integers(0, 20)),
        st.tuples(st.just("rollback"), st.integers(0, 20)),
        st.tuples(st.just("lock"), st.integers(0, 20)),
        st.tuples(st.just("unlock"), st.just(0)),
        st.tuples(st.just("claim"), st.integers(1, 4)),
        st.tuples(st.just("claim elsewhere"), st.integers(1, 4)),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(steps)
def test_no_committed_id_is_ever_stranded(steps: list[tuple[str, int]]) -> None:
    store = Store()
    relays = [LowWaterMarks(1, rescan_every=LONG, clock=HandClock()) for _ in range(2)]
    for verb, number in steps:
        running = sorted(store.open)
        xid = running[number % len(running)] if running else None
        if verb == "begin":
            store.begin()
        elif verb == "claim":
            claim(store, relays[0], number)
        elif verb == "claim elsewhere":
            claim(store, relays[1], number)
        elif verb == "lock" and store.visible:
            store.locked.add(sorted(store.visible)[number % len(store.visible)])
        elif verb == "unlock":
            store.locked.clear()
        elif xid is not None and verb == "insert":
            store.insert(xid)
        elif xid is not None and verb in ("commit", "rollback"):
            store.end(xid, commit=verb == "commit")

    for xid in list(store.open):
        store.end(xid, commit=True)
    store.locked.clear()
    looks = 0
    while claim(store, relays[0], 3):
        looks += 1
        assert looks < 1000, "it looks again for ever"

    assert store.claimed == store.committed


def test_marks_rise_while_transactions_come_and_go() -> None:
    store = Store()
    marks = LowWaterMarks(1, rescan_every=LONG, clock=HandClock())
    lags = []
    for _ in range(50):
        other = store.begin()
        writer = store.begin()
        for _ in range(10):
            store.insert(writer)
        store.end(writer, commit=True)
        claim(store, marks, 10)
        store.end(other, commit=True)
        lags.append(store.next_id - 1 - marks.current()[0])

    assert max(lags) <= 20


def test_a_transaction_that_ends_is_looked_for_once() -> None:
    store = Store()
    marks = LowWaterMarks(1, rescan_every=LONG, clock=HandClock())
    late = store.begin()
    store.insert(late)
    quick = store.begin()
    store.insert(quick)
    store.end(quick, commit=True)
    assert not claim(store, marks, 10)
    assert marks.current() == [2]

    store.end(late, commit=True)

    assert claim(store, marks, 10), "its ids may be below the mark"
    assert not claim(store, marks, 10)
    assert store.claimed == {1, 2}
    assert marks.current() == [2]


def test_it_begins_at_the_bottom_again_after_a_while_and_comes_back() -> None:
    clock = HandClock()
    store = Store()
    marks = LowWaterMarks(1, rescan_every=60.0, clock=clock)
    writer = store.begin()
    store.insert(writer)
    store.end(writer, commit=True)
    claim(store, marks, 10)
    assert marks.current() == [1]

    clock.turn(60.0)

    assert marks.current() == [0]
    claim(store, marks, 10)
    assert marks.current() == [1]


def test_each_priority_has_its_own_mark() -> None:
    marks = LowWaterMarks(3, rescan_every=LONG, clock=HandClock())

    assert not marks.advance([5, 0, 9], Snapshot.parse("7:7:", 0), marks.current())

    assert marks.current() == [5, 0, 9]


@pytest.mark.parametrize(
    ("text", "unlisted", "own", "running"),
    [
        ("10:10:", 0, None, set()),
        ("10:20:10,15", 0, None, {10, 15}),
        ("10:20:10", 3, None, {10, 20, 21, 22}),
        ("10:20:10", 3, 21, {10, 20, 22}),
        ("10:20:", -1, None, set()),
    ],
)
def test_a_snapshot_knows_who_is_in_progress(
    text: str, unlisted: int, own: int | None, running: set[int]
) -> None:
    assert Snapshot.parse(text, unlisted, own).in_progress == running
