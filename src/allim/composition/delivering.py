"""A relay of deliveries with everything beside it: policies, rates, reports, replays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from allim.base.errors import ConfigurationError
from allim.base.tasks import cancel_and_wait
from allim.channels.channel import Channel, Message, RecipientKind
from allim.channels.kakao import NAME as KAKAO
from allim.channels.sending import CALL_GRACE
from allim.channels.sheet import NAME as SHEET
from allim.composition.announcing import announce
from allim.composition.foundation import Foundation
from allim.composition.parts import Part
from allim.composition.reporting import taking_in_reports
from allim.composition.settings import RelaySettings
from allim.hub.delivery_box import DeliveryBox
from allim.hub.digest import DigestPolicy, DigestSettings
from allim.hub.endpoints import DisabledTargets
from allim.hub.quiet_hours import KnownRules, QuietHoursPolicy
from allim.hub.rates import SharedRates
from allim.hub.replaying import ReplayRunner
from allim.relay.lane import Lane
from allim.relay.policy import ChannelPolicy, combine
from allim.relay.relay import Relay
from allim.relay.single_pass import PassFigures, SinglePass

CAN_BE_GONE = frozenset(
    {
        RecipientKind.URL,
        RecipientKind.SLACK_WEBHOOK,
        RecipientKind.DISCORD_WEBHOOK,
        RecipientKind.TEAMS_WEBHOOK,
        RecipientKind.PUSH_SUBSCRIPTION,
    }
)
"""Kinds of recipient that may say for good that they are gone (HTTP 410)."""


@asynccontextmanager
async def delivering(base: Foundation, *, only: Sequence[str] = ()) -> AsyncIterator[Part]:
    """A relay for every channel, or for those named in `only`.

    Raises ConfigurationError for a channel that there is none of, and for a lease too short.
    """
    relay = _relay(base, only)
    steps = asyncio.create_task(ReplayRunner(base.database, base.signal, base.wakes).run())
    try:
        async with taking_in_reports(base):
            yield Part(relay.run, relay.stop)
    finally:
        await cancel_and_wait(steps)


def make_passes(base: Foundation) -> Callable[[str, int], Awaitable[PassFigures]]:
    """What makes single passes over a channel of the chain, with all that a relay sends it by.

    Raises ConfigurationError for a lease too short.
    """
    limits = base.environment.read(RelaySettings).limits()
    refuse_short_lease([base.channels[name] for name in (SHEET, KAKAO)], limits.lease)

    quiet = KnownRules()

    async def run_pass(channel: str, limit: int) -> PassFigures:
        # A box of its own: its low-water marks must not be those of another pass under way.
        box = DeliveryBox(base.database, wake=base.wakes)
        passes = SinglePass(
            box,
            limits=limits,
            rates=SharedRates(base.database),
            observer=base.watch.observer(base.worker),
            worker=base.worker,
        )
        return await passes.run(_lane(channel, base, quiet), limit)

    return run_pass


def refuse_short_lease(channels: Iterable[Channel], lease: float) -> None:
    """Raise ConfigurationError where a call may outlive its lease: two would make it then."""
    long = {c.name: c.limits.call_timeout for c in channels if c.limits.call_timeout >= lease}
    if not long:
        return
    calls = ", ".join(f"{name} {seconds:g} s" for name, seconds in long.items())
    raise ConfigurationError(
        f"DELIVERY_LEASE_SECONDS is {lease:g}, but a call may take longer: {calls}. Set it to more,"
        f" or lower {', '.join(f'{name}_TIMEOUT_SECONDS' for name in long)} (a call may take"
        f" {CALL_GRACE:g} s more than that)"
    )


def _relay(base: Foundation, only: Sequence[str]) -> Relay[Message]:
    chosen = _chosen(base.channels, only)
    limits = base.environment.read(RelaySettings).limits()
    refuse_short_lease([base.channels[name] for name in chosen], limits.lease)
    if unknown := base.environment.read(DigestSettings).channels() - set(base.channels):
        words = f"DIGEST_CHANNELS: there is no channel {', '.join(sorted(unknown))}"
        raise ConfigurationError(f"invalid settings: {words}")
    quiet = KnownRules()
    lanes = [_lane(name, base, quiet) for name in chosen]
    announce([base.channels[name] for name in chosen], base.environment)
    base.watch.relays(chosen)
    observer = base.watch.observer(base.worker)
    return Relay(
        DeliveryBox(base.database, wake=base.wakes, beside=observer.settled),
        lanes,
        wake=base.signal,
        limits=limits,
        rates=SharedRates(base.database),
        observer=observer,
        worker=base.worker,
    )


def _chosen(channels: Mapping[str, Channel], only: Sequence[str]) -> Sequence[str]:
    names = [name.upper() for name in only] or list(channels)
    for name in names:
        if name not in channels:
            raise ConfigurationError(
                f"there is no channel {name}; there are {', '.join(sorted(channels))}"
            )
    return list(dict.fromkeys(names))


def _lane(name: str, base: Foundation, quiet: KnownRules) -> Lane[Message]:
    """A lane with the rules that are neither the engine's nor the channel's."""
    channel = base.channels[name]
    policies: list[ChannelPolicy[Message]] = [QuietHoursPolicy(name, quiet), *base.rules.of(name)]
    if channel.recipient_kind in CAN_BE_GONE:
        policies.append(DisabledTargets(base.ways.endpoints, channel.target))
    digest = base.environment.read(DigestSettings)
    if name in digest.channels():
        # Last: whoever opens a window must be going to be sent.
        policies.append(DigestPolicy(digest.digest_window_seconds))
    return Lane(name, channel, combine(policies))
