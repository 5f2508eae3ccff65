"""The box in PostgreSQL keeps to what every box keeps to."""

from __future__ import annotations

from allim.testing.boxes import BoxConformance


class TestDeliveryBox(BoxConformance):
    """With the harness of this directory."""
