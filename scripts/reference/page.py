"""What all generated pages have in common."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "allim"
REFERENCE = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by `make docs`; change the code, not this page. -->\n"


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")
