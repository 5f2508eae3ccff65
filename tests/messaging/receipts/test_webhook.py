"""POST /receipts/solapi: its secret, its shapes, and its way to the relay."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import aiohttp
import pytest

from allim.app import create_app
from allim.base.settings import Environment
from allim.database.pool import Database
from allim.messaging.receipts import LANE
from tests.messaging.receipts.rig import ReportsRig, reports_rig
from tests.serving import serving

SECRET = "webhook-secret"


class Webhook:
    """Solapi's side of it."""

    def __init__(self, rig: ReportsRig, url: str, session: aiohttp.ClientSession) -> None:
        self.rig = rig
        self.url = f"{url}/receipts/solapi"
        self.session = session

    async def tell(
        self, *, secret: str = SECRET, wrapped: bool = False, header: str | None = None
    ) -> int:
        """Post what was reported; the status of the answer."""
        headers = self.rig.solapi.webhook_headers(secret)
        if header is not None:
            headers["X-Solapi-Secret"] = header
        items = self.rig.solapi.webhook_items(wrapped=wrapped)
        async with self.session.post(self.url, json=items, headers=headers) as answer:
            return answer.status

    async def post(self, body: bytes) -> int:
        headers = self.rig.solapi.webhook_headers(SECRET)
        async with self.session.post(self.url, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status


@pytest.fixture
async def webhook(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[Webhook]:
    settings = getattr(request, "param", {"SOLAPI_WEBHOOK_SECRET": SECRET})
    # A key exists: this route needs none.
    environment = Environment(
        {"ALLIM_API_KEYS": "app:abcdefghijklmnopqrstuvwxyz012345:send", **settings}
    )
    async with reports_rig(database) as rig, aiohttp.ClientSession() as session:
        app = create_app(database, rig.channels, environment, on_commit=rig._wake)
        async with serving(app) as url:
            yield Webhook(rig, url, session)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_report_finds_its_delivery(webhook: Webhook, wrapped: bool) -> None:
    rig = webhook.rig
    (text,) = await rig.accepted("01000000001")
    rig.solapi.report()
    assert await webhook.tell(wrapped=wrapped) == 200
    assert LANE in rig.woken
    assert await rig.status(text) == "ACCEPTED", "nothing is believed yet"
    await rig.check().look()
    assert await rig.status(text) == "SUCCESS"
    assert await webhook.tell(wrapped=wrapped) == 200, "told again"
    await rig.check().look()
    assert await rig.status(text) == "SUCCESS"


async def test_who_does_not_know_the_secret_says_nothing(webhook: Webhook) -> None:
    await webhook.rig.accepted("01000000001")
    webhook.rig.solapi.report()
    assert await webhook.tell(secret="another") == 403
    assert await webhook.tell(header=SECRET) == 403
    assert await webhook.tell(header="") == 403
    assert await webhook.tell(header="é" * 40) == 403
    assert await webhook.rig.inbox_rows() == []


@pytest.mark.parametrize("webhook", [{}], indirect=True)
async def test_without_a_secret_of_ours_nobody_is_heard(webhook: Webhook) -> None:
    assert await webhook.tell() == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 200),
        (b'[{"groupId": "../../x y"}, {"groupId": "\\u0000"}]', 200),
        (b"not json", 400),
        (b"\xff\xfe", 400),
        (b"[" * 5000 + b"]" * 5000, 400),
        (b'["' + b"x" * 3_000_000 + b'"]', 200),
        (b"[" + b",".join(b'{"groupId":"G%d"}' % n for n in range(10_001)) + b"]", 413),
    ],
)
async def test_odd_bodies_store_nothing(webhook: Webhook, body: bytes, status: int) -> None:
    assert await webhook.post(body) == status
    assert await webhook.rig.inbox_rows() == []
