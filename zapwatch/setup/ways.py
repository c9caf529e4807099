"""Ways to reach people: their questions, and Alertmanager's configuration of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from zapwatch.alertmanager import NTFY_MARK
from zapwatch.config.readers import SettingsError
from zapwatch.setup.dialog import Check, _, accept

_MAIL_PORTS_WITHOUT_STARTTLS = {25, 465}
# ntfy fills them from the JSON that it is sent, and refuses texts above 4,096 bytes.
_NTFY_TITLE = "{{ (index .embeds 0).title }}"
_NTFY_TEXT = '{{ printf "%.2000s" (index .embeds 0).description }}'


@dataclass(frozen=True, slots=True)
class Field:
    """Value that a way requires; ``check`` raises SettingsError."""

    name: str
    question: Callable[[], str]
    check: Check = accept
    secret: bool = False
    is_asked: bool = True
    """False: only ``--tell`` can set it."""


@dataclass(frozen=True, slots=True)
class Way:
    """Way to reach people, an integration of Alertmanager."""

    label: str
    help: Callable[[], str]
    fields: tuple[Field, ...]
    build: Callable[[Mapping[str, str], str], tuple[str, dict[str, Any]]]
    """Takes the values and the page's URL; returns the key in a receiver, and an entry."""


def _needed(value: str) -> None:
    if not value:
        raise SettingsError(_("A value is required."))


def _url(value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(_("It must begin with https:// or http://."))


def _url_or_nothing(value: str) -> None:
    if value:
        _url(value)


def _chat(value: str) -> None:
    if not value.removeprefix("-").isdecimal():
        raise SettingsError(_("It must be a number, such as -1000000000000."))


def _server(value: str) -> None:
    host, _colon, port = value.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsError(_("It must be a server and its port, such as smtp.example.com:587."))


def _address(value: str) -> None:
    if not all("@" in one for one in value.split(",")):
        raise SettingsError(_("It must be an address such as me@example.com."))


def _telegram(values: Mapping[str, str], _page: str) -> tuple[str, dict[str, Any]]:
    entry = {
        "bot_token": values["bot_token"],
        "chat_id": int(values["chat_id"]),
        "parse_mode": "HTML",
        "message": '{{ template "zapwatch.telegram" . }}',
        "send_resolved": True,
    }
    return "telegram_configs", entry | ({"api_url": values["api_url"]} if values["api_url"] else {})


def _email(values: Mapping[str, str], _page: str) -> tuple[str, dict[str, Any]]:
    _host, _colon, port = values["smarthost"].rpartition(":")
    login = (
        {"auth_username": values["username"], "auth_password": values["password"]}
        if values["username"]
        else {}
    )
    user = values["username"] if "@" in values["username"] else ""
    return "email_configs", {
        "to": values["to"],
        "from": values["from"] or user or values["to"].partition(",")[0],
        "smarthost": values["smarthost"],
        **login,
        # Port 465 uses implicit TLS. A server without login is assumed to be in the local network.
        "require_tls": bool(login) and int(port) not in _MAIL_PORTS_WITHOUT_STARTTLS,
        "headers": {"Subject": '{{ template "zapwatch.subject" . }}'},
        "text": '{{ template "zapwatch.text" . }}',
        "html": '{{ template "zapwatch.html" . }}',
        "send_resolved": True,
    }


def _slack(values: Mapping[str, str], _page: str) -> tuple[str, dict[str, Any]]:
    return "slack_configs", {
        "api_url": values["api_url"],
        "username": "Zapwatch",
        "title": '{{ template "zapwatch.slack.title" . }}',
        "title_link": '{{ template "zapwatch.link" .CommonLabels }}',
        "fallback": '{{ template "zapwatch.slack.title" . }}',
        "text": '{{ template "zapwatch.slack.text" . }}',
        "color": '{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}',
        "send_resolved": True,
    }


def _discord(values: Mapping[str, str], _page: str) -> tuple[str, dict[str, Any]]:
    return "discord_configs", {
        "webhook_url": values["webhook_url"],
        "title": '{{ template "zapwatch.subject" . }}',
        "message": '{{ template "zapwatch.text" . }}',
        "send_resolved": True,
    }


def _ntfy(values: Mapping[str, str], page: str) -> tuple[str, dict[str, Any]]:
    """Return an entry of Discord: Alertmanager's own webhook sends no text of the templates."""
    query = urlencode({"tpl": "1", "t": _NTFY_TITLE, "m": _NTFY_TEXT, "click": f"{page}/"})
    url = values["url"]
    url += f"&{query}" if urlsplit(url).query else f"?{query}"
    key, entry = _discord({"webhook_url": url}, page)
    entry["message"] += NTFY_MARK
    if values["token"]:
        entry["http_config"] = {"authorization": {"credentials": values["token"]}}
    return key, entry


WAYS: Mapping[str, Way] = {
    "telegram": Way(
        "Telegram",
        lambda: _(
            "@BotFather gives a token for /newbot. Add the bot to a group and write there; "
            "https://api.telegram.org/botTOKEN/getUpdates then shows the chat's id."
        ),
        (
            Field("bot_token", lambda: _("Token of the bot"), _needed, secret=True),
            Field("chat_id", lambda: _("Id of the chat (a group's is negative)"), _chat),
            Field("api_url", lambda: "", _url_or_nothing, is_asked=False),
        ),
        _telegram,
    ),
    "email": Way(
        "E-mail",
        lambda: _("A mail account that can send messages."),
        (
            Field("to", lambda: _("To (several with commas)"), _address),
            Field("smarthost", lambda: _("Mail server and port"), _server),
            Field("username", lambda: _("User (empty: none)")),
            Field("password", lambda: _("Password"), secret=True),
            Field("from", lambda: _("From (empty: the user)")),
        ),
        _email,
    ),
    "slack": Way(
        "Slack",
        lambda: _("Apps, Incoming WebHooks gives an address for a channel."),
        (Field("api_url", lambda: _("Address of the webhook"), _url, secret=True),),
        _slack,
    ),
    "discord": Way(
        "Discord",
        lambda: _("Server settings, Integrations, Webhooks gives an address for a channel."),
        (Field("webhook_url", lambda: _("Address of the webhook"), _url, secret=True),),
        _discord,
    ),
    "ntfy": Way(
        "ntfy",
        lambda: _(
            "A topic of ntfy.sh or of a server of your own. Choose a name that is hard to guess."
        ),
        (
            Field("url", lambda: _("Address of the topic"), _url),
            Field("token", lambda: _("Access token (empty: none)"), secret=True),
        ),
        _ntfy,
    ),
    "webhook": Way(
        "Webhook",
        lambda: _("Your own program receives Alertmanager's JSON by POST."),
        (Field("url", lambda: _("Address"), _url, secret=True),),
        lambda values, _page: ("webhook_configs", {"url": values["url"], "send_resolved": True}),
    ),
}
"""Ways by name, in the order of the menu."""


def read_way(words: list[str], read_file: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """Parse ``--tell WAY NAME=VALUE ...`` into way and values; raise SettingsError.

    The value ``@FILE`` is read from that file.
    """
    name, *pairs = words
    if name not in WAYS:
        raise SettingsError(f"--tell must name one of {', '.join(WAYS)}, not {name!r}")
    fields = {field.name: field for field in WAYS[name].fields}
    known = " ".join(f"{field}=..." for field in fields)
    values = dict.fromkeys(fields, "")
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in fields:
            raise SettingsError(f"--tell {name} takes {known}, not {key!r}")
        values[key] = read_file(value[1:]) if value.startswith("@") else value
    for key, field in fields.items():
        try:
            field.check(values[key])
        except SettingsError as error:
            raise SettingsError(f"--tell {name} {key}: {error} It takes {known}") from None
    return name, values
