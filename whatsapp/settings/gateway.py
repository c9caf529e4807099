"""The settings of one gateway: how it is reached, where its messages show, what may be done."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from whatsapp.channels import channel_key
from whatsapp.probe_settings import ProbeSettings
from whatsapp.secret import decrypt
from whatsapp.settings.messages import MessageSource, read_message_source
from whatsapp.settings.probes import read_probes
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
    messages: MessageSource
    message_log_url: URL | None = field(repr=False)
    """Where messages is LOG, else None."""
    messages_token: str = field(repr=False)
    """What the gateway must know to post its events."""
    silent_hours: float
    silent_hours_overrides: Mapping[str, float]
    silence_mode: SilenceMode
    silence_state_file: Path
    allow_restart: bool
    probe: ProbeSettings

    def silence_threshold(self, channel: str) -> float:
        """Return after how many seconds without a message a channel counts as silent.

        This is the fixed threshold, which counts wherever none is learned.
        """
        hours = self.silent_hours_overrides.get(channel_key(channel), self.silent_hours)
        return hours * 3600


def read_gateway(
    read: Reader, *, name: str, type_: str, silence_state_file: Path
) -> GatewaySettings:
    """Return a gateway's settings by the names that they have in an ``.env``.

    Raises SettingsError.
    """
    # First of all: without it nothing else matters.
    base_url = read.base_url("WPP_GATEWAY_BASE_URL")
    messages, log_url = read_message_source(read)
    return GatewaySettings(
        name=name,
        type=type_,
        base_url=base_url,
        secret=_secret(read),
        timeout=read.number("WPP_GATEWAY_TIMEOUT", 90, above=0),
        qr_timeout=read.number("WPP_GATEWAY_QR_TIMEOUT", 60, above=0),
        ca_file=read.certificates("WPP_GATEWAY_CA_FILE"),
        messages=messages,
        message_log_url=log_url,
        messages_token=read.header("MESSAGES_TOKEN", ""),
        silent_hours=read.number("SILENT_HOURS", 4, above=0),
        silent_hours_overrides=read.hours_by_channel("SILENT_HOURS_OVERRIDES"),
        silence_mode=_silence_mode(read, messages),
        silence_state_file=silence_state_file,
        allow_restart=read.boolean("RECONNECT_ALLOW_RESTART", default=False),
        probe=read_probes(read),
    )


def _secret(read: Reader) -> str:
    stored = read.header("WPP_GATEWAY_SECRET")
    secret = decrypt(stored, read.text("INFRA_SECRET_KEY", ""))
    if not secret.isascii():
        raise SettingsError(
            f"{read.called('WPP_GATEWAY_SECRET')} decrypts to something that no HTTP header can "
            "carry: is INFRA_SECRET_KEY the one that PixelHub uses?"
        )
    return secret


def _silence_mode(read: Reader, messages: MessageSource) -> SilenceMode:
    text = read.text("SILENCE_MODE", SilenceMode.FIXED)
    try:
        mode = SilenceMode(text.lower())
    except ValueError:
        raise read.wrong("SILENCE_MODE", f"must be fixed or adaptive, not {text!r}") from None
    learns = messages in {MessageSource.LOG, MessageSource.EVENTS}
    if mode is SilenceMode.ADAPTIVE and not learns:
        raise read.wrong(
            "SILENCE_MODE",
            "is adaptive, which learns from a message log or from events: it cannot learn from the "
            f"message source {messages}",
        )
    return mode
