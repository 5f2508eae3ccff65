"""Allim gets messages out of a database and into the world without losing one."""

from allim.hub import notify

__all__ = ["notify"]
