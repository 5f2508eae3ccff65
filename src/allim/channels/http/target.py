"""What a URL means for a request: where the connection goes, and what is asked for there."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from yarl import URL

from allim.channels.http.failure import HttpFailure
from allim.channels.ssrf import is_legacy_ipv4

OWN_FIELDS = {"User-Agent": "allim", "Accept": "*/*", "Accept-Encoding": "identity"}
"""Sent with every request that does not have its own."""


class Place(NamedTuple):
    """Where connections lead; kept ones are found by it."""

    tls: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, read: what stays the same in every request to it."""

    place: Place
    start: str
    """What follows the method: path, version, and the header `Host`."""
    own: Mapping[str, str]
    """Headers that a request may have its own of."""
    own_lines: str
    own_names: frozenset[str]

    @classmethod
    def of(cls, url: str) -> Target:
        """Read a URL. Raises HttpFailure for one that cannot be called."""
        try:
            parsed = URL(url)
            host, port = parsed.raw_host, parsed.port
        except ValueError:
            raise HttpFailure("invalid_url", "the URL cannot be read") from None
        if parsed.scheme not in ("http", "https") or not host or not port:
            raise HttpFailure("invalid_url", "the URL is not one of http:// or https://")
        if not _is_address(host) and is_legacy_ipv4(host):
            raise HttpFailure("invalid_url", "the URL hides where it leads")
        own = dict(OWN_FIELDS)
        if parsed.user is not None or parsed.password is not None:
            pair = f"{parsed.user or ''}:{parsed.password or ''}".encode()
            own["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return cls(
            Place(parsed.scheme == "https", host, port),
            f" {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}\r\n",
            own,
            _lines(own),
            frozenset(map(str.lower, own)),
        )

    def request(self, method: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """A whole request. Raises ValueError where a header would break out of its line."""
        lines = _lines(headers)
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
            raise ValueError("a header has a line break or a NUL in it")
        own_lines = self.own_lines
        if not self.own_names.isdisjoint(map(str.lower, headers)):
            given = {name.lower() for name in headers}
            own_lines = _lines({k: v for k, v in self.own.items() if k.lower() not in given})
        if body is not None:
            lines += f"Content-Length: {len(body)}\r\n"
        elif method != "GET":
            lines += "Content-Length: 0\r\n"
        head = f"{method}{self.start}{own_lines}{lines}\r\n".encode()
        return head + body if body else head


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
