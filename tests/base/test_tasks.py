"""Ending background tasks."""

from __future__ import annotations

import asyncio

from allim.base.tasks import cancel_and_wait


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    begun = asyncio.Event()

    async def deaf_once() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(deaf_once())
    await begun.wait()
    async with asyncio.timeout(30):
        await cancel_and_wait(task)
    assert task.cancelled()


async def test_what_has_failed_or_ended_already_is_no_error() -> None:
    async def fail() -> None:
        raise ValueError("of its own")

    ended = asyncio.create_task(asyncio.Event().wait())
    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    await cancel_and_wait(ended, failed)
    await cancel_and_wait(ended, failed)
    assert isinstance(failed.exception(), ValueError)
