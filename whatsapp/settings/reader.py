"""Reads single settings from texts; what is wrong with one is said in one line that names it."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from urllib.parse import urlsplit

from pymysql.charset import charset_by_name
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from whatsapp.channels import channel_key


class SettingsError(Exception):
    """A setting is missing or unreadable. ``str()`` is one line: which, and what to do."""


def unreadable(setting: str, path: str, error: OSError | ValueError) -> SettingsError:
    """Return the error for a file that ``setting`` names."""
    why = getattr(error, "strerror", None) or "no such name"
    return SettingsError(f"{setting}: {path} cannot be read: {why}")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a program listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Reader:
    """Reads single settings; each method raises SettingsError with the setting's name."""

    def __init__(
        self, values: Mapping[str, str], called: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Read from texts by the settings' names; errors name some as ``called`` says."""
        self._values = values
        self._called = called

    def called(self, name: str) -> str:
        """Return how the operator knows a setting."""
        return self._called.get(name, name)

    def wrong(self, name: str, text: str) -> SettingsError:
        """Return the error that says of a setting what is wrong and what to do."""
        return SettingsError(f"{self.called(name)} {text}")

    def text(self, name: str, default: str | None = None) -> str:
        """Return the text without blanks around it, or the default."""
        value = self._values.get(name, "").strip() or default
        if value is None:
            raise self.wrong(name, "is not set: put it into .env or the environment")
        return value

    def verbatim(self, name: str) -> str:
        """Return the text as it stands, blanks included; empty where it is not set."""
        return self._values.get(name, "")

    def header(self, name: str, default: str | None = None) -> str:
        """Return a text that an HTTP header can carry."""
        value = self.text(name, default)
        if not value.isascii() or not value.isprintable():
            raise self.wrong(name, "holds characters that no HTTP header can carry")
        return value

    def base_url(self, name: str, default: str | None = None) -> str:
        """Return an http(s) URL without a slash at its end."""
        value = self.text(name, default)
        form = f"{self.called(name)} must look like {default or 'https://gateway.example.com:8443'}"
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
        """Return an IP address, None where none is set."""
        value = self.text(name, "")
        try:
            return str(ip_address(value)) if value else None
        except ValueError:
            raise self.wrong(name, f"must be an IP address, not {value!r}") from None

    def certificates(self, name: str) -> str | None:
        """Return the path of a file of certificates in PEM form, None where none is set."""
        path = self.text(name, "")
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

    def number(self, name: str, default: float, *, above: float | None = None) -> float:
        """Return a number, 0 or more, or more than ``above``."""
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (above is not None and value <= above):
            least = "0 or more" if above is None else f"more than {above:g}"
            raise self.wrong(name, f"must be a number, {least}; it is {text!r}")
        return value

    def integer(self, name: str, default: int, *, least: int, most: int = 1000) -> int:
        """Return a whole number."""
        text = self.text(name, str(default))
        if not _is_short_number(text) or not least <= int(text) <= most:
            raise self.wrong(name, f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a yes or no."""
        text = self.text(name, str(default)).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        raise self.wrong(name, f"must be true or false, not {text!r}")

    def listen(self, name: str, default: str) -> Listen:
        """Return where to listen."""
        text = self.text(name, default)
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not _is_short_number(port) or int(port) > 65535:
            raise self.wrong(name, f"must be HOST:PORT such as {default}, not {text!r}")
        return Listen(host, int(port))

    def hours_by_channel(self, name: str) -> dict[str, float]:
        """Return hours by channel key."""
        hours = {}
        for item in filter(None, (i.strip() for i in self.text(name, " ").split(","))):
            channel, _, value = item.rpartition("=")
            try:
                parsed = float(value)
            except ValueError:
                parsed = math.nan
            if not channel_key(channel) or not math.isfinite(parsed) or parsed <= 0:
                raise self.wrong(
                    name, f"must be channel=hours, as in imobsites=72,loja=1.5, not {item!r}"
                )
            hours[channel_key(channel)] = parsed
        return hours

    def charset(self, name: str, default: str) -> str:
        """Return a character set that MySQL knows."""
        text = self.text(name, default).lower()
        if charset_by_name(text) is None:
            raise self.wrong(name, f"must be a MySQL character set such as {default}")
        return text

    def database(self, name: str, default: str | None = None) -> URL:
        """Return the URL of a database, with the driver that is used for it."""
        try:
            url = make_url(self.text(name, default))
        except (ArgumentError, ValueError):
            # The text itself may hold a password: it is not repeated.
            raise self.wrong(
                name,
                "must be an SQLAlchemy URL such as sqlite:///var/state.sqlite3 or "
                "mysql+pymysql://user:password@host/name",
            ) from None
        backend = url.get_backend_name()
        if backend not in {"sqlite", "mysql", "mariadb"}:
            raise self.wrong(name, f"must be a sqlite, mysql or mariadb URL, not {backend}")
        return url.set(drivername="sqlite" if backend == "sqlite" else f"{backend}+pymysql")


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
