"""What a process of a case says to the one that measures: `stage.ask` reads it."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(what: Any) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
