"""Readers of single settings; an error is one line that names the setting."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from zapwatch.channels import ByName, channel_key


class SettingsError(Exception):
    """A setting is missing or invalid. ``str()`` is one line: its name and the remedy."""


def unreadable(setting: str, path: str, error: OSError | ValueError) -> SettingsError:
    """Return the error for a file that ``setting`` names."""
    why = getattr(error, "strerror", None) or "no such name"
    return SettingsError(f"{setting}: {path} cannot be read: {why}")


_MOST_NESTED = 100


def is_nested_too_deep(text: bytes) -> bool:
    """Whether brackets in YAML nest so deep that parsing would take seconds."""
    depth = 0
    for bracket in re.findall(rb"[\[{\]}]", text):
        depth = max(0, depth + (1 if bracket in b"[{" else -1))
        if depth > _MOST_NESTED:
            return True
    return False


MOST_SECONDS = 3600
"""Limit of a time-out or of a pause between two polls."""

MOST_HOURS = 366 * 24
"""Limit of ages of messages."""

PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
"""Path prefix of the hook's pages."""

_LABEL_CHARACTERS = 63
_TOKEN_CHARACTERS = 16
_TOKEN_DIFFERENT = 6


def check_strength(setting: str, token: str) -> None:
    """Raise SettingsError for a token that could be guessed."""
    if len(token) < _TOKEN_CHARACTERS or len(set(token)) < _TOKEN_DIFFERENT:
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
            raise self.wrong(name, "is not set: put it into .env or the environment")
        return value

    def verbatim(self, name: str, default: str | None = None) -> str:
        """Return the text with its blanks."""
        return self._values.get(name, default or "")

    def path(self, name: str, default: str | None = None) -> Path:
        """Return a path, without checking that the file exists."""
        return Path(self.text(name, default))

    def optional_path(self, name: str, default: str | None = None) -> Path | None:
        """Return a path, None if unset."""
        value = self.text(name, default)
        return Path(value) if value else None

    def choice(
        self, name: str, default: str | None = None, *, of: type[StrEnum], known: str
    ) -> StrEnum:
        """Return the member that the text names, case-insensitively."""
        text = self.text(name, default)
        try:
            return of(text.lower())
        except ValueError:
            raise self.wrong(name, f"must be {known}, not {text!r}") from None

    def label(self, name: str, default: str | None = None) -> str:
        """Return one printable line of at most 63 characters."""
        value = self.text(name, default)
        if not value.isprintable() or len(value) > _LABEL_CHARACTERS:
            raise self.wrong(name, f"must be one line of at most {_LABEL_CHARACTERS} characters")
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
            raise self.wrong(name, "holds characters that no HTTP header can carry")
        return value

    def base_url(self, name: str, default: str | None = None) -> str:
        """Return an http(s) URL without trailing slashes."""
        value = self.text(name, default)
        form = f"{self.called(name)} must look like {default or 'https://gateway.example.com:8443'}"
        try:
            parts = urlsplit(value)
            _ = parts.port  # raises if it is not a number
        except ValueError:
            raise SettingsError(form) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
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
        value = self.base_url(name)
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
        try:
            parts = urlsplit(value)
            _ = parts.port  # raises if it is not a number
        except ValueError:
            parts = urlsplit("")
        is_url = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
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

    def hours_by_channel(self, name: str, default: str | None = None) -> ByName[float]:
        """Return hours by channel."""
        hours = {}
        for item in filter(None, (i.strip() for i in self.text(name, default).split(","))):
            channel, _, value = item.rpartition("=")
            parsed = parse_number(value)
            if not channel_key(channel) or not 0 < parsed <= MOST_HOURS:
                raise self.wrong(
                    name,
                    "must be channel=hours, as in imobsites=72,loja=1.5, and at most "
                    f"{MOST_HOURS} hours, not {item!r}",
                )
            hours[channel_key(channel)] = parsed
        return ByName(hours)

    def charset(self, name: str, default: str | None = None) -> str:
        """Return a character set known to MySQL's driver."""
        # A late import: no other setting needs the driver.
        from pymysql.charset import charset_by_name  # noqa: PLC0415

        text = self.text(name, default).lower()
        if charset_by_name(text) is None:
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
        url = url.set(drivername="sqlite" if backend == "sqlite" else f"{backend}+pymysql")
        try:
            if url.query:
                create_engine(url)
        except (ArgumentError, TypeError, ValueError):
            raise self.wrong(name, "has a wrong value behind its ?") from None
        return url


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


_BLOCK = 16  # bytes: the AES block, and the IV that precedes the ciphertext
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_MARKED = "encrypted:"
_PLAIN = "plain:"


class UndecryptableError(Exception):
    """The key does not decrypt a secret that looks encrypted.

    ``marked``: the secret begins with ``encrypted:``.
    """

    def __init__(self, *, marked: bool) -> None:
        super().__init__()
        self.marked = marked


def decrypt(stored: str, infra_key: str) -> str:
    """Return the secret in ``stored``, plain or encrypted; raise UndecryptableError.

    PixelHub encrypts with AES-256-CBC and PKCS#7 padding; the key is the SHA-256 of
    INFRA_SECRET_KEY, even of an empty one. It stores base64 of IV and ciphertext, some versions
    after ``encrypted:``. 32 or more hex digits, and a text after ``plain:``, are always plain.
    """
    if stored.startswith(_PLAIN):
        return stored.removeprefix(_PLAIN)
    marked = stored.startswith(_MARKED)
    raw = b"" if _HEX.fullmatch(stored) else _base64(stored.removeprefix(_MARKED).strip())
    if len(raw) < 2 * _BLOCK or len(raw) % _BLOCK:
        if marked:
            raise UndecryptableError(marked=True)
        return stored
    key = hashlib.sha256(infra_key.encode("utf-8", "surrogateescape")).digest()
    decryptor = Cipher(algorithms.AES(key), modes.CBC(raw[:_BLOCK])).decryptor()
    unpadder = padding.PKCS7(_BLOCK * 8).unpadder()
    try:
        padded = decryptor.update(raw[_BLOCK:]) + decryptor.finalize()
        secret = (unpadder.update(padded) + unpadder.finalize()).decode().strip()
    except ValueError:  # wrong padding or not UTF-8: encrypted with another key
        raise UndecryptableError(marked=marked) from None
    # Secrets are sent in a header, so unprintable text is the result of a wrong key. Blanks are
    # stripped: headers lose them, and requests rejects leading ones.
    if not secret or not secret.isprintable():
        raise UndecryptableError(marked=marked)
    return secret


def _base64(text: str) -> bytes:
    """Decode base64 with or without padding; empty if it is invalid."""
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


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
