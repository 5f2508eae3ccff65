"""Fetching files: whole, or said not to be; never more than asked for."""

from __future__ import annotations

import gzip
import zlib

import pytest
from tests.channels.http_by_hand import LONG

from allim.channels.channel import HttpFile
from allim.channels.http.client import HttpClient
from allim.testing.http import Answer, HttpSink

LIMIT = 1000
FULL = b"f" * LIMIT
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"
GZIP = {"Content-Encoding": "gzip"}


async def _fetch(client: HttpClient, sink: HttpSink, answer: Answer) -> HttpFile:
    sink.answer(answer)
    return await client.fetch(sink.url + "/f", timeout=LONG, trusted=True, limit=LIMIT)


@pytest.mark.parametrize(
    "answer",
    [
        Answer.of(200, FULL),
        Answer(CHUNKED + b"3e8\r\n" + FULL + b"\r\n0\r\n\r\n"),
        Answer.cut(UNTIL_THE_END + FULL),
        Answer.of(200, gzip.compress(FULL, mtime=0), GZIP),
        Answer.of(200, zlib.compress(FULL), {"Content-Encoding": "deflate"}),
    ],
    ids=["length", "chunks", "until the end", "gzip", "deflate"],
)
async def test_a_file_of_exactly_the_limit_is_whole(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    file = await _fetch(client, sink, answer)
    assert (file.status, file.content, file.too_large, file.complete) == (200, FULL, False, True)
    assert sink.requests[0].method == "GET"


@pytest.mark.parametrize(
    "answer",
    [
        Answer.of(200, FULL + b"f"),
        # Not even begun.
        Answer.hang(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"),
        Answer.hang(b"HTTP/1.1 200 OK\r\nContent-Length: 1001000\r\n\r\n" + FULL * 200),
        Answer.hang(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999 \r\n\r\n"),
        Answer.hang(CHUNKED + b"3e9\r\n" + FULL + b"f"),
        Answer.cut(UNTIL_THE_END + FULL + b"f"),
        Answer.of(200, gzip.compress(FULL + b"f", mtime=0), GZIP),
        Answer.of(200, gzip.compress(b"f" * 10_000_000, mtime=0)[:LIMIT], GZIP),
    ],
    ids=["length", "said", "long", "spaced", "chunks", "until the end", "gzip", "bomb"],
)
async def test_a_larger_file_is_not_read(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    file = await _fetch(client, sink, answer)
    assert (file.status, file.content, file.too_large) == (200, b"", True)


@pytest.mark.parametrize(
    "answer",
    [
        Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Answer.cut(CHUNKED + b"9\r\nhalf"),
        Answer.cut(CHUNKED + b"4\r\nhalf\r\n"),
        Answer.of(200, gzip.compress(FULL, mtime=0)[:-1], GZIP),
        Answer.of(200, gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0), GZIP),
        Answer.of(200, b"no gzip", GZIP),
    ],
    ids=["length", "chunk", "chunks", "gzip", "two in one", "not gzip"],
)
async def test_half_a_file_is_said_to_be_none(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    file = await _fetch(client, sink, answer)
    assert (file.content, file.too_large, file.complete) == (b"", False, False)


@pytest.mark.parametrize(
    "answer",
    [
        Answer.of(404, "not here"),
        Answer.of(302, "x" * 5000, {"Location": "/"}),
        Answer.hang(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n" + b"x" * 70_000),
        Answer.hang(b"HTTP/1.1 500 No\r\n\r\n"),
    ],
)
async def test_of_an_answer_that_is_not_the_file_only_the_status_counts(
    client: HttpClient, sink: HttpSink, answer: Answer
) -> None:
    file = await _fetch(client, sink, answer)
    assert (file.status, file.content, file.too_large) == (answer.status, b"", False)


async def test_a_file_read_well_leaves_the_connection(client: HttpClient, sink: HttpSink) -> None:
    for answer in (Answer.of(200, FULL), Answer.of(404, "no"), Answer.of(200, "")):
        await _fetch(client, sink, answer)
    assert {request.connection for request in sink.requests} == {1}
