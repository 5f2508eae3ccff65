"""What the how-to pages say of the clients is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from allim.enrolment.lms import moodle, moodle_errors
from allim.enrolment.lms.kvca import STATUS_FIELDS, USER_FIELDS
from allim.enrolment.lms.settings import LmsSettings

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
KVCA = (PAGES / "connect-kvca.md").read_text(encoding="utf-8")
MOODLE = (PAGES / "connect-moodle.md").read_text(encoding="utf-8")


def test_the_code_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", KVCA, re.MULTILINE | re.DOTALL)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "LMS_BASE_URL" in ended.stdout


@pytest.mark.parametrize("page", [KVCA, MOODLE])
def test_every_setting_that_a_page_names_is_one(page: str) -> None:
    known = {name.upper() for name in LmsSettings.model_fields}
    assert set(re.findall(r"\bLMS_[A-Z_]+", page)) <= known


def test_every_function_and_field_is_named() -> None:
    functions = {moodle.CATEGORIES, moodle.COURSES, moodle.ROSTER, moodle.COMPLETION}
    assert functions == set(re.findall(r"^ *(core_\w+)$", MOODLE, re.MULTILINE))
    named = re.findall(r"`(\w+)`", KVCA)
    assert {*USER_FIELDS, *STATUS_FIELDS, "ds_date", "gc_date", "sjc_date"} <= set(named)


def test_every_error_code_that_a_page_explains_is_known() -> None:
    codes = set(re.findall(r"'(\w+)'", MOODLE))
    assert codes <= {*moodle_errors.NEEDS_A_SETTING, *moodle_errors.PASSING}
