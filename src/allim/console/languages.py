"""What the console says, in each language: TOML files, one a page and language."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

LANGUAGES = {"en": "English", "ko": "한국어"}
FALLBACK = "en"


class Catalogue(Mapping[str, str]):
    """The messages of one language, by ``<file>.<key>``."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._messages: dict[str, str] = {}
        folder = resources.files("allim.console").joinpath("messages", language)
        for file in folder.iterdir():
            if file.name.endswith(".toml"):
                content = tomllib.loads(file.read_text(encoding="utf-8"))
                self._messages |= dict(_flat(file.name.removesuffix(".toml"), content))

    def __getitem__(self, key: str) -> str:
        return self._messages[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __call__(self, key: str, **values: object) -> str:
        """The message, with `values` in its braces; ``<key>_one`` where `n` is 1 and it exists.

        Raises KeyError for a message that is not there.
        """
        if values.get("n") == 1:
            key = f"{key}_one" if f"{key}_one" in self._messages else key
        return self._messages[key].format_map(values)

    def known(self, key: str, otherwise: str) -> str:
        """A message that may be missing: names of statuses, of error codes."""
        return self._messages.get(key, otherwise)


def choose_language(cookie: str | None, accept: str | None) -> str:
    """The language that was chosen, else the first that the browser asks for and we have."""
    if cookie in LANGUAGES:
        return str(cookie)
    for part in (accept or "")[:200].split(","):
        primary = part.partition(";")[0].strip().lower().partition("-")[0]
        if primary in LANGUAGES:
            return primary
    return FALLBACK


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", str(value)
