"""The whole of it, from the outside: Alimtalk, a failed report by webhook, and the text instead."""

from __future__ import annotations

from allim.testing.solapi import FakeSolapi
from tests.changes import changes
from tests.programs import PATIENCE_SECONDS, an_empty_directory, programs

SECRET = "webhook-secret"


async def test_a_failed_report_of_alimtalk_becomes_a_text_that_arrives(database_url: str) -> None:
    with an_empty_directory() as place:
        async with FakeSolapi() as solapi, programs(place) as start:
            allim = await start(
                "up",
                **solapi.environment(),
                ALLIM_HOST="127.0.0.1",
                DATABASE_URL=database_url,
                SOLAPI_KAKAO_PF_ID="KA01PF0001",
                SOLAPI_KAKAO_TEMPLATE_ID="KA01TP0001",
                SOLAPI_WEBHOOK_SECRET=SECRET,
                SOLAPI_REPORT_POLL_SECONDS="1",
            )
            notification = await allim.create(
                message="예약이 확정되었습니다",
                deliveries=[
                    {
                        "channel": "ALIMTALK",
                        "recipient": "010-1234-5678",
                        "fallback": [{"channel": "SMS"}],
                    }
                ],
            )
            await allim.attempts(notification, 1)
            solapi.report("3104")
            status, _ = await allim.call(
                "POST",
                "/receipts/solapi",
                json=solapi.webhook_items(wrapped=True),
                headers=solapi.webhook_headers(SECRET),
            )
            assert status == 200
            await allim.attempts(notification, 2)
            solapi.report()

            # Of this one no webhook tells: it is asked for.
            async def completed() -> bool:
                return bool((await allim.show(notification))["status"] == "COMPLETED")

            async with changes(database_url, patience=PATIENCE_SECONDS) as until:
                await until(completed)

            shown = await allim.show(notification)
            assert [text.body["type"] for text in solapi.texts] == ["ATA", "SMS"]
            first, second = shown["deliveries"]
            assert (first["status"], first["error_code"]) == ("DEAD", "solapi_3104")
            assert second["status"] == "SUCCESS"
            assert second["provider_id"] == solapi.texts[1].group_id
            assert await allim.terminate() == 0
