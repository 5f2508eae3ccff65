"""The site is built without a warning, needs nothing from outside, and can be searched offline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.blocks import PAGES, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
HARMLESS = frozenset({"canonical", "prev", "next"})
OUTSIDE = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")


class Page(HTMLParser):
    """What a page loads, links to, and can be linked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        self.names |= {of[name] for name in ("id", "name") if name in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        elif (at := LOADS.get(tag)) and at in of and of.get("rel") not in HARMLESS:
            self.loads.append(of[at])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_the_site_is_whole(site: Path) -> None:
    # 404.html is for servers: it names everything from their root.
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    wrong = []
    for path, page in pages.items():
        for address in page.loads:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                wrong.append(f"{path.name} loads {address}")
            elif not (path.parent / unquote(parts.path)).exists():
                wrong.append(f"{path.name} loads {address}, which is not there")
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                wrong.append(f"{path.name} links to {link}, which is not there")
            elif parts.fragment and target in pages:
                name = unquote(parts.fragment)
                if name not in pages[target].names and name != "__skip":
                    wrong.append(f"{path.name} links to {link}: there is no such place")
    for sheet in site.rglob("*.css"):
        wrong += [f"{sheet.name}: {found}" for found in OUTSIDE.findall(sheet.read_text("utf-8"))]
    assert not wrong, "\n".join(["", *wrong])


def test_every_page_is_found_by_search_and_navigation(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    assert {"en", "ko"} <= set(index["config"]["lang"])
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    shown = {urlsplit(link).path for link in Page(site / "index.html").links}
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            at = page.relative_to(ROOT / "docs").as_posix()
            built = at.replace("README.md", "index.html").replace(".md", ".html")
            assert built in found, at
            assert built in shown or built == "index.html", at


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: chromium)")
def test_a_browser_searches_it_from_a_file(site: Path) -> None:
    browsing = pytest.importorskip("playwright.sync_api")
    with browsing.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{site.as_uri()}/index.html")
        for words, expected in (
            ("AllimKeysBlocked", "runbook/alerts.html"),
            ("SMTP_URL", "how-to/send-email.html"),
            ("튼튼의", "how-to/balance-and-prices.html"),
        ):
            field = page.locator("input.md-search__input")
            field.fill(words)
            field.press("End")  # the search looks when a key is let go
            found = page.locator(f"a.md-search-result__link[href*='{expected}']").first
            found.wait_for(state="attached", timeout=60_000)
        browser.close()
    assert not said
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
