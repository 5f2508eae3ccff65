"""Publishing in Django's `atomic()`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.events.producer.conftest import Outbox, UserCreated

pytest.importorskip("django")
ROOT = Path(__file__).parents[3]


def test_django_publishes_when_its_outermost_block_commits(
    outbox: Outbox, database_url: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.events.producer.django_program", database_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    found = [UserCreated.model_validate_json(bytes(row["payload"])) for row in outbox.rows()]
    assert [event.username for event in found] == ["first", "100% 'second'"]
    assert told["stored"] == 1
    assert told["woken"] == ["events"]
    assert "no transaction" in told["outside"]
    assert "sqlite" in told["sqlite"]
    assert "did not take it" in told["doomed"]
    assert told["once"] == [True, False]
