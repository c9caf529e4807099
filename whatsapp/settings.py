"""The settings of both programs: from the environment, then from an ``.env`` file as PixelHub's.

python-dotenv is not used: it takes ``#`` for a comment and backslashes for escapes, and PixelHub's
files hold passwords in which both are literal.
"""

from __future__ import annotations

import enum
import math
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pymysql.charset import charset_by_name
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from whatsapp.channels import channel_key
from whatsapp.probe_settings import ProbeKind, ProbeSettings, by_channel, is_number
from whatsapp.secret import decrypt

DEFAULT_ENV_FILE = ".env"

SECRETS = (
    "WPP_GATEWAY_SECRET",
    "INFRA_SECRET_KEY",
    "DB_PASS",
    "MESSAGE_LOG_URL",
    "HOOK_TOKEN",
    "HOOK_STATE_URL",
)
"""The settings that hold a secret: each may be in a file that the setting ``NAME_FILE`` names."""

_LONGEST_TEXT = 500  # characters of a message


class SettingsError(Exception):
    """A setting is missing or unreadable. ``str()`` is one line: which, and what to do."""


class SilenceMode(enum.StrEnum):
    """How long a channel may be silent: as the settings say, or as it has shown itself."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a program listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, parsed. Secrets stay out of repr()."""

    gateway_base_url: str
    gateway_secret: str = field(repr=False)
    gateway_name: str
    gateway_timeout: float
    gateway_qr_timeout: float
    gateway_ca_file: str | None
    message_log_url: URL | None = field(repr=False)
    silent_hours: float
    silent_hours_overrides: Mapping[str, float]
    message_lookback_hours: float
    silence_mode: SilenceMode
    silence_false_alarms_per_month: float
    silence_floor_minutes: float
    silence_ceiling_hours: float
    silence_state_file: Path
    exporter_listen: Listen
    exporter_poll_seconds: float
    hook_listen: Listen
    hook_token: str = field(repr=False)
    hook_state_url: URL = field(repr=False)
    hook_log_file: Path
    reconnect_cooldown_seconds: float
    reconnect_workers: int
    reconnect_verify_seconds: float
    reconnect_allow_restart: bool
    prometheus_url: str
    alertmanager_url: str
    hook_trusted_proxy: str | None
    probe: ProbeSettings

    def silence_threshold(self, channel: str) -> float:
        """Return after how many seconds without a message a channel counts as silent.

        This is the fixed threshold, which counts wherever none is learned.
        """
        hours = self.silent_hours_overrides.get(channel_key(channel), self.silent_hours)
        return hours * 3600


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


def read_env_file(env_file: str | None) -> dict[str, str]:
    """Return the file's values; raise SettingsError where it cannot be read."""
    path = Path(env_file or DEFAULT_ENV_FILE)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if env_file is None:
            return {}
        raise SettingsError(f"--env-file: there is no file {env_file}") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    return parse_env(text)


def parse_env(text: str) -> dict[str, str]:
    """Return the ``KEY=value`` lines of an ``.env`` text by PixelHub's rules.

    One pair of surrounding quotes is stripped; ``$``, ``#`` and backslashes in a value are literal.
    A line that begins with ``#`` or has no ``=`` is none; of two with the same key the last counts.
    """
    values = {}
    # Not splitlines(): that would also split at characters that a password may hold.
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key or key.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[key] = value
    return values


def read_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values, with each secret that is in a file read from there; raise SettingsError.

    One line end after the secret is not part of it; everything else in the file is.
    """
    read = dict(values)
    for name in SECRETS:
        path = read.pop(f"{name}_FILE", "").strip()
        if not path:
            continue
        if read.get(name, "").strip():
            raise SettingsError(f"{name} and {name}_FILE are both set: remove one of them")
        read[name] = _secret_in(path, f"{name}_FILE")
    return read


def _unreadable(setting: str, path: str, error: OSError | ValueError) -> SettingsError:
    why = getattr(error, "strerror", None) or "no such name"
    return SettingsError(f"{setting}: {path} cannot be read: {why}")


def _secret_in(path: str, setting: str) -> str:
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{setting}: {path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise _unreadable(setting, path, error) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise SettingsError(f"{setting}: {path} is empty")
    if "\n" in secret:
        raise SettingsError(
            f"{setting}: {path} has more than one line: it must hold the secret only"
        )
    return secret


def parse(values: Mapping[str, str]) -> Settings:
    """Return the settings that ``values`` hold; raise SettingsError at the first that is wrong."""
    read = _Reader(values)
    floor_minutes, ceiling_hours = read.silence_bounds()
    return Settings(
        gateway_base_url=read.base_url("WPP_GATEWAY_BASE_URL"),
        gateway_secret=read.gateway_secret(),
        gateway_name=read.text("WPP_GATEWAY_NAME", "wpp"),
        gateway_timeout=read.number("WPP_GATEWAY_TIMEOUT", 90, above=0),
        gateway_qr_timeout=read.number("WPP_GATEWAY_QR_TIMEOUT", 60, above=0),
        gateway_ca_file=read.certificates("WPP_GATEWAY_CA_FILE"),
        message_log_url=read.message_log_url(),
        silent_hours=read.number("SILENT_HOURS", 4, above=0),
        silent_hours_overrides=read.hours_by_channel("SILENT_HOURS_OVERRIDES"),
        message_lookback_hours=read.number("MESSAGE_LOOKBACK_HOURS", 168, above=0),
        silence_mode=read.silence_mode("SILENCE_MODE"),
        silence_false_alarms_per_month=read.number("SILENCE_FALSE_ALARMS_PER_MONTH", 1, above=0),
        silence_floor_minutes=floor_minutes,
        silence_ceiling_hours=ceiling_hours,
        silence_state_file=Path(read.text("SILENCE_STATE_FILE", "var/silence.json")),
        exporter_listen=read.listen("EXPORTER_LISTEN", "127.0.0.1:9861"),
        exporter_poll_seconds=read.number("EXPORTER_POLL_SECONDS", 5, above=0),
        hook_listen=read.listen("HOOK_LISTEN", "127.0.0.1:9862"),
        hook_token=read.header("HOOK_TOKEN", ""),
        hook_state_url=read.database("HOOK_STATE_URL", "sqlite:///var/reconnect-hook.sqlite3"),
        hook_log_file=Path(read.text("HOOK_LOG_FILE", "logs/healthcheck-sessions.log")),
        reconnect_cooldown_seconds=read.number("RECONNECT_COOLDOWN_SECONDS", 300),
        reconnect_workers=read.integer("RECONNECT_WORKERS", 4, least=1),
        reconnect_verify_seconds=read.number("RECONNECT_VERIFY_SECONDS", 60),
        reconnect_allow_restart=read.boolean("RECONNECT_ALLOW_RESTART", default=False),
        prometheus_url=read.base_url("PROMETHEUS_URL", "http://127.0.0.1:9090"),
        alertmanager_url=read.base_url("ALERTMANAGER_URL", "http://127.0.0.1:9093"),
        hook_trusted_proxy=read.address("HOOK_TRUSTED_PROXY"),
        probe=ProbeSettings(
            kind=read.probe_kind("PROBE"),
            overrides=read.probe_kinds("PROBE_OVERRIDES"),
            after_minutes=read.number("PROBE_AFTER_MINUTES", 30, above=0),
            pause_minutes=read.number("PROBE_PAUSE_MINUTES", 15, above=0),
            echoes_per_day=read.integer("PROBE_ECHOES_PER_DAY", 24, least=1),
            echo_numbers=read.numbers("PROBE_ECHO_NUMBERS"),
            echo_text=read.line("PROBE_ECHO_TEXT", "Zapwatch: does this arrive?"),
        ),
    )


class _Reader:
    """Reads single settings; each method raises SettingsError with the setting's name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, "").strip() or default
        if value is None:
            raise SettingsError(f"{name} is not set: put it into .env or the environment")
        return value

    def header(self, name: str, default: str | None = None) -> str:
        value = self.text(name, default)
        if not value.isascii() or not value.isprintable():
            raise SettingsError(f"{name} holds characters that no HTTP header can carry")
        return value

    def base_url(self, name: str, default: str | None = None) -> str:
        value = self.text(name, default)
        form = f"{name} must look like {default or 'https://gateway.example.com:8443'}"
        try:
            parts = urlsplit(value)
            _ = parts.port  # raises where it is no number
        except ValueError:
            raise SettingsError(form) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(form)
        if "@" in parts.netloc or "?" in value or "#" in value:
            raise SettingsError(f"{form}, without user, password, ? or #")
        if not value.isprintable() or " " in value or "\\" in value:
            raise SettingsError(f"{form}, without spaces or \\")
        return value.rstrip("/")

    def address(self, name: str) -> str | None:
        value = self.text(name, "")
        try:
            return str(ip_address(value)) if value else None
        except ValueError:
            raise SettingsError(f"{name} must be an IP address, not {value!r}") from None

    def certificates(self, name: str) -> str | None:
        path = self.text(name, "")
        if not path:
            return None
        try:
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise SettingsError(f"{name}: {path} holds no certificate in PEM form") from None
        except (OSError, ValueError) as error:
            raise _unreadable(name, path, error) from None
        return path

    def gateway_secret(self) -> str:
        stored = self.header("WPP_GATEWAY_SECRET")
        secret = decrypt(stored, self._values.get("INFRA_SECRET_KEY", "").strip())
        if not secret.isascii():
            raise SettingsError(
                "WPP_GATEWAY_SECRET decrypts to something that no HTTP header can carry: "
                "is INFRA_SECRET_KEY the one that PixelHub uses?"
            )
        return secret

    def number(self, name: str, default: float, *, above: float | None = None) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (above is not None and value <= above):
            least = "0 or more" if above is None else f"more than {above:g}"
            raise SettingsError(f"{name} must be a number, {least}; it is {text!r}")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int = 1000) -> int:
        text = self.text(name, str(default))
        if not _is_short_number(text) or not least <= int(text) <= most:
            raise SettingsError(
                f"{name} must be a whole number from {least} to {most}, not {text!r}"
            )
        return int(text)

    def boolean(self, name: str, *, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        raise SettingsError(f"{name} must be true or false, not {text!r}")

    def listen(self, name: str, default: str) -> Listen:
        text = self.text(name, default)
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not _is_short_number(port) or int(port) > 65535:
            raise SettingsError(f"{name} must be HOST:PORT such as {default}, not {text!r}")
        return Listen(host, int(port))

    def hours_by_channel(self, name: str) -> dict[str, float]:
        hours = {}
        for item in filter(None, (i.strip() for i in self.text(name, " ").split(","))):
            channel, _, value = item.rpartition("=")
            try:
                parsed = float(value)
            except ValueError:
                parsed = math.nan
            if not channel_key(channel) or not math.isfinite(parsed) or parsed <= 0:
                raise SettingsError(
                    f"{name} must be channel=hours, as in imobsites=72,loja=1.5, not {item!r}"
                )
            hours[channel_key(channel)] = parsed
        return hours

    def line(self, name: str, default: str) -> str:
        text = self.text(name, default)
        if not text.isprintable() or len(text) > _LONGEST_TEXT:
            raise SettingsError(f"{name} must be one line of at most {_LONGEST_TEXT} characters")
        return text

    def probe_kind(self, name: str) -> ProbeKind:
        text = self.text(name, ProbeKind.QUERY)
        try:
            return ProbeKind(text.lower())
        except ValueError:
            raise SettingsError(f"{name} must be off, query or echo, not {text!r}") from None

    def probe_kinds(self, name: str) -> dict[str, ProbeKind]:
        kinds = {}
        for key, value, item in by_channel(self.text(name, " ")):
            if not key or value not in set(ProbeKind):
                raise SettingsError(
                    f"{name} must be channel=off, query or echo, as in loja=echo, not {item!r}"
                )
            kinds[key] = ProbeKind(value)
        return kinds

    def numbers(self, name: str) -> dict[str, str]:
        numbers: dict[str, str] = {}
        for key, value, item in by_channel(self.text(name, " ")):
            if not key or not is_number(value):
                raise SettingsError(
                    f"{name} must be channel=number, the number with its country code and digits "
                    f"only, as in loja=5500000000001, not {item!r}"
                )
            if value in numbers.values():
                raise SettingsError(f"{name} has one number for two channels, the last in {item!r}")
            numbers[key] = value
        return numbers

    def silence_mode(self, name: str) -> SilenceMode:
        text = self.text(name, SilenceMode.FIXED)
        try:
            mode = SilenceMode(text.lower())
        except ValueError:
            raise SettingsError(f"{name} must be fixed or adaptive, not {text!r}") from None
        if mode is SilenceMode.ADAPTIVE and self.message_log_url() is None:
            raise SettingsError(
                f"{name}=adaptive learns from the message log, but MESSAGE_LOG_URL is none"
            )
        return mode

    def silence_bounds(self) -> tuple[float, float]:
        floor = self.number("SILENCE_FLOOR_MINUTES", 10, above=0)
        ceiling = self.number("SILENCE_CEILING_HOURS", 24, above=0)
        if floor > ceiling * 60:
            raise SettingsError(
                f"SILENCE_FLOOR_MINUTES must be no more than SILENCE_CEILING_HOURS, not {floor:g} "
                f"minutes against {ceiling:g} hours"
            )
        return floor, ceiling

    def message_log_url(self) -> URL | None:
        if self.text("MESSAGE_LOG_URL", "").lower() == "none":
            return None
        if self.text("MESSAGE_LOG_URL", ""):
            return self.database("MESSAGE_LOG_URL")
        if not self.text("DB_HOST", ""):
            raise SettingsError(
                "DB_HOST is not set: name the message log's database (DB_HOST, DB_NAME, DB_USER, "
                "DB_PASS) or MESSAGE_LOG_URL; MESSAGE_LOG_URL=none does without one"
            )
        return URL.create(
            "mysql+pymysql",
            username=self.text("DB_USER"),
            password=self._values.get("DB_PASS", ""),
            host=self.text("DB_HOST"),
            port=self.integer("DB_PORT", 3306, least=1, most=65535),
            database=self.text("DB_NAME", "pixel_hub"),
            query={"charset": self.charset("DB_CHARSET", "utf8mb4")},
        )

    def charset(self, name: str, default: str) -> str:
        text = self.text(name, default).lower()
        if charset_by_name(text) is None:
            raise SettingsError(f"{name} must be a MySQL character set such as {default}")
        return text

    def database(self, name: str, default: str | None = None) -> URL:
        try:
            url = make_url(self.text(name, default))
        except (ArgumentError, ValueError):
            # The text itself may hold a password: it is not repeated.
            raise SettingsError(
                f"{name} must be an SQLAlchemy URL such as sqlite:///var/state.sqlite3 or "
                "mysql+pymysql://user:password@host/name"
            ) from None
        backend = url.get_backend_name()
        if backend not in {"sqlite", "mysql", "mariadb"}:
            raise SettingsError(f"{name} must be a sqlite, mysql or mariadb URL, not {backend}")
        return url.set(drivername="sqlite" if backend == "sqlite" else f"{backend}+pymysql")


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
