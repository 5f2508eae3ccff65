"""The pages of the enrolment sync and of the tenants, in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from allim.database.pool import Database
from tests.console.browser.conftest import XSS, OpenTab, Serve

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_runs_their_changes_and_a_schedule(open_tab: OpenTab, serve: Serve) -> None:
    tab = await open_tab(await serve(LMS_KIND="sample"))
    page = await tab.open("/enrolment")
    for _ in range(2):
        await page.locator("input[name=category_id]").fill("303")
        await page.get_by_role("button", name="Run now").click()
        await expect(page.locator("h1")).to_contain_text("Run")
        await tab.open("/enrolment")
    await expect(page.locator("table tbody tr")).to_have_count(2)
    await tab.screenshot("enrolment")

    await tab.open("/enrolment/alerts?type=CHANGED")
    await tab.screenshot("enrolment-alerts")
    await expect(page.locator(".change").first).to_be_visible()
    await page.get_by_role("button", name="Dealt with").first.click()
    await expect(page.locator(".flash")).to_contain_text("is dealt with")

    await tab.open("/enrolment/schedules")
    await page.locator("input[name=name]").fill("autumn-303")
    await page.locator("input[name=cron]").fill("*/10 * * * *")
    await page.locator("input[name=category_id]").fill("303")
    await page.get_by_role("button", name="Create the schedule").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await tab.screenshot("schedules")
    await tab.confirm("Remove")
    await expect(page.locator("tbody tr")).to_have_count(0)


async def test_a_tenant_is_opened_and_topped_up(open_tab: OpenTab) -> None:
    tab = await open_tab(locale="ko-KR")
    page = await tab.open("/tenants")
    await page.locator("input[name=id]").fill("7")
    await page.locator("input[name=name]").fill("한빛 학원")
    await page.locator("input[name=balance]").fill("10000")
    await page.get_by_role("button", name="테넌트 만들기").click()
    await expect(page.locator("h1")).to_contain_text("한빛 학원")
    await page.locator("input[name=amount]").fill("5000")
    await page.get_by_role("button", name="충전").click()
    await expect(page.locator(".figure .value").first).to_have_text("15,000 KRW")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await tab.screenshot("tenant.ko")
    async with page.expect_download() as download:
        await page.get_by_role("button", name=re.compile("CSV")).click()
    assert (await download.value).suggested_filename == "tenant-7-all.csv"


async def test_what_the_lms_says_stays_text(
    open_tab: OpenTab, serve: Serve, database: Database
) -> None:
    tab = await open_tab(await serve())
    await database.fetch(
        "INSERT INTO run_log (category_id, trigger_type, worker, status, error_message,"
        " finished_at) VALUES (303, 'MANUAL', 'w', 'FAILED', %(xss)s, now() + interval '1 h')"
        " RETURNING id",
        {"xss": XSS},
    )
    await database.fetch(
        "INSERT INTO alert (run_id, alert_type, severity, source_type, source_id, category_id,"
        " revision, title, message, notification_id, old, new)"
        " SELECT id, 'CHANGED', 'high', 'enrolment_status',"
        " %(xss)s, 303, 1, %(xss)s, %(xss)s, gen_random_uuid(),"
        " jsonb_build_object(%(xss)s::text, %(xss)s::text),"
        " jsonb_build_object(%(xss)s::text, 'new') FROM run_log RETURNING id",
        {"xss": XSS},
    )
    await database.fetch(
        "INSERT INTO tenant (id, name) VALUES (7, %(xss)s) RETURNING id", {"xss": XSS}
    )
    for path in ("/enrolment", "/enrolment/runs/1", "/enrolment/alerts", "/tenants", "/tenants/7"):
        await tab.open(path)
        assert await tab.shows_as_text(), path
