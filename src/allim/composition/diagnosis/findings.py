"""What a check of the doctor found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a finding stands."""

    GOOD = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked into; `remedy` says what to do where something is wrong."""

    about: str
    verdict: Verdict
    words: str
    remedy: str = ""


def good(about: str, words: str) -> Finding:
    """All is well."""
    return Finding(about, Verdict.GOOD, words)


def note(about: str, words: str, remedy: str = "") -> Finding:
    """Works, but should be known."""
    return Finding(about, Verdict.NOTE, words, remedy)


def wrong(about: str, words: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(about, Verdict.WRONG, words, remedy)
