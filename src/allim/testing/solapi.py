"""A Solapi of one's own: keeps groups, checks signatures, and breaks where it is told to.

async with FakeSolapi() as solapi:
    solapi.reports["01000000001"] = "3054"            # what the carrier says of that number
    solapi.fail(Step.SEND, Fault.cut(done=True))      # it is sent, but nobody hears of it
    ... send with SOLAPI_BASE_URL=solapi.url, and the key and secret of `solapi` ...
    assert [text.body["text"] for text in solapi.texts] == ["안녕하세요"]

`texts` is what went out: one entry for every time that a message left, whatever was answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from allim.channels.solapi.signature import sign
from allim.testing.http import Answer, HttpSink, Request
from allim.testing.solapi_calls import (
    FakeGroup,
    Fault,
    SentText,
    SolapiCall,
    Step,
    error,
    ok,
)

__all__ = ["ARRIVED", "KEY", "SECRET", "FakeGroup", "FakeSolapi", "Fault", "SentText", "Step"]

KEY = "NCSFAKEKEY000000"
SECRET = "FAKESECRETFAKESECRETFAKESECRET00"  # noqa: S105
SKEW_SECONDS = 900.0
PAGE_LIMIT = 500
NOT_REPORTED = "3000"
TAKEN = "2000"
ARRIVED = "4000"
AUTHORIZATION = re.compile(
    r"HMAC-SHA256 apiKey=(?P<key>[^,]+), date=(?P<date>[^,]+), salt=(?P<salt>[^,]+),"
    r" signature=(?P<signature>[0-9a-f]{64})"
)


class FakeSolapi(HttpSink):
    """The server; port 0 takes a free one, and keeps it when it is started again.

    `refusals` and `reports` say by number which code a message has when it is added (in place
    of 2000), and what is reported of it in the end (in place of 4000). With `reports_at_once`
    nothing is ever on its way. `delay` is the seconds that every call takes; those of a step in
    `delay_of` are answered when its event is set.
    """

    def __init__(self, key: str = KEY, secret: str = SECRET, *, port: int = 0) -> None:
        super().__init__()
        self.key = key
        self.secret = secret
        self.port = port
        self.groups: dict[str, FakeGroup] = {}
        self.texts: list[SentText] = []
        self.calls: list[SolapiCall] = []
        self.refusals: dict[str, str] = {}
        self.reports: dict[str, str] = {}
        self.reports_at_once = False
        self.balance = 100_000.0
        self.delay = 0.0
        self.delay_of: dict[Step, asyncio.Event] = {}
        self.page = PAGE_LIMIT
        self._numbers = itertools.count()
        self._salts: set[str] = set()
        self._faults: dict[Step, deque[Fault]] = {}
        self._always: Fault | None = None
        self._held: list[SolapiCall] = []

    def environment(self, sender: str = "0212345678") -> dict[str, str]:
        """The settings with which Allim sends here."""
        return {
            "SOLAPI_BASE_URL": self.url,
            "SOLAPI_API_KEY": self.key,
            "SOLAPI_API_SECRET": self.secret,
            "SOLAPI_SENDER": sender,
        }

    # What a test says and asks

    def fail(self, step: Step, *faults: Fault) -> None:
        """Have the next calls of a step go wrong so, one after the other."""
        self._faults.setdefault(step, deque()).extend(faults)

    def fail_always(self, fault: Fault | None) -> None:
        """Have every call go wrong so from now on; None: all is well again."""
        self._always = fault

    def release(self) -> None:
        """Do the calls that are held, in the order in which they came."""
        held, self._held = self._held, []
        for call in held:
            self._do(call, {})

    def report(self, code: str | None = None, *, to: str | None = None) -> None:
        """Let the carrier report of what is on its way: `code`, else as `reports` says."""
        for group in self.groups.values():
            for message in group.messages.values():
                if message["statusCode"] == NOT_REPORTED and to in (None, message["to"]):
                    message["statusCode"] = code or self.reports.get(message["to"], ARRIVED)
            if group.status == "SENDING" and not self._on_their_way(group):
                group.status = "COMPLETE"

    def webhook_items(self, *, wrapped: bool = False) -> list[dict[str, Any]]:
        """What the webhook would tell of every message of which something was reported."""
        items = [
            dict(message)
            for group in self.groups.values()
            for message in group.messages.values()
            if message["statusCode"] not in (TAKEN, NOT_REPORTED)
        ]
        if not wrapped:
            return items
        return [
            {"eventDataId": f"E{number}", "data": item, "retryCount": 0}
            for number, item in enumerate(items)
        ]

    def webhook_headers(self, secret: str) -> dict[str, str]:
        """The headers that come with them where the webhook's secret is `secret`."""
        return {
            "X-Solapi-Event-Name": "SINGLE-REPORT",
            "X-Solapi-Secret": hashlib.sha1(secret.encode()).hexdigest(),  # noqa: S324
        }

    def times_out(self) -> Counter[str]:
        """How often the message of each key went out."""
        return Counter(text.key or text.message_id for text in self.texts)

    def count(self, step: Step) -> int:
        """How many calls of a step were let in."""
        return sum(call.step is step for call in self.calls)

    async def called(self, step: Step, count: int = 1) -> None:
        """Wait until a step was called so often."""
        await self._connections.until(lambda: self.count(step) >= count)

    # The server

    async def hold(self, request: Request) -> None:
        """Take the time that was asked for."""
        if self.delay:
            await asyncio.sleep(self.delay)
        step, _ = _route(request.method, urlsplit(request.path).path)
        if step in self.delay_of:
            await self.delay_of[step].wait()

    def reply(self, request: Request) -> Answer:
        """What a call is answered with."""
        if (refusal := self._refusal(request)) is not None:
            return refusal
        url = urlsplit(request.path)
        step, group_id = _route(request.method, url.path)
        if step is None:
            return error(404, "ResourceNotFound", f"no {request.method} {url.path}")
        call = SolapiCall(step, group_id, request.json if request.body else None)
        self.calls.append(call)
        faults = self._faults.get(step)
        fault = faults.popleft() if faults else self._always
        if fault is None:
            return self._do(call, parse_qs(url.query))
        if fault.held:
            self._held.append(call)
        elif fault.done:
            self._do(call, parse_qs(url.query))
        return fault.answer

    def _refusal(self, request: Request) -> Answer | None:
        """What speaks against a request's signature."""
        given = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if given is None or given["key"] != self.key:
            return error(403, "InvalidAPIKey", "the key is not known")
        if not 12 <= len(given["salt"]) <= 64:
            return error(400, "ValidationError", "a salt has 12 to 64 characters")
        if given["signature"] != sign(self.secret, date=given["date"], salt=given["salt"]):
            return error(403, "SignatureDoesNotMatch", "the signature is not the right one")
        age = datetime.now(UTC) - datetime.fromisoformat(given["date"])
        if abs(age.total_seconds()) > SKEW_SECONDS:
            return error(403, "RequestTimeTooSkewed", "the date is too far from ours")
        if given["salt"] in self._salts:
            return error(403, "DuplicatedSignature", "the signature was used before")
        self._salts.add(given["salt"])
        return None

    # What the calls do

    def _do(self, call: SolapiCall, query: Mapping[str, list[str]]) -> Answer:
        if call.step is Step.CREATE:
            group = FakeGroup(f"G4V{len(self.groups):029d}")
            self.groups[group.group_id] = group
            return ok(_shown(group))
        if call.step is Step.BALANCE:
            return ok({"balance": self.balance, "point": 0})
        found = self.groups.get(call.group_id or "")
        if found is None:
            return error(404, "GroupNotFound", "there is no such group")
        if call.step is Step.GROUP:
            return ok(_shown(found))
        if call.step is Step.MESSAGES:
            return self._list(found, query)
        if found.status != "PENDING":
            return _not_pending(call.step, found)
        if call.step is Step.ADD:
            return self._add(found, call.body["messages"])
        if call.step is Step.REMOVE:
            for message_id in call.body["messageIds"]:
                found.messages.pop(message_id, None)
            return ok(_shown(found))
        if call.step is Step.DELETE:
            found.status = "DELETED"
            return ok(_shown(found))
        return self._send(found)

    def _add(self, group: FakeGroup, bodies: list[dict[str, Any]]) -> Answer:
        results = []
        for body in bodies:
            message_id = f"M4V{next(self._numbers):029d}"
            code = self.refusals.get(body["to"], TAKEN)
            result = {
                "groupId": group.group_id,
                "messageId": message_id,
                "statusCode": code,
                "statusMessage": "정상 접수" if code == TAKEN else "접수 실패",
                "to": body["to"],
                "from": body.get("from"),
                "type": body.get("type"),
                "customFields": body.get("customFields"),
            }
            results.append(result)
            if code == TAKEN:
                group.messages[message_id] = {**body, **result}
        refused = sum(result["statusCode"] != TAKEN for result in results)
        return ok({"errorCount": refused, "resultList": results})

    def _send(self, group: FakeGroup) -> Answer:
        if self.balance <= 0:
            return error(402, "NotEnoughBalance", "the balance is empty")
        group.status = "SENDING"
        for message_id, message in group.messages.items():
            key = (message.get("customFields") or {}).get("deliveryKey")
            self.texts.append(
                SentText(group.group_id, message_id, message["to"], key, dict(message))
            )
            message["statusCode"] = NOT_REPORTED
        if self.reports_at_once:
            self.report()
        return ok(_shown(group))

    def _list(self, group: FakeGroup, query: Mapping[str, list[str]]) -> Answer:
        limit = min(int(query.get("limit", ["20"])[0]), self.page)
        names = sorted(group.messages)
        start = query.get("startKey", [""])[0]
        page = [name for name in names if name >= start][: limit + 1]
        following = page[limit] if len(page) > limit else None
        listed = {name: group.messages[name] for name in page[:limit]}
        return ok({"limit": limit, "messageList": listed, "nextKey": following})

    @staticmethod
    def _on_their_way(group: FakeGroup) -> bool:
        return any(m["statusCode"] == NOT_REPORTED for m in group.messages.values())


def _route(method: str, path: str) -> tuple[Step | None, str | None]:
    if (method, path) == ("GET", "/cash/v1/balance"):
        return Step.BALANCE, None
    parts = path.removeprefix("/messages/v4/groups").strip("/").split("/")
    if not path.startswith("/messages/v4/groups"):
        return None, None
    group_id = parts[0] or None
    rest = parts[1] if len(parts) > 1 else ""
    steps = {
        ("POST", ""): Step.CREATE if group_id is None else None,
        ("GET", ""): Step.GROUP,
        ("DELETE", ""): Step.DELETE,
        ("PUT", "messages"): Step.ADD,
        ("GET", "messages"): Step.MESSAGES,
        ("DELETE", "messages"): Step.REMOVE,
        ("POST", "send"): Step.SEND,
    }
    return steps.get((method, rest)), group_id


def _not_pending(step: Step, group: FakeGroup) -> Answer:
    if step is Step.SEND and group.status == "SENDING":
        return error(409, "GroupInProcessing", "the group is being sent")
    if step is Step.SEND and group.status in ("COMPLETE", "FAILED"):
        return error(409, "AlreadySent", "the group was sent")
    return error(400, "InvalidStatus", f"the group is {group.status}")


def _shown(group: FakeGroup) -> dict[str, Any]:
    count = len(group.messages)
    return {
        "groupId": group.group_id,
        "status": group.status,
        "count": {"total": count, "registeredSuccess": count, "registeredFailed": 0},
    }
