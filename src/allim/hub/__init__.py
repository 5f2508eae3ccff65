"""The notification hub: notifications, their deliveries, and the API over them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Unpack, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import psycopg

    from allim.hub.creation import Created
    from allim.hub.service import Hub, NotificationFields


@overload
def notify(tx: psycopg.Connection[Any], **fields: Unpack[NotificationFields]) -> Created: ...
@overload
def notify(
    tx: psycopg.AsyncConnection[Any], **fields: Unpack[NotificationFields]
) -> Awaitable[Created]: ...
@overload
def notify(tx: Any, **fields: Unpack[NotificationFields]) -> Any: ...


def notify(tx: Any, **fields: Unpack[NotificationFields]) -> Any:
    """Create a notification in the caller's transaction `tx`: it is sent if that commits.

    Takes the fields of `POST /notifications`; recipients are checked by the channels as this
    process's settings make them. See `allim.hub.service.Hub.notify` for the kinds of `tx` and the
    errors; make a `Hub` yourself where the settings are not the process's own.
    """
    return _hub_of_this_process().notify(tx, **fields)


@cache
def _hub_of_this_process() -> Hub:
    from allim.base.settings import Environment
    from allim.channels.registry import make_channels, make_http, make_services
    from allim.hub.service import Hub

    environment = Environment.of_process()
    return Hub(make_channels(environment, make_services(make_http(environment))))
