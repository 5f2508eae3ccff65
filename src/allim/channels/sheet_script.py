"""Writing rows by an Apps Script web app (`…/exec`): POST, then GET where the answer lies.

Google runs the script on the POST and answers 302 to another host, where a GET fetches what the
script returned. The POST is never repeated to follow: that would run the script twice. An
answer counts only as a JSON object with `"ok": true`, since a script that fails answers with
a page of HTML and status 200.

Between POST and GET nobody knows what the script did. Another try posts the same `row_key`,
and the script must not write a row whose key it finds: see docs/how-to/connect-a-sheet.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from yarl import URL

from allim.channels.answers import outcome_of_answer, outcome_of_failure
from allim.channels.channel import Configured, HttpAnswer, OutgoingHttp
from allim.channels.hooks import Verdict, target_of
from allim.channels.http.failure import HttpFailure
from allim.channels.json_bytes import JSON_HEADERS, json_bytes
from allim.channels.sheet_row import SheetRow
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits

LIMITS = SendingLimits(concurrency=4)
"""Google runs 30 at once for one owner; the script's own lock lets them write in turn."""

FOLLOWED = frozenset({301, 302, 303})
UNAUTHORIZED = 401
LOGIN_HOST = "accounts.google.com"


class ScriptWriter:
    """Posts each row to the operator's web app."""

    def __init__(self, url: str, *, http: OutgoingHttp, timeout: float, at_most_once: bool) -> None:
        self.target = target_of(url)
        self._url = URL(url)
        self._http = http
        self._timeout = timeout
        self._at_most_once = at_most_once
        # Google's script leads to Google. One inside the operator's network may lead inside it.
        self._inside = http.check_url(url) is not None

    def configured(self) -> Configured:
        """Live."""
        return Configured("live", "writes rows by the Apps Script of SHEET_WEBHOOK_URL")

    def knows_sheet(self, name: str) -> bool:
        """The script is told the name and does with it what it likes."""
        return True

    async def write(self, rows: Sequence[SheetRow]) -> Sequence[Outcome]:
        """Post each."""
        return [await self._post(row) for row in rows]

    async def find(self, row: SheetRow) -> Outcome | None:
        """A script is not asked; it finds the row itself when it is posted again."""
        return None

    async def diagnose(self) -> str | None:
        """A GET runs no `doPost`; it tells whether anything is there, and open to us."""
        deadline = time.monotonic() + self._timeout
        try:
            answer = await self._get(self._url, deadline, trusted=True)
            if answer.status in FOLLOWED and (place := self._place(answer)) is not None:
                if place.host == LOGIN_HOST:
                    return "the script asks for a login: deploy it with access for «Anyone»"
                answer = await self._get(place, deadline, trusted=self._is_trusted(place))
        except HttpFailure as failure:
            return str(failure)
        if answer.status in (404, 410) or answer.status >= 500:
            return f"answered {answer.status}"
        return None

    async def _post(self, row: SheetRow) -> Outcome:
        deadline = time.monotonic() + self._timeout
        try:
            answer = await self._http.post(
                str(self._url),
                body=json_bytes(body_of(row)),
                headers=JSON_HEADERS,
                timeout=self._timeout,
                trusted=True,
            )
        except HttpFailure as failure:
            return outcome_of_failure(failure, at_most_once=self._at_most_once)
        if answer.status in FOLLOWED:
            return await self._follow(answer, deadline)
        return self._outcome(answer)

    async def _follow(self, redirect: HttpAnswer, deadline: float) -> Outcome:
        """Fetch what the script returned. From here on the row may stand in the sheet."""
        place = self._place(redirect)
        if place is None:
            return Outcome.refused(
                "bad_redirect",
                "redirects to where an answer cannot be fetched from",
                http_status=redirect.status,
            )
        if place.host == LOGIN_HOST:
            return Outcome.retry(
                "login_page",
                "the script asks for a login: deploy it with access for «Anyone»",
                http_status=redirect.status,
            )
        try:
            answer = await self._get(place, deadline, trusted=self._is_trusted(place))
        except HttpFailure as failure:
            if failure.code == "blocked_address":
                return Outcome.refused(failure.code, f"redirects to where {failure}")
            return self._in_doubt("answer_lost", str(failure))
        if answer.status == 200:
            return self._outcome(answer)
        return self._in_doubt(
            "answer_lost",
            f"the script's answer could not be fetched: answered {answer.status}",
            answer,
        )

    async def _get(self, place: URL, deadline: float, *, trusted: bool) -> HttpAnswer:
        left = deadline - time.monotonic()
        if left <= 0:
            raise HttpFailure("timeout", "no answer within the time limit", ambiguous=True)
        return await self._http.request(
            "GET", str(place), headers={}, timeout=left, trusted=trusted
        )

    def _outcome(self, answer: HttpAnswer) -> Outcome:
        status = answer.status
        answer = replace(answer, body=answer.body.replace(str(self._url), "[webhook]"))
        if status == 200:
            verdict = Verdict.of(answer)
            if verdict is None or verdict.ok is None:
                return self._in_doubt(
                    "bad_answer", 'answered 200 without a JSON object that says "ok"', answer
                )
            if not verdict.ok:
                return verdict.failure(answer)
            code = "duplicate" if verdict.duplicate else None
            return Outcome.delivered(code, http_status=200, response=answer.body)
        return outcome_of_answer(answer, success=(), retried={UNAUTHORIZED})

    def _in_doubt(self, code: str, detail: str, answer: HttpAnswer | None = None) -> Outcome:
        """The script ran, or it did not: it is posted again, unless nothing may go out twice."""
        if self._at_most_once:
            return Outcome.unknown(code, detail)
        if answer is None:
            return Outcome.retry(code, detail)
        return Outcome.retry(code, detail, http_status=answer.status, response=answer.body)

    def _place(self, redirect: HttpAnswer) -> URL | None:
        """Where a redirect leads: https, or the scheme of the operator's own URL."""
        try:
            place = self._url.join(URL(redirect.headers.get("Location", "")))
        except ValueError:
            return None
        if place == self._url or place.scheme not in ("https", self._url.scheme):
            return None
        return place if place.raw_host else None

    def _is_trusted(self, place: URL) -> bool:
        return self._inside or place.raw_host == self._url.raw_host


def body_of(row: SheetRow) -> Mapping[str, Any]:
    """What a script is given: the fields, and `cells`, the texts of the columns in order."""
    message, data = row.message, row.message.data
    return {
        "row_key": row.key,
        "source_id": data.get("source_id"),
        "source_type": data.get("source_type"),
        "type": message.type,
        "severity": data.get("severity"),
        "title": message.title,
        "message": message.message,
        "data": dict(data),
        "source": message.source,
        "sheet": message.recipient,
        "cells": row.cells(),
        "created_at": message.created_at,
        "delivery_id": message.delivery_id,
        "notification_id": message.notification_id,
    }
