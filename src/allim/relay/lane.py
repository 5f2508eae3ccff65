"""One lane: work of one kind, and how it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from allim.relay.policy import ChannelPolicy
from allim.relay.sender import Sender
from allim.relay.work import Content


@dataclass(frozen=True, slots=True)
class Lane(Generic[Content]):
    """What one lane sends by, and under which rules."""

    name: str
    sender: Sender[Content]
    policy: ChannelPolicy[Content] | None = None
