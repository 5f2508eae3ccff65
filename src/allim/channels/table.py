"""The table of channels. A new channel is one file beside this one, and one line here."""

from __future__ import annotations

from allim.channels import (
    alimtalk,
    apprise,
    discord,
    email,
    kakao,
    log,
    sheet,
    slack,
    sms,
    teams,
    telegram,
    webhook,
    webpush,
)
from allim.channels.channel import ChannelEntry
from allim.channels.solapi.settings import SolapiSettings

CHANNELS: tuple[ChannelEntry, ...] = (
    ChannelEntry(email.NAME, email.make, email.EmailSettings, email.MORE_SETTINGS),
    ChannelEntry(slack.NAME, slack.make, slack.SlackSettings),
    ChannelEntry(discord.NAME, discord.make, discord.DiscordSettings),
    ChannelEntry(teams.NAME, teams.make, teams.TeamsSettings),
    ChannelEntry(telegram.NAME, telegram.make, telegram.TelegramSettings),
    ChannelEntry(apprise.NAME, apprise.make, apprise.AppriseSettings),
    ChannelEntry(webpush.NAME, webpush.make, webpush.WebPushSettings),
    ChannelEntry(sms.NAME, sms.make, SolapiSettings),
    ChannelEntry(alimtalk.NAME, alimtalk.make, alimtalk.AlimtalkSettings),
    ChannelEntry(sheet.NAME, sheet.make, sheet.SheetSettings),
    ChannelEntry(kakao.NAME, kakao.make, kakao.KakaoSettings),
    ChannelEntry(webhook.NAME, webhook.make, webhook.WebhookSettings),
    ChannelEntry(log.NAME, log.make, None),
)
