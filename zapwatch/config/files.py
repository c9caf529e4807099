"""Readers of ``.env`` files and of files with one secret each."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType

from dotenv.parser import parse_stream

from zapwatch.config.readers import SettingsError, unreadable
from zapwatch.config.settings import SECRETS

_OTHER_KIND = "is it PixelHub's own? then name it in PIXELHUB_ENV or --pixelhub-env"


def parse_env(text: str, file: str = ".env") -> dict[str, str]:
    """Parse an ``.env`` text by python-dotenv's rules, without interpolation.

    Raises SettingsError at an invalid line, which python-dotenv itself would skip.
    """
    values = {}
    for line in parse_stream(StringIO(text)):
        if line.error:
            raise SettingsError(
                f"{file}, line {line.original.line}: it is not KEY=value, or a quote is missing; "
                f"{_OTHER_KIND}"
            )
        if line.key is not None and line.value is not None:
            values[line.key] = line.value
    return values


def parse_pixelhub_env(text: str) -> dict[str, str]:
    """Parse an ``.env`` text by PixelHub's rules.

    One pair of surrounding quotes is stripped; ``$``, ``#`` and backslashes in a value are literal.
    Lines that begin with ``#`` or have no ``=`` are ignored; the first line of a key wins.
    """
    values: dict[str, str] = {}
    # splitlines() would also split at characters that a password may contain.
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key or key.startswith("#"):
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values.setdefault(key, value)
    return values


def read_env_text(path: str, option: str) -> str:
    """Return the text of the ``.env`` file that ``option`` names; raise SettingsError.

    Bytes that are not UTF-8, as in a Latin-1 file, become surrogates.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        raise SettingsError(f"{option}: there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {_why(error)}") from None
    # Universal newlines, as in Python's text mode.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_own_env(text: str, path: str) -> dict[str, str]:
    """Parse Zapwatch's own ``.env``, which must be UTF-8; raise SettingsError."""
    if not is_utf8(text):
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8 ({_OTHER_KIND})")
    return parse_env(text, path)


def is_utf8(text: str) -> bool:
    """Whether a text of read_env_text() was valid UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or "no such name"


def read_secrets(
    values: Mapping[str, str], called: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Replace each ``NAME_FILE`` by the secret in that file; raise SettingsError.

    One trailing line end is stripped. ``called`` maps settings to their names in errors.
    """
    read = dict(values)
    for name in SECRETS:
        path = read.pop(f"{name}_FILE", "").strip()
        if not path:
            continue
        label = called.get(name, name)
        file = f"{label}_file" if name in called else f"{label}_FILE"
        if read.get(name, "").strip():
            raise SettingsError(f"{label} and {file} are both set: remove one of them")
        read[name] = secret_in(path, file)
    return read


def secret_in(path: str, setting: str) -> str:
    """Return the secret in the file that ``setting`` names; raise SettingsError."""
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise SettingsError(f"{setting}: {path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise unreadable(setting, path, error) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise SettingsError(f"{setting}: {path} is empty")
    if "\n" in secret:
        raise SettingsError(
            f"{setting}: {path} has more than one line: it must hold the secret only"
        )
    return secret
