"""What a relay says at its start of the channels that it sends by."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from allim.base.settings import Environment
from allim.channels.channel import Channel, ChannelEntry, Configured
from allim.channels.table import CHANNELS

log = logging.getLogger("allim")


def announce(
    channels: Sequence[Channel],
    environment: Environment,
    table: Sequence[ChannelEntry] = CHANNELS,
) -> None:
    """Log how the channels are set up; `allim doctor` tells of each by itself.

    All that only print are one warning, all that are not configured one line. Each that has some
    of its settings, but not the one that it needs, is a warning of its own.
    """
    printing: dict[str, list[str]] = {}
    absent: list[str] = []
    for channel in channels:
        name, how = channel.name, channel.configured()
        if how.mode == "live":
            log.info("channel %s is live: %s", name, how.detail)
        elif given := _given(name, how, environment, table):
            log.warning("channel %s is set up in part (%s): %s", name, ", ".join(given), how.detail)
        elif how.mode == "mock":
            printing.setdefault(how.detail, []).append(name)
        else:
            absent.append(name)
    if printing:
        told = (f"{', '.join(names)} ({detail})" for detail, names in printing.items())
        log.warning("only printed, nobody is called: %s", "; ".join(told))
    if absent:
        log.info(
            "not configured, deliveries succeed without a call: %s (`allim doctor` says what each"
            " needs)",
            ", ".join(absent),
        )


def _given(
    name: str, how: Configured, environment: Environment, table: Sequence[ChannelEntry]
) -> Sequence[str]:
    """The settings of a channel that somebody gave a value of his own, while one is missing."""
    groups = [entry.settings for entry in table if entry.name == name and how.needs]
    given = []
    for group in groups:
        if group is not None:
            settings = environment.read(group)
            given += [
                variable.upper()
                for variable, field in group.model_fields.items()
                if getattr(settings, variable) != field.get_default(call_default_factory=True)
            ]
    return given
