"""Texts that are paid for: SMS and Alimtalk jobs, tenants and their money, opt-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allim.messaging.enqueue import aenqueue_sms, enqueue_sms
    from allim.messaging.immediate import asend_sms, send_sms

__all__ = ["aenqueue_sms", "asend_sms", "enqueue_sms", "send_sms"]

_PLACES = {
    "enqueue_sms": "allim.messaging.enqueue",
    "aenqueue_sms": "allim.messaging.enqueue",
    "send_sms": "allim.messaging.immediate",
    "asend_sms": "allim.messaging.immediate",
}


def __getattr__(name: str) -> Any:
    # When they are asked for: a producer should not load a database driver to fill a queue.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
