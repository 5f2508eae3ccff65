"""Allim gets messages out of a database and into the world without losing one."""

from allim.database.waking import wake, waking
from allim.hub import notify

__all__ = ["notify", "wake", "waking"]
