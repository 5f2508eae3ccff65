"""Answers: whatever the bytes and however they are cut, one is read right or not at all."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.channels.http_by_hand import LONG, Line, an_answer

from allim.channels.http.answer import HEAD_LIMIT, AnswerReader, NotHttp, Reply
from allim.channels.http.failure import HttpFailure

LIMIT = 64
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _read(*pieces: bytes, limit: int = LIMIT, end: bool = False) -> Reply:
    reader = AnswerReader()
    reader.expect(limit)
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    assert reader.is_whole or reader.has_enough
    return reader.reply(complete=True)


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        (an_answer(), 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + an_answer(), 200, b"ok"),
        (
            b"HTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + an_answer(),
            200,
            b"ok",
        ),
        (b"HTTP/1.1 100 C\r\nContent-Length: 4\r\n\r\n" + an_answer(), 200, b"ok"),
        (CHUNKED + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n", 200, b"abcde"),
        (CHUNKED + b"1\r\na\r\n0\r\nDigest: x\r\nX-T: 9\r\n\r\n", 200, b"a"),
        (CHUNKED + b"0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 No\r\nContent-Length: 70\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200\nContent-Length: 2\n\nok", 200, b"ok"),
        (b"HTTP/1.0 500 No\r\nContent-Length: 2\r\n\r\nno", 500, b"no"),
        (an_answer(b"x" * LIMIT), 200, b"x" * LIMIT),
        (an_answer(b"x" * (LIMIT + 1)), 200, b"x" * LIMIT),
    ],
)
def test_an_answer_reads_the_same_in_any_two_pieces(wire: bytes, status: int, body: bytes) -> None:
    for cut in range(len(wire) + 1):
        reply = _read(wire[:cut], wire[cut:])
        assert (reply.status, reply.content) == (status, body)
        assert "Link" not in reply.headers
        assert "Digest" not in reply.headers


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01",
        b"POST / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 099 x\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 101 Up\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xc2\xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        CHUNKED + b"-2\r\n",
        CHUNKED + b"2\r\nabc\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
    ],
)
def test_what_could_be_read_two_ways_is_no_answer(wire: bytes) -> None:
    with pytest.raises(NotHttp):
        _read(wire)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nA: ",
        b"HTTP/1.1 200 OK\r\n",
        CHUNKED + b"1\r\na\r\n0\r\nA: ",
        CHUNKED + b"1;",
    ],
    ids=["reason", "header", "name", "trailer", "extension"],
)
def test_what_never_gets_on_is_not_kept(start: bytes) -> None:
    with pytest.raises(NotHttp):
        _read(start, *[b"y" * 1000] * (HEAD_LIMIT // 1000 + 2))


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("more", [False, True])
def test_a_head_may_be_as_long_as_the_limit(pieces: int, more: bool) -> None:
    lines = b"A: " + b"y" * (HEAD_LIMIT - 200 + more * 1000) + b"\r\n"
    wire = b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok"
    step = -(-len(wire) // pieces)
    cut = [wire[start : start + step] for start in range(0, len(wire), step)]
    if more:
        with pytest.raises(NotHttp):
            _read(*cut)
    else:
        assert _read(*cut).content == b"ok"


def test_announcements_without_end_are_no_answer() -> None:
    with pytest.raises(NotHttp):
        _read(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * HEAD_LIMIT)


def test_a_body_in_small_chunks_may_be_long() -> None:
    reply = _read(CHUNKED, *[b"1\r\na\r\n"] * 50_000, b"0\r\n\r\n", limit=100_000)
    assert (len(reply.content), reply.cut) == (50_000, False)


@pytest.mark.parametrize(("end", "whole"), [(True, True), (False, False)])
def test_the_end_is_an_answers_only_where_it_says_no_other(end: bool, whole: bool) -> None:
    for head in (b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"):
        reader = AnswerReader()
        reader.expect(LIMIT)
        reader.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        if end:
            reader.end()
        assert reader.is_whole is (whole and not head)
        assert not reader.may_go_on


def test_headers_are_found_in_any_case_and_of_several_the_first() -> None:
    headers = _read(an_answer(b"", "X-A: 1", "x-a: 2", "Retry-AFTER: 7")).headers
    assert (headers["x-a"], headers["RETRY-after"], headers.get("X-B")) == ("1", "7", None)
    assert set(headers) == {"content-length", "x-a", "retry-after"}
    assert len(headers) == 3


_bodies = st.binary(max_size=LIMIT)


@st.composite
def _answers(draw: st.DrawFn) -> tuple[bytes, int, bytes]:
    """A valid answer, its status, and its body."""
    wire = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 503]))
    wire += b"HTTP/1.1 %d Words\r\nX-A: b\r\n" % status
    if status in (204, 304):
        return wire + b"\r\n", status, b""
    parts = draw(st.lists(_bodies.filter(bool), max_size=4))
    body = b"".join(parts)[:LIMIT]
    if draw(st.booleans()):
        return wire + b"Content-Length: %d\r\n\r\n" % len(body) + body, status, body
    wire += b"Transfer-Encoding: chunked\r\n\r\n"
    wire += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    trailer = draw(st.sampled_from([b"", b"X-T: 1\r\n"]))
    return wire + b"0\r\n" + trailer + b"\r\n", status, b"".join(parts)[:LIMIT]


def _cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[start:end] for start, end in pairwise(places)]


_cuts = st.lists(st.integers(0, 10_000), max_size=6)


@given(_answers(), _cuts)
def test_any_answer_reads_the_same_in_any_pieces(
    answer: tuple[bytes, int, bytes], cuts: list[int]
) -> None:
    wire, status, body = answer
    reply = _read(*_cut(wire, cuts))
    assert (reply.status, reply.content, reply.headers["x-a"]) == (status, body, "b")


_anything = st.one_of(
    st.binary(max_size=200),
    _answers().map(lambda answer: answer[0]),
    st.lists(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 OK\r\n",
                b"HTTP/1.1 204 OK\r\n",
                b"HTTP/1.0 200 OK\r\n",
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n",
                b"Upgrade: x\r\nConnection: upgrade\r\n",
                b"\r\n",
                b"\n",
                b"abc",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
                b"\x00",
            ]
        ),
        max_size=10,
    ).map(b"".join),
)


@settings(max_examples=300)
@given(_anything, _cuts, st.booleans())
def test_no_bytes_lead_to_a_wrong_answer_to_the_next_request(
    wire: bytes, cuts: list[int], ends: bool
) -> None:
    async def test() -> None:
        line = Line().begin()
        connection = line.connection
        call = asyncio.create_task(connection.exchange(b"1", timeout=LONG, limit=LIMIT))
        await asyncio.sleep(0)
        for piece in _cut(wire, cuts):
            # A transport says nothing once it is closing.
            if not line.wire.is_closing():
                connection.data_received(piece)
        if ends and not line.wire.is_closing():
            connection.eof_received()
            line.wire.end(None)
            await asyncio.sleep(0)
        if not connection.is_usable:
            (result,) = await asyncio.gather(call, return_exceptions=True)
            if isinstance(result, Reply):
                assert 200 <= result.status <= 999
            else:
                assert isinstance(result, HttpFailure)
                assert result.ambiguous
            return
        if line.idle:
            assert (await call).complete
            call = asyncio.create_task(connection.exchange(b"2", timeout=LONG, limit=LIMIT))
            await asyncio.sleep(0)
            connection.data_received(b"HTTP/1.1 299 Mine\r\nContent-Length: 4\r\n\r\nmine")
            mine = await call
            assert (mine.status, mine.content, len(mine.headers)) == (299, b"mine", 1)
            return
        # There is still something to come.
        connection.abort()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(test())
