"""Every link in the documentation leads somewhere, and what is generated is as the code is."""

from __future__ import annotations

import re
from difflib import unified_diff
from pathlib import Path

import pytest
from scripts.reference.__main__ import pages

from tests.docs.blocks import PAGES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$")
CODE = re.compile(r"`[^`]*`")


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link, as GitHub and the site make them."""
    found: set[str] = set()
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not fenced and (heading := HEADING.match(line)):
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
            base = name = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
            again = 0
            while name in found:
                again += 1
                name = f"{base}_{again}"
            found.add(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith("<!--"):
            continue
        for link in LINK.findall(CODE.sub("", line)):
            if link.startswith(("http://", "https://")):
                continue
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            if not path.exists():
                broken.append(f"{number}: {link}")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                broken.append(f"{number}: {link}: no such heading")
    assert not broken, f"{page.relative_to(ROOT)}: {broken}"


def test_both_readmes_link_to_the_same() -> None:
    english, korean = (
        {link.partition("#")[0] for link in LINK.findall((ROOT / name).read_text("utf-8"))}
        for name in ("README.md", "README.ko.md")
    )
    assert english - {"README.ko.md"} == korean - {"README.md"}


def test_both_readmes_show_the_same_code() -> None:
    english, korean = (
        re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for name in ("README.md", "README.ko.md")
    )
    assert english == korean


def test_the_index_lists_every_page() -> None:
    docs = ROOT / "docs"
    listed = set(LINK.findall((docs / "README.md").read_text("utf-8")))
    there = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    # Decisions have an index of their own.
    there -= {"README.md", *(page for page in there if page.startswith("decisions/0"))}
    assert there <= listed, f"docs/README.md does not list {', '.join(sorted(there - listed))}"
    decisions = set(LINK.findall((docs / "decisions" / "README.md").read_text("utf-8")))
    assert {page.name for page in (docs / "decisions").glob("0*.md")} <= decisions


def test_the_generated_reference_is_up_to_date(database_url: str) -> None:
    for path, text in pages(database_url).items():
        there = path.read_text("utf-8").splitlines() if path.exists() else []
        changed = list(unified_diff(there, text.rstrip().splitlines(), n=0, lineterm=""))
        assert not changed, (
            f"{path.relative_to(ROOT)} is out of date: run `make docs`\n" + "\n".join(changed[:20])
        )
