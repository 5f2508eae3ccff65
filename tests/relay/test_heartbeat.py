"""Leases are kept from a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from allim.base.clock import SYSTEM_CLOCK
from allim.base.errors import DatabaseUnavailable
from allim.relay.box import LeaseKeeper
from allim.relay.heartbeat import Heartbeat
from allim.relay.work import Work
from allim.testing.boxes import LANE
from allim.testing.clock import HandClock
from allim.testing.memory_box import MemoryBox


class Keeper:
    """A keeper of leases that holds what it is told to."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.asked: list[list[int]] = []
        self.fails_with: Exception | None = None
        self.closed = False

    def extend(self, works: Sequence[Work[Any]], lease: float) -> set[int]:
        self.asked.append([work.id for work in works])
        if self.fails_with is not None:
            raise self.fails_with
        return {work.id for work in works} & self.held

    def close(self) -> None:
        self.closed = True


def a_work(work_id: int, deadline: float, token: str = "token") -> Work[str]:
    return Work(work_id, token, 1, 0, 8, 0, deadline, "content")


def wait_without_the_loop(condition: Callable[[], bool]) -> None:
    """Wait, and let nothing else of this thread run meanwhile."""
    ends = time.monotonic() + 30.0
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        pause.wait(0.005)


async def test_a_blocked_event_loop_costs_no_lease() -> None:
    box = MemoryBox()
    ids = [box.add(LANE) for _ in range(3)]
    lease = 1.0
    claim = await box.claim(LANE, limit=10, lease=lease, worker="w", policy=None)
    heartbeat = Heartbeat(box.lease_keeper(), lease=lease, clock=SYSTEM_CLOCK)
    heartbeat.watch(claim.works)
    heartbeat.start()
    first_end = max(work.deadline for work in claim.works)

    # The whole lease goes by, and not one turn of the event loop with it.
    wait_without_the_loop(lambda: SYSTEM_CLOCK() > first_end)

    assert await box.rescue(LANE, limit=10, lease=lease, worker="another") == []
    assert all(work.deadline > first_end for work in claim.works)
    assert all((box.deliveries[delivery].lease_until or 0.0) > first_end for delivery in ids)
    heartbeat.stop()


def test_only_what_has_used_a_third_of_its_lease_is_extended() -> None:
    clock, keeper = HandClock(), Keeper()
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    old, young = a_work(1, clock() + 39.0), a_work(2, clock() + 41.0)
    keeper.held = {1, 2}
    heartbeat.watch([old, young])

    heartbeat.beat()

    assert keeper.asked == [[1]]
    assert (old.deadline, young.deadline) == (clock() + 60.0, clock() + 41.0)


def test_works_of_one_claim_share_a_token_and_are_all_extended() -> None:
    clock, keeper = HandClock(), Keeper()
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    keeper.held = set(range(10))
    works = [a_work(number, clock()) for number in range(10)]
    heartbeat.watch(works)

    heartbeat.beat()
    assert sorted(keeper.asked[0]) == list(range(10))

    heartbeat.forget(works[:9])
    clock.turn(60.0)
    heartbeat.beat()
    assert keeper.asked[1] == [9]


def test_a_lost_lease_lets_no_new_call_begin() -> None:
    clock, keeper = HandClock(), Keeper()
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    work = a_work(1, clock() + 30.0)
    heartbeat.watch([work])

    heartbeat.beat()
    heartbeat.beat()

    assert work.deadline == 0.0
    assert keeper.asked == [[1]], "what is lost is not asked for again"


def test_what_was_claimed_anew_is_kept_when_the_old_claim_is_forgotten() -> None:
    clock, keeper = HandClock(), Keeper()
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    keeper.held = {1}
    old, new = a_work(1, clock(), "old"), a_work(1, clock(), "new")
    heartbeat.watch([old])
    heartbeat.watch([new])

    heartbeat.forget([old])
    heartbeat.beat()

    assert new.deadline == clock() + 60.0


def test_leases_are_tried_again_when_the_database_is_back() -> None:
    clock, keeper = HandClock(), Keeper()
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    keeper.held = {1}
    work = a_work(1, clock() + 30.0)
    heartbeat.watch([work])

    keeper.fails_with = DatabaseUnavailable("gone")
    heartbeat.beat()
    assert work.deadline == clock() + 30.0

    keeper.fails_with = None
    heartbeat.beat()
    assert work.deadline == clock() + 60.0


def test_a_beat_that_fails_does_not_end_the_heart() -> None:
    keeper = Keeper()
    keeper.held = {1}
    keeper.fails_with = ZeroDivisionError()
    heartbeat = Heartbeat(keeper, lease=0.05, clock=SYSTEM_CLOCK)
    heartbeat.watch([a_work(1, 0.0)])
    heartbeat.start()

    wait_without_the_loop(lambda: len(keeper.asked) > 2)
    keeper.fails_with = None
    beaten = len(keeper.asked)
    wait_without_the_loop(lambda: len(keeper.asked) > beaten)

    heartbeat.stop()
    assert keeper.closed


def test_threads_may_watch_and_forget_while_it_beats() -> None:
    clock = HandClock()
    box = MemoryBox(clock=clock)
    keeper: LeaseKeeper = box.lease_keeper()  # holds nothing: every beat forgets as well
    heartbeat = Heartbeat(keeper, lease=60.0, clock=clock)
    over = threading.Event()
    errors: list[BaseException] = []

    def beat() -> None:
        try:
            while not over.is_set():
                heartbeat.beat()
        except BaseException as error:
            errors.append(error)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        for _ in range(300):
            works = [a_work(number, clock()) for number in range(50)]
            heartbeat.watch(works)
            heartbeat.forget(works)
    finally:
        over.set()
        beating.join()
    assert errors == []
