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


def test_what_is_wrong_is_said_once_and_in_plain_words() -> None:
    environment = Environment(
        {
            "ALLIM_PROT": "1",
            "ALLIM_PORT": "many",
            "DELIVERY_LEASE_SECONDS": "-1",
            "SMTP_URL": "foo",
            "SLACK_AT_MOST_ONCE": "perhaps",
            "ALLIM_LOG_LEVEL": "LOUD",
        }
    )
    with pytest.raises(ConfigurationError) as raised:
        check(environment)
    assert str(raised.value) == (
        "unknown settings: ALLIM_PROT (did you mean ALLIM_PORT?); invalid settings: "
        "ALLIM_PORT must be a whole number; "
        "DELIVERY_LEASE_SECONDS must be greater than or equal to 5; "
        "ALLIM_LOG_LEVEL must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'; "
        "SMTP_URL must be smtp://host or smtps://host; "
        "SLACK_AT_MOST_ONCE must be true or false"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"SOLAPI_API_KEY": "k"},
            "SOLAPI_API_KEY and SOLAPI_API_SECRET are needed together",
        ),
        (
            {"DKIM_DOMAIN": "b.kr"},
            "DKIM_DOMAIN, DKIM_SELECTOR and DKIM_PRIVATE_KEY belong together: set all or none",
        ),
        (
            {"ALLIM_TRUSTED_PROXIES": "10.0.0.0/8, here"},
            "ALLIM_TRUSTED_PROXIES 'here' does not appear to be an IPv4 or IPv6 network",
        ),
    ],
)
def test_what_is_wrong_with_several_together_is_said_without_our_names_for_them(
    settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check(Environment(settings))
    assert str(raised.value) == f"invalid settings: {words}"


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


@pytest.mark.parametrize(
    "hosts",
    ["http://x", "exa mple", "localhost:1", "a.example,http://b", "::1", "[x]", "*x.example", ","],
)
def test_hosts_that_no_request_can_name_stop_the_start(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match="ALLIM_ALLOWED_HOSTS must be names"):
        check(Environment({"ALLIM_ALLOWED_HOSTS": hosts}))


@pytest.mark.parametrize(
    "hosts",
    ["*", "localhost, allim_api", "*.corp.example", "10.0.0.1", "[::1]", "xn--bj0bj06e.kr", "A.b."],
)
def test_hosts_that_a_request_can_name_are_taken(hosts: str) -> None:
    check(Environment({"ALLIM_ALLOWED_HOSTS": hosts}))


@pytest.mark.parametrize("channel", ["SLACK", "DISCORD", "TEAMS"])
def test_one_name_for_two_webhooks_stops_the_start_and_shows_neither(channel: str) -> None:
    twice = "ops=https://a.example/s3cret,sales=https://a.example/b,ops=https://a.example/s3cret2"
    with pytest.raises(
        ConfigurationError, match=f"{channel}_WEBHOOKS has one name twice"
    ) as raised:
        check(Environment({f"{channel}_WEBHOOKS": twice}))
    assert "s3cret" not in str(raised.value)
