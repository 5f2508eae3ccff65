"""A relay of deliveries with everything it needs: channels, policies, rates, wakes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import Channel, Message, RecipientKind
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.channels.sending import CALL_GRACE
from allim.composition.settings import RelaySettings
from allim.database.pool import Database
from allim.database.wakes import Listener, Waker
from allim.hub.delivery_box import DeliveryBox
from allim.hub.endpoints import DisabledTargets, EndpointBook
from allim.hub.rates import SharedRates
from allim.messaging.policies import MessagingPolicies
from allim.relay.lane import Lane
from allim.relay.observer import Observer
from allim.relay.policy import ChannelPolicy, combine
from allim.relay.relay import Relay, worker_name
from allim.relay.wake import WakeSignal

log = logging.getLogger("allim")

CAN_BE_GONE = frozenset({RecipientKind.URL, RecipientKind.SLACK_WEBHOOK})
"""Kinds of recipient that may say for good that they are gone (HTTP 410)."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The channels of this process, and what is known of their targets."""

    channels: Mapping[str, Channel]
    endpoints: EndpointBook


@asynccontextmanager
async def open_channels(
    database: Database,
    environment: Environment,
    *,
    print_line: Callable[[str], None] | None = None,
) -> AsyncIterator[Ways]:
    """Every channel; closed at the end, the HTTP client last."""
    endpoints = EndpointBook(database)
    http = make_http(environment)
    try:
        services = make_services(http, secrets_for=endpoints.secrets_for, print_line=print_line)
        channels = make_channels(environment, services)
        try:
            yield Ways(channels, endpoints)
        finally:
            await close_channels(channels)
    finally:
        await http.close()


class Wakes:
    """Tells lanes that there is work: those of this process at once, other processes after."""

    def __init__(self, waker: Waker, signal: WakeSignal | None = None) -> None:
        self.name = waker.name
        self._waker = waker
        self._signal = signal

    def __call__(self, lanes: Collection[str]) -> None:
        """Wake lanes; called after a commit, on the event loop."""
        if self._signal is not None:
            self._signal.wake(lanes)
        self._waker.wake(lanes)


@asynccontextmanager
async def listening(database: Database, signal: WakeSignal, own: Wakes) -> AsyncIterator[None]:
    """Hear wakes of other processes."""

    def on_listening(heard: bool) -> None:
        signal.listening = heard
        if heard:
            signal.wake_all()

    async with Listener(database, signal.wake, on_listening, but_not=own.name):
        yield


def make_relay(
    database: Database,
    ways: Ways,
    environment: Environment,
    *,
    rules: MessagingPolicies,
    signal: WakeSignal,
    wakes: Wakes,
    observe: Callable[[str], Observer],
    only: Sequence[str] = (),
) -> Relay[Message]:
    """A relay for every channel, or for those named in `only`; `observe` is told its name.

    `rules` are messaging's: balances, cancelled reservations, opt-outs, advertising at night.

    Raises ConfigurationError for a channel that there is none of, and for a lease too short.
    """
    worker = worker_name()
    chosen = _chosen(ways.channels, only)
    limits = environment.read(RelaySettings).limits()
    refuse_short_lease([ways.channels[name] for name in chosen], limits.lease)
    lanes = [Lane(name, ways.channels[name], _policy(name, ways, rules)) for name in chosen]
    for lane in lanes:
        configured = ways.channels[lane.name].configured()
        level = logging.INFO if configured.mode == "live" else logging.WARNING
        log.log(level, "channel %s is %s: %s", lane.name, configured.mode, configured.detail)
    return Relay(
        DeliveryBox(database, wake=wakes),
        lanes,
        wake=signal,
        limits=limits,
        rates=SharedRates(database),
        observer=observe(worker),
        worker=worker,
    )


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


def _chosen(channels: Mapping[str, Channel], only: Sequence[str]) -> Sequence[str]:
    names = [name.upper() for name in only] or list(channels)
    for name in names:
        if name not in channels:
            raise ConfigurationError(
                f"there is no channel {name}; there are {', '.join(sorted(channels))}"
            )
    return list(dict.fromkeys(names))


def _policy(name: str, ways: Ways, rules: MessagingPolicies) -> ChannelPolicy[Message] | None:
    """The rules of one lane that are neither the engine's nor the channel's."""
    policies: list[ChannelPolicy[Message]] = [*rules.of(name)]
    if ways.channels[name].recipient_kind in CAN_BE_GONE:
        policies.append(DisabledTargets(ways.endpoints))
    return combine(policies)
