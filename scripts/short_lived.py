"""Where data belongs that is made and thrown away by the thousand."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 4 * 2**30
"""Bytes that must be free: several times what a run of the tests needs."""


def short_lived() -> Path:
    """Memory where there is room, else the usual directory for temporary files.

    Making and dropping a database there takes a tenth of the time: it is hundreds of files.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK):
        free = min(psutil.disk_usage(str(MEMORY)).free, psutil.virtual_memory().available)
        if free >= ROOM:
            return MEMORY
    return Path(tempfile.gettempdir())
