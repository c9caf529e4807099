"""The settings of both programs: those of the gateways, and those that count for all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from zapwatch.config.gateway import GatewaySettings, read_gateway
from zapwatch.config.gateways_yaml import read_gateways
from zapwatch.config.readers import Listen, Reader, SettingsError, read_env_file, read_secrets


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, parsed. Secrets stay out of repr()."""

    gateways: tuple[GatewaySettings, ...]
    message_lookback_hours: float
    messages_state_url: URL = field(repr=False)
    silence_false_alarms_per_month: float
    silence_floor_minutes: float
    silence_ceiling_hours: float
    exporter_listen: Listen
    exporter_poll_seconds: float
    hook_listen: Listen
    hook_token: str = field(repr=False)
    hook_state_url: URL = field(repr=False)
    hook_log_file: Path
    reconnect_cooldown_seconds: float
    reconnect_workers: int
    reconnect_verify_seconds: float
    prometheus_url: str
    alertmanager_url: str
    hook_trusted_proxy: str | None


def load(env_file: str | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings; raise SettingsError.

    A value in the environment wins over the file, an empty one does not count. ``env_file`` None
    means ``./.env`` where there is one; a file that was named must be there. A secret's file is
    read where it is named, so that one in the environment wins over a value in ``env_file``.
    """
    environment = os.environ if environ is None else environ
    values = read_secrets(read_env_file(env_file))
    values.update(read_secrets({k: v for k, v in environment.items() if v}))
    return parse(values)


def parse(values: Mapping[str, str]) -> Settings:
    """Return the settings that ``values`` hold; raise SettingsError at the first that is wrong."""
    read = Reader(values)
    floor_minutes, ceiling_hours = _silence_bounds(read)
    return Settings(
        gateways=_gateways(read, values),
        message_lookback_hours=read.number("MESSAGE_LOOKBACK_HOURS", 168, above=0),
        messages_state_url=read.database("MESSAGES_STATE_URL", "sqlite:///var/messages.sqlite3"),
        silence_false_alarms_per_month=read.number("SILENCE_FALSE_ALARMS_PER_MONTH", 1, above=0),
        silence_floor_minutes=floor_minutes,
        silence_ceiling_hours=ceiling_hours,
        exporter_listen=read.listen("EXPORTER_LISTEN", "127.0.0.1:9861"),
        exporter_poll_seconds=read.number("EXPORTER_POLL_SECONDS", 5, above=0),
        hook_listen=read.listen("HOOK_LISTEN", "127.0.0.1:9862"),
        hook_token=read.header("HOOK_TOKEN", ""),
        hook_state_url=read.database("HOOK_STATE_URL", "sqlite:///var/reconnect-hook.sqlite3"),
        hook_log_file=Path(read.text("HOOK_LOG_FILE", "logs/healthcheck-sessions.log")),
        reconnect_cooldown_seconds=read.number("RECONNECT_COOLDOWN_SECONDS", 300),
        reconnect_workers=read.integer("RECONNECT_WORKERS", 4, least=1),
        reconnect_verify_seconds=read.number("RECONNECT_VERIFY_SECONDS", 60),
        prometheus_url=read.base_url("PROMETHEUS_URL", "http://127.0.0.1:9090"),
        alertmanager_url=read.base_url("ALERTMANAGER_URL", "http://127.0.0.1:9093"),
        hook_trusted_proxy=read.address("HOOK_TRUSTED_PROXY"),
    )


def _gateways(read: Reader, values: Mapping[str, str]) -> tuple[GatewaySettings, ...]:
    file = read.text("GATEWAYS_FILE", "")
    if file:
        return read_gateways(file, values)
    one = read_gateway(
        read,
        name=read.text("WPP_GATEWAY_NAME", "wpp"),
        type_="wrapper",
        silence_state_file=Path(read.text("SILENCE_STATE_FILE", "var/silence.json")),
    )
    return (one,)


def _silence_bounds(read: Reader) -> tuple[float, float]:
    floor = read.number("SILENCE_FLOOR_MINUTES", 10, above=0)
    ceiling = read.number("SILENCE_CEILING_HOURS", 24, above=0)
    if floor > ceiling * 60:
        raise SettingsError(
            f"SILENCE_FLOOR_MINUTES must be no more than SILENCE_CEILING_HOURS, not {floor:g} "
            f"minutes against {ceiling:g} hours"
        )
    return floor, ceiling
