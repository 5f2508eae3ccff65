"""A stored template, compiled, and what it makes of a notification for each kind of channel."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from pydantic_core import from_json, to_json

from allim.base.errors import FieldProblem
from allim.channels.alimtalk import NAME as ALIMTALK
from allim.channels.email import NAME as EMAIL
from allim.channels.html_text import text_of_html
from allim.channels.slack import NAME as SLACK
from allim.hub.templates.approved import Approved
from allim.hub.templates.blocks import Blocks
from allim.hub.templates.sandbox import (
    BadTemplate,
    MissingVariables,
    RenderingFailed,
    Source,
    html_sandbox,
    text_sandbox,
)

TITLE_LIMIT = 1000
MESSAGE_LIMIT = 100_000
HTML_CHANNELS = frozenset({EMAIL})
BLOCKS_CHANNELS = frozenset({SLACK})
TEXT_CHANNELS = frozenset({ALIMTALK})
"""Channels whose templates are a text that somebody approved: no Jinja."""
NO_INLINER = (
    "HTML templates need css-inline, which is not installed here: pip install 'allim[email]'"
)
_INSTEAD_OF = {"title": ("subject",), "message": ("text",)}
"""Keys of a payload that would go before what a template has rendered."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The texts of a template."""

    subject: str | None = None
    body: str | None = None
    html: str | None = None
    blocks: str | None = None

    def digest(self, channel: str) -> str:
        """What tells two contents apart."""
        known = [channel, self.subject, self.body, self.html, self.blocks]
        return hashlib.sha256(to_json(known)).hexdigest()


@dataclass(frozen=True)
class Occasion:
    """What a template is rendered for: a delivery of a notification.

    `message` and `title` are the delivery's own words, else the notification's.
    """

    source: str
    type: str
    title: str | None
    message: str | None
    recipient: str | None
    data: Mapping[str, Any]
    own_message: str | None = None
    payload: Mapping[str, Any] | None = None

    @cached_property
    def values(self) -> dict[str, Any]:
        """What a template sees: the data's keys, the notification's own fields over them, `data`.

        As JSON: a program's own objects are seen as they would be stored.
        """
        data = from_json(to_json(self.data, fallback=str)) if self.data else {}
        own = {
            "source": self.source,
            "type": self.type,
            "title": self.title,
            "message": self.message,
            "recipient": self.recipient,
        }
        return {**data, **{k: v for k, v in own.items() if v is not None}, "data": data}


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a template made; None leaves what the delivery or the notification says."""

    title: str | None
    message: str | None
    payload: dict[str, Any]

    def over(self, payload: Mapping[str, Any] | None) -> dict[str, Any]:
        """A delivery's payload with this over it."""
        hidden = {
            key
            for part, keys in _INSTEAD_OF.items()
            if getattr(self, part) is not None
            for key in keys
        }
        kept = {key: value for key, value in (payload or {}).items() if key not in hidden}
        return {**kept, **self.payload}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template's texts, compiled; the same for every version with the same words."""

    channel: str
    subject: Source | None
    body: Source | Approved | None
    html: Source | None
    blocks: Blocks | None

    @classmethod
    def of(cls, channel: str, parts: Parts) -> Compiled:
        """Compile. Raises UnusableTemplate with every problem there is."""
        problems: list[FieldProblem] = []

        def compiled(part: str, compile_: Any) -> Any:
            text = getattr(parts, part)
            try:
                return compile_(text) if text is not None else None
            except BadTemplate as error:
                problems.append(FieldProblem(f"/{part}", "template_syntax", str(error)))
                return None

        def plain(text: str) -> Source:
            return Source.compile(text, text_sandbox())

        template = cls(
            channel,
            compiled("subject", plain),
            compiled("body", Approved.of if channel in TEXT_CHANNELS else plain),
            compiled("html", lambda text: Source.compile(text, html_sandbox())),
            compiled("blocks", Blocks.compile),
        )
        if problems:
            raise UnusableTemplate(problems)
        return template

    @property
    def variables(self) -> list[str]:
        """The names that it mentions."""
        if isinstance(self.body, Approved):
            return [f"#{{{name}}}" for name in self.body.variables]
        parts = (self.subject, self.body, self.html, self.blocks)
        return sorted({name for part in parts if part is not None for name in part.variables})


class UnusableTemplate(Exception):
    """A template that cannot be compiled; `problems` have places within it."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.place} {p.message}" for p in problems))


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """One version of a template."""

    code: str
    channel: str
    language: str
    version: int
    compiled: Compiled

    def render(self, occasion: Occasion) -> Rendered | list[FieldProblem]:
        """What it makes of an occasion, or all that is wrong; places are of the delivery."""
        problems: list[FieldProblem] = []
        missing: dict[str, None] = {}
        shown: dict[str, Any] = {}
        for part, value in self._parts(occasion):
            if isinstance(value, MissingVariables):
                missing.update(dict.fromkeys(value.names))
            elif isinstance(value, str) and (words := _unfit(part, value)):
                problems.append(self._problem("template_failed", f"{part} {words}"))
            elif isinstance(value, RenderingFailed):
                problems.append(self._problem("template_failed", f"{part}: {value}"))
            else:
                shown[part] = value
        problems += [
            self._problem("missing_variable", f"needs {name}, which the notification has not")
            for name in missing
        ]
        if problems:
            return problems
        try:
            return self._rendered(shown)
        except RenderingFailed as error:
            return [self._problem("template_failed", f"html: {error}")]
        except ImportError:
            return [self._problem("not_configured", f"cannot be used here: {NO_INLINER}")]

    def _parts(self, occasion: Occasion) -> Iterator[tuple[str, Any]]:
        values = occasion.values
        template = self.compiled
        for part, source in (
            ("subject", template.subject),
            ("body", template.body),
            ("html", template.html),
            ("blocks", template.blocks),
        ):
            if source is None:
                continue
            try:
                if isinstance(source, Approved):
                    yield (
                        "alimtalk",
                        source.fill(
                            values,
                            payload=occasion.payload or {},
                            own_message=occasion.own_message,
                            message=occasion.message,
                        ),
                    )
                else:
                    yield part, source.render(values)
            except (MissingVariables, RenderingFailed) as error:
                yield part, error

    def _rendered(self, shown: Mapping[str, Any]) -> Rendered:
        payload: dict[str, Any] = {
            "template": {"version": self.version, "language": self.language or None}
        }
        message = shown.get("body")
        if "alimtalk" in shown:
            message, own = shown["alimtalk"]
            payload |= own
        if (html := shown.get("html")) is not None:
            payload["html"] = html = inline_css(html)
            if message is None:
                message = text_of_html(html)[:MESSAGE_LIMIT]
        if "blocks" in shown:
            payload["blocks"] = shown["blocks"]
        subject = shown.get("subject")
        return Rendered(
            " ".join(subject.split()) if subject is not None else None, message, payload
        )

    def _problem(self, code: str, words: str) -> FieldProblem:
        return FieldProblem("/template_code", code, f"the template {self.code!r} {words}")


def has_inliner() -> bool:
    """Whether HTML can be made fit for mail here."""
    return importlib.util.find_spec("css_inline") is not None


def inline_css(html: str) -> str:
    """HTML with its style sheets written into the elements, since mail readers drop sheets.

    Nothing is fetched, from the network or from files; what cannot be inlined (@media) stays.
    """
    inliner = _inliner()
    try:
        inlined: str = inliner.inline(html)
    except Exception as error:  # The library's boundary: its own kinds are not to be imported here.
        raise RenderingFailed(f"its style sheet cannot be inlined: {error}") from None
    return inlined


@lru_cache(maxsize=1)
def _inliner() -> Any:
    import css_inline

    return css_inline.CSSInliner(
        load_remote_stylesheets=False, keep_link_tags=True, keep_at_rules=True
    )


def _unfit(part: str, text: str) -> str | None:
    limit = {"subject": TITLE_LIMIT, "body": MESSAGE_LIMIT}.get(part)
    if limit is not None and len(text) > limit:
        return f"comes out longer than {limit} characters"
    if "\0" in text:
        return "comes out with a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "comes out with half of a surrogate pair"
    return None
