"""The channel of docs/how-to/add-a-channel.md passes the suite as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import allim.channels

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-channel.md"

INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    channel, suite = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "pager.py").write_text(channel)
    # The page's file stands beside the package's own, without touching the checkout.
    path = [str(tmp_path), *allim.channels.__path__]
    setup = f"import allim.channels\nallim.channels.__path__ = {path!r}\n"
    (tmp_path / "test_pager.py").write_text(setup + suite)
    (tmp_path / "pytest.ini").write_text(INI)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
