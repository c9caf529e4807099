"""Reports on settings: effective values and origins, unsafe ones, changes by a reload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from zapwatch.cli import WRONG_USAGE, manual, parser
from zapwatch.config.files import read_web_config
from zapwatch.config.load import ENVIRONMENT, load
from zapwatch.config.readers import (
    MessageSourceKind,
    Reader,
    SettingsError,
    can_be_guessed,
    fingerprint,
    is_loopback,
)
from zapwatch.config.settings import (
    BY_KEY,
    ONE_GATEWAY,
    SECRETS,
    SETTINGS,
    GatewaySettings,
    Setting,
    Settings,
)
from zapwatch.server import fail

_OTHERS_MAY_READ_OR_WRITE = 0o006


@dataclass(frozen=True, slots=True)
class Report:
    """Effective settings; a secret appears as its length and fingerprint."""

    settings: tuple[tuple[str, str, str], ...]
    """Name, value and origin of each; with several gateways, names are ``GATEWAY: key``."""
    notices: tuple[str, ...]
    unsafe: tuple[str, ...]

    def __str__(self) -> str:
        wide = max(len(name) for name, _, _ in self.settings)
        lines = [f"{name:{wide}}  {value}  [{origin}]" for name, value, origin in self.settings]
        lines += [f"notice: {line}" for line in self.notices]
        lines += [f"unsafe: {line}" for line in self.unsafe]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        keys = ("name", "value", "origin")
        return {
            "settings": [dict(zip(keys, row, strict=True)) for row in self.settings],
            "notices": list(self.notices),
            "unsafe": list(self.unsafe),
        }


def describe(settings: Settings) -> Report:
    """Return the report on the effective settings."""
    return Report(
        (*_rows(settings), *_rows_of_gateways(settings)),
        (*settings.sources.notices, *_missing(settings)),
        tuple(_unsafe(settings)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report on the effective settings; return the exit code."""
    options = parser(
        "zapwatch config",
        manual(
            "Prints the settings in effect, the source of each, and what is unsafe. Of a secret it "
            "prints the length and a fingerprint.",
            settings="all of them",
            exit_codes={0: "the settings are valid", 2: WRONG_USAGE},
            examples=["zapwatch config", "zapwatch config --env-file /etc/zapwatch/zapwatch.env"],
        ),
    ).parse_args(arguments)
    try:
        print(describe(load(options.env_file, pixelhub_env=options.pixelhub_env, quiet=True)))  # noqa: T201 - this is for the operator
    except SettingsError as error:
        fail("config", str(error))
    return 0


def _rows(settings: Settings) -> Iterator[tuple[str, str, str]]:
    values, origins = settings.sources.values, settings.sources.origins
    several = bool(values.get("GATEWAYS_FILE", "").strip())
    for row in SETTINGS:
        if several and row.name in ONE_GATEWAY:
            continue
        text = values.get(row.name, "")
        origin = origins.get(row.name, "") if text.strip() else "default"
        if row.name == "WPP_GATEWAY_SECRET":
            # Decrypted, so that the fingerprint can be compared with the gateway's secret.
            text = settings.gateways[0].secret
        yield row.name, _shown(row, text or row.default or ""), origin


def _shown(row: Setting, text: str) -> str:
    """Return a value without its secret and private parts."""
    if row.parse is Reader.database:
        return _shown_url(text.strip())
    if row.secret:
        return fingerprint(text) if text else ""
    if row.private:
        items = (item.rpartition("=")[0].strip() for item in text.split(","))
        return ", ".join(filter(None, items))
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown_url(text: str) -> str:
    if text.lower() in {"", "none"}:
        return text
    try:
        # The query is dropped, since it can hold a password too.
        url = make_url(text).set(query={})
    except (ArgumentError, ValueError):
        return fingerprint(text)  # a MESSAGE_LOG_URL of another message source is not checked
    password = f" (password: {fingerprint(str(url.password))})" if url.password else ""
    return url.render_as_string(hide_password=True) + password


def _rows_of_gateways(settings: Settings) -> Iterator[tuple[str, str, str]]:
    file = settings.sources.values.get("GATEWAYS_FILE", "").strip()
    for gateway in settings.gateways if file else ():
        yield f"{gateway.name}: type", gateway.type, file
        for key, (text, origin) in gateway.said.items():
            row = BY_KEY[key]
            if row.secret and row.parse is not Reader.database:
                text = getattr(gateway, key)  # noqa: PLW2901 - decrypted, as above, and stripped
            shown = text if text.strip() else row.default or ""
            yield f"{gateway.name}: {key}", _shown(row, shown), origin


def _missing(settings: Settings) -> Iterator[str]:
    """Yield a line for each missing setting that a program depends on."""
    if not settings.hook_token:
        yield "HOOK_TOKEN is not set: the hook does not start, check and probe do"
    if not settings.heartbeat_url:
        yield "HEARTBEAT_URL is not set: no one is notified when this machine fails"
    for gateway in settings.gateways:
        if gateway.messages is MessageSourceKind.EVENTS and not gateway.messages_token:
            yield f"MESSAGES_TOKEN of {gateway.name} is not set: the exporter does not start"


def _unsafe(settings: Settings) -> Iterator[str]:
    tokens = {"HOOK_TOKEN": settings.hook_token} | {
        f"MESSAGES_TOKEN of {gateway.name}": gateway.messages_token for gateway in settings.gateways
    }
    for name, token in tokens.items():
        if token and can_be_guessed(token):
            yield f"{name} can be guessed: take a random one of 32 characters or more"
    yield from _reused(settings)
    yield from (
        f"{file} holds secrets, and everybody on this machine can read or change it: chmod o="
        for file in filter(_is_open, _files_with_secrets(settings))
    )
    has_tls = _has_tls(settings)
    if not (has_tls or settings.hook_trusted_proxy or is_loopback(settings.hook_listen.host)):
        yield (
            f"HOOK_LISTEN is {settings.hook_listen}: other machines reach the hook without TLS, "
            "which shows them its token (docs/tls.md)"
        )
    if not (has_tls or is_loopback(settings.exporter_listen.host)):
        yield f"EXPORTER_LISTEN is {settings.exporter_listen}: other machines reach it without TLS"
    for gateway in settings.gateways:
        if _is_readable(gateway.base_url):
            yield f"{gateway.base_url} has no TLS: the gateway's secret can be read on the network"
        if _is_readable(gateway.replay_url):
            yield (
                f"MESSAGE_REPLAY_URL of {gateway.name} has no TLS: the messages that are "
                "delivered again can be read on the network"
            )
    for url, password in (
        (settings.prometheus_url, settings.prometheus_password),
        (settings.alertmanager_url, settings.alertmanager_password),
    ):
        if password and _is_readable(url):
            yield f"{url} has no TLS: its password can be read on the network"


def _has_tls(settings: Settings) -> bool:
    try:
        return read_web_config(settings.web_config_file).tls is not None
    except SettingsError:
        return False


def _reused(settings: Settings) -> Iterator[str]:
    """Yield a line for each secret that serves two purposes: a leak of one exposes the other."""
    uses: dict[str, set[str]] = {}
    named = {
        "HOOK_TOKEN": [settings.hook_token],
        "MESSAGES_TOKEN": [gateway.messages_token for gateway in settings.gateways],
        "WPP_GATEWAY_SECRET": [gateway.secret for gateway in settings.gateways],
        "INFRA_SECRET_KEY": [settings.sources.values.get("INFRA_SECRET_KEY", "")],
        "DB_PASS": [
            *(str(g.message_log_url.password or "") for g in settings.gateways if g.message_log_url)
        ],
    }
    for name, secrets in named.items():
        for secret in filter(None, secrets):
            uses.setdefault(secret, set()).add(name)
    for names in uses.values():
        if len(names) > 1:
            yield f"{' and '.join(sorted(names))} are the same: give each its own"


def _files_with_secrets(settings: Settings) -> list[str]:
    origins = [settings.sources.origins.get(name, "") for name in SECRETS]
    for gateway in settings.gateways:
        origins += [origin for key, (_, origin) in gateway.said.items() if BY_KEY[key].secret]
    # In "FILE, which OTHER names", the secret is in FILE.
    files = (origin.partition(", which ")[0] for origin in origins)
    return [file for file in dict.fromkeys(files) if file and file != ENVIRONMENT]


def _is_open(file: str) -> bool:
    try:
        return bool(Path(file).stat().st_mode & _OTHERS_MAY_READ_OR_WRITE)
    except OSError:
        return False


def _is_readable(url: str) -> bool:
    """Whether others can read what is sent to a URL over the network."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def compare(before: Settings, after: Settings) -> str:
    """Return the names of changed settings as a line, without values, since some are secret."""
    old = {gateway.name: gateway for gateway in before.gateways}
    new = {gateway.name: gateway for gateway in after.gateways}
    program = (name.upper() for name in _different(before, after) if name != "gateways")
    changes = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [
            f"{name} ({', '.join(_different(old[name], gateway))})"
            for name, gateway in new.items()
            if name in old and old[name] != gateway
        ],
        "only a restart changes": list(program),
    }
    parts = (f"{what} {', '.join(names)}" for what, names in changes.items() if names)
    return "; ".join(parts) or "nothing has changed"


def _different(
    before: Settings | GatewaySettings, after: Settings | GatewaySettings
) -> tuple[str, ...]:
    names = (field.name for field in fields(before) if field.compare)
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))
