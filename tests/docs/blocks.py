"""What stands in the documentation: its fenced blocks, its commands, its inline code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=str)
SHOWN = re.compile(r"<!-- shown, not run: .+ -->")
_FENCE = re.compile(r"^(\s*)(`{3,})\s*(\w*)(.*)$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_SEPARATORS = frozenset({"|", "||", "&&", ";", "&", ";;", "(", ")"})
_PROMPT = re.compile(r"^[$#>] ")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where its first line stands, and whether it says it is not run."""

    page: str
    line: int
    language: str
    body: str
    shown_only: bool = False

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command: its words without assignments before it."""

    where: str
    words: Sequence[str]
    language: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, those in lists too."""
    name = page.relative_to(ROOT).as_posix()
    found: list[Block] = []
    inside: tuple[str, str, int, bool] | None = None
    body: list[str] = []
    before = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            inside = (fence[2], fence[3], number + 1, bool(SHOWN.search(before)))
            body = []
        elif inside is not None and line.strip() == inside[0]:
            text = dedent("\n".join(body)) + "\n"
            found.append(Block(name, inside[2], inside[1], text, inside[3]))
            inside = None
        elif inside is not None:
            body.append(line)
        if line.strip():
            before = line
    assert inside is None, f"{name}: a fence is not closed"
    return found


def every(*languages: str) -> list[Block]:
    """The blocks of these languages, on every page."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def inline(page: Path) -> Iterator[tuple[str, str]]:
    """Code within sentences, and where it stands."""
    name = page.relative_to(ROOT).as_posix()
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            for code in _INLINE.findall(line):
                yield f"{name}:{number}", code


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of a block of `console`, `sh` or `ini`; of systemd's files ExecStart."""
    lines = block.body.splitlines()
    prompted = block.language == "console" and any(_PROMPT.match(line) for line in lines)
    waiting, began, ends = "", 0, ""
    for number, line in enumerate(lines, block.line):
        if ends:
            ends = "" if line.strip() == ends else ends
            continue
        if not waiting:
            began = number
            if prompted:
                if not _PROMPT.match(line):
                    continue
                line = line[2:]
            elif block.language == "ini":
                if not line.startswith("ExecStart="):
                    continue
                line = line.removeprefix("ExecStart=")
        waiting += f"{line}\n"
        if line.endswith("\\"):
            continue
        try:
            words = _words(waiting)
        except ValueError:  # a quotation goes on
            continue
        if heredoc := _HEREDOC.search(waiting):
            ends = heredoc[1]
        yield from _simple(f"{block.page}:{began}", block.language, words)
        for inner in _substituted(waiting):
            yield from _simple(f"{block.page}:{began}", block.language, _words(inner))
        waiting = ""
    assert not waiting, f"{block.where}: a quotation is not closed: {waiting}"


def _words(text: str) -> list[str]:
    reader = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="|&;()")
    reader.whitespace_split = True
    reader.commenters = "#"
    return list(reader)


def _simple(where: str, language: str, line: Sequence[str]) -> Iterator[Command]:
    current: list[str] = []
    for word in [*line, ";"]:
        if word not in _SEPARATORS:
            current.append(word)
            continue
        while current and re.match(r"^[A-Za-z_]\w*=", current[0]):
            current.pop(0)
        if words := _without_redirections(current):
            yield Command(where, words, language)
        current = []


def _without_redirections(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(r"\d?(>>?|<<?<?)", word):
            skip = True
        elif not re.match(r"^\d?[<>]", word):
            kept.append(word)
    return kept


def _substituted(text: str) -> Iterator[str]:
    """What stands in `$(…)`, whatever quotes are around it."""
    for at in (found.end() for found in re.finditer(r"\$\(", text)):
        depth, end = 1, at
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        yield text[at : end - 1]
