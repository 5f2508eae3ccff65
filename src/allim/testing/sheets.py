"""Fakes of both ways to a Google sheet, on local sockets.

    async with FakeAppsScript() as script:
        ... SHEET_WEBHOOK_URL=script.url, ALLIM's channel writes ...
        assert [row["row_key"] for row in script.rows] == ["A-1024"]

`FakeAppsScript` runs a `doPost` as docs/how-to/connect-a-sheet.md has it, and answers as Google
does: 302 to another host, where the answer lies. `FakeSheets` is the Sheets API v4, as far as
writing rows takes it, with the token endpoint of a service account.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from allim.base import base64url
from allim.testing.http import Answer, HttpSink, Request

HTML = "<!DOCTYPE html><html><body>Exception: Service invoked too many times</body></html>"
METADATA_CHARACTERS = 30_000
"""What a sheet holds of developer metadata, keys and values together."""


@dataclass(frozen=True, slots=True)
class Spoiled:
    """An answer instead of the right one; `after` the request was done, or before anything was."""

    answer: Answer
    after: bool = False


class _Spoilable(HttpSink):
    """A server of which single answers can be spoiled."""

    def __init__(self) -> None:
        super().__init__()
        self._spoiled: deque[Spoiled] = deque()
        self.always: Answer | None = None
        """Answered to everything, where it is set."""

    def spoil(self, *answers: Answer | Spoiled) -> None:
        """Answer the next requests so, one each."""
        self._spoiled += [a if isinstance(a, Spoiled) else Spoiled(a) for a in answers]

    def heal(self) -> None:
        """Answer rightly from now on."""
        self._spoiled.clear()
        self.always = None

    def reply(self, request: Request) -> Answer:
        """The right answer, unless it is spoiled."""
        if self.always is not None:
            return self.always
        spoiled = self._spoiled.popleft() if self._spoiled else None
        if spoiled is not None and not spoiled.after:
            return spoiled.answer
        right = self.right(request)
        return right if spoiled is None else spoiled.answer

    def right(self, request: Request) -> Answer:
        """The right answer."""
        raise NotImplementedError


class FakeAppsScript:
    """A web app and the host that its answers lie on; `rows` are what it was posted, once each.

    `script` and `content` are the two servers: spoil their answers.
    """

    PATH = "/macros/s/AKfycbx-s3cretDEPLOYMENT/exec"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.runs = 0
        self.script = _Script(self)
        self.content = _Content()
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """The SHEET_WEBHOOK_URL."""
        return self.script.url + self.PATH

    def run(self, posted: dict[str, Any]) -> dict[str, Any]:
        """What `doPost` returns."""
        self.runs += 1
        if any(row["row_key"] == posted["row_key"] for row in self.rows):
            return {"ok": True, "duplicate": True}
        self.rows.append(posted)
        return {"ok": True}

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.script)
        await self._stack.enter_async_context(self.content)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()


class _Script(_Spoilable):
    def __init__(self, app: FakeAppsScript) -> None:
        super().__init__()
        self._app = app

    def right(self, request: Request) -> Answer:
        if request.method != "POST" or request.path != self._app.PATH:
            return Answer.of(404, HTML)
        place = self._app.content.keep(self._app.run(request.json))
        return Answer.of(302, HTML, {"Location": place})


class _Content(_Spoilable):
    def __init__(self) -> None:
        super().__init__()
        self._kept: list[dict[str, Any]] = []

    def keep(self, returned: dict[str, Any]) -> str:
        """Where this is to be had."""
        self._kept.append(returned)
        return f"{self.url}/macros/echo?user_content_key={len(self._kept) - 1}"

    def right(self, request: Request) -> Answer:
        if request.method != "GET":
            return Answer.of(405, HTML)
        (number,) = parse_qs(urlsplit(request.path).query)["user_content_key"]
        return Answer.of(200, json.dumps(self._kept[int(number)]))


class FakeKey:
    """The key of a service account, made anew; it takes a moment."""

    EMAIL = "allim@project.iam.gserviceaccount.com"

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public = private.public_key()
        self._pem = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode()

    def file(self, token_url: str) -> str:
        """A key file."""
        return json.dumps(
            {
                "type": "service_account",
                "private_key_id": "k1",
                "private_key": self._pem,
                "client_email": self.EMAIL,
                "token_uri": token_url,
            }
        )

    def claims(self, assertion: str) -> dict[str, Any]:
        """The claims of a JWT that this key has signed; raises where it has not."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        signed, _, signature = assertion.rpartition(".")
        self.public.verify(base64url.decoded(signature), signed.encode(), PKCS1v15(), SHA256())
        claims: dict[str, Any] = json.loads(base64url.decoded(signed.split(".")[1]))
        return claims


@dataclass(eq=False)
class Row:
    """One row below the header; what stands at it moves with it."""

    cells: list[str] = field(default_factory=list)


class FakeSheets(_Spoilable):
    """The Sheets API with one spreadsheet, and the token endpoint of its one service account."""

    SPREADSHEET = "1AbC-dEf_spreadsheet"

    def __init__(self, key: FakeKey, *, tabs: tuple[str, ...] = ("알림", "other")) -> None:
        super().__init__()
        self.key = key
        self.tabs = tabs
        self.rows: list[Row] = []
        self.marks: dict[int, tuple[str, str, Row]] = {}
        self.tokens_given = 0
        self.updates = 0
        self._good: set[str] = set()

    @property
    def keys(self) -> list[str]:
        """The row keys, from the top."""
        return [row.cells[-1] for row in self.rows]

    def environment(self) -> dict[str, str]:
        """The settings that lead here."""
        return {
            "SHEET_SPREADSHEET_ID": self.SPREADSHEET,
            "SHEET_NAME": self.tabs[0],
            "GOOGLE_SERVICE_ACCOUNT_JSON": self.key.file(f"{self.url}/token"),
            "GOOGLE_SHEETS_URL": self.url,
        }

    def forget_tokens(self) -> None:
        """Refuse every token given out so far."""
        self._good.clear()

    def right(self, request: Request) -> Answer:
        """As Google answers."""
        path = unquote(urlsplit(request.path).path)
        if path == "/token":
            return self._token(request)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._good:
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        base = f"/v4/spreadsheets/{self.SPREADSHEET}"
        if path == base:
            sheets = [
                {"properties": {"sheetId": number * 10, "title": title}}
                for number, title in enumerate(self.tabs)
            ]
            return _json({"sheets": sheets})
        if path == f"{base}:batchUpdate":
            return self._update(request.json["requests"])
        if path == f"{base}/developerMetadata:search":
            return self._search(request.json["dataFilters"])
        if path == f"{base}/values/'{self.tabs[0]}'!H2:H20001":
            return _json({"values": [self.keys]} if self.rows else {})
        return _error(404, "NOT_FOUND", "Requested entity was not found.")

    def _token(self, request: Request) -> Answer:
        (assertion,) = parse_qs(request.body.decode())["assertion"]
        claims = self.key.claims(assertion)
        assert claims["iss"] == FakeKey.EMAIL
        assert claims["aud"] == f"{self.url}/token"
        self.tokens_given += 1
        token = f"ya29.s3cretTOKEN{self.tokens_given}"
        self._good.add(token)
        return _json({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _update(self, requests: list[dict[str, Any]]) -> Answer:
        """All of them or none."""
        rows, marks = list(self.rows), dict(self.marks)
        for number, each in enumerate(requests):
            ((kind, asked),) = each.items()
            if wrong := self._apply(kind, asked, rows, marks):
                words = f"Invalid requests[{number}].{kind}: {wrong}"
                return _error(400, "INVALID_ARGUMENT", words)
        self.rows, self.marks = rows, marks
        self.updates += 1
        return _json({"spreadsheetId": self.SPREADSHEET})

    def _apply(
        self, kind: str, asked: dict[str, Any], rows: list[Row], marks: dict[int, Any]
    ) -> str | None:
        if kind == "insertDimension":
            span = asked["range"]
            if span["sheetId"] != 0:
                return f"No grid with id: {span['sheetId']}"
            at, end = span["startIndex"] - 1, span["endIndex"] - 1
            rows[at:at] = [Row() for _ in range(end - at)]
        elif kind == "updateCells":
            at = asked["start"]["rowIndex"] - 1
            for row, given in zip(rows[at:], asked["rows"], strict=False):
                row.cells = [v["userEnteredValue"]["stringValue"] for v in given["values"]]
                if any(len(text) > 50_000 for text in row.cells):
                    return "more than the maximum of 50000 characters in a single cell"
        elif kind == "createDeveloperMetadata":
            made = asked["developerMetadata"]
            if made["metadataId"] in marks:
                return f"Metadata with ID {made['metadataId']} already exists."
            row = rows[made["location"]["dimensionRange"]["startIndex"] - 1]
            marks[made["metadataId"]] = (made["metadataKey"], made["metadataValue"], row)
            if sum(len(k) + len(v) for k, v, _ in marks.values()) > METADATA_CHARACTERS:
                return "Developer metadata exceeds the storage limit."
        elif kind == "deleteDeveloperMetadata":
            lookup = asked["dataFilter"]["developerMetadataLookup"]
            if marks.pop(lookup["metadataId"], None) is None:
                return "No matching developer metadata."
        else:
            return "unknown request"
        return None

    def _search(self, filters: list[dict[str, Any]]) -> Answer:
        places = {id(row): at for at, row in enumerate(self.rows, 1)}
        lookups = [each["developerMetadataLookup"] for each in filters]
        matched = [
            {
                "developerMetadata": {
                    "metadataId": number,
                    "metadataKey": key,
                    "metadataValue": value,
                    "location": {
                        "dimensionRange": {"sheetId": 0, "startIndex": places.get(id(row), 0)}
                    },
                }
            }
            for number, (key, value, row) in self.marks.items()
            if any(
                lookup.get("metadataId", number) == number and lookup.get("metadataKey", key) == key
                for lookup in lookups
            )
        ]
        return _json({"matchedDeveloperMetadata": matched} if matched else {})


def _json(content: dict[str, Any]) -> Answer:
    return Answer.of(200, json.dumps(content), {"Content-Type": "application/json"})


def _error(status: int, word: str, message: str) -> Answer:
    said = {"error": {"code": status, "message": message, "status": word}}
    return Answer.of(status, json.dumps(said), {"Content-Type": "application/json"})
