"""The settings of one gateway: how it is reached, where its messages show, what may be done."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from zapwatch.channels import Channel, channel_key
from zapwatch.config.readers import Reader, SettingsError, decrypt


class ProbeKind(enum.StrEnum):
    """How a channel is asked; the label ``kind`` of the probes' metrics."""

    OFF = "off"
    QUERY = "query"
    """A request to the gateway that WhatsApp's servers must answer."""
    ECHO = "echo"
    """A message from another of the operator's channels, which must appear in the message log."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How, when and how often channels are asked. Keys are channel keys, numbers digits only."""

    kind: ProbeKind
    overrides: Mapping[str, ProbeKind]
    after_minutes: float
    pause_minutes: float
    echoes_per_day: int
    echo_numbers: Mapping[str, str] = field(repr=False)
    echo_text: str

    def number_of(self, channel: Channel, told: str | None) -> str | None:
        """Return the number to which echoes for a channel go; None where there is none.

        Only the operator, or the gateway for its own session, can say which number that is:
        ``told`` is what the gateway says.
        """
        own = told if told and is_number(told) else None
        return self.echo_numbers.get(channel.key, own)

    def wanted(self, key: str) -> ProbeKind:
        """Return how the operator wants a channel to be asked, possible or not."""
        return self.overrides.get(key, self.kind)

    def kind_of(self, channel: Channel, *, can_query: bool, asks_number: bool = False) -> ProbeKind:
        """Return how the channel is asked, on a gateway that has a safe query or has none.

        ``asks_number``: it can be asked for a number that its list does not tell.
        """
        if not channel.repairable:
            return ProbeKind.OFF
        wanted = self.wanted(channel.key)
        known = asks_number or self.number_of(channel, channel.number) is not None
        if wanted is ProbeKind.ECHO and not known:
            wanted = ProbeKind.QUERY
        if wanted is ProbeKind.QUERY and not can_query:
            return ProbeKind.OFF
        return wanted


def is_number(text: str) -> bool:
    """Whether a text can be a telephone number with its country code: 8 to 15 digits."""
    return text.isascii() and text.isdigit() and 8 <= len(text) <= 15


class MessageSourceKind(enum.StrEnum):
    """Who tells when a channel last had a message."""

    LOG = "log"
    """PixelHub's table ``webhook_raw_logs``."""
    EVENTS = "events"
    """The gateway itself, which posts its events to the exporter."""
    ACTIVITY = "activity"
    """The channel list, where the gateway reports activity or counts messages in it."""
    NONE = "none"
    """Nobody: a silent channel is not noticed."""

    @property
    def has_echoes(self) -> bool:
        """Whether the source shows single messages, so that echoes and histories are in it."""
        return self in {MessageSourceKind.LOG, MessageSourceKind.EVENTS}


def read_message_source(read: Reader) -> tuple[MessageSourceKind, URL | None]:
    """Return the source that an ``.env`` names, and the log's URL where that is the source."""
    text = read.text("MESSAGE_SOURCE", MessageSourceKind.LOG)
    try:
        source = MessageSourceKind(text.lower())
    except ValueError:
        known = ", ".join(MessageSourceKind)
        raise read.wrong("MESSAGE_SOURCE", f"must be one of {known}, not {text!r}") from None
    if source is not MessageSourceKind.LOG:
        return source, None
    log_url = _message_log_url(read)
    return (MessageSourceKind.NONE if log_url is None else source), log_url


def _message_log_url(read: Reader) -> URL | None:
    if read.text("MESSAGE_LOG_URL", "").lower() == "none":
        return None
    if read.text("MESSAGE_LOG_URL", ""):
        return read.database("MESSAGE_LOG_URL")
    if not read.text("DB_HOST", ""):
        raise SettingsError(
            "DB_HOST is not set: name the message log's database (DB_HOST, DB_NAME, DB_USER, "
            "DB_PASS) or MESSAGE_LOG_URL; or choose another MESSAGE_SOURCE, such as events or none"
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


_LONGEST_TEXT = 500  # characters of a message


def read_probes(read: Reader) -> ProbeSettings:
    """Return the settings of a gateway's probes; raise SettingsError."""
    return ProbeSettings(
        kind=_kind(read, "PROBE"),
        overrides=_kinds(read, "PROBE_OVERRIDES"),
        after_minutes=read.number("PROBE_AFTER_MINUTES", 30, above=0),
        pause_minutes=read.number("PROBE_PAUSE_MINUTES", 15, above=0),
        echoes_per_day=read.integer("PROBE_ECHOES_PER_DAY", 24, least=1),
        echo_numbers=_numbers(read, "PROBE_ECHO_NUMBERS"),
        echo_text=_line(read, "PROBE_ECHO_TEXT", "Zapwatch: does this arrive?"),
    )


def _kind(read: Reader, name: str) -> ProbeKind:
    text = read.text(name, ProbeKind.QUERY)
    try:
        return ProbeKind(text.lower())
    except ValueError:
        raise read.wrong(name, f"must be off, query or echo, not {text!r}") from None


def _kinds(read: Reader, name: str) -> dict[str, ProbeKind]:
    kinds = {}
    for key, value, item in _by_channel(read.text(name, " ")):
        if not key or value not in set(ProbeKind):
            raise read.wrong(
                name, f"must be channel=off, query or echo, as in loja=echo, not {item!r}"
            )
        kinds[key] = ProbeKind(value)
    return kinds


def _numbers(read: Reader, name: str) -> dict[str, str]:
    numbers: dict[str, str] = {}
    for key, value, item in _by_channel(read.text(name, " ")):
        if not key or not is_number(value):
            raise read.wrong(
                name,
                "must be channel=number, the number with its country code and digits only, as in "
                f"loja=5500000000001, not {item!r}",
            )
        if key in numbers:
            raise read.wrong(name, f"names one channel twice, the last time in {item!r}")
        if value in numbers.values():
            raise read.wrong(name, f"has one number for two channels, the last in {item!r}")
        numbers[key] = value
    return numbers


def _line(read: Reader, name: str, default: str) -> str:
    text = read.text(name, default)
    if not text.isprintable() or len(text) > _LONGEST_TEXT:
        raise read.wrong(name, f"must be one line of at most {_LONGEST_TEXT} characters")
    return text


def _by_channel(text: str) -> list[tuple[str, str, str]]:
    """Return key, value and the item itself for each ``channel=value`` of a list with commas."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    parts = [(*item.rpartition("=")[::2], item) for item in items]
    return [(channel_key(channel), value.strip(), item) for channel, value, item in parts]


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
    """A name in zapwatch.gateways.registry.ADAPTERS."""
    base_url: str
    secret: str = field(repr=False)
    timeout: float
    """Seconds for the channel list."""
    qr_timeout: float
    """Seconds for every other call."""
    ca_file: str | None
    messages: MessageSourceKind
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


def _silence_mode(read: Reader, messages: MessageSourceKind) -> SilenceMode:
    text = read.text("SILENCE_MODE", SilenceMode.FIXED)
    try:
        mode = SilenceMode(text.lower())
    except ValueError:
        raise read.wrong("SILENCE_MODE", f"must be fixed or adaptive, not {text!r}") from None
    if mode is SilenceMode.ADAPTIVE and not messages.has_echoes:
        raise read.wrong(
            "SILENCE_MODE",
            "is adaptive, which learns from a message log or from events: it cannot learn from the "
            f"message source {messages}",
        )
    return mode
