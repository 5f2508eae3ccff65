"""Who asks, where a reverse proxy stands in between: believed of those that the operator names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from starlette.requests import HTTPConnection

from allim.base.networks import Address, Network

HOPS = 32
"""More than so many proxies in a row are none."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The networks whose `X-Forwarded-For` is believed."""

    networks: tuple[Network, ...] = ()

    def client(self, connection: HTTPConnection) -> str:
        """The address of whoever asks; empty where there is none.

        That is the peer. Where the peer is a trusted proxy, it is the last address of
        X-Forwarded-For that is not one: what stands before it anybody can have written.
        """
        peer = connection.client.host if connection.client else ""
        if not self.networks:
            return peer
        seen = _address(peer)
        for hop in self._hops(connection):
            if seen is None or not self._trusts(seen):
                break
            if (before := _address(hop)) is None:
                break
            seen = before
        return peer if seen is None else str(seen)

    def is_encrypted(self, connection: HTTPConnection) -> bool:
        """Whether the client's own connection is: as a proxy of this machine or a trusted one says.

        To claim it brings nobody anything: it only makes cookies stricter.
        """
        if connection.url.scheme == "https":
            return True
        peer = _address(connection.client.host) if connection.client else None
        if peer is None or not (peer.is_loopback or self._trusts(peer)):
            return False
        return connection.headers.get("x-forwarded-proto", "").strip().lower() == "https"

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    @staticmethod
    def _hops(connection: HTTPConnection) -> Iterator[str]:
        """The addresses of X-Forwarded-For, the last first."""
        given = ",".join(connection.headers.getlist("x-forwarded-for"))
        for _ in range(HOPS):
            given, _, hop = given.rpartition(",")
            yield hop


def network_of(address: str) -> str:
    """What is counted as one client: an address, and of IPv6 the /64 that one customer has."""
    read = _address(address)
    if isinstance(read, IPv6Address):
        return str(IPv6Network((int(read) >> 64 << 64, 64)))
    return address if read is None else str(read)


def _address(text: str) -> Address | None:
    """Read an address, with a port or without; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        read = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(read, IPv6Address) and read.ipv4_mapped is not None:
        return read.ipv4_mapped
    return read
