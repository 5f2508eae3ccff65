"""The HTTP client on a local server: bodies of every kind, and what each failure is called."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Callable

import pytest

from allim.channels.channel import HttpAnswer
from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.relay.outcomes import RESPONSE_LIMIT
from allim.testing.http import Answer, HttpSink, Then


async def _post(client: HttpClient, url: str, timeout: float = 20.0) -> HttpAnswer:
    return await client.post(url, body=b"{}", headers={"X-A": "1"}, timeout=timeout, trusted=True)


async def test_an_answer_comes_back_whole(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.of(201, "좋아요", {"X-Id": "7"}))
    answer = await _post(client, sink.url + "/a?b=c")
    assert (answer.status, answer.body, answer.complete) == (201, "좋아요", True)
    assert answer.headers["x-id"] == "7"
    (request,) = sink.requests
    assert (request.method, request.path, request.body) == ("POST", "/a?b=c", b"{}")
    assert request.headers["x-a"] == "1"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_other_methods_and_longer_answers(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.of(200, "x" * (RESPONSE_LIMIT * 3)))
    answer = await client.request(
        "GET", sink.url, headers={}, timeout=5, trusted=True, limit=RESPONSE_LIMIT * 2
    )
    assert sink.requests[0].method == "GET"
    assert len(answer.body) == RESPONSE_LIMIT * 2


async def test_connections_are_kept(client: HttpClient, sink: HttpSink) -> None:
    for _ in range(5):
        await _post(client, sink.url)
    assert {request.connection for request in sink.requests} == {1}


async def test_cookies_are_forgotten(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.of(200, "ok", {"Set-Cookie": "a=b"}))
    await _post(client, sink.url)
    await _post(client, sink.url)
    assert "cookie" not in sink.requests[1].headers


async def test_proxies_of_the_environment_are_not_used(
    client: HttpClient, sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await _post(client, sink.url)).status == 200


async def test_redirects_are_answers(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.of(307, "", {"Location": "http://169.254.169.254/"}))
    assert (await _post(client, sink.url)).status == 307


async def test_a_huge_body_is_cut_and_not_fetched(client: HttpClient, sink: HttpSink) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n"
    sink.answer(Answer.hang(head + b"x" * (RESPONSE_LIMIT * 4)))
    answer = await _post(client, sink.url)
    assert (answer.body, answer.complete) == ("x" * RESPONSE_LIMIT, True)
    await sink.all_closed()


async def test_a_body_without_an_end_is_cut(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.cut(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"))
    assert (await _post(client, sink.url)).body == "until the end"


@pytest.mark.parametrize("then", [Answer.hang, Answer.cut])
async def test_a_body_that_breaks_off_leaves_the_status(
    client: HttpClient, sink: HttpSink, then: Callable[[bytes], Answer]
) -> None:
    sink.answer(then(b"HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\nhalf"))
    answer = await _post(client, sink.url, timeout=2)
    assert (answer.status, answer.body, answer.complete) == (503, "half", False)


async def test_bad_bytes_are_replaced_and_nul_left_out(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(Answer.of(200, b"a\x00b\xff\xed\xa0\x80c"))
    body = (await _post(client, sink.url)).body
    assert body.startswith("ab\ufffd")
    assert body.endswith("c")
    body.encode()


@pytest.mark.parametrize(
    ("encoding", "content", "body"),
    [
        ("gzip", gzip.compress("압축".encode()), "압축"),
        ("deflate", zlib.compress("압축".encode()), "압축"),
        ("gzip", gzip.compress(b"x" * 10_000_000), "x" * RESPONSE_LIMIT),
        ("gzip", b"not gzip", ""),
    ],
    # Compressed bytes hold the time and would name the case differently in each process.
    ids=["gzip", "deflate", "bomb", "garbage"],
)
async def test_compression_we_did_not_ask_for_is_bounded(
    client: HttpClient, sink: HttpSink, encoding: str, content: bytes, body: str
) -> None:
    sink.answer(Answer.of(200, content, {"Content-Encoding": encoding}))
    assert (await _post(client, sink.url)).body == body


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer.hang(), "timeout"),
        (Answer.hang(b"HTTP/1.1 200 OK\r\nX: "), "timeout"),
        (Answer.cut(), "connection_lost"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nX: "), "connection_lost"),
        (Answer.cut(b"\x16\x03\x01 garbage\r\n\r\n"), "bad_answer"),
        (Answer.cut(b"HTTP/1.1 abc OK\r\n\r\n"), "bad_answer"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), "bad_answer"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n"), "bad_answer"),
    ],
)
async def test_what_may_have_arrived_is_ambiguous(
    client: HttpClient, sink: HttpSink, answer: Answer, code: str
) -> None:
    sink.answer(answer)
    patience = 2.0 if answer.then is Then.HANG else 20.0
    with pytest.raises(HttpFailure) as caught:
        await _post(client, sink.url + "/s3cret", timeout=patience)
    assert (caught.value.code, caught.value.ambiguous) == (code, True)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_closed_port_is_certain(client: HttpClient, sink: HttpSink) -> None:
    url = sink.url
    await sink.stop()
    with pytest.raises(HttpFailure) as caught:
        await _post(client, url)
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)


async def test_a_server_that_takes_no_connection_is_certain(client: HttpClient) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        with pytest.raises(HttpFailure) as caught:
            await _post(client, f"http://127.0.0.1:{address[1]}/", timeout=0.4)
        for one in waiting:
            one.close()
    assert (caught.value.code, caught.value.ambiguous) == ("timeout", False)


async def test_tls_with_a_server_that_has_none_is_certain(
    client: HttpClient, sink: HttpSink
) -> None:
    with pytest.raises(HttpFailure) as caught:
        await _post(client, sink.url.replace("http:", "https:"), timeout=0.4)
    assert (caught.value.code, caught.value.ambiguous) == ("timeout", False)


async def test_a_name_that_does_not_exist_is_certain(client: HttpClient) -> None:
    with pytest.raises(HttpFailure) as caught:
        await _post(client, "http://no-such-host.invalid/")
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)


@pytest.mark.parametrize("url", ["", "http://", "smtp://mail.example", "http://[", "http://1.2/"])
async def test_a_trusted_url_that_is_none_is_invalid(client: HttpClient, url: str) -> None:
    with pytest.raises(HttpFailure) as caught:
        await _post(client, url)
    assert caught.value.code == "invalid_url"
