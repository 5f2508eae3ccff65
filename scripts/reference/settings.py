"""The page of settings: what the settings groups hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from allim.channels.channel import Channel
from allim.channels.sending import CALL_GRACE
from allim.composition.settings import settings_groups
from scripts.reference.page import GENERATED, cell


def settings_page(channels: Mapping[str, Channel]) -> str:
    """Every setting, group by group."""
    own = _channel_defaults(channels)
    lines = [
        "# Settings\n",
        GENERATED,
        "Read from the environment, and from `.env` in the working directory where the environment"
        " says nothing. An empty value counts as not set. An unknown `ALLIM_*` name or a value that"
        " cannot be stops the start, naming everything that is wrong at once.\n",
    ]
    for group in settings_groups():
        title = (group.__doc__ or group.__name__).strip().splitlines()[0].rstrip(".")
        title = re.sub(r"^`\w+`: ", "", title)
        lines += [
            f"## {title[0].upper()}{title[1:]}\n",
            "| variable | default | |",
            "| --- | --- | --- |",
        ]
        for name, field in group.model_fields.items():
            words = cell(field.description or "")
            lines.append(f"| `{name.upper()}` | {own.get(name) or _default(field)} | {words} |")
        lines.append("")
    return "\n".join(lines)


def _channel_defaults(channels: Mapping[str, Channel]) -> dict[str, str]:
    """What stands in a channel's own code where its settings say nothing."""
    defaults: dict[str, str] = {}
    for name, channel in channels.items():
        limits, prefix = channel.limits, name.lower()
        per_second = limits.rate.per_second if limits.rate is not None else 0.0
        defaults |= {
            f"{prefix}_concurrency": f"`{limits.concurrency}`",
            f"{prefix}_max_attempts": f"`{limits.retry.attempts}`",
            f"{prefix}_retry_base_seconds": "`OUTBOX_RETRY_BASE_SECONDS`",
            f"{prefix}_retry_max_seconds": "`OUTBOX_RETRY_MAX_SECONDS`",
            f"{prefix}_at_most_once": f"`{str(limits.at_most_once).lower()}`",
            f"{prefix}_timeout_seconds": f"`{limits.call_timeout - CALL_GRACE:g}`",
            f"{prefix}_rate_per_second": f"`{per_second:g}`",
        }
    return defaults


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or isinstance(value, SecretStr):
        return "not set"
    if isinstance(value, float):
        value = f"{value:g}"
    return f"`{value}`"
