"""What is sent: the request line, the headers, and what a URL means for them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pytest

from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.channels.http.target import Place, Target
from allim.channels.ssrf import AddressGuard

URL = "http://one.example/hook"


def _lines(
    url: str = URL,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> list[str]:
    head, _, sent = Target.of(url).request(method, headers or {}, body).partition(b"\r\n\r\n")
    assert sent == (body or b"")
    return head.decode().split("\r\n")


def test_a_request_has_what_every_server_wants() -> None:
    assert _lines(body=b"{}", headers={"X-A": "가"}) == [
        "POST /hook HTTP/1.1",
        "Host: one.example",
        "User-Agent: allim",
        "Accept: */*",
        "Accept-Encoding: identity",
        "X-A: 가",
        "Content-Length: 2",
    ]


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, []),
        ("GET", b"?", ["Content-Length: 1"]),
        ("POST", None, ["Content-Length: 0"]),
        ("POST", b"", ["Content-Length: 0"]),
        ("PUT", None, ["Content-Length: 0"]),
        ("DELETE", None, ["Content-Length: 0"]),
    ],
)
def test_the_length_is_said_where_there_could_be_a_body(
    method: str, body: bytes | None, length: list[str]
) -> None:
    assert [line for line in _lines(method=method, body=body) if "Content" in line] == length


@pytest.mark.parametrize("name", ["user-agent", "USER-AGENT", "accept", "Accept-encoding"])
def test_a_header_of_the_callers_wins_whatever_its_case(name: str) -> None:
    lines = _lines(headers={name: "mine"})
    assert [line for line in lines if line.lower().startswith(f"{name.lower()}:")] == [
        f"{name}: mine"
    ]
    assert len(lines) == len(_lines())


@pytest.mark.parametrize("bad", ["\r", "\n", "\r\n", "\0", "\r\nEvil: 1", "\r\n\r\nGET / HTTP/1.1"])
@pytest.mark.parametrize("where", ["name", "value", "before", "after"])
def test_no_header_breaks_out_of_its_line(bad: str, where: str) -> None:
    headers = {
        "name": {f"X-A{bad}": "1"},
        "value": {"X-A": f"1{bad}2"},
        "before": {"X-A": f"{bad}1", "X-B": "2"},
        "after": {"X-A": "1", "X-B": f"2{bad}"},
    }[where]
    with pytest.raises(ValueError, match="line break or a NUL"):
        _lines(headers=headers)


async def test_a_header_that_breaks_out_is_never_sent() -> None:
    client = HttpClient(AddressGuard())
    with pytest.raises(ValueError, match="line break"):
        await client.post(
            "http://127.0.0.1:1/", body=b"", headers={"A": "\n"}, timeout=1, trusted=True
        )
    await client.close()


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("user:password@", "Basic dXNlcjpwYXNzd29yZA=="),
        ("user@", "Basic dXNlcjo="),
        (":key@", "Basic OmtleQ=="),
        ("u%40x:p%3A%2F@", "Basic dUB4OnA6Lw=="),
        ("%ED%95%9C:1@", "Basic 7ZWcOjE="),
    ],
)
def test_a_login_in_an_operators_url_is_sent_as_one(login: str, sent: str) -> None:
    lines = _lines(f"http://{login}one.example/hook")
    assert lines[:2] == ["POST /hook HTTP/1.1", "Host: one.example"]
    assert [line for line in lines if line.startswith("Auth")] == [f"Authorization: {sent}"]


def test_a_login_given_apart_wins() -> None:
    lines = _lines("http://user:password@one.example/", headers={"authorization": "Bearer x"})
    assert [line for line in lines if line.lower().startswith("auth")] == [
        "authorization: Bearer x"
    ]


@pytest.mark.parametrize(
    ("url", "place", "host"),
    [
        ("http://one.example", (False, "one.example", 80), "one.example"),
        ("https://one.example", (True, "one.example", 443), "one.example"),
        ("HTTPS://ONE.Example:443/", (True, "one.example", 443), "one.example"),
        ("http://one.example:443/", (False, "one.example", 443), "one.example:443"),
        ("https://one.example:8443/", (True, "one.example", 8443), "one.example:8443"),
        ("http://one.example./", (False, "one.example.", 80), "one.example"),
        ("http://[::1]/", (False, "::1", 80), "[::1]"),
        ("https://[2606::1]:8443/", (True, "2606::1", 8443), "[2606::1]:8443"),
        ("http://한글.kr:81/", (False, "xn--bj0bj06e.kr", 81), "xn--bj0bj06e.kr:81"),
    ],
)
def test_the_host_is_that_of_the_url(url: str, place: tuple[bool, str, int], host: str) -> None:
    target = Target.of(url)
    assert target.place == Place(*place)
    assert _lines(url)[1] == f"Host: {host}"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "/"),
        ("?a=b", "/?a=b"),
        ("/a%2Fb%20c%3F?d=%26&e=f+g%2B%3D", "/a%2Fb%20c%3F?d=%26&e=f+g%2B%3D"),
        ("/%ED%95%9C?q=%ED%95%9C", "/%ED%95%9C?q=%ED%95%9C"),
        ("/한?q=한", "/%ED%95%9C?q=%ED%95%9C"),
        ("/a?b#c", "/a?b"),
        ("//a//b", "//a//b"),
        ("/%0D%0AEvil:%201", "/%0D%0AEvil:%201"),
        ("/a b", "/a%20b"),
    ],
)
def test_path_and_query_are_sent_as_they_were_encoded(path: str, sent: str) -> None:
    assert _lines("http://one.example" + path, "GET")[0] == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize("bad", ["\r\nEvil: 1", "\r\n\r\n", "\n", "\r", "\t"])
@pytest.mark.parametrize("url", ["http://one.example/a{}b", "http://one{}.example/", "http://{}/"])
def test_no_url_breaks_out_of_its_line(url: str, bad: str) -> None:
    lines = []
    with contextlib.suppress(HttpFailure):
        lines = _lines(url.format(bad))
    assert len(lines) in {0, len(_lines())}
    assert not any(line.startswith("Evil") for line in lines)


@pytest.mark.parametrize(
    "host", ["a\0b", ".", "..", ".one.example", "one..example", "a" * 64 + ".example"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_host_that_no_name_can_be_is_a_failure_like_any(scheme: str, host: str) -> None:
    client = HttpClient(AddressGuard())
    with pytest.raises(HttpFailure) as caught:
        await client.post(f"{scheme}://{host}/", body=b"", headers={}, timeout=10, trusted=True)
    assert caught.value.code in {"invalid_url", "connect_failed"}
    assert not caught.value.ambiguous
    await client.close()
