"""The settings of one gateway: how it is reached, where its messages show, what may be done."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from whatsapp.channels import channel_key
from whatsapp.secret import decrypt
from whatsapp.settings.reader import Reader, SettingsError


class SilenceMode(enum.StrEnum):
    """How long a channel may be silent: as the settings say, or as it has shown itself."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """All that can be different from gateway to gateway. Secrets stay out of repr()."""

    name: str
    """The value of the label ``gateway``."""
    type: str
    """A name in whatsapp.gateways.registry.ADAPTERS."""
    base_url: str
    secret: str = field(repr=False)
    timeout: float
    """Seconds for the channel list."""
    qr_timeout: float
    """Seconds for every other call."""
    ca_file: str | None
    message_log_url: URL | None = field(repr=False)
    silent_hours: float
    silent_hours_overrides: Mapping[str, float]
    silence_mode: SilenceMode
    silence_state_file: Path
    allow_restart: bool

    def silence_threshold(self, channel: str) -> float:
        """Return after how many seconds without a message a channel counts as silent.

        This is the fixed threshold, which counts wherever none is learned.
        """
        hours = self.silent_hours_overrides.get(channel_key(channel), self.silent_hours)
        return hours * 3600


def read_gateway(read: Reader) -> GatewaySettings:
    """Return the settings of the one gateway that an ``.env`` names; raise SettingsError."""
    log_url = _message_log_url(read)
    return GatewaySettings(
        name=read.text("WPP_GATEWAY_NAME", "wpp"),
        type="wrapper",
        base_url=read.base_url("WPP_GATEWAY_BASE_URL"),
        secret=_secret(read),
        timeout=read.number("WPP_GATEWAY_TIMEOUT", 90, above=0),
        qr_timeout=read.number("WPP_GATEWAY_QR_TIMEOUT", 60, above=0),
        ca_file=read.certificates("WPP_GATEWAY_CA_FILE"),
        message_log_url=log_url,
        silent_hours=read.number("SILENT_HOURS", 4, above=0),
        silent_hours_overrides=read.hours_by_channel("SILENT_HOURS_OVERRIDES"),
        silence_mode=_silence_mode(read, log_url),
        silence_state_file=Path(read.text("SILENCE_STATE_FILE", "var/silence.json")),
        allow_restart=read.boolean("RECONNECT_ALLOW_RESTART", default=False),
    )


def _secret(read: Reader) -> str:
    stored = read.header("WPP_GATEWAY_SECRET")
    secret = decrypt(stored, read.text("INFRA_SECRET_KEY", ""))
    if not secret.isascii():
        raise SettingsError(
            "WPP_GATEWAY_SECRET decrypts to something that no HTTP header can carry: "
            "is INFRA_SECRET_KEY the one that PixelHub uses?"
        )
    return secret


def _message_log_url(read: Reader) -> URL | None:
    if read.text("MESSAGE_LOG_URL", "").lower() == "none":
        return None
    if read.text("MESSAGE_LOG_URL", ""):
        return read.database("MESSAGE_LOG_URL")
    if not read.text("DB_HOST", ""):
        raise SettingsError(
            "DB_HOST is not set: name the message log's database (DB_HOST, DB_NAME, DB_USER, "
            "DB_PASS) or MESSAGE_LOG_URL; MESSAGE_LOG_URL=none does without one"
        )
    return URL.create(
        "mysql+pymysql",
        username=read.text("DB_USER"),
        password=read.verbatim("DB_PASS"),
        host=read.text("DB_HOST"),
        port=read.integer("DB_PORT", 3306, least=1, most=65535),
        database=read.text("DB_NAME", "pixel_hub"),
        query={"charset": read.charset("DB_CHARSET", "utf8mb4")},
    )


def _silence_mode(read: Reader, log_url: URL | None) -> SilenceMode:
    text = read.text("SILENCE_MODE", SilenceMode.FIXED)
    try:
        mode = SilenceMode(text.lower())
    except ValueError:
        raise SettingsError(f"SILENCE_MODE must be fixed or adaptive, not {text!r}") from None
    if mode is SilenceMode.ADAPTIVE and log_url is None:
        raise SettingsError(
            "SILENCE_MODE=adaptive learns from the message log, but MESSAGE_LOG_URL is none"
        )
    return mode
