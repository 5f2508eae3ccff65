"""Networks of addresses, as settings name them."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated

from pydantic import BeforeValidator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _read(value: object) -> object:
    if not isinstance(value, str):
        return value
    named = (part.strip() for part in value.split(","))
    return tuple(ipaddress.ip_network(each) for each in named if each)


Networks = Annotated[tuple[Network, ...], BeforeValidator(_read)]
"""A setting: networks such as ``10.0.0.0/8``, parted by commas."""
