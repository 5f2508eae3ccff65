"""Connections: which are kept, which are used again, and that none is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import psutil
import pytest
from tests.channels.http_by_hand import (
    LOCAL,
    LONG,
    Addresses,
    Door,
    a_client,
    an_answer,
    files_are,
    nothing_left,
)

from allim.channels.channel import HttpAnswer
from allim.channels.http import connection as connections
from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.testing.http import Answer, HttpSink


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        yield door


async def _call(
    client: HttpClient,
    url: str,
    method: str = "POST",
    *,
    body: bytes | None = None,
    timeout: float = LONG,
    limit: int = 4096,
) -> HttpAnswer:
    return await client.request(
        method, url, headers={}, timeout=timeout, trusted=True, body=body, limit=limit
    )


def _calling(client: HttpClient, url: str, method: str = "POST") -> asyncio.Task[HttpAnswer]:
    return asyncio.create_task(_call(client, url, method))


@pytest.mark.parametrize(
    "answer",
    [
        Answer.of(200, "ok", {"Connection": "close"}),
        Answer(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        Answer.of(204, "ok"),
        Answer(b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"ok" * 4096),
        Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"),
        Answer(an_answer() + an_answer(b"a second one")),
        Answer(an_answer() + b"H"),
        Answer(b"HTTP/1.1 101 Upgrade\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Answer.cut(b"HTTP/1.1 200 OK\r\n\r\nok"),
    ],
    ids=[
        "close",
        "1.0",
        "204 with a body",
        "204 with chunks",
        "too long",
        "longer than it says",
        "two",
        "the beginning of a second",
        "another protocol",
        "until the end",
    ],
)
async def test_a_connection_in_doubt_is_not_used_again(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    sink.answer(answer, Answer.of(200, "mine"))
    (result,) = await asyncio.gather(_call(client, sink.url), return_exceptions=True)
    if isinstance(result, HttpAnswer):
        assert result.body.startswith("ok" if answer.status == 200 else "")
    else:
        assert isinstance(result, HttpFailure)
        assert (result.code, answer.status) == ("bad_answer", 101)
    assert (await _call(client, sink.url)).body == "mine"
    assert [request.connection for request in sink.requests] == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        Answer.of(200, "ok"),
        Answer.of(200, ""),
        Answer.of(200, "x" * 4096),
        Answer.of(204),
        Answer(b"HTTP/1.1 204 No\r\n\r\n"),
        Answer(b"HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n"),
        Answer(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
        Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        Answer(b"HTTP/1.1 100 Go on\r\n\r\n" + an_answer()),
        Answer.of(200, "ok", {"Upgrade": "h2", "Connection": "Upgrade"}),
    ],
    ids=[
        "ok",
        "empty",
        "exactly the limit",
        "204",
        "204 bare",
        "304",
        "1.0",
        "chunks",
        "1xx",
        "h2",
    ],
)
async def test_a_connection_that_answered_well_is_used_again(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    sink.answer(answer)
    for _ in range(3):
        await _call(client, sink.url)
    assert {request.connection for request in sink.requests} == {1}


async def test_requests_at_once_have_connections_of_their_own(
    client: HttpClient, door: Door
) -> None:
    calls = [_calling(client, door.url + f"/{number}") for number in range(3)]
    peers = [await door.accept() for _ in calls]
    for peer in reversed(peers):
        number = (await peer.request()).split(b" ")[1]
        peer.send(an_answer(number))
    assert [(await call).body for call in calls] == ["/0", "/1", "/2"]
    again = _calling(client, door.url + "/again")
    # The freshest: of those that stood idle, it will have stood so the least.
    peer = peers[0]
    assert (await peer.request()).startswith(b"POST /again ")
    peer.send(an_answer(b"again"))
    assert (await again).body == "again"


async def test_an_answer_nobody_asked_for_ends_an_idle_connection(
    client: HttpClient, door: Door
) -> None:
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer(b"mine"))
    assert (await call).body == "mine"
    peer.send(an_answer(b"nobody's"))
    await peer.is_closed()
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer(b"mine, too"))
    assert (await call).body == "mine, too"


async def test_a_get_on_a_connection_just_closed_is_repeated(
    client: HttpClient, door: Door
) -> None:
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer())
    await call
    peer.close()
    call = _calling(client, door.url + "/again", "GET")
    peer = await door.accept()
    assert (await peer.request()).startswith(b"GET /again ")
    peer.send(an_answer(b"again"))
    assert (await call).body == "again"


async def test_a_get_is_repeated_once(client: HttpClient, door: Door) -> None:
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer())
    await call
    peer.close()
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.close()
    with pytest.raises(HttpFailure) as caught:
        await call
    assert (caught.value.code, caught.value.ambiguous) == ("connection_lost", True)
    assert door.nobody_came


async def test_a_get_that_cannot_be_repeated_may_have_arrived(
    client: HttpClient, door: Door
) -> None:
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer())
    await call
    peer.close()
    door.close()
    with pytest.raises(HttpFailure) as caught:
        await _call(client, door.url, "GET")
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", True)


async def test_a_get_on_a_new_connection_is_not_repeated(client: HttpClient, door: Door) -> None:
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.close()
    with pytest.raises(HttpFailure) as caught:
        await call
    assert caught.value.code == "connection_lost"
    assert door.nobody_came


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_changes_something_is_never_repeated(
    client: HttpClient, door: Door, method: str
) -> None:
    call = _calling(client, door.url, method)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer())
    await call
    peer.close()
    with pytest.raises(HttpFailure) as caught:
        await _call(client, door.url, method)
    assert (caught.value.code, caught.value.ambiguous) == ("connection_lost", True)
    assert door.nobody_came


async def test_a_connection_known_to_be_closed_is_not_taken(
    client: HttpClient, sink: HttpSink
) -> None:
    await _call(client, sink.url)
    await sink.stop()
    await sink.start()
    await sink.all_closed()
    assert (await _call(client, sink.url)).status == 200
    assert [request.connection for request in sink.requests] == [1, 2]


# Time of uvloop's cannot be turned on.
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_time_of_a_repeated_get_is_that_of_one(
    client: HttpClient, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = _calling(client, door.url, "GET")
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer())
    await call
    call = asyncio.create_task(_call(client, door.url, "GET", timeout=1000.0))
    await peer.request()
    loop = asyncio.get_running_loop()
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + 999.9)
    peer.close()
    async with asyncio.timeout(LONG):
        with pytest.raises(HttpFailure) as caught:
            await call
    assert (caught.value.code, caught.value.ambiguous) == ("timeout", True)


@pytest.mark.parametrize("kept", [False, True])
async def test_no_answer_in_time(client: HttpClient, sink: HttpSink, kept: bool) -> None:
    if kept:
        await _call(client, sink.url)
    sink.answer(Answer.hang())
    with pytest.raises(HttpFailure) as caught:
        await _call(client, sink.url, timeout=0.2)
    assert (caught.value.code, caught.value.ambiguous) == ("timeout", True)
    await sink.all_closed()
    sink.answer(Answer.of(200, "mine"))
    assert (await _call(client, sink.url)).body == "mine"


async def test_idle_connections_close_by_themselves(
    client: HttpClient, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "KEEP_ALIVE", 0.05)
    await asyncio.gather(*(_call(client, sink.url) for _ in range(3)))
    await sink.all_closed()


async def test_an_idle_connection_is_not_taken_once_its_time_is_over(
    client: HttpClient, door: Door
) -> None:
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr(connections, "KEEP_ALIVE", 0.0)
        peer.send(an_answer())
        await call
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer(b"mine"))
    assert (await call).body == "mine"


async def test_an_early_answer_to_a_large_request_ends_the_connection(
    client: HttpClient, door: Door
) -> None:
    call = asyncio.create_task(_call(client, door.url, body=b"x" * 30_000_000))
    peer = await door.accept()
    await peer.head()
    peer.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
    answer = await call
    assert (answer.status, answer.body, answer.complete) == (413, "no", True)
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer(b"mine"))
    assert (await call).body == "mine"


async def test_a_server_that_says_no_more_is_not_sent_the_rest(
    client: HttpClient, door: Door
) -> None:
    call = asyncio.create_task(_call(client, door.url, body=b"x" * 30_000_000))
    peer = await door.accept()
    await peer.head()
    peer.send(b"HTTP/1.1 413 Too much\r\n\r\nno")
    peer.say_no_more()
    answer = await call
    assert (answer.status, answer.body, answer.complete) == (413, "no", True)


async def test_a_large_request_arrives_whole(client: HttpClient, sink: HttpSink) -> None:
    body = bytes(range(256)) * 40_000
    for _ in range(2):
        assert (await _call(client, sink.url, body=body)).status == 200
    assert [request.body == body for request in sink.requests] == [True, True]
    assert {request.connection for request in sink.requests} == {1}


async def test_one_who_gives_up_while_it_is_sent_leaves_the_rest_unsent(
    client: HttpClient, door: Door
) -> None:
    call = asyncio.create_task(_call(client, door.url, body=b"x" * 30_000_000))
    peer = await door.accept()
    await peer.head()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    call = _calling(client, door.url)
    peer = await door.accept()
    await peer.request()
    peer.send(an_answer(b"mine"))
    assert (await call).body == "mine"


async def test_a_connection_that_ends_as_it_is_taken_up_is_certain(client: HttpClient) -> None:
    # A proxy without a server behind it may do so. Whether the request had left is not told by
    # the code, but what is not ambiguous was never sent.
    with Door() as door:
        call = _calling(client, door.url)
        peer = await door.accept()
        peer.close()
        with pytest.raises(HttpFailure) as caught:
            await call
    assert caught.value.code in {"connect_failed", "connection_lost"}
    assert caught.value.ambiguous == (caught.value.code == "connection_lost")


async def test_closing_breaks_off_what_is_under_way() -> None:
    with Door() as door:
        async with a_client() as client:
            calls = [_calling(client, door.url) for _ in range(2)]
            waiting, half = [await door.accept() for _ in range(2)]
            await waiting.request()
            await half.request()
            half.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            await client.close()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await waiting.is_closed()
    codes = set()
    for answer in answers:
        if isinstance(answer, HttpFailure):
            codes.add((answer.code, answer.ambiguous))
        else:
            assert isinstance(answer, HttpAnswer)
            assert not answer.complete
    assert codes == {("connection_lost", True)}


async def test_a_closed_client_calls_no_more_and_closes_twice(sink: HttpSink) -> None:
    async with a_client() as client:
        await _call(client, sink.url)
        await asyncio.gather(client.close(), client.close())
        await sink.all_closed()
        with pytest.raises(HttpFailure) as caught:
            await _call(client, sink.url)
        assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    assert len(sink.requests) == 1


async def test_closing_does_not_wait_for_connections_that_ended_long_ago(sink: HttpSink) -> None:
    async with a_client() as client:
        sink.answer(Answer.cut())
        for _ in range(3):
            with pytest.raises(HttpFailure):
                await _call(client, sink.url)


@pytest.mark.parametrize("kept", [False, True])
async def test_giving_up_at_any_step_leaves_nothing_behind(sink: HttpSink, kept: bool) -> None:
    files = psutil.Process().num_fds()
    async with nothing_left():
        for steps in count():
            client = HttpClient(LOCAL)
            if kept:
                await _call(client, sink.url)
            answered, result = await _given_up(_calling(client, sink.url), steps)
            assert isinstance(result, HttpAnswer | asyncio.CancelledError)
            assert (await _call(client, sink.url)).body == "ok"
            await client.close()
            await sink.all_closed()
            await files_are(files)
            if answered:
                break


async def test_closing_at_any_step_leaves_nothing_behind(sink: HttpSink) -> None:
    files = psutil.Process().num_fds()
    async with nothing_left():
        for steps in count():
            client = HttpClient(LOCAL)
            call = _calling(client, sink.url)
            for _ in range(steps):
                await asyncio.sleep(0)
            answered = call.done()
            await client.close()
            (result,) = await asyncio.gather(call, return_exceptions=True)
            assert isinstance(result, HttpAnswer | HttpFailure)
            if isinstance(result, HttpFailure):
                assert result.ambiguous == (result.code == "connection_lost")
            await sink.all_closed()
            await files_are(files)
            if answered:
                break


async def test_of_several_addresses_one_that_answers_is_found(sink: HttpSink) -> None:
    client = HttpClient(LOCAL, resolver=Addresses(["127.0.0.9", "::1", "127.0.0.1"]))
    assert (await _call(client, f"http://one.example:{sink.port}")).status == 200
    await client.close()


async def test_giving_up_while_several_addresses_are_tried_leaves_nothing_behind(
    sink: HttpSink,
) -> None:
    files = psutil.Process().num_fds()
    async with nothing_left():
        for steps in count():
            client = HttpClient(LOCAL, resolver=Addresses(["127.0.0.1", "127.0.0.1", "::1"]))
            call = _calling(client, f"http://one.example:{sink.port}")
            answered, result = await _given_up(call, steps)
            assert isinstance(result, HttpAnswer | asyncio.CancelledError)
            await client.close()
            await sink.all_closed()
            await files_are(files)
            if answered:
                break


async def _given_up(
    call: asyncio.Task[HttpAnswer], steps: int
) -> tuple[bool, HttpAnswer | BaseException]:
    """Cancel a call after so many turns of the loop; whether it was over, and what came of it."""
    for _ in range(steps):
        await asyncio.sleep(0)
    answered = call.done()
    call.cancel()
    (result,) = await asyncio.gather(call, return_exceptions=True)
    return answered, result


async def test_a_name_without_an_address_is_certain(sink: HttpSink) -> None:
    client = HttpClient(LOCAL, resolver=Addresses([]))
    with pytest.raises(HttpFailure) as caught:
        await _call(client, f"http://one.example:{sink.port}")
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    assert "could not be resolved" in str(caught.value)
    await client.close()


async def test_a_server_with_an_ipv6_address_is_called(client: HttpClient) -> None:
    with Door("::1") as door:
        for trusted in (True, False):
            call = asyncio.create_task(
                client.request("GET", door.url, headers={}, timeout=LONG, trusted=trusted)
            )
            peer = await door.accept()
            assert f"\r\nHost: [::1]:{door.port}\r\n".encode() in await peer.request()
            peer.send(an_answer())
            assert (await call).body == "ok"
