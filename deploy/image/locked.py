"""Prints the lines of requirements.lock, hashes and all, of the packages that a list names.

python deploy/image/locked.py deploy/image/run.txt
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(?:.*\\\n)*.*", re.MULTILINE)


def names(path: Path) -> Sequence[str]:
    """What a list names: one a line, `#` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def locked(wanted: Sequence[str], lock: Path = ROOT / "requirements.lock") -> str:
    """Their entries in the lock. Raises KeyError naming those that it has not."""
    entries = {found[1].lower(): found[0] for found in ENTRY.finditer(lock.read_text("utf-8"))}
    missing = sorted(set(wanted) - set(entries))
    if missing:
        raise KeyError(f"not in {lock.name}: {', '.join(missing)}")
    return "\n".join(entries[name] for name in wanted) + "\n"


if __name__ == "__main__":
    sys.stdout.write(locked(names(Path(sys.argv[1]))))
