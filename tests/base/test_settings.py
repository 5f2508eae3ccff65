"""All settings together."""

from __future__ import annotations

import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.composition.settings import RelaySettings, check, settings_groups


def test_every_setting_belongs_to_one_group_and_says_what_it_is() -> None:
    names = [name for group in settings_groups() for name in group.model_fields]
    assert len(names) == len(set(names))
    silent = [
        name
        for group in settings_groups()
        for name, field in group.model_fields.items()
        if not field.description
    ]
    assert not silent


def test_everything_wrong_is_named_at_once() -> None:
    environment = Environment(
        {"ALLIM_HOST_NAME": "x", "ALLIM_PORT": "many", "DELIVERY_LEASE_SECONDS": "1"}
    )
    with pytest.raises(ConfigurationError) as raised:
        check(environment)
    for word in ("ALLIM_HOST_NAME", "ALLIM_PORT", "DELIVERY_LEASE_SECONDS"):
        assert word in str(raised.value)


def test_an_empty_setting_is_none() -> None:
    check(Environment({"ALLIM_PORT": "", "DATABASE_URL": " "}))


def test_polls_that_cannot_be_are_refused() -> None:
    settings = RelaySettings.model_validate(
        {"delivery_poll_min_seconds": 10, "delivery_poll_max_seconds": 1}
    )
    with pytest.raises(ConfigurationError):
        settings.limits()


def test_limits_follow_the_settings() -> None:
    limits = RelaySettings.model_validate(
        {"delivery_lease_seconds": 90, "allim_shutdown_seconds": 3}
    ).limits()
    assert (limits.lease, limits.grace, limits.poll_max) == (90, 3, 5.0)
