"""The cases that every box of deliveries must pass. Allim's own do; run them on yours.

    class TestMyBox(BoxConformance):
        @pytest.fixture
        async def harness(self):
            yield MyHarness()

Every case is a coroutine method, for pytest-asyncio in its auto mode.
"""

from allim.testing.boxes.claiming import ClaimingCases
from allim.testing.boxes.harness import (
    FAILED,
    LANE,
    LEASE,
    REFUSED,
    RETRY,
    WELL,
    AttemptState,
    BoxHarness,
    DeliveryState,
    Entry,
    claim,
    complete_steps,
)
from allim.testing.boxes.leases import LeaseCases
from allim.testing.boxes.passes import PassCases
from allim.testing.boxes.policies import PolicyCases
from allim.testing.boxes.receipts import ReceiptCases
from allim.testing.boxes.settling import SettlingCases
from allim.testing.boxes.steps import StepCases

__all__ = [
    "FAILED",
    "LANE",
    "LEASE",
    "REFUSED",
    "RETRY",
    "WELL",
    "AttemptState",
    "BoxConformance",
    "BoxHarness",
    "DeliveryState",
    "Entry",
    "claim",
    "complete_steps",
]


class BoxConformance(
    ClaimingCases, SettlingCases, LeaseCases, StepCases, ReceiptCases, PolicyCases, PassCases
):
    """Claiming, settling, rescuing and all that follows from it."""
