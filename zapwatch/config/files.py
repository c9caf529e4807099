"""Reads ``.env`` files, and the files that hold one secret each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from zapwatch.config.readers import SettingsError, unreadable
from zapwatch.config.settings import SECRETS

DEFAULT_ENV_FILE = ".env"


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
