"""What is said of a channel that nobody knows."""

from __future__ import annotations

from collections.abc import Collection

from allim.base.errors import FieldProblem, InvalidRequest


def unknown_channel(known: Collection[str], place: str) -> FieldProblem:
    """The problem of a name that is none of the known ones."""
    return FieldProblem(place, "unknown_channel", f"must be one of: {', '.join(sorted(known))}")


def require_known(channel: str | None, known: Collection[str], place: str) -> None:
    """Let nobody look for what cannot be there: a misspelt filter would find nothing, quietly.

    Raises InvalidRequest, unless no channel is asked for.
    """
    if channel is not None and channel not in known:
        raise InvalidRequest([unknown_channel(known, place)])
