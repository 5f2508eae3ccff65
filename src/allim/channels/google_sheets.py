"""The few calls of the Google Sheets API v4 that writing rows takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.channels.channel import HttpAnswer, OutgoingHttp
from allim.channels.google import Tokens
from allim.channels.http.failure import HttpFailure
from allim.channels.json_bytes import JSON_HEADERS, json_bytes

SHEETS_URL = "https://sheets.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/spreadsheets"
READ_LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that are read."""
UNAUTHORIZED = 401

Json = Mapping[str, Any]
Shape = TypeVar("Shape", bound=BaseModel)


class Refused(Exception):
    """The API answered, but not with success."""

    def __init__(self, answer: HttpAnswer) -> None:
        try:
            error = _Errors.model_validate_json(answer.body).error
        except ValidationError:
            error = _Error()
        self.answer = answer
        self.word = error.status[:50]
        """Google's word for it (``PERMISSION_DENIED``)."""
        self.said = error.message[:500]
        super().__init__(f"answered {answer.status} {self.word}".rstrip())


@dataclass(frozen=True, slots=True)
class Tab:
    """One sheet of a spreadsheet."""

    id: int
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Developer metadata that stands at a row (counted from 0)."""

    id: int
    value: str
    row: int


class Spreadsheet:
    """One spreadsheet.

    Every method raises HttpFailure when no answer came, NoToken without a login, and Refused for
    any answer but success. A login that the API no longer takes is renewed once.
    """

    def __init__(
        self,
        spreadsheet_id: str,
        *,
        tokens: Tokens,
        http: OutgoingHttp,
        base_url: str = SHEETS_URL,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/v4/spreadsheets/{quote(spreadsheet_id, safe='')}"
        self._tokens = tokens
        self._http = http
        self._clock = clock

    async def tabs(self, deadline: float) -> Sequence[Tab]:
        """Its sheets, from the left."""
        query = urlencode({"fields": "sheets.properties(sheetId,title)"})
        said = await self._call(_Tabs, "GET", f"?{query}", deadline)
        return [Tab(each.properties.sheetId, each.properties.title) for each in said.sheets]

    async def update(self, requests: Sequence[Json], deadline: float) -> None:
        """Do all of these, or none."""
        body = json_bytes({"requests": requests})
        query = urlencode({"fields": "spreadsheetId"})
        await self._call(_Nothing, "POST", f":batchUpdate?{query}", deadline, body)

    async def marks(self, lookups: Iterable[Json], deadline: float) -> Sequence[Mark]:
        """The metadata that any of these lookups finds."""
        filters = [{"developerMetadataLookup": lookup} for lookup in lookups]
        body = json_bytes({"dataFilters": filters})
        said = await self._call(_Marks, "POST", "/developerMetadata:search", deadline, body)
        return [
            Mark(mark.metadataId, mark.metadataValue, mark.location.dimensionRange.startIndex)
            for mark in (each.developerMetadata for each in said.matchedDeveloperMetadata)
        ]

    async def column(self, tab: Tab, letter: str, rows: int, deadline: float) -> Sequence[str]:
        """The texts of a column, from the row below the header, `rows` of them at most."""
        title = tab.title.replace("'", "''")
        cells = quote(f"'{title}'!{letter}2:{letter}{rows + 1}", safe="")
        path = f"/values/{cells}?majorDimension=COLUMNS"
        said = await self._call(_Values, "GET", path, deadline)
        return [str(text) for text in said.values[0]] if said.values else []

    async def _call(
        self,
        shape: type[Shape],
        method: str,
        path: str,
        deadline: float,
        body: bytes | None = None,
    ) -> Shape:
        token = await self._tokens.token(timeout=self._left(deadline))
        answer = await self._ask(method, path, deadline, body, token)
        if answer.status == UNAUTHORIZED:
            token = await self._tokens.token(timeout=self._left(deadline), not_this=token)
            answer = await self._ask(method, path, deadline, body, token)
        if answer.status != 200:
            raise Refused(answer)
        if not answer.complete:
            raise HttpFailure("connection_lost", "the answer broke off", ambiguous=True)
        try:
            return shape.model_validate_json(answer.body)
        except ValidationError:
            words = "answered 200, but not as Google Sheets does"
            raise HttpFailure("bad_answer", words, ambiguous=True) from None

    async def _ask(
        self, method: str, path: str, deadline: float, body: bytes | None, token: str
    ) -> HttpAnswer:
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers |= JSON_HEADERS
        return await self._http.request(
            method,
            self._url + path,
            body=body,
            headers=headers,
            timeout=self._left(deadline),
            trusted=True,
            limit=READ_LIMIT,
        )

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise HttpFailure("timeout", "no time was left for another call")
        return left


class _Nothing(BaseModel):
    """Any object."""


class _TabProperties(BaseModel):
    sheetId: int = 0  # noqa: N815
    title: str = ""


class _Sheet(BaseModel):
    properties: _TabProperties = _TabProperties()


class _Tabs(BaseModel):
    sheets: list[_Sheet] = []


class _Span(BaseModel):
    startIndex: int = 0  # noqa: N815


class _Location(BaseModel):
    dimensionRange: _Span = _Span()  # noqa: N815


class _Metadata(BaseModel):
    metadataId: int = 0  # noqa: N815
    metadataValue: str = ""  # noqa: N815
    location: _Location = _Location()


class _Matched(BaseModel):
    developerMetadata: _Metadata = _Metadata()  # noqa: N815


class _Marks(BaseModel):
    matchedDeveloperMetadata: list[_Matched] = []  # noqa: N815


class _Values(BaseModel):
    values: list[list[Any]] = []


class _Error(BaseModel):
    status: str = ""
    message: str = ""


class _Errors(BaseModel):
    error: _Error = _Error()
