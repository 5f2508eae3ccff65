"""For relays in processes of their own: what they say, and the moment at which one dies."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def say(**what: Any) -> None:
    """One line of JSON for whoever started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Death:
    """Kills this process the n-th time that a moment comes."""

    def __init__(self, moment: str | None, on: int) -> None:
        self._moment = moment
        self._left = on

    def at(self, moment: str) -> None:
        """That moment has come."""
        if moment != self._moment:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
