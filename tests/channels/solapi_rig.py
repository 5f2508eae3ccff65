"""SMS and ALIMTALK in front of a fake Solapi."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from allim.base.settings import Environment
from allim.channels import alimtalk, sms
from allim.channels.channel import Message
from allim.channels.registry import make_http, make_services
from allim.channels.solapi.channel import SolapiChannel
from allim.relay.outcomes import Outcome
from allim.relay.work import Work
from allim.testing.channels import ChannelRig, Mood, a_message, a_work
from allim.testing.solapi import SECRET, FakeSolapi, Fault

NUMBER = "010-1234-5678"
KAKAO = {"SOLAPI_KAKAO_PF_ID": "KA01PF0001", "SOLAPI_KAKAO_TEMPLATE_ID": "KA01TP0001"}
GARBAGE = Fault.html()


class SolapiRig(ChannelRig):
    recipient = NUMBER
    bad_recipients = (None, "", "02-123-4567", "nobody", "+1 202 555 0100", "010-1234-567")
    secrets = (SECRET,)
    channel: SolapiChannel

    def __init__(self, solapi: FakeSolapi, name: str, **settings: str) -> None:
        self.solapi = solapi
        self.printed: list[str] = []
        self.recorded: list[tuple[list[int], str]] = []
        self.ours = True
        environment = Environment(
            {
                **solapi.environment(),
                **KAKAO,
                f"{name}_TIMEOUT_SECONDS": "20",
                **settings,
            }
        )
        self.http = make_http(environment)
        services = make_services(self.http, print_line=self.printed.append)
        make = {"SMS": sms.make, "ALIMTALK": alimtalk.make}[name]
        self.channel = make(environment, services)

    async def turn(self, mood: Mood) -> None:
        await self.solapi.stop()
        if mood is not Mood.DOWN:
            await self.solapi.start()
        faults = {Mood.HANGING: Fault.hang(), Mood.GARBAGE: GARBAGE}
        self.solapi.fail_always(faults.get(mood))

    async def received(self) -> Sequence[str]:
        return [text.body["text"] for text in self.solapi.texts]

    async def all_closed(self) -> None:
        await self.http.close()
        await self.solapi.all_closed()

    async def record(self, works: Sequence[Work[Message]], provider_id: str) -> bool:
        """Stores the id as the box does: the works of a rescue would carry it."""
        self.recorded.append(([work.id for work in works], provider_id))
        return self.ours

    async def send(self, *works: Work[Message]) -> list[Outcome]:
        """Send a batch."""
        return list(await self.channel.send(works, self.record))

    async def text(self, number: str = NUMBER, **parts: Any) -> Outcome:
        """Send one message."""
        (outcome,) = await self.send(a_work(a_message(number, **parts)))
        return outcome


@asynccontextmanager
async def solapi_rig(name: str = "SMS", **settings: str) -> AsyncIterator[SolapiRig]:
    async with FakeSolapi() as solapi:
        rig = SolapiRig(solapi, name, **settings)
        try:
            yield rig
        finally:
            await rig.http.close()
