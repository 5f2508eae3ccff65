"""Memory of the processes, and what they cost while there is nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from allim.bench.figures import Figure, at_most
from allim.bench.stage import Stage

CASE = "footprint"
SETTLE_SECONDS = 10.0


def run(stage: Stage, *, seconds: float = 10.0) -> Iterator[Figure]:
    """Resident memory, and processor time over an idle span."""
    stage.clear()
    for name, most in (("up", 150.0), ("relay", 90.0)):
        with stage.process("allim", name) as process:
            time.sleep(SETTLE_SECONDS)
            before = cpu_seconds(process.pid)
            time.sleep(seconds)
            share = (cpu_seconds(process.pid) - before) / seconds * 100
            if process.poll() is not None:
                raise RuntimeError(f"allim {name} ended with {process.returncode}")
            yield at_most(CASE, f"allim {name}, resident", resident(process.pid), "MB", most)
            yield at_most(CASE, f"allim {name}, idle", share, "% of a core", 1.0)


def resident(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return float(_ps(pid, "rss")) / 1000


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had, in seconds."""
    stat = Path(f"/proc/{pid}/stat")
    if sys.platform == "linux":
        fields = stat.read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100
    minutes, seconds = _ps(pid, "time").split(":")
    return int(minutes) * 60 + float(seconds)


def _ps(pid: int, column: str) -> str:
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
