"""Whose word on a client's address is believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from starlette.requests import Request

from allim.web.proxies import TrustedProxies, network_of

TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "127.0.0.1")))


def asked_from(peer: str | None, *forwarded: str, scheme: str = "http", proto: str = "") -> Request:
    """A request as it comes in, with a header for each of `forwarded`."""
    headers = [(b"x-forwarded-for", hops.encode()) for hops in forwarded]
    if proto:
        headers.append((b"x-forwarded-proto", proto.encode()))
    client = None if peer is None else (peer, 4711)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "scheme": scheme}
    return Request({**scope, "server": ("allim", 80), "headers": headers, "client": client})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", (), "203.0.113.5"),
        ("203.0.113.5", ("198.51.100.1",), "203.0.113.5"),
        ("10.1.2.3", (), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.1",), "198.51.100.1"),
        ("10.1.2.3", ("203.0.113.5,198.51.100.1 , 10.9.9.9",), "198.51.100.1"),
        ("10.1.2.3", ("203.0.113.5", "198.51.100.1", "10.9.9.9"), "198.51.100.1"),
        ("10.1.2.3", ("10.8.8.8, 10.9.9.9",), "10.8.8.8"),
        ("10.1.2.3", ("198.51.100.1, unknown",), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.1, unknown, 10.9.9.9",), "10.9.9.9"),
        ("10.1.2.3", ("198.51.100.1,",), "10.1.2.3"),
        ("10.1.2.3", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.1.2.3", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("fd00::1", ("2001:DB8::1",), "2001:db8::1"),
        ("::ffff:10.1.2.3", ("::ffff:198.51.100.1",), "198.51.100.1"),
        ("10.1.2.3", (", ".join(["198.51.100.1", *["10.0.0.1"] * 1000]),), "10.0.0.1"),
        ("peer", ("198.51.100.1",), "peer"),
        (None, ("198.51.100.1",), ""),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(
    peer: str | None, forwarded: tuple[str, ...], client: str
) -> None:
    assert TrustedProxies(TRUSTED).client(asked_from(peer, *forwarded)) == client


def test_by_default_the_client_is_the_peer() -> None:
    assert TrustedProxies().client(asked_from("127.0.0.1", "198.51.100.1")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "scheme", "proto", "encrypted"),
    [
        ("203.0.113.5", "https", "", True),
        ("203.0.113.5", "http", "https", False),
        ("10.1.2.3", "http", "https", True),
        ("127.0.0.9", "http", "HTTPS", True),
        ("10.1.2.3", "http", "http", False),
        (None, "http", "https", False),
    ],
)
def test_tls_is_believed_of_this_machine_and_of_trusted_proxies(
    peer: str | None, scheme: str, proto: str, encrypted: bool
) -> None:
    request = asked_from(peer, scheme=scheme, proto=proto)
    assert TrustedProxies(TRUSTED).is_encrypted(request) is encrypted


def test_a_customers_ipv6_addresses_count_as_one_client() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:198.51.100.1") == network_of("198.51.100.1") == "198.51.100.1"
    assert network_of("") == ""
