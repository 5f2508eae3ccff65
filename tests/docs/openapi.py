"""The OpenAPI document of an Allim without a setting."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from scripts.reference.__main__ import program


@cache
def openapi() -> dict[str, Any]:
    """As the reference describes it."""
    _, document, _ = asyncio.run(program())
    return document
