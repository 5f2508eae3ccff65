"""Makes the channels of the table, and what they share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from allim.base.settings import Environment, SettingsGroup
from allim.channels.channel import Channel, ChannelEntry, ChannelServices, SecretsFor
from allim.channels.http.client import HttpClient, HttpSettings
from allim.channels.sending import RetrySettings, sending_settings
from allim.channels.table import CHANNELS


def make_channels(
    environment: Environment,
    services: ChannelServices,
    table: Sequence[ChannelEntry] = CHANNELS,
) -> dict[str, Channel]:
    """Every channel by its name. Raises ConfigurationError where a setting is wrong."""
    return {entry.name: entry.make(environment, services) for entry in table}


def settings_groups(table: Sequence[ChannelEntry] = CHANNELS) -> list[type[SettingsGroup]]:
    """Every settings group that channels read."""
    groups: list[type[SettingsGroup]] = [HttpSettings, RetrySettings]
    for entry in table:
        if entry.settings is not None:
            groups.append(entry.settings)
        groups.extend(entry.more_settings)
        groups.append(sending_settings(entry.name))
    return groups


def make_http(environment: Environment) -> HttpClient:
    """The one HTTP client of a process; close it after the channels."""
    return HttpClient(environment.read(HttpSettings).guard())


def make_services(
    http: HttpClient,
    *,
    secrets_for: SecretsFor | None = None,
    print_line: Callable[[str], None] | None = None,
) -> ChannelServices:
    """What channels share; without `secrets_for` no webhook target has secrets of its own."""
    return ChannelServices(
        http=http,
        secrets_for=secrets_for or no_secrets,
        print_line=print_line or print_line_on_stdout,
    )


async def close_channels(channels: Mapping[str, Channel]) -> None:
    """Close every channel."""
    for channel in channels.values():
        await channel.close()


async def no_secrets(tenant_id: int | None, url: str) -> Sequence[str]:
    """The `SecretsFor` that knows none."""
    return ()


def print_line_on_stdout(line: str) -> None:
    """Write a line to stdout, whatever characters it holds, and flush."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()
