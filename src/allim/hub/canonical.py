"""What tells a repeat of a request from another one: a hash of what was asked for."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from allim.hub.model import NotificationRequest


def canonical_hash(request: NotificationRequest) -> bytes:
    """SHA-256 of what was asked for, whatever its spelling; the tenant is part of the key instead.

    Taken before anything is resolved: a change of settings must not turn a repeat into
    another request. Fields that are left out do not count, so that a field that a later
    version adds changes no hash.
    """
    asked = _canonical(request)
    asked.pop("tenant_id", None)
    asked.pop("idempotency_key", None)
    return hashlib.sha256(to_json(asked)).digest()


def _canonical(request: BaseModel) -> dict[str, Any]:
    canonical: dict[str, Any] = {}
    for name, value in sorted(request.__dict__.items()):
        if value is None or value == []:
            continue
        if isinstance(value, dict):
            canonical[name] = _sorted(value)
        elif isinstance(value, list):
            canonical[name] = [
                _canonical(item) if isinstance(item, BaseModel) else item for item in value
            ]
        else:
            canonical[name] = value
    return canonical


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
