"""How a channel wants to be called, and the settings with which an operator changes it.

Every channel has the same seven: `<CHANNEL>_CONCURRENCY`, `<CHANNEL>_MAX_ATTEMPTS`,
`<CHANNEL>_RETRY_BASE_SECONDS`, `<CHANNEL>_RETRY_MAX_SECONDS`, `<CHANNEL>_AT_MOST_ONCE`,
`<CHANNEL>_TIMEOUT_SECONDS` and `<CHANNEL>_RATE_PER_SECOND`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import Field, create_model

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment, SettingsGroup
from allim.relay.sender import RateLimit, SendingLimits

CALL_GRACE = 5.0
"""Seconds by which the engine's limit on a send is longer than the channel's own timeout."""


LEASE_SETTING = "DELIVERY_LEASE_SECONDS"
"""Whose settings group is the composition's; no call may outlive it."""


class RetrySettings(SettingsGroup):
    """When deliveries are tried again, for every channel that does not say otherwise."""

    outbox_retry_base_seconds: float = Field(
        60.0, gt=0, description="Seconds before the first retry of a delivery; doubles each time."
    )
    outbox_retry_max_seconds: float = Field(
        3600.0, gt=0, description="The longest wait between two tries of a delivery, in seconds."
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """What a channel is told about calling out.

    `limits` goes to the engine; `timeout` (seconds) is what one `send` may take on the wire,
    `CALL_GRACE` less than the engine allows, so that the channel itself ends a call that hangs.
    """

    limits: SendingLimits
    timeout: float


@lru_cache
def sending_settings(channel: str) -> type[SettingsGroup]:
    """The settings group with the seven variables of one channel."""
    prefix = channel.lower()
    fields: dict[str, Any] = {
        "concurrency": (
            int | None,
            Field(None, ge=1, le=1000, description="Calls at once in one relay process."),
        ),
        "max_attempts": (
            int | None,
            Field(None, ge=1, le=100, description="Tries that may fail before a dead letter."),
        ),
        "retry_base_seconds": (
            float | None,
            Field(None, gt=0, description="Seconds before the first retry."),
        ),
        "retry_max_seconds": (
            float | None,
            Field(None, gt=0, description="The longest wait between two tries, in seconds."),
        ),
        "at_most_once": (
            bool | None,
            Field(
                None,
                description="Hold for an operator what may or may not have arrived,"
                " instead of sending it again.",
            ),
        ),
        "timeout_seconds": (
            float | None,
            Field(
                None,
                gt=0,
                le=300,
                description="The longest that one call may take; five seconds more must be less"
                " than DELIVERY_LEASE_SECONDS.",
            ),
        ),
        "rate_per_second": (
            float | None,
            Field(None, ge=0, description="Calls a second to one target; 0 is no limit."),
        ),
    }
    return create_model(
        f"{channel.title()}Sending",
        __base__=SettingsGroup,
        __doc__=f"How {channel} is called.",
        **{f"{prefix}_{name}": field for name, field in fields.items()},
    )


def sending(
    environment: Environment,
    channel: str,
    *,
    timeout: float,
    limits: SendingLimits | None = None,
) -> Sending:
    """A channel's own limits and timeout (seconds), with what the operator has set over them.

    Raises ConfigurationError where a value is wrong.
    """
    limits = limits or SendingLimits()
    every = environment.read(RetrySettings)
    group = environment.read(sending_settings(channel))
    own = {
        name.removeprefix(f"{channel.lower()}_"): value
        for name, value in group.model_dump().items()
        if value is not None
    }
    retry = replace(
        limits.retry,
        base=own.get("retry_base_seconds", every.outbox_retry_base_seconds),
        maximum=own.get("retry_max_seconds", every.outbox_retry_max_seconds),
        attempts=own.get("max_attempts", limits.retry.attempts),
    )
    if retry.maximum < retry.base:
        raise ConfigurationError(
            f"invalid settings: {channel}: the longest wait between tries"
            f" ({retry.maximum:g} s) is shorter than the first ({retry.base:g} s)"
        )
    timeout = own.get("timeout_seconds", _within_the_lease(environment, timeout))
    return Sending(
        replace(
            limits,
            concurrency=own.get("concurrency", limits.concurrency),
            at_most_once=own.get("at_most_once", limits.at_most_once),
            call_timeout=timeout + CALL_GRACE,
            rate=_rate(own.get("rate_per_second"), limits.rate),
            retry=retry,
        ),
        timeout,
    )


def _within_the_lease(environment: Environment, timeout: float) -> float:
    """A channel's own timeout, less where an operator's short lease leaves no time for it.

    What the operator has set is never changed: where that does not fit, the start is refused.
    """
    try:
        lease = float(environment.get(LEASE_SETTING) or "inf")
    except ValueError:
        return timeout  # Told by whoever reads that setting.
    return min(timeout, max(lease - CALL_GRACE - 1.0, 1.0))


def _rate(per_second: float | None, default: RateLimit | None) -> RateLimit | None:
    if per_second is None:
        return default
    if per_second == 0:
        return None
    return RateLimit(per_second, default.burst if default else max(1, round(per_second)))
