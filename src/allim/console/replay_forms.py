"""The form of a replay: which dead letters, how fast, and why."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from allim.base.errors import FieldProblem, InvalidRequest
from allim.base.validation import in_our_words
from allim.console.forms import Form
from allim.console.searches import read_moment
from allim.console.visit import Visit
from allim.events.relaying.operations import Selection
from allim.hub.replays import ReplayRequest

FILTERS = ("channel", "error_code", "recipient", "source", "type", "from", "to")
FIELDS = (*FILTERS, "status", "tenant_id", "rate_per_second", "reason")
_REASON = 1000


def filled_in(visit: Visit) -> Form:
    """The form as an address has it."""
    return Form({name: [visit.query(name) or ""] for name in FIELDS})


def replay_request(form: Form) -> ReplayRequest:
    """What the form asks for. Raises InvalidRequest, naming every field that is wrong."""
    given: dict[str, Any] = {name: form.text(name) for name in FILTERS}
    # An error without a code cannot be filtered by: it means whatever the channel has.
    wanted = {name: value for name, value in given.items() if value is not None}
    if status := form.text("status"):
        wanted["status"] = [status]
    try:
        return ReplayRequest.model_validate(
            {
                "filter": wanted,
                "rate_per_second": _rate(form),
                "reason": (form.text("reason") or "")[:_REASON],
                "tenant_id": form.number("tenant_id"),
            }
        )
    except ValidationError as error:
        raise InvalidRequest(
            [
                FieldProblem(
                    "/" + "/".join(str(part) for part in problem["loc"] if part != "filter"),
                    problem["type"],
                    in_our_words(problem),
                )
                for problem in error.errors(include_url=False, include_input=False)
            ]
        ) from None


def reason_of(form: Form) -> str:
    """Why: asked for by everything that touches many. Raises InvalidRequest without one."""
    return form.required("reason")[:_REASON]


def codeless(form: Form) -> bool:
    """Whether only what has no error code is meant."""
    return form.ticked("codeless")


def event_selection(visit: Visit) -> Selection:
    """Which dead events. Raises InvalidRequest for a time that is none."""
    form = visit.form
    return Selection(
        topic=form.text("topic"),
        key=form.text("key"),
        error=form.text("error"),
        since=read_moment(visit, "from", form.text("from")),
        until=read_moment(visit, "to", form.text("to")),
    )


def _rate(form: Form) -> float | None:
    given = form.text("rate_per_second")
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        raise InvalidRequest(
            [FieldProblem("/rate_per_second", "number", "must be a number")]
        ) from None
