"""The cases that every channel must pass. Allim's own do; run them on yours.

    class TestPager(ChannelConformance):
        def rig(self):
            return PagerRig.open()

Every case is a coroutine method, for pytest-asyncio in its auto mode. A provider that does
not apply to a channel (LOG calls nobody) is left out of its rig's `moods`.
"""

from allim.testing.channels.conformance import ChannelConformance
from allim.testing.channels.messages import (
    NOTIFICATION,
    a_message,
    a_work,
    record_nothing,
    send_one,
)
from allim.testing.channels.rigs import ChannelRig, HttpRig, Mood, turn_http

__all__ = [
    "NOTIFICATION",
    "ChannelConformance",
    "ChannelRig",
    "HttpRig",
    "Mood",
    "a_message",
    "a_work",
    "record_nothing",
    "send_one",
    "turn_http",
]
