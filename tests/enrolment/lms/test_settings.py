from __future__ import annotations

from pathlib import Path

import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.enrolment.lms.making import lms_is_set, make_lms
from allim.enrolment.lms.settings import LmsSettings
from allim.testing.lms.kvca import FakeKvca
from tests.programs import allim

KVCA = {
    "LMS_KIND": "kvca",
    "LMS_BASE_URL": "https://lms.example.com/",
    "LMS_USERNAME": "allim",
    "LMS_PASSWORD": "sesame-2026",
}
MOODLE = {"LMS_KIND": "moodle", "LMS_BASE_URL": "https://example.com/moodle", "LMS_TOKEN": "t0"}


@pytest.mark.parametrize(
    ("variables", "kind"), [(KVCA, "kvca"), (MOODLE, "moodle"), ({"LMS_KIND": "sample"}, "sample")]
)
async def test_a_kind_with_what_it_needs_is_made(variables: dict[str, str], kind: str) -> None:
    lms = make_lms(Environment(variables))
    assert lms.kind == kind
    await lms.close()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "LMS_KIND is not set: set it to kvca, moodle or sample"),
        ({"LMS_BASE_URL": "https://x"}, "LMS_KIND is not set"),
        ({"LMS_KIND": "kvca"}, "LMS_KIND=kvca needs LMS_BASE_URL, LMS_USERNAME, LMS_PASSWORD"),
        (KVCA | {"LMS_PASSWORD": " "}, "LMS_KIND=kvca needs LMS_PASSWORD"),
        ({"LMS_KIND": "moodle", "LMS_BASE_URL": "https://x"}, "LMS_KIND=moodle needs LMS_TOKEN"),
        ({"LMS_KIND": "canvas"}, "LMS_KIND must be 'kvca', 'moodle' or 'sample'"),
        ({"LMS_BASE_URL": "lms.example.com"}, "LMS_BASE_URL must begin with http:// or https://"),
        ({"LMS_BASE_URL": "https://a:b@x"}, "LMS_BASE_URL must have no user"),
        ({"LMS_BASE_URL": "https://x?token=1"}, "LMS_BASE_URL must have no user"),
        ({"LMS_TIMEOUT_SECONDS": "0"}, "LMS_TIMEOUT_SECONDS must be greater than 0"),
    ],
)
def test_what_is_missing_or_wrong_is_named(variables: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_lms(Environment(variables))
    assert words in str(caught.value)


def test_no_kind_is_no_lms() -> None:
    assert not lms_is_set(Environment({"LMS_BASE_URL": "https://x"}))
    assert lms_is_set(Environment({"LMS_KIND": "sample"}))


def test_secrets_are_not_shown() -> None:
    shown = repr(Environment(KVCA | {"LMS_TOKEN": "t0k3n"}).read(LmsSettings))
    assert "sesame" not in shown
    assert "t0k3n" not in shown


async def test_the_doctor_looks_at_the_lms_that_is_set(database_url: str, tmp_path: Path) -> None:
    async with FakeKvca() as fake:
        variables = {"DATABASE_URL": database_url, **fake.environment()}
        well = await allim("doctor", cwd=tmp_path, **variables)
        assert "kvca: logs in and lists categories" in well.out + well.err
        ill = await allim("doctor", cwd=tmp_path, **(variables | {"LMS_PASSWORD": "n0t-th1s"}))
        assert ill.code != 0
        assert "check LMS_USERNAME and LMS_PASSWORD" in " ".join((ill.out + ill.err).split())
        assert "n0t-th1s" not in (ill.out + ill.err)
