"""Where the API listens, and under which names; apart, so that a relay need not load the web."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from allim.base.networks import Networks
from allim.base.settings import SettingsGroup

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII | re.IGNORECASE)


class AccessSettings(SettingsGroup):
    """Where the API listens and who may use it."""

    allim_host: str = Field("127.0.0.1", description="The address that the API listens on.")
    allim_port: int = Field(
        18080, ge=0, le=65535, description="The port that the API listens on; 0 takes a free one."
    )
    allim_api_keys: str | None = Field(
        None,
        description="API keys as `name:secret:scope+scope[:tenant]`, comma-separated. Scopes are"
        " send, read, operate and admin.",
        json_schema_extra={"secret": True},
    )
    allim_allowed_hosts: str | None = Field(
        None,
        description="Host headers that are answered, without http:// and port, comma-separated;"
        " `*.example.com` and `*` may be among them. By default loopback names and ALLIM_HOST.",
    )
    allim_trusted_proxies: Networks = Field(
        (),
        description="Networks (CIDR, comma-separated) of reverse proxies whose `X-Forwarded-For`"
        " is believed. Not set: nobody's, so that behind a proxy all clients count as one.",
    )

    @field_validator("allim_allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str | None) -> str | None:
        if value is not None:
            hosts = _parted(value)
            if not hosts or not all(map(_is_host, hosts)):
                raise ValueError(
                    "must be names, *.name, addresses ([…] around one of IPv6) or *, without"
                    " http:// and port, parted by commas"
                )
        return value

    def allowed_hosts(self) -> Sequence[str]:
        """Names that a Host header may have: as set, else loopback names and ALLIM_HOST."""
        if self.allim_allowed_hosts is not None:
            return _parted(self.allim_allowed_hosts)
        host = self.allim_host
        return sorted(LOOPBACK_NAMES | {f"[{host}]" if ":" in host else host})


def _parted(hosts: str) -> Sequence[str]:
    return [host.strip() for host in hosts.split(",") if host.strip()]


def _is_host(host: str) -> bool:
    """Whether a Host header could be that: a browser writes other scripts as xn--…, too."""
    if host[:1] + host[-1:] == "[]":
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return host == "*" or _NAME.fullmatch(host) is not None
