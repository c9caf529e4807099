"""Readers of single settings, and the choices of some; an error is one line with its name."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import ssl
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from select import POLLIN, poll
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import yaml
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from zapwatch.channels import ByName, channel_key

_T = TypeVar("_T")


class SettingsError(Exception):
    """A setting is missing or invalid. ``str()`` is one line: its name and the remedy."""


_MOST_BYTES = 1024 * 1024
_END_SECONDS = 10.0


def read_bounded(path: str | Path) -> bytes:
    """Return the content of a file or pipe; raise OSError, or ValueError for an unusable path.

    A pipe must end within 10 seconds; nothing may be larger than 1 MiB.
    """
    ends_at = time.monotonic() + _END_SECONDS
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    ready = poll()  # select() cannot wait for the 1,024th file of a program
    ready.register(file, POLLIN)
    try:
        content = b""
        while ready.poll(max(0.0, ends_at - time.monotonic()) * 1000):
            piece = os.read(file, _MOST_BYTES)
            content += piece
            if not piece:
                return content
            if len(content) > _MOST_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {_MOST_BYTES} bytes")
        raise OSError(errno.ETIMEDOUT, f"it has no end after {_END_SECONDS:g} s")
    finally:
        os.close(file)


def refuse_pipe(path: str | Path) -> None:
    """Raise OSError for a named pipe, at which a library would wait for a writer."""
    try:
        is_pipe = Path(path).is_fifo()
    except OSError:
        return  # the library fails at once, if the file is needed at all
    if is_pipe:
        raise OSError(errno.EINVAL, "it is a named pipe", str(path))


def unreadable(setting: str, path: str, error: OSError | ValueError) -> SettingsError:
    """Return the error for a file that ``setting`` names."""
    why = getattr(error, "strerror", None) or "no such name"
    return SettingsError(f"{setting}: {path} cannot be read: {why}")


class ProbeKind(StrEnum):
    """Kind of probe; the label ``kind`` of the probes' metrics."""

    OFF = "off"
    QUERY = "query"
    """A request to the gateway that WhatsApp's servers must answer."""
    DELIVERY = "delivery"
    """A query, and a check that the gateway's newest message is in the message log."""
    ECHO = "echo"
    """A message from another of the operator's channels, which must appear in the message log."""


class SilenceMode(StrEnum):
    """Origin of the silence threshold: set in the settings, or learned."""

    FIXED = "fixed"
    ADAPTIVE = "adaptive"


class AuditMode(StrEnum):
    """Times of automatic audits."""

    OFF = "off"
    INCIDENTS = "incidents"
    """After each outage."""
    DAILY = "daily"
    """After each outage and once a day."""


class ReplayMode(StrEnum):
    """Trigger of the delivery of missed messages, which requires the operator's webhook."""

    MANUAL = "manual"
    """On request."""
    AUTO = "auto"
    """On request, and after each audit that finds some."""


class MessageSourceKind(StrEnum):
    """Message source: origin of the times of a channel's last messages."""

    LOG = "log"
    """PixelHub's table ``webhook_raw_logs``."""
    EVENTS = "events"
    """Events that the gateway posts to the exporter."""
    ACTIVITY = "activity"
    """The channel list, if it has times of activity or message counts."""
    NONE = "none"
    """No source: silent channels go undetected."""

    @property
    def has_echoes(self) -> bool:
        """Whether the source has single messages, as echoes and histories require."""
        return self in {MessageSourceKind.LOG, MessageSourceKind.EVENTS}


_MOST_NESTED = 100


def is_nested_too_deep(text: bytes) -> bool:
    """Whether brackets in YAML nest so deep that parsing would take seconds."""
    depth = 0
    for bracket in re.findall(rb"[\[{\]}]", text):
        depth = max(0, depth + (1 if bracket in b"[{" else -1))
        if depth > _MOST_NESTED:
            return True
    return False


_ALIAS_OR_TAG = re.compile(r"\b(alias|tag|tag handle) '.*'", re.DOTALL)
# What PyYAML raises at values such as 2026-13-45, 0x_ and !!bool x.
_BAD_VALUES = ValueError, LookupError, AttributeError


class UniqueKeys(yaml.constructor.BaseConstructor):
    """Part of a YAML loader: a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Return the mapping; raise yaml.MarkedYAMLError."""
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            # Not the texts: yes and true are one key, as are 1 and 0x1.
            names = [self.construct_object(key) for key, _ in node.value]
            twice = next(key for i, (key, _) in enumerate(node.value) if names[i] in names[:i])
            problem = f"the key {twice.value!r} is there twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=twice.start_mark)
        return made


def read_yaml(setting: str, path: Path, loader: type[Any] = yaml.SafeLoader) -> Any:
    """Return the content of the YAML file that ``setting`` names; raise SettingsError.

    ``loader`` is a BaseLoader or a SafeLoader.
    """
    try:
        text = read_bounded(path)
    except (OSError, ValueError) as error:
        raise unreadable(setting, str(path), error) from None
    if is_nested_too_deep(text):
        raise SettingsError(f"{setting}: {path} is not valid YAML: its brackets nest too deeply")
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - safe, as above
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        is_syntax = isinstance(error, yaml.parser.ParserError | yaml.scanner.ScannerError)
        hint = (
            "; look at brackets and indentation; a text with {, [ or : needs quotes"
            if is_syntax
            else ""
        )
        # A secret without quotes that begins with * or ! is taken for the name of one.
        problem = _ALIAS_OR_TAG.sub(r"\1", str(error.problem))
        raise SettingsError(f"{setting}: {path}{where}: {problem}{hint}") from None
    except (yaml.YAMLError, RecursionError, *_BAD_VALUES):
        raise SettingsError(f"{setting}: {path} is not valid YAML") from None


MOST_SECONDS = 3600
"""Limit of a time-out or of a pause between two polls."""

MOST_HOURS = 366 * 24
"""Limit of ages of messages."""

PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
"""Path prefix of the hook's pages."""

_TOKEN_CHARACTERS = 16
_TOKEN_DIFFERENT = 6


def can_be_guessed(token: str) -> bool:
    """Whether a token is too short or too uniform."""
    return len(token) < _TOKEN_CHARACTERS or len(set(token)) < _TOKEN_DIFFERENT


def check_strength(setting: str, token: str) -> None:
    """Raise SettingsError for a token that could be guessed."""
    if can_be_guessed(token):
        raise SettingsError(
            f"{setting} can be guessed: choose at least {_TOKEN_CHARACTERS} random characters, "
            "such as those of 'openssl rand -hex 32'"
        )


@dataclass(frozen=True, slots=True)
class Listen:
    """Address of a server socket."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at that host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Reader:
    """Reader of single settings; each method raises SettingsError with the setting's name."""

    def __init__(
        self, values: Mapping[str, str], called: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """``values`` are texts by setting; ``called`` maps settings to their names in errors."""
        self._values = values
        self._called = called

    def called(self, name: str) -> str:
        """Return the operator's name of a setting, such as a key of gateways.yaml."""
        return self._called.get(name, name)

    def wrong(self, name: str, text: str) -> SettingsError:
        """Return an error that prefixes ``text`` with the setting's name."""
        return SettingsError(f"{self.called(name)} {text}")

    def text(self, name: str, default: str | None = None) -> str:
        """Return the stripped text, or the default."""
        value = self._values.get(name, "").strip() or default
        if value is None:
            raise self.wrong(
                name, "is not set: run zapwatch init, or put it into .env or the environment"
            )
        return value

    def verbatim(self, name: str, default: str | None = None) -> str:
        """Return the text with its blanks."""
        return self._values.get(name, default or "")

    def path(self, name: str, default: str | None = None) -> Path:
        """Return a path, without checking that the file exists."""
        text = self.text(name, default)
        if "\0" in text:
            raise self.wrong(name, "must be the path of a file")
        return Path(text)

    def optional_path(self, name: str, default: str | None = None) -> Path | None:
        """Return a path, None if unset."""
        return self.path(name, default) if self.text(name, default) else None

    def choice(
        self, name: str, default: str | None = None, *, of: type[StrEnum], known: str
    ) -> StrEnum:
        """Return the member that the text names, case-insensitively."""
        text = self.text(name, default)
        try:
            return of(text.lower())
        except ValueError:
            raise self.wrong(name, f"must be {known}, not {text!r}") from None

    def line(self, name: str, default: str | None = None, *, most: int) -> str:
        """Return one printable line of at most ``most`` characters."""
        value = self.text(name, default)
        if not value.isprintable() or len(value) > most:
            raise self.wrong(name, f"must be one line of at most {most} characters")
        return value

    def one_of(self, name: str, default: str | None = None, *, known: tuple[str, ...]) -> str:
        """Return the text in lower case if it is in ``known``."""
        text = self.text(name, default)
        if text.lower() not in known:
            raise self.wrong(name, f"must be one of {', '.join(known)}, not {text!r}")
        return text.lower()

    def header(self, name: str, default: str | None = None) -> str:
        """Return a text of printable ASCII, as HTTP headers require."""
        value = self.text(name, default)
        if not value.isascii() or not value.isprintable():
            raise self.wrong(name, "holds characters that are not allowed in an HTTP header")
        return value

    def base_url(self, name: str, default: str | None = None) -> str:
        """Return an http(s) URL without trailing slashes."""
        value = self.text(name, default)
        form = f"{self.called(name)} must look like {default or 'https://gateway.example.com:8443'}"
        parts = split_url(value)
        if parts is None:
            raise SettingsError(form)
        if "@" in parts.netloc or "?" in value or "#" in value:
            raise SettingsError(f"{form}, without user, password, ? or #")
        if not value.isprintable() or " " in value or "\\" in value:
            raise SettingsError(f"{form}, without spaces or \\")
        return value.rstrip("/")

    def external_url(self, name: str, default: str | None = None) -> str:
        """Return an http(s) URL whose path matches PATH_PREFIX, empty if unset."""
        if not self.text(name, default):
            return ""
        value = self.base_url(name, "https://example.com/zapwatch")
        path = urlsplit(value).path
        if path and not PATH_PREFIX.fullmatch(path):
            raise self.wrong(name, "may have only letters, digits, . _ ~ and - in its path")
        return value

    def user(self, name: str, default: str | None = None) -> str:
        """Return a user name; it is required if the matching PASSWORD setting is set."""
        value = self.text(name, default)
        password = f"{name.removesuffix('USER')}PASSWORD"
        if not value and self._values.get(password):
            raise self.wrong(password, f"is set, and {self.called(name)} is not")
        if ":" in value or not value.isprintable():
            raise self.wrong(name, "must be one line without a colon")
        return value

    def secret_url(self, name: str, default: str | None = None) -> str:
        """Return an http(s) URL with its query; errors do not quote it."""
        value = self.text(name, default)
        parts = split_url(value)
        is_url = parts is not None and "@" not in parts.netloc
        if value and not (is_url and value.isascii() and value.isprintable() and " " not in value):
            raise self.wrong(name, "must be an address such as https://example.com/ping/a-secret")
        return value

    def address(self, name: str, default: str | None = None) -> str | None:
        """Return an IP address, None if unset."""
        value = self.text(name, default)
        try:
            return str(ip_address(value)) if value else None
        except ValueError:
            raise self.wrong(name, f"must be an IP address, not {value!r}") from None

    def certificates(self, name: str, default: str | None = None) -> str | None:
        """Return the path of a PEM file of certificates, None if unset."""
        path = self.text(name, default)
        if not path:
            return None
        try:
            refuse_pipe(path)
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise SettingsError(
                f"{self.called(name)}: {path} holds no certificate in PEM form"
            ) from None
        except (OSError, ValueError) as error:
            raise unreadable(self.called(name), path, error) from None
        return path

    def number(
        self, name: str, default: str | None = None, *, most: float, above: float | None = None
    ) -> float:
        """Return a number from 0 (or greater than ``above``) to ``most``."""
        text = self.text(name, default)
        value = parse_number(text)
        if not 0 <= value <= most or (above is not None and value <= above):
            least = "0 or more" if above is None else f"more than {above:g}"
            raise self.wrong(
                name, f"must be a number, {least} and at most {most:g}; it is {text!r}"
            )
        return value

    def integer(
        self, name: str, default: str | None = None, *, least: int, most: int = 1000
    ) -> int:
        """Return an integer from ``least`` to ``most``."""
        text = self.text(name, default)
        if not _is_short_number(text) or not least <= int(text) <= most:
            raise self.wrong(name, f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    def boolean(self, name: str, default: str | None = None) -> bool:
        """Return whether the text is true, 1, yes or on."""
        text = self.text(name, default).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        raise self.wrong(name, f"must be true or false, not {text!r}")

    def listen(self, name: str, default: str | None = None) -> Listen:
        """Return the address of HOST:PORT; an IPv6 host may be in brackets."""
        text = self.text(name, default)
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not _is_short_number(port) or int(port) > 65535:
            raise self.wrong(name, f"must be HOST:PORT such as {default}, not {text!r}")
        return Listen(host, int(port))

    def channels(self, name: str, default: str | None = None) -> ByName[bool]:
        """Return the channels of a comma-separated list, each with true."""
        keys = map(channel_key, self.text(name, default).split(","))
        return ByName(dict.fromkeys(filter(None, keys), True))

    def by_channel(
        self,
        name: str,
        default: str | None = None,
        *,
        parse: Callable[[str], _T | None],
        form: str,
        unique: str = "",
    ) -> ByName[_T]:
        """Return values by channel of a list as ``form`` shows; ``parse`` returns None for others.

        ``unique`` is the noun of a value that no two channels may have.
        """
        values: dict[str, _T] = {}
        for item in filter(None, map(str.strip, self.text(name, default).split(","))):
            channel, _, text = item.rpartition("=")
            key, value = channel_key(channel), parse(text.strip())
            if not key or value is None:
                raise self.wrong(name, f"must be {form}, not {item!r}")
            if unique and key in values:
                raise self.wrong(name, f"names one channel twice, the last time in {item!r}")
            if unique and value in values.values():
                raise self.wrong(name, f"has one {unique} for two channels, the last in {item!r}")
            values[key] = value
        return ByName(values)

    def charset(self, name: str, default: str | None = None) -> str:
        """Return a character set known to MySQL's driver."""
        text = self.text(name, default).lower()
        if not _is_charset(text):
            raise self.wrong(name, f"must be a MySQL character set such as {default}")
        return text

    def database(self, name: str, default: str | None = None) -> URL:
        """Return the URL of a database, with its driver set."""
        try:
            url = make_url(self.text(name, default))
        except (ArgumentError, ValueError):
            # The text is not quoted, since it may contain a password.
            raise self.wrong(
                name,
                "must be an SQLAlchemy URL such as sqlite:///var/state.sqlite3 or "
                "mysql+pymysql://user:password@host/name",
            ) from None
        if "@" in (url.host or ""):
            # The part before the @ belongs to the password, and drivers' errors quote the host.
            raise self.wrong(name, "has an @ in its user or password: write it as %40")
        backend = url.get_backend_name()
        if backend not in {"sqlite", "mysql", "mariadb"}:
            raise self.wrong(name, f"must be a sqlite, mysql or mariadb URL, not {backend}")
        if "ssl" in url.query:
            # The driver misreads it and fails without naming it.
            raise self.wrong(name, "has ssl=: write ssl_ca=FILE, by which the server is verified")
        if backend == "sqlite":
            try:
                refuse_pipe(url.database or "")
            except OSError as error:
                raise unreadable(self.called(name), url.database or "", error) from None
        # SQLAlchemy's dialect of mysql:// finds out which of the two the server is.
        url = url.set(drivername="sqlite" if backend == "sqlite" else "mysql+pymysql")
        try:
            if url.query:
                create_engine(url)
        except (ArgumentError, TypeError, ValueError):
            raise self.wrong(name, "has a wrong value behind its ?") from None
        charset = url.query.get("charset")
        if charset is not None and not (isinstance(charset, str) and _is_charset(charset)):
            raise self.wrong(name, "has no MySQL character set, such as utf8mb4, behind charset=")
        return url


def split_url(text: str) -> SplitResult | None:
    """Return the parts of an http(s) URL, None if the text is none."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        return None
    return parts if parts.scheme in {"http", "https"} and parts.hostname else None


def _is_charset(text: str) -> bool:
    """Whether MySQL's driver knows a character set, which it would fail without naming."""
    # A late import: no other setting needs the driver.
    from pymysql.charset import charset_by_name  # noqa: PLC0415

    return charset_by_name(text) is not None


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def parse_kind(text: str) -> ProbeKind | None:
    """Return a kind of probe by its name, or None."""
    return ProbeKind(text) if text in set(ProbeKind) else None


def parse_hours(text: str) -> float | None:
    """Return a number of hours above 0, MOST_HOURS at most, or None."""
    hours = parse_number(text)
    return hours if 0 < hours <= MOST_HOURS else None


def is_number(text: str) -> bool:
    """Whether a text has the form of a telephone number with country code: 8 to 15 digits."""
    return text.isascii() and text.isdigit() and 8 <= len(text) <= 15


def parse_number(text: str) -> float:
    """Parse a number, NaN if it is invalid; unlike float(), reject 1_0."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def fingerprint(secret: str) -> str:
    """Return a secret's length and the first eight digits of its SHA-256, for display."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{len(secret)} characters, SHA-256 begins {digest}"
