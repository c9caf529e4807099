"""Reads ``.env`` files, and the files that hold one secret each."""

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
    """Return the values of an ``.env`` text as python-dotenv reads it, without interpolation.

    Raises SettingsError at a line that is none: what it would be taken for is not to be guessed.
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
    """Return the ``KEY=value`` lines of an ``.env`` text by PixelHub's rules.

    One pair of surrounding quotes is stripped; ``$``, ``#`` and backslashes in a value are literal.
    A line that begins with ``#`` or has no ``=`` is none; of two with the same key the first
    counts.
    """
    values: dict[str, str] = {}
    # Not splitlines(): that would also split at characters that a password may hold.
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
    """Return the text of an ``.env`` file that ``option`` names; raise SettingsError.

    Bytes that are no UTF-8, as in a file in Latin-1, are surrogates in it.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        raise SettingsError(f"{option}: there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {_why(error)}") from None
    # As Python reads any text: a line may end as on Windows.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_own_env(text: str, path: str) -> dict[str, str]:
    """Return the values of Zapwatch's own ``.env``, which must be UTF-8; raise SettingsError."""
    if not is_utf8(text):
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8 ({_OTHER_KIND})")
    return parse_env(text, path)


def is_utf8(text: str) -> bool:
    """Whether all bytes of a text were UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or "no such name"


def read_secrets(
    values: Mapping[str, str], called: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the values, with each secret that is in a file read from there; raise SettingsError.

    One line end after the secret is not part of it; everything else in the file is. Errors name
    some settings as ``called`` says.
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
    """Return the secret that is in the file which ``setting`` names; raise SettingsError."""
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
