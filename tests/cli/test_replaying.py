"""What `allim replay` refuses."""

from __future__ import annotations

from pathlib import Path

from tests.programs import allim


async def test_a_channel_that_nobody_knows_is_an_error(database_url: str, tmp_path: Path) -> None:
    async def counted(channel: str) -> tuple[int, str, str]:
        ended = await allim(
            "replay", "--channel", channel, "--dry-run", cwd=tmp_path, DATABASE_URL=database_url
        )
        return ended.code, ended.out, ended.err

    code, out, said = await counted("PIGEON")
    assert (code, out) == (2, "")
    assert said.startswith("allim: --channel: must be one of: ALIMTALK, ")
    assert await counted("slack") == (0, "nothing fits\n", "")
