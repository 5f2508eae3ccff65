"""Calls to Solapi's group API, and what became of each.

https://developers.solapi.com/references/messages/groups: a group is made, filled and sent by
calls of their own, so what became of it can be asked at any time by its id.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import structlog

from allim.channels.answers import is_worth_retrying, json_object, retry_after
from allim.channels.channel import HttpAnswer, OutgoingHttp
from allim.channels.http.failure import HttpFailure
from allim.channels.json_bytes import JSON_HEADERS, json_bytes
from allim.channels.solapi.answers import (
    GroupStatus,
    SolapiMessage,
    read_messages,
    read_registration,
)
from allim.channels.solapi.signature import authorization
from allim.relay.outcomes import RESPONSE_LIMIT

ANSWER_LIMIT = 8 * 1024 * 1024
"""Bytes of an answer that lists messages; a page of them is far less."""
PAGE = 500
PAGES = 40
GROUP_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
ERROR_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{2,49}")
SENT_BEFORE = frozenset({"GroupInProcessing", "AlreadySent", "ScheduledGroup"})

log = structlog.get_logger("allim.channels.solapi")


class Stage(StrEnum):
    """How a call that did not succeed stands."""

    UNSEEN = "unseen"
    """Nobody knows whether Solapi did it."""
    NOT_NOW = "not_now"
    """It was not done, and may be later."""
    NEVER = "never"
    """It was not done, and will not be as it is."""
    NO_BALANCE = "no_balance"
    SKEWED = "skewed"
    """Our clock is wrong: nothing was done, and nothing will until it is set."""


class SolapiFailure(Exception):
    """A call that did not succeed; `code` is Solapi's word or ours, the text a sentence."""

    def __init__(
        self,
        stage: Stage,
        code: str,
        sentence: str,
        *,
        status: int | None = None,
        wait: float | None = None,
        response: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.stage = stage
        self.code = code
        self.status = status
        self.wait = wait
        self.response = response


@dataclass(frozen=True, slots=True)
class Credentials:
    """The key of an account and its secret."""

    key: str
    secret: str


class SolapiClient:
    """The calls. Each takes a `timeout` in seconds and raises SolapiFailure.

    `now` is the wall clock that signatures carry.
    """

    def __init__(
        self,
        http: OutgoingHttp,
        base_url: str,
        credentials: Credentials,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._base_url = base_url
        self._credentials = credentials
        self._now = now

    async def create_group(self, *, timeout: float) -> str:
        """Make an empty group; its id. One that nobody sends costs nothing and harms nobody."""
        answer = await self._call(
            "POST", "/messages/v4/groups", {"allowDuplicates": True}, timeout=timeout
        )
        group_id = answer.get("groupId")
        if not isinstance(group_id, str) or not GROUP_ID.fullmatch(group_id):
            raise _unreadable("has no group id")
        return group_id

    async def add_messages(
        self, group_id: str, messages: Sequence[Mapping[str, Any]], *, timeout: float
    ) -> Sequence[SolapiMessage]:
        """Add messages; what Solapi says of each. Never to be repeated: it would add them twice."""
        path = f"/messages/v4/groups/{_part(group_id)}/messages"
        answer = await self._call(
            "PUT", path, {"messages": messages}, timeout=timeout, limit=ANSWER_LIMIT
        )
        return read_registration(answer)

    async def remove_messages(
        self, group_id: str, message_ids: Sequence[str], *, timeout: float
    ) -> None:
        """Take messages out of a group that was not sent yet."""
        path = f"/messages/v4/groups/{_part(group_id)}/messages"
        body = {"messageIds": list(message_ids)}
        await self._call("DELETE", path, body, timeout=timeout, limit=ANSWER_LIMIT)

    async def send_group(self, group_id: str, *, timeout: float) -> None:
        """Send it. Done, too, where Solapi says that it was sent before."""
        path = f"/messages/v4/groups/{_part(group_id)}/send"
        try:
            await self._call("POST", path, {}, timeout=timeout)
        except SolapiFailure as failure:
            if failure.status != 409 or failure.code not in SENT_BEFORE:
                raise

    async def group(self, group_id: str, *, timeout: float) -> GroupStatus:
        """How a group stands."""
        answer = await self._call("GET", f"/messages/v4/groups/{_part(group_id)}", timeout=timeout)
        try:
            return GroupStatus(str(answer.get("status")))
        except ValueError:
            raise _unreadable("has no status that is known") from None

    async def messages(self, group_id: str, *, timeout: float) -> Sequence[SolapiMessage]:
        """Every message of a group; `timeout` is for each page of them."""
        found: list[SolapiMessage] = []
        start = ""
        for _ in range(PAGES):
            path = f"/messages/v4/groups/{_part(group_id)}/messages?limit={PAGE}{start}"
            answer = await self._call("GET", path, timeout=timeout, limit=ANSWER_LIMIT)
            page, following = read_messages(answer)
            if page is None:
                raise _unreadable("lists no messages")
            found.extend(page)
            if not following:
                return found
            start = f"&startKey={quote(following, safe='')}"
        raise _unreadable("has no end")

    async def delete_group(self, group_id: str, *, timeout: float) -> None:
        """Delete a group that was not sent; a later send of it then fails."""
        await self._call("DELETE", f"/messages/v4/groups/{_part(group_id)}", timeout=timeout)

    async def balance(self, *, timeout: float) -> float | None:
        """The balance of the account in won; None where the answer does not tell."""
        answer = await self._call("GET", "/cash/v1/balance", timeout=timeout)
        balance = answer.get("balance")
        return float(balance) if isinstance(balance, int | float) else None

    async def _call(
        self,
        method: str,
        path: str,
        body: object | None = None,
        *,
        timeout: float,
        limit: int = RESPONSE_LIMIT,
    ) -> Mapping[str, Any]:
        """One signed call; the JSON object that it answers."""
        credentials = self._credentials
        signed = authorization(credentials.key, credentials.secret, at=self._now())
        try:
            answer = await self._http.request(
                method,
                self._base_url + path,
                body=None if body is None else json_bytes(body),
                headers={"Authorization": signed, **JSON_HEADERS},
                timeout=timeout,
                trusted=True,
                limit=limit,
            )
        except HttpFailure as failure:
            stage = Stage.UNSEEN if failure.ambiguous else Stage.NOT_NOW
            raise SolapiFailure(stage, failure.code, str(failure)) from None
        if answer.status != 200:
            raise _failure(answer)
        content = json_object(answer.body) if answer.complete else None
        if content is None:
            raise _unreadable("is not JSON", answer)
        return content


def _failure(answer: HttpAnswer) -> SolapiFailure:
    """What an answer other than 200 means."""
    content = json_object(answer.body) or {}
    word = content.get("errorCode")
    code = word if isinstance(word, str) and ERROR_WORD.fullmatch(word) else f"http_{answer.status}"
    words = content.get("errorMessage")
    sentence = f"Solapi answered {answer.status} {code}"
    if isinstance(words, str) and words:
        sentence += f": {words[:200]}"
    status = answer.status
    if code == "RequestTimeTooSkewed":
        log.error("solapi_clock_skew", detail="this machine's clock is more than 15 minutes off")
        stage = Stage.SKEWED
    elif code == "DuplicatedSignature":
        # Salts are never reused: somebody on the way repeated our request, so it may be done.
        stage = Stage.UNSEEN
    elif status == 402:
        stage = Stage.NO_BALANCE
    elif status == 429:
        stage = Stage.NOT_NOW
    elif is_worth_retrying(status) or status == 409 or not 400 <= status < 500:
        stage = Stage.UNSEEN
    else:
        stage = Stage.NEVER
        if status in (401, 403):
            log.error("solapi_access_refused", code=code, status=status)
    return SolapiFailure(
        stage,
        code,
        sentence,
        status=status,
        wait=retry_after(answer.headers),
        response=answer.body[:RESPONSE_LIMIT],
    )


def _unreadable(what: str, answer: HttpAnswer | None = None) -> SolapiFailure:
    return SolapiFailure(
        Stage.UNSEEN,
        "bad_answer",
        f"what Solapi answered {what}",
        status=answer.status if answer else None,
        response=answer.body[:RESPONSE_LIMIT] if answer else None,
    )


def _part(group_id: str) -> str:
    """An id as part of a path; ids from elsewhere must not lead to another route."""
    return quote(group_id, safe="")
