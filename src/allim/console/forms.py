"""What a form sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.requests import Request

from allim.base.errors import FieldProblem, InvalidRequest

MEDIA_TYPE = "application/x-www-form-urlencoded"
_FIELDS = 200


class Form:
    """The fields of a form. A value has no spaces around it; an empty one is None."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        # PostgreSQL's text cannot hold a NUL.
        self._values = {
            name: [value.replace("\x00", "") for value in several]
            for name, several in values.items()
        }

    @classmethod
    async def read(cls, request: Request) -> Form:
        """Read the body of a request; raises InvalidRequest for one that is no form."""
        declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await request.body()
        if body and declared != MEDIA_TYPE:
            raise InvalidRequest([FieldProblem("", "form", f"must be {MEDIA_TYPE}")])
        try:
            return cls(
                parse_qs(
                    body.decode("utf-8"),
                    keep_blank_values=True,
                    max_num_fields=_FIELDS,
                    errors="strict",
                )
            )
        except ValueError:
            raise InvalidRequest([FieldProblem("", "form", "cannot be read")]) from None

    def text(self, name: str) -> str | None:
        """One value."""
        return next((v.strip() or None for v in self._values.get(name, ())), None)

    def required(self, name: str) -> str:
        """One value; raises InvalidRequest, naming the field, where it is empty."""
        value = self.text(name)
        if value is None:
            raise InvalidRequest([FieldProblem(f"/{name}", "missing", "is required")])
        return value

    def number(self, name: str) -> int | None:
        """One whole number; raises InvalidRequest for anything else."""
        value = self.text(name)
        if value is None:
            return None
        if not value.lstrip("+-").isascii() or not value.lstrip("+-").isdigit() or len(value) > 19:
            raise InvalidRequest([FieldProblem(f"/{name}", "number", "must be a whole number")])
        return int(value)

    def many(self, name: str) -> Sequence[str]:
        """Every value of a field that may stand several times."""
        return [value for value in self._values.get(name, ()) if value]

    def ticked(self, name: str) -> bool:
        """Whether a checkbox is ticked."""
        return bool(self.many(name))
