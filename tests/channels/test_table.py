"""The table: a channel is one file and one line; every channel heeds the same settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from allim.base.errors import ConfigurationError, FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.channel import (
    Channel,
    ChannelEntry,
    ChannelServices,
    Configured,
    Draft,
    Message,
    RecipientKind,
)
from allim.channels.registry import (
    close_channels,
    make_channels,
    make_http,
    make_services,
    settings_groups,
)
from allim.channels.sending import CALL_GRACE, Sending, sending
from allim.channels.table import CHANNELS
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.sender import RateLimit, RecordProviderId
from allim.relay.work import Work
from allim.testing.channels import a_message, send_one


class PagerSettings(SettingsGroup):
    pager_url: str = "http://pager.test"


class Pager:
    """Everything that a new channel needs."""

    name = "PAGER"
    recipient_kind = RecipientKind.ANY
    only_target: str | None = None

    def __init__(self, settings: PagerSettings, sending: Sending) -> None:
        self.limits = sending.limits
        self._url = settings.pager_url

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        return [] if draft.recipient else [FieldProblem("/recipient", "missing", "who?")]

    def configured(self) -> Configured:
        return Configured("live", self._url)

    def target(self, content: Message) -> str:
        return self._url

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        return [Outcome.delivered() for _ in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        return None

    async def diagnose(self) -> str | None:
        return None

    async def close(self) -> None:
        return


def make_pager(environment: Environment, services: ChannelServices) -> Pager:
    return Pager(environment.read(PagerSettings), sending(environment, "PAGER", timeout=10))


WITH_PAGER = (*CHANNELS, ChannelEntry("PAGER", make_pager, PagerSettings))


def _made(*table: ChannelEntry, **variables: str) -> dict[str, Channel]:
    environment = Environment(variables)
    return make_channels(environment, make_services(make_http(environment)), table or CHANNELS)


async def test_a_channel_is_one_file_and_one_line() -> None:
    channels = _made(*WITH_PAGER, PAGER_URL="http://x.test", PAGER_CONCURRENCY="3")
    pager = channels["PAGER"]
    assert pager.configured().detail == "http://x.test"
    assert pager.limits.concurrency == 3
    assert (await send_one(pager, a_message("kim"))).kind is OutcomeKind.DELIVERED
    assert PagerSettings in settings_groups(WITH_PAGER)
    await close_channels(channels)


@pytest.mark.parametrize("entry", WITH_PAGER, ids=lambda entry: entry.name)
def test_every_channel_heeds_the_settings_that_all_have(entry: ChannelEntry) -> None:
    prefix = entry.name
    channel = _made(
        entry,
        **{
            f"{prefix}_CONCURRENCY": "7",
            f"{prefix}_MAX_ATTEMPTS": "5",
            f"{prefix}_RETRY_BASE_SECONDS": "2",
            f"{prefix}_RETRY_MAX_SECONDS": "20",
            f"{prefix}_AT_MOST_ONCE": "true",
            f"{prefix}_TIMEOUT_SECONDS": "3",
            f"{prefix}_RATE_PER_SECOND": "2.5",
        },
    )[entry.name]
    limits = channel.limits
    assert channel.name == entry.name
    assert limits.concurrency == 7
    assert (limits.retry.attempts, limits.retry.base, limits.retry.maximum) == (5, 2.0, 20.0)
    assert limits.at_most_once
    assert limits.call_timeout == 3 + CALL_GRACE
    assert limits.rate is not None
    assert limits.rate.per_second == 2.5


@pytest.mark.parametrize("entry", CHANNELS, ids=lambda entry: entry.name)
def test_the_defaults_are_those_of_the_documents(entry: ChannelEntry) -> None:
    limits = _made(entry)[entry.name].limits
    attempts = 3 if entry.name in {"SMS", "ALIMTALK"} else 8
    assert (limits.retry.attempts, limits.retry.base, limits.retry.maximum) == (
        attempts,
        60.0,
        3600.0,
    )
    assert not limits.at_most_once
    slower = _made(entry, OUTBOX_RETRY_BASE_SECONDS="90", OUTBOX_RETRY_MAX_SECONDS="900")
    retry = slower[entry.name].limits.retry
    assert (retry.base, retry.maximum) == (90.0, 900.0)


def test_slack_is_called_once_a_second_and_can_be_let_loose() -> None:
    assert _made()["SLACK"].limits.rate == RateLimit(1.0, burst=3)
    assert _made(SLACK_RATE_PER_SECOND="0")["SLACK"].limits.rate is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_CONCURRENCY", "0"),
        ("WEBHOOK_CONCURRENCY", "many"),
        ("LOG_MAX_ATTEMPTS", "0"),
        ("SLACK_TIMEOUT_SECONDS", "-1"),
        ("EMAIL_AT_MOST_ONCE", "perhaps"),
        ("EMAIL_RETRY_MAX_SECONDS", "1"),
        ("OUTBOX_RETRY_BASE_SECONDS", "0"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name.split("_")[0]):
        _made(**{name: value})


def test_every_setting_belongs_to_one_group_and_is_described() -> None:
    fields = [(n, f) for group in settings_groups() for n, f in group.model_fields.items()]
    names = [name for name, _ in fields]
    assert len(names) == len(set(names))
    assert {"smtp_url", "slack_webhook_url", "webhook_secrets", "allim_ssrf_allow"} <= set(names)
    assert [name for name, field in fields if not field.description] == []


def test_making_channels_needs_no_event_loop() -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert set(_made()) >= {"EMAIL", "SLACK", "WEBHOOK", "LOG"}
