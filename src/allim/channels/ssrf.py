"""The guard over URLs that callers supply: nothing inside our own network may be reached.

What counts is the address a connection is made to, so that is what is checked, on the
socket, for names and for addresses written in the URL alike: whatever a name resolves to
between two look-ups, no packet leaves for a blocked address. Checking a URL beforehand
(`check_url`) only tells a caller early.

Networks: IANA's special-purpose registries for IPv4 and IPv6, and the metadata services of
the large clouds.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol, TypedDict

from yarl import URL

from allim.base.networks import Address, Network

NOT_PUBLIC = (
    "leads to an address that is not public; the operator may let it through by ALLIM_SSRF_ALLOW"
)

URL_LIMIT = 2048
"""Characters of a URL that are taken."""
NAME_LIMIT, LABEL_LIMIT = 253, 63
"""Characters of a host's name, and of each part between its dots."""

BLOCKED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
GLOBAL_V6 = IPv6Network("2000::/3")
BLOCKED_V6 = tuple(
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
NAT64 = IPv6Network("64:ff9b::/96")


class AddressBlocked(OSError):
    """A connection to an address that callers may not reach; its text is always the same."""

    def __init__(self) -> None:
        super().__init__("the address is not a public one")


class AddressGuard:
    """Decides which addresses may be reached; `allow` are networks that may be all the same."""

    def __init__(self, allow: Iterable[Network] = ()) -> None:
        self._allow = tuple(allow)
        self._localhost = any(
            ipaddress.ip_address(address) in network
            for network in self._allow
            for address in ("127.0.0.1", "::1")
        )

    def allows(self, address: Address) -> bool:
        """Whether an address may be reached."""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                return self.allows(address.ipv4_mapped)
            if address in NAT64 and not self._listed(address):
                return self.allows(IPv4Address(int(address) & 0xFFFFFFFF))
            public = address in GLOBAL_V6 and not any(address in net for net in BLOCKED_V6)
        else:
            public = not any(address in network for network in BLOCKED_V4)
        return public or self._listed(address)

    def check_url(self, url: str) -> str | None:
        """What speaks against a URL, in words, without a look-up of its name; or None."""
        return check_form(url) or self.check_host(url)

    def check_host(self, url: str) -> str | None:
        """What speaks against where a URL of good form leads, as far as the URL tells."""
        host = (URL(url).raw_host or "").rstrip(".")
        if "%" in host:
            return "leads into one of our networks"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if is_legacy_ipv4(host):
                return "hides where it leads"
            if (host == "localhost" or host.endswith(".localhost")) and not self._localhost:
                return "leads to this machine"
            return None
        return None if self.allows(address) else NOT_PUBLIC

    def new_socket(self, addr_info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """Make the socket of one connection; raises AddressBlocked before there is one.

        aiohttp's `socket_factory`: called with the very address that is connected to next.
        """
        family, kind, protocol, _, address = addr_info
        if not self.allows(ipaddress.ip_address(str(address[0]))):
            raise AddressBlocked
        return socket.socket(family, kind, protocol)

    def _listed(self, address: Address) -> bool:
        return any(address in network for network in self._allow)


class ResolvedAddress(TypedDict):
    """One address of a name, in the words of `socket.getaddrinfo`."""

    hostname: str
    host: str
    port: int
    family: int
    proto: int
    flags: int


class Resolver(Protocol):
    """Looks names up."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> Sequence[ResolvedAddress]:
        """The addresses of a name; OSError where it has none."""

    async def close(self) -> None:
        """Stop what is under way."""


class GuardedResolver:
    """Leaves out the blocked ones of a name's addresses, so that the others are tried."""

    def __init__(self, guard: AddressGuard, resolver: Resolver) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> Sequence[ResolvedAddress]:
        """The addresses of a name that may be reached; AddressBlocked where none may."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [
            result for result in found if self._guard.allows(ipaddress.ip_address(result["host"]))
        ]
        if found and not allowed:
            raise AddressBlocked
        return allowed

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._resolver.close()


def check_form(url: str) -> str | None:
    """What speaks against a caller's URL wherever it leads; or None."""
    if len(url) > URL_LIMIT:
        return f"is longer than {URL_LIMIT} characters"
    if any(character <= " " or character in "\x7f\\" for character in url):
        return "contains a space, a control character or a backslash"
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except ValueError:
        return "is not a URL"
    if parsed.scheme not in ("http", "https"):
        return "must begin with https:// or http://"
    if not host:
        return "has no host"
    if parsed.raw_user is not None or parsed.raw_password is not None:
        return "must not carry a user name or password"
    if not port:
        return "has no usable port"
    if ":" not in host and not _can_be_looked_up(host):
        return "has a host that is no name"
    return None


def _can_be_looked_up(host: str) -> bool:
    """Whether a name keeps to the sizes of RFC 1035, section 2.3.4; the dot at its end is none."""
    name = host.removesuffix(".")
    return len(name) <= NAME_LIMIT and all(
        1 <= len(label) <= LABEL_LIMIT for label in name.split(".")
    )


def is_legacy_ipv4(host: str) -> bool:
    """Whether a C library would read it as an IPv4 address: ``0x7f.1``, ``017700000001``."""
    try:
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return True
