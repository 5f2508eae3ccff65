"""One connection without a network: each order in which things can happen, and its timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.channels.http_by_hand import LONG, Line, an_answer
from tests.relay.virtual_time import in_virtual_time, loop_clock

from allim.channels.http import connection as connections
from allim.channels.http.answer import Reply
from allim.channels.http.connection import KEEP_ALIVE, Connection
from allim.channels.http.failure import HttpFailure

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nso far"


async def _asked(
    line: Line, request: bytes = b"?", *, timeout: float = LONG
) -> asyncio.Task[Reply]:
    """An exchange that is under way."""
    task = asyncio.create_task(line.connection.exchange(request, timeout=timeout, limit=100))
    await asyncio.sleep(0)
    assert line.wire.sent.endswith(request)
    return task


async def test_the_answer_of_one_who_gave_up_is_not_the_next_ones() -> None:
    line = Line().begin()
    task = await _asked(line)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not line.connection.is_usable
    line.connection.data_received(an_answer())
    assert line.idle == []
    await asyncio.sleep(0)
    assert line.ended == [line.connection]


@pytest.mark.parametrize("answer_first", [True, False])
async def test_who_gives_up_as_the_answer_comes_leaves_the_next_one_alone(
    answer_first: bool,
) -> None:
    line = Line().begin()
    first = await _asked(line)
    # In line already, so that it takes the connection before the first one has noticed.
    second = asyncio.create_task(line.connection.exchange(b"2", timeout=LONG, limit=100))
    if answer_first:
        line.connection.data_received(an_answer(b"one"))
        first.cancel()
    else:
        first.cancel()
        line.connection.data_received(an_answer(b"one"))
    assert line.idle == [line.connection]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not line.wire.is_closing()
    line.connection.data_received(an_answer(b"two"))
    assert (await second).content == b"two"


async def test_what_comes_before_the_request_has_left_is_not_its_answer() -> None:
    ready: list[Connection] = []
    line = Line(ready.append).begin()
    task = asyncio.create_task(line.connection.exchange(b"?", timeout=LONG, limit=100))
    await asyncio.sleep(0)
    assert (ready, line.wire.sent) == ([line.connection], b"")
    line.connection.data_received(an_answer())
    line.connection.send()
    assert line.wire.sent == b""
    with pytest.raises(HttpFailure):
        await task
    assert line.idle == []


async def test_a_request_given_up_before_it_has_left_stays() -> None:
    ready: list[Connection] = []
    line = Line(ready.append).begin()
    task = asyncio.create_task(line.connection.exchange(b"?", timeout=LONG, limit=100))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ready[0].send()
    assert line.wire.sent == b""
    assert not line.connection.is_usable


async def test_a_caller_that_just_vanishes_ends_it() -> None:
    line = Line().begin()
    call = line.connection.exchange(b"?", timeout=LONG, limit=100)
    call.send(None)
    call.close()
    assert line.wire.is_closing()


async def test_what_comes_unasked_ends_it() -> None:
    line = Line().begin()
    line.connection.data_received(an_answer())
    assert not line.connection.is_usable


async def test_a_second_answer_in_the_same_packet_ends_it() -> None:
    line = Line().begin()
    task = await _asked(line)
    line.connection.data_received(an_answer(b"one") + an_answer(b"two"))
    assert (await task).content == b"one"
    assert (line.idle, line.connection.is_usable) == ([], False)


async def test_an_answer_before_all_of_the_request_has_left_is_the_last() -> None:
    line = Line().begin()
    line.wire.unsent = 1
    task = await _asked(line)
    line.connection.data_received(an_answer())
    reply = await task
    assert (reply.content, reply.complete) == (b"ok", True)
    assert (line.idle, line.connection.is_usable) == ([], False)


@pytest.mark.parametrize("unsent", [0, 1])
async def test_the_servers_end_is_the_answers_even_when_not_all_has_left(unsent: int) -> None:
    line = Line().begin()
    line.wire.unsent = unsent
    task = await _asked(line)
    line.connection.data_received(UNTIL_THE_END)
    line.connection.eof_received()
    reply = await task
    assert (reply.content, reply.complete, reply.cut) == (b"so far", True, False)
    assert not line.connection.is_usable


async def test_the_servers_end_without_an_answer_is_a_failure_at_once() -> None:
    line = Line().begin()
    task = await _asked(line)
    line.connection.eof_received()
    with pytest.raises(HttpFailure) as caught:
        await task
    assert (caught.value.code, caught.value.ambiguous) == ("connection_lost", True)
    assert line.wire.is_closing()


@pytest.mark.parametrize("so_far", [UNTIL_THE_END, HEAD + b"so far"])
@pytest.mark.parametrize("ours", [True, False])
async def test_a_body_that_breaks_off_is_not_complete(so_far: bytes, ours: bool) -> None:
    line = Line().begin()
    task = await _asked(line)
    line.connection.data_received(so_far)
    if ours:
        line.connection.abort()
    else:
        line.wire.end(ConnectionResetError())
    reply = await task
    assert (reply.content, reply.complete) == (b"so far", False)
    await asyncio.sleep(0)
    assert line.ended == [line.connection]


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_connection_lost_while_waiting_is_ambiguous(error: Exception | None) -> None:
    line = Line().begin()
    task = await _asked(line)
    line.wire.end(error)
    with pytest.raises(HttpFailure) as caught:
        await task
    assert (caught.value.code, caught.value.ambiguous) == ("connection_lost", True)
    assert line.ended == [line.connection]


async def test_a_connection_lost_while_idle_is_told_once() -> None:
    line = Line().begin()
    task = await _asked(line)
    line.connection.data_received(an_answer())
    await task
    line.wire.end(ConnectionResetError())
    line.connection.abort()
    await asyncio.sleep(0)
    assert (line.idle, line.ended) == ([line.connection], [line.connection])


async def test_a_timer_that_is_due_at_once_can_be_set_again() -> None:
    # Under half a millisecond, uvloop's timer is no timer.
    line = Line().begin()
    first = line.connection.exchange(b"1", timeout=0.0002, limit=100)
    first.send(None)
    line.connection.data_received(an_answer())
    second = line.connection.exchange(b"2", timeout=0.0001, limit=100)
    second.send(None)
    assert line.wire.sent == b"12"
    first.close()
    second.close()


@in_virtual_time
async def test_an_idle_connection_closes_in_time() -> None:
    line = Line().begin()
    task = await _asked(line)
    await asyncio.sleep(KEEP_ALIVE * 2.5)
    assert line.connection.is_usable
    line.connection.data_received(an_answer())
    await task
    since = loop_clock()
    await asyncio.sleep(KEEP_ALIVE - 0.1)
    assert line.connection.is_usable
    await asyncio.sleep(1)
    assert line.wire.ended_at == pytest.approx(since + KEEP_ALIVE)
    assert line.ended == [line.connection]


@in_virtual_time
async def test_one_that_took_long_to_make_can_be_used_all_the_same() -> None:
    line = Line()
    await asyncio.sleep(KEEP_ALIVE * 2)
    line.begin()
    await asyncio.sleep(0.1)
    assert line.connection.is_usable


async def test_it_is_not_taken_once_its_time_is_over_even_before_its_timer_fires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.0)
    line = Line().begin()
    assert not line.wire.is_closing()
    assert not line.connection.is_usable


@pytest.mark.parametrize(
    "limits", [(30.0, 1.0), (1.0, 30.0), (3.0, 3.0), (0.5, 4.5, 2.0), (20.0, 5.0, 20.0, 0.1)]
)
@pytest.mark.parametrize("taking", [0.0, 0.9])
def test_each_exchange_has_its_own_time(limits: tuple[float, ...], taking: float) -> None:
    @in_virtual_time
    async def test() -> None:
        line = Line().begin()
        *before, last = limits
        for limit in before:
            task = await _asked(line, timeout=limit)
            await asyncio.sleep(limit * taking)
            line.connection.data_received(an_answer())
            assert (await task).complete
        since = loop_clock()
        task = await _asked(line, timeout=last)
        with pytest.raises(HttpFailure) as caught:
            await task
        assert (caught.value.code, caught.value.ambiguous) == ("timeout", True)
        assert loop_clock() - since == pytest.approx(last)
        assert line.wire.is_closing()

    test()


@in_virtual_time
async def test_time_over_within_the_body_leaves_the_answer() -> None:
    line = Line().begin()
    task = await _asked(line, timeout=7)
    line.connection.data_received(HEAD)
    await asyncio.sleep(6)
    line.connection.data_received(b"half")
    reply = await task
    assert (reply.content, reply.complete) == (b"half", False)
    assert not line.connection.is_usable


@in_virtual_time
async def test_no_timer_outlives_a_connection() -> None:
    line = Line().begin()
    for timeout in (30.0, 1.0, 30.0):
        task = await _asked(line, timeout=timeout)
        line.connection.data_received(an_answer())
        await task
    assert len(_timers()) == 1
    line.wire.end(None)
    await asyncio.sleep(0)
    assert _timers() == []


def _timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]
