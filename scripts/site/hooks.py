"""What the site needs beyond Markdown: its navigation, and links that lead out of docs/."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

HEADING = re.compile(r"^(#{2,3}) (.+)$")
ENTRY = re.compile(r"^\s*- \[([^]]+)\]\(([^)#]+\.md)\)")
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^\s*```")


def on_config(config: Any) -> Any:
    """Make the navigation of what docs/README.md lists, in its order and under its headings."""
    docs = Path(config.docs_dir)
    config.nav = navigation((docs / "README.md").read_text(encoding="utf-8"), docs)
    return config


def navigation(index: str, docs: Path) -> list[Any]:
    """The pages under their headings; what nobody listed stands at the end of its folder's part."""
    parts: list[dict[str, list[Any]]] = []
    groups: list[Any] = []
    folders: dict[str, list[Any]] = {}
    listed = {"README.md"}
    for line in index.splitlines():
        if heading := HEADING.match(line):
            groups = []
            within = parts if heading[1] == "##" else next(iter(parts[-1].values()))
            within.append({heading[2]: groups})
        elif entry := ENTRY.match(line):
            groups.append({_capital(entry[1]): entry[2]})
            listed.add(entry[2])
            folders.setdefault(PurePosixPath(entry[2]).parts[0], next(iter(parts[-1].values())))
    for path in sorted(docs.rglob("*.md")):
        page = path.relative_to(docs).as_posix()
        if page not in listed:
            folders.get(page.split("/")[0], parts).append(page)
    return [{"Allim": "README.md"}, *(part for part in parts if next(iter(part.values())))]


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Links to files of the repository become their names: the site does not hold them."""
    at = Path(config.docs_dir, page.file.src_uri).parent
    docs = Path(config.docs_dir).resolve()

    def kept(link: re.Match[str]) -> str:
        picture, words, target, _ = link.groups()
        outside = "://" not in target and not (at / target).resolve().is_relative_to(docs)
        return words if outside and not picture else link[0]

    fenced = False
    lines = []
    for line in markdown.splitlines():
        fenced ^= bool(FENCE.match(line))
        lines.append(line if fenced else LINK.sub(kept, line))
    return "\n".join(lines)


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]
