"""Every link in the documentation leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: str(path))
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = [
        link
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not link.startswith(("http://", "https://", "#"))
        and not (page.parent / link.split("#")[0]).exists()
    ]
    assert not broken


def test_both_readmes_link_to_the_same() -> None:
    english, korean = (
        set(LINK.findall((ROOT / name).read_text(encoding="utf-8")))
        for name in ("README.md", "README.ko.md")
    )
    assert english - {"README.ko.md"} == korean - {"README.md"}


def test_the_generated_reference_is_up_to_date() -> None:
    ended = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
