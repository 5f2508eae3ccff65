"""Spot instances: Amazon says two minutes before that it takes the machine back.

Instance metadata v2: a token first, then `spot/instance-action`, which is 404 until the day comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.channels.ssrf import AddressGuard

log = logging.getLogger("allim.messaging.spot")

EVERY_SECONDS = 5.0
CALL_SECONDS = 2.0
TOKEN_SECONDS = 21600
_OK = 200
_UNAUTHORIZED = 401


async def watch_spot(url: str, stop: Callable[[], None], *, every: float = EVERY_SECONDS) -> None:
    """Ask until the notice comes, then call `stop` once. `url` is that of the metadata."""
    http = HttpClient(AddressGuard(()))
    token: str | None = None
    warned = False
    try:
        while True:
            try:
                token = token or await _token(http, url)
                answer = await http.request(
                    "GET",
                    f"{url}/latest/meta-data/spot/instance-action",
                    headers={"X-aws-ec2-metadata-token": token},
                    timeout=CALL_SECONDS,
                    trusted=True,
                )
                if answer.status == _OK:
                    log.warning("the spot instance will be taken: %s", answer.body[:200])
                    stop()
                    return
                if answer.status == _UNAUTHORIZED:
                    token = None
                warned = False
            except (HttpFailure, ValueError) as error:
                if not warned:
                    log.warning("the instance's metadata cannot be asked: %s", error)
                warned = True
            await asyncio.sleep(every)
    finally:
        await http.close()


async def _token(http: HttpClient, url: str) -> str:
    answer = await http.request(
        "PUT",
        f"{url}/latest/api/token",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)},
        timeout=CALL_SECONDS,
        trusted=True,
    )
    if answer.status != _OK:
        raise ValueError(f"the metadata gave no token: HTTP {answer.status}")
    return answer.body.strip()
