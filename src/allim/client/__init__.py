"""A client of Allim's HTTP API, for services that do not share its database.

    with Client("http://127.0.0.1:18080", key="…") as allim:
        allim.notify(
            source="payment-service", type="PAYMENT_FAILED", title="결제 실패",
            deliveries=[{"channel": "EMAIL", "recipient": "kim@example.com"}],
        )

`AsyncClient` is the same with `async with` and `await`. Calls that may be repeated are tried
again when the server cannot be reached or asks for patience; a notification is made once all the
same, by its idempotency key.
"""

from allim.client.asynchronous import AsyncClient
from allim.client.errors import ApiError, ClientError, Unreachable
from allim.client.retrying import Retrying
from allim.client.synchronous import Client

__all__ = ["ApiError", "AsyncClient", "Client", "ClientError", "Retrying", "Unreachable"]
