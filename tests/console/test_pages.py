"""What all pages have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest
from jinja2 import Environment, nodes

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment as Settings
from allim.console.assets import Assets
from allim.console.languages import LANGUAGES, Catalogue, choose_language
from allim.console.settings import ConsoleSettings
from tests.console.conftest import Open, Visitor
from tests.console.test_login import PAGES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_INLINE = re.compile(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|javascript:", re.IGNORECASE)


@pytest.mark.parametrize("path", [*PAGES, "/nowhere"])
async def test_a_page_is_strict_in_either_language(visitor: Visitor, path: str) -> None:
    for language in LANGUAGES:
        page = await visitor.get(path, headers={"Accept-Language": language})

        assert page.status == (404 if path == "/nowhere" else 200)
        assert page.headers["Content-Security-Policy"] == POLICY
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert f'<html lang="{language}"' in page.text
        assert _INLINE.search(page.text) is None
        assert "//" not in re.sub(
            r'"https?://www.w3.org/[^"]*"', "", page.text.replace("<!doctype", "")
        )


async def test_behind_a_prefix_every_address_has_it(open_console: Open) -> None:
    visitor = await open_console(ALLIM_ROOT_PATH="/hub/allim/")

    page = await visitor.get("/keys")

    addresses = re.findall(r'(?:href|src|action|hx-get)="([^"]*)"', page.text)
    assert len(addresses) > 10
    assert all(a.startswith(("/hub/allim/console/", "#")) for a in addresses), addresses
    assert "Path=/hub/allim/console" in page.headers["Set-Cookie"]


@pytest.mark.parametrize("path", ["allim", "//evil.example", "/a b", "/a?b"])
def test_a_prefix_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="ALLIM_ROOT_PATH"):
        Settings({"ALLIM_ROOT_PATH": path}).read(ConsoleSettings)


async def test_the_console_is_found_without_its_slash(visitor: Visitor) -> None:
    assert (await visitor.get("")).status == 200


async def test_files_are_ours_and_kept_for_ever(guarded: Visitor) -> None:
    assets = Assets()
    for name, kind in [
        ("console.css", "text/css"),
        ("htmx.min.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ]:
        kept = await guarded.get(assets.path(name))
        assert kept.headers["Content-Type"].startswith(kind)
        assert "immutable" in kept.headers["Cache-Control"]
        other = await guarded.get(f"/static/000000000000/{name}")
        assert (other.status, other.headers["Cache-Control"]) == (200, "no-cache")
    for path in ("/static/x/NOTICE", "/static/x/none.js"):
        assert (await guarded.get(path)).status == 404


async def test_the_language_is_chosen_and_remembered(visitor: Visitor) -> None:
    assert "New key" in (await visitor.get("/keys")).words

    chosen = await visitor.post("/language", language="ko", next="/keys")

    assert "새 키" in chosen.words
    assert "새 키" in (await visitor.get("/keys", headers={"Accept-Language": "en"})).words


def test_the_browsers_languages_are_heeded_in_their_order() -> None:
    assert choose_language(None, "fr, ko-KR;q=0.9, en;q=0.8") == "ko"
    assert choose_language(None, None) == choose_language("fr", "*") == "en"
    assert choose_language("ko", "en") == "ko"


def test_both_languages_say_the_same_things() -> None:
    english, korean = Catalogue("en"), Catalogue("ko")

    def named(catalogue: Catalogue) -> dict[str, set[str]]:
        return {
            key: set(re.findall(r"{(\w+)}", text))
            for key, text in catalogue.items()
            if not key.endswith("_one")
        }

    assert named(english) == named(korean)
    assert all(text.strip() for text in (*english.values(), *korean.values()))


def _said() -> Iterator[tuple[str, str]]:
    """Every message that templates and handlers name, with the file that does."""
    environment = Environment(autoescape=True)

    def walk(folder: resources.abc.Traversable) -> Iterator[tuple[str, str]]:
        for file in folder.iterdir():
            if file.is_dir():
                yield from walk(file)
            elif file.name.endswith(".html"):
                for call in environment.parse(file.read_text("utf-8")).find_all(nodes.Call):
                    first = call.args[0] if call.args else None
                    if (
                        isinstance(call.node, nodes.Name)
                        and call.node.name == "t"
                        and isinstance(first, nodes.Const)
                    ):
                        yield file.name, first.value
            elif file.name.endswith(".py"):
                for key in re.findall(r'\bt\(\s*"([\w.]+)"', file.read_text("utf-8")):
                    yield file.name, key

    yield from walk(resources.files("allim.console"))


def test_only_messages_that_are_there_are_used() -> None:
    english = Catalogue("en")
    said = list(_said())

    assert len(said) > 30
    assert [(file, key) for file, key in said if key not in english] == []
