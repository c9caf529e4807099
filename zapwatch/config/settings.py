"""Table of all settings, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from zapwatch.channels import ByName, Channel, NamedChannel
from zapwatch.config.readers import (
    MOST_HOURS,
    MOST_SECONDS,
    AuditMode,
    Listen,
    MessageSourceKind,
    ProbeKind,
    Reader,
    ReplayMode,
    SilenceMode,
    is_number,
    parse_hours,
    parse_kind,
)
from zapwatch.gateways import TYPES

if TYPE_CHECKING:
    from zapwatch.gateways.declaration import Declaration

LogLevel = StrEnum("LogLevel", ["DEBUG", "INFO", "WARNING", "ERROR"])
LogFormat = StrEnum("LogFormat", ["LOGFMT", "JSON"])


@dataclass(frozen=True, slots=True)
class Setting:
    """Row of the table; programs, example and docs all derive from it."""

    name: str
    parse: Callable[[Reader, str, str | None], Any]
    """Called with the reader, the name and the default; raises SettingsError."""
    default: str | None
    """Text as in an ``.env``; None if the setting is required."""
    help: str
    """A line of Markdown, with links relative to docs/reference/settings.md."""
    key: str = ""
    """Key in gateways.yaml; empty if the setting applies to all gateways."""
    secret: bool = False
    """Whether it may be in a file named by the setting ``NAME_FILE`` or the key ``key_file``."""
    by_channel: str = ""
    """Values by channel that gateways.yaml accepts as a mapping, in words; empty for none."""
    listed: bool = False
    """Whether gateways.yaml accepts a list."""
    private: bool = False
    """Whether reports show only the channels in it."""
    pixelhub: bool = False
    """Whether PixelHub's own ``.env`` has it too."""

    def read(self, reader: Reader) -> Any:
        """Return the value; raise SettingsError."""
        return self.parse(reader, self.name, self.default)


def _access(prefix: str, program: str) -> tuple[Setting, ...]:
    """Return the settings of a program's own HTTP Basic and certificates."""
    return (
        Setting(
            f"{prefix}_USER",
            Reader.user,
            "",
            f"{program} user, where it asks for one (HTTP Basic)",
        ),
        Setting(f"{prefix}_PASSWORD", Reader.verbatim, "", "that user's password", secret=True),
        Setting(
            f"{prefix}_CA_FILE",
            Reader.certificates,
            "",
            "PEM file with the certificates to trust instead of the public ones",
        ),
    )


SETTINGS = (
    Setting(
        "PIXELHUB_ENV",
        Reader.text,
        "",
        "path of PixelHub's own `.env`, like `--pixelhub-env`. It is read by PixelHub's "
        "rules; its values apply where Zapwatch's own settings have none",
    ),
    Setting(
        "GATEWAYS_FILE",
        Reader.text,
        "",
        "a YAML file that names [several gateways](../several-gateways.md), instead of "
        "`WPP_GATEWAY_TYPE`, `WPP_GATEWAY_BASE_URL`, `WPP_GATEWAY_SECRET` and `WPP_GATEWAY_NAME`",
    ),
    Setting(
        "WPP_GATEWAY_TYPE",
        partial(Reader.one_of, known=TYPES),
        "wrapper",
        f"[its kind](../gateways/README.md): {', '.join(f'`{kind}`' for kind in TYPES)}. The one "
        "channel of `whapi` has the gateway's name; in gateways.yaml the key is `type`",
    ),
    Setting(
        "WPP_GATEWAY_BASE_URL",
        Reader.base_url,
        None,
        "the gateway, with its port",
        key="url",
        pixelhub=True,
    ),
    Setting(
        "WPP_GATEWAY_SECRET",
        Reader.header,
        None,
        "its secret, plain or encrypted by PixelHub. A plain one that looks encrypted (base64 of "
        "32 bytes or more) needs `plain:` before it where the gateway is the wrapper",
        key="secret",
        secret=True,
        pixelhub=True,
    ),
    Setting(
        "INFRA_SECRET_KEY",
        Reader.verbatim,
        "",
        "PixelHub's key, for an encrypted secret; empty where PixelHub has none",
        secret=True,
        pixelhub=True,
    ),
    Setting(
        "WPP_GATEWAY_NAME",
        partial(Reader.line, most=63),
        "wpp",
        "value of the label `gateway`",
    ),
    Setting(
        "WPP_GATEWAY_TIMEOUT",
        partial(Reader.number, above=0, most=MOST_SECONDS),
        "90",
        "seconds for the channel list",
        key="timeout",
    ),
    Setting(
        "WPP_GATEWAY_QR_TIMEOUT",
        partial(Reader.number, above=0, most=MOST_SECONDS),
        "60",
        "seconds for every other call",
        key="qr_timeout",
    ),
    Setting(
        "WPP_GATEWAY_CA_FILE",
        Reader.certificates,
        "",
        "PEM file with the certificates to trust instead of the public ones, for a "
        "gateway with one of its own. TLS is always verified; proxies that the "
        "environment names are not used",
        key="ca_file",
    ),
    Setting(
        "WPP_GATEWAY_USER",
        Reader.user,
        "",
        "user for a proxy in front of the gateway (HTTP Basic). Not for the types "
        "`wppconnect`, `whapi`, `gowa` and `wuzapi`, whose secret needs the same header",
        key="user",
    ),
    Setting(
        "WPP_GATEWAY_PASSWORD",
        Reader.verbatim,
        "",
        "that user's password",
        key="password",
        secret=True,
    ),
    Setting(
        "DB_HOST",
        Reader.text,
        "",
        "the message log's MariaDB or MySQL. `localhost` is its Unix socket, as for PHP, where one "
        "is found; `127.0.0.1` never is",
        pixelhub=True,
    ),
    Setting(
        "DB_PORT",
        partial(Reader.integer, least=1, most=65535),
        "3306",
        "its port",
        pixelhub=True,
    ),
    Setting("DB_NAME", Reader.text, "pixel_hub", "its database", pixelhub=True),
    Setting("DB_USER", Reader.text, None, "its user", pixelhub=True),
    Setting("DB_PASS", Reader.verbatim, "", "that user's password", secret=True, pixelhub=True),
    Setting(
        "DB_CHARSET",
        Reader.charset,
        "utf8mb4",
        "the character set of the connection",
        pixelhub=True,
    ),
    Setting(
        "MESSAGE_LOG_URL",
        Reader.database,
        "",
        "an SQLAlchemy URL instead of `DB_*`; `none`: there is no message log",
        key="message_log_url",
        secret=True,
    ),
    Setting(
        "MESSAGE_SOURCE",
        partial(
            Reader.choice, of=MessageSourceKind, known=f"one of {', '.join(MessageSourceKind)}"
        ),
        "log",
        "source of the ages: `log` (that database), `events` (the gateway posts its events to "
        "the exporter), `activity` (what the channel list shows), `none` ([which one to "
        "choose](../messages.md))",
        key="messages",
    ),
    Setting(
        "MESSAGES_TOKEN",
        Reader.header,
        "",
        "with `events`: the token that the gateway must send",
        key="messages_token",
        secret=True,
    ),
    Setting(
        "MESSAGES_STATE_URL",
        Reader.database,
        "sqlite:///var/messages.sqlite3",
        "with `events`: the database of channel, direction and time of each message; two "
        "exporters may share one on MariaDB or MySQL",
        secret=True,
    ),
    Setting(
        "IGNORE_CHANNELS",
        Reader.channels,
        "",
        "channels that are neither watched nor repaired: `loja,obra`; in gateways.yaml also a list",
        key="ignore",
        listed=True,
    ),
    Setting(
        "IGNORE_STOPPED",
        Reader.boolean,
        "false",
        "whether WAHA's sessions in the state `STOPPED` are ignored in the same way until a "
        "person starts them. Otherwise Zapwatch starts them",
        key="ignore_stopped",
    ),
    Setting(
        "WPP_GATEWAY_WEBHOOK",
        Reader.text,
        "",
        "webhook of the sessions of WPPConnect Server; `{session}` stands for a session's "
        "name. Each start sets it, and pairing codes need it. Without it a start keeps what "
        "the server has stored",
        key="webhook",
        secret=True,
    ),
    Setting(
        "SILENT_HOURS",
        partial(Reader.number, above=0, most=MOST_HOURS),
        "4",
        "hours without a message after which a channel counts as silent",
        key="silent_hours",
    ),
    Setting(
        "SILENT_HOURS_OVERRIDES",
        partial(
            Reader.by_channel,
            parse=parse_hours,
            form=f"channel=hours, as in imobsites=72,loja=1.5, and at most {MOST_HOURS} hours",
        ),
        "",
        "for single channels: `imobsites=72,loja=1.5`; in gateways.yaml also a key "
        "for each: `loja: 1.5`",
        key="silent_hours_overrides",
        by_channel="hours by channel, such as loja: 1.5",
    ),
    Setting(
        "MESSAGE_LOOKBACK_HOURS",
        partial(Reader.number, above=0, most=MOST_HOURS),
        "168",
        "how many hours back the first read goes, or as long as a channel may be silent if that is "
        "longer",
    ),
    Setting(
        "SILENCE_MODE",
        partial(Reader.choice, of=SilenceMode, known="fixed or adaptive"),
        "fixed",
        "`adaptive`: the exporter learns how long each channel may be silent at each hour of "
        "the week ([how](../silence.md)). `SILENT_HOURS_OVERRIDES` still apply, and "
        "`SILENT_HOURS` until a threshold is learned",
        key="silence_mode",
    ),
    Setting(
        "SILENCE_FALSE_ALARMS_PER_MONTH",
        partial(Reader.number, above=0, most=1000),
        "1",
        "adaptive: false alarms to accept per channel and month, approximately",
    ),
    Setting(
        "SILENCE_FLOOR_MINUTES",
        partial(Reader.number, above=0, most=MOST_HOURS * 60),
        "10",
        "adaptive: the shortest threshold",
    ),
    Setting(
        "SILENCE_CEILING_HOURS",
        partial(Reader.number, above=0, most=MOST_HOURS),
        "26",
        "adaptive: the longest threshold. 72 avoids alerts for offices that are closed at weekends",
    ),
    Setting(
        "SILENCE_STATE_FILE",
        Reader.path,
        "var/silence.json",
        "adaptive: the exporter's file of learned profiles; with several gateways, the "
        "gateway's name is added to its name",
    ),
    Setting("EXPORTER_LISTEN", Reader.listen, "127.0.0.1:9861", "address of the exporter's server"),
    Setting(
        "EXPORTER_POLL_SECONDS",
        partial(Reader.number, above=0, most=MOST_SECONDS),
        "5",
        "pause between two polls, or as long as the poll took if that is longer",
    ),
    Setting("HOOK_LISTEN", Reader.listen, "127.0.0.1:9862", "address of the hook's server"),
    Setting(
        "HOOK_TOKEN",
        Reader.header,
        "",
        "token that Alertmanager must send, 16 characters or more; `serve` needs it, `make "
        "run` creates one if it is not set",
        secret=True,
    ),
    Setting(
        "HOOK_STATE_URL",
        Reader.database,
        "sqlite:///var/reconnect-hook.sqlite3",
        "the queue of repairs; several hooks may share one on MariaDB or MySQL "
        "([more](../design/guarantees.md#two-of-everything))",
        secret=True,
    ),
    Setting(
        "HOOK_LOG_FILE",
        Reader.path,
        "logs/healthcheck-sessions.log",
        "file of [the log](log.md): one line for each failure and each repair",
    ),
    Setting(
        "RECONNECT_COOLDOWN_SECONDS",
        partial(Reader.number, most=86_400),
        "300",
        "pause between two repairs of one channel; doubles after each that does not help, up "
        "to an hour ([more](../design/guarantees.md#pauses)). An alert within the pause is "
        "deferred until its end",
    ),
    Setting(
        "RECONNECT_WORKERS",
        partial(Reader.integer, least=1),
        "4",
        "concurrent repair calls to each gateway, of all hooks together; as many probes come "
        "beside them",
    ),
    Setting(
        "RECONNECT_VERIFY_SECONDS",
        partial(Reader.number, most=MOST_SECONDS),
        "60",
        "how long the hook waits for the channel to come back after a call",
    ),
    Setting(
        "RECONNECT_ALLOW_RESTART",
        Reader.boolean,
        "false",
        "whether a session may be deleted and recreated as the last step, after two repairs "
        "in a row that changed nothing. **The pairing is lost**, and a person has to scan a "
        "QR code",
        key="allow_restart",
    ),
    Setting(
        "PROMETHEUS_URL",
        Reader.base_url,
        "http://127.0.0.1:9090",
        "Prometheus from which the page reads ages, alerts and history",
    ),
    *_access("PROMETHEUS", "Prometheus'"),
    Setting(
        "ALERTMANAGER_URL",
        Reader.base_url,
        "http://127.0.0.1:9093",
        "Alertmanager whose health the page shows and to which it links for a silence: an "
        "address that browsers reach too",
    ),
    *_access("ALERTMANAGER", "Alertmanager's"),
    Setting(
        "HOOK_EXTERNAL_URL",
        Reader.external_url,
        "",
        "address by which people reach the hook, such as `https://example.com/zapwatch`: "
        "links to it begin with this, and its path prefixes every address of the page and the "
        "API. Empty: `HOOK_LISTEN`",
    ),
    Setting(
        "ALERTMANAGER_FILE",
        Reader.text,
        "",
        "the file that your Alertmanager reads: `zapwatch init` writes it, `zapwatch notify "
        "--reload` checks it, and `make run` takes it instead of `alertmanager/alertmanager.yml`",
    ),
    Setting(
        "HEARTBEAT_URL",
        Reader.secret_url,
        "",
        "address of an external service that the hook calls once a minute while exporter, "
        "Prometheus, Alertmanager and hook all work ([more](../notifications.md#heartbeat))",
        secret=True,
    ),
    Setting(
        "HOOK_TRUSTED_PROXY",
        Reader.address,
        "",
        "IP address of the TLS proxy in front of the hook. `X-Forwarded-For`, "
        "`X-Forwarded-Proto` and `X-Forwarded-Prefix` are accepted only from it",
    ),
    Setting(
        "WEB_CONFIG_FILE",
        Reader.optional_path,
        "",
        "file with TLS and passwords of both programs' own servers, in [Prometheus' "
        "form](../tls.md)",
    ),
    Setting(
        "LOG_LEVEL",
        partial(Reader.choice, of=LogLevel, known="debug, info, warning or error"),
        "info",
        "lowest level that both programs write to stderr: `debug`, `info`, `warning` or `error`",
    ),
    Setting(
        "LOG_FORMAT",
        partial(Reader.choice, of=LogFormat, known="logfmt or json"),
        "logfmt",
        "format of stderr: `logfmt` or `json`, one line for each event, with the local time",
    ),
    Setting(
        "PROBE",
        partial(Reader.choice, of=ProbeKind, known="off, query, delivery or echo"),
        "query",
        "how a quiet channel is probed ([more](../proof-of-life.md)): `off`; `query`, where "
        "the gateway has a request for it; `delivery`: a query, and a comparison of the gateway's "
        "newest message with the log's; `echo`: a message between two of your channels too",
        key="probe",
    ),
    Setting(
        "PROBE_OVERRIDES",
        partial(
            Reader.by_channel,
            parse=parse_kind,
            form="channel=off, query, delivery or echo, as in loja=echo",
        ),
        "",
        "for single channels: `loja=echo,imobsites=off`; in gateways.yaml also a key "
        "for each: `loja: echo`",
        key="probe_overrides",
        by_channel="off, query, delivery or echo by channel, such as loja: echo",
    ),
    Setting(
        "PROBE_AFTER_MINUTES",
        partial(Reader.number, above=0, most=MOST_HOURS * 60),
        "30",
        "minutes without a message after which a channel is probed; with "
        "`SILENCE_MODE=adaptive` the exporter learns them",
        key="probe_after_minutes",
    ),
    Setting(
        "PROBE_PAUSE_MINUTES",
        partial(Reader.number, above=0, most=MOST_HOURS * 60),
        "15",
        "shortest pause between two probes of a channel",
        key="probe_pause_minutes",
    ),
    Setting(
        "PROBE_ECHOES_PER_DAY",
        partial(Reader.integer, least=1),
        "24",
        "most echoes in 24 hours in which a channel takes part, sent and received together",
        key="probe_echoes_per_day",
    ),
    Setting(
        "PROBE_ECHO_NUMBERS",
        partial(
            Reader.by_channel,
            parse=lambda text: text if is_number(text) else None,
            form="channel=number, the number with its country code and digits only, as in "
            "loja=5500000000001",
            unique="number",
        ),
        "",
        "numbers of your own channels, for echoes: `loja=5500000000001,obra=5500000000002`. They "
        "take precedence over those that the gateway reports; in gateways.yaml also a key for "
        "each: `loja: 5500000000001`",
        key="probe_echo_numbers",
        by_channel="numbers by channel, such as loja: 5500000000001",
        private=True,
    ),
    Setting(
        "PROBE_ECHO_TEXT",
        partial(Reader.line, most=500),
        "Zapwatch: does this arrive?",
        "text of an echo, followed by the token that identifies it",
        key="probe_echo_text",
    ),
    Setting(
        "MESSAGE_AUDIT",
        partial(Reader.choice, of=AuditMode, known="off, incidents or daily"),
        "incidents",
        "when the messages at a gateway are compared with those that arrived "
        "([more](../missed-messages.md)): `incidents`, after each outage; `daily`, once a day "
        "too; `off`, by hand only",
    ),
    Setting(
        "MESSAGE_REPLAY_URL",
        Reader.secret_url,
        "",
        "webhook of your system, to which [missed messages are delivered "
        "again](../missed-messages.md#deliver-again); `{session}` stands for the channel's name. "
        "Empty: no message is",
        key="replay_url",
        secret=True,
    ),
    Setting(
        "MESSAGE_REPLAY_TOKEN",
        Reader.header,
        "",
        "token for this webhook, sent as `Authorization: Bearer`; at `waha` the HMAC key",
        key="replay_token",
        secret=True,
    ),
    Setting(
        "MESSAGE_REPLAY",
        partial(Reader.choice, of=ReplayMode, known="manual or auto"),
        "manual",
        "`manual`: delivered again when a person asks; `auto`: after each audit that found "
        "missed messages, too",
        key="replay",
    ),
)
"""Every setting, in the order of the docs. Attributes of Settings are named after the setting,
those of GatewaySettings after its key, those of ProbeSettings after its key without ``probe_``."""

BY_NAME = {row.name: row for row in SETTINGS}
BY_KEY = {row.key: row for row in SETTINGS if row.key}
SECRETS = tuple(row.name for row in SETTINGS if row.secret)
"""Settings with a secret; each may be in a file named by the setting ``NAME_FILE``."""
PIXELHUB = frozenset(row.name for row in SETTINGS if row.pixelhub)
"""Settings that PixelHub's own ``.env`` has too."""
ONE_GATEWAY = (
    "WPP_GATEWAY_TYPE",
    "WPP_GATEWAY_BASE_URL",
    "WPP_GATEWAY_SECRET",
    "WPP_GATEWAY_NAME",
)
"""Settings of the single gateway in an ``.env``."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Kind, times and limits of probes. Keys are channel keys, numbers digits only."""

    kind: ProbeKind
    overrides: ByName[ProbeKind]
    after_minutes: float
    pause_minutes: float
    echoes_per_day: int
    echo_numbers: ByName[str] = field(repr=False)
    echo_text: str

    def wanted(self, channel: Channel) -> ProbeKind:
        """Return the probe that the operator has configured, even if it is impossible."""
        return self.overrides.of(channel) or self.kind

    def kind_of(
        self,
        channel: Channel,
        *,
        can_query: bool,
        can_compare: bool = False,
        asks_number: bool = False,
    ) -> ProbeKind:
        """Return the channel's actual probe; ``can_query``: the gateway has a safe query.

        ``can_compare``: the gateway's messages can be compared with those that arrived.
        ``asks_number``: the gateway can be asked for a number that its list omits.
        """
        if not channel.repairable:
            return ProbeKind.OFF
        wanted = self.wanted(channel)
        known = asks_number or self.echo_numbers.of(channel) or is_number(channel.number or "")
        if wanted is ProbeKind.ECHO and not known:
            wanted = ProbeKind.DELIVERY
        if wanted is ProbeKind.DELIVERY and not can_compare:
            wanted = ProbeKind.QUERY
        if wanted is ProbeKind.QUERY and not can_query:
            return ProbeKind.OFF
        return wanted


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of one gateway. ``repr()`` omits secrets."""

    name: str
    """Value of the label ``gateway``."""
    type: str
    """A name in zapwatch.gateways.registry.ADAPTERS."""
    base_url: str
    secret: str = field(repr=False)
    timeout: float
    """Seconds for the channel list."""
    qr_timeout: float
    """Seconds for every other call."""
    ca_file: str | None
    user: str
    """HTTP Basic user of a proxy in front of the gateway; empty for none."""
    password: str = field(repr=False)
    messages: MessageSourceKind
    message_log_url: URL | None = field(repr=False)
    """URL if ``messages`` is LOG and its settings are valid, else None."""
    message_log_error: str
    """Error in them; only ``check``, which repairs drops without the log, accepts one."""
    messages_token: str = field(repr=False)
    """Token with which the gateway posts its events."""
    ignore: ByName[bool]
    """The ignored channels, each with true."""
    ignore_stopped: bool
    webhook: str = field(repr=False)
    """Webhook of WPPConnect's sessions; empty to keep the stored one."""
    replay_url: str = field(repr=False)
    """Webhook for the delivery of missed messages; empty for none."""
    replay_token: str = field(repr=False)
    replay: ReplayMode
    silent_hours: float
    silent_hours_overrides: ByName[float]
    silence_mode: SilenceMode
    silence_state_file: Path
    allow_restart: bool
    probe: ProbeSettings
    said: Mapping[str, tuple[str, str]] = field(compare=False, repr=False)
    """Text and origin of each key that gateways.yaml sets; the others are from the ``.env``."""
    channels: tuple[NamedChannel, ...] = ()
    """Channels of a gateway without a list of its own; its ``secret`` is empty."""
    requests_per_month: int | None = None
    """Request limit of both programs together; None for no limit."""
    declaration: Declaration | None = None
    """Description of a user-defined type, else None."""

    def silence_threshold(self, channel: Channel) -> float:
        """Return a channel's fixed silence threshold in seconds, used while none is learned."""
        return (self.silent_hours_overrides.of(channel) or self.silent_hours) * 3600


@dataclass(frozen=True, slots=True)
class Sources:
    """Effective texts of the settings by name, secrets from files included."""

    values: Mapping[str, str] = field(repr=False)
    origins: Mapping[str, str]
    """Origin of each, in words."""
    notices: tuple[str, ...] = ()
    """Warnings about values that the other file format would read differently."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, parsed. ``repr()`` omits secrets."""

    gateways: tuple[GatewaySettings, ...]
    sources: Sources = field(compare=False, repr=False)
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
    prometheus_user: str
    prometheus_password: str = field(repr=False)
    prometheus_ca_file: str | None
    alertmanager_url: str
    alertmanager_user: str
    alertmanager_password: str = field(repr=False)
    alertmanager_ca_file: str | None
    hook_external_url: str
    """Empty if unset; use hook_link() for every URL of the hook."""
    alertmanager_file: str
    heartbeat_url: str = field(repr=False)
    hook_trusted_proxy: str | None
    web_config_file: Path | None
    message_audit: AuditMode
    log_level: LogLevel
    log_format: LogFormat
