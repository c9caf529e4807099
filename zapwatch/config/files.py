"""Files of settings: ``.env``, secrets, TLS and passwords of the web server; links to the hook."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

from dotenv.parser import parse_stream

from zapwatch.config.readers import (
    Listen,
    SettingsError,
    read_bounded,
    read_yaml,
    refuse_pipe,
    unreadable,
)
from zapwatch.config.settings import SECRETS, Settings

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


def is_there(path: str | Path, option: str) -> bool:
    """Whether the file that ``option`` names exists; raise SettingsError if that is unknown."""
    try:
        return Path(path).exists()
    except OSError as error:
        raise unreadable(option, str(path), error) from None


def read_env_text(path: str, option: str) -> str:
    """Return the text of the ``.env`` file that ``option`` names; raise SettingsError.

    Bytes that are not UTF-8, as in a Latin-1 file, become surrogates.
    """
    try:
        text = read_bounded(path).decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        raise SettingsError(f"{option}: there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise unreadable(option, path, error) from None
    # Universal newlines, as in Python's text mode.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_own_env(text: str, path: str) -> dict[str, str]:
    """Parse Zapwatch's own ``.env``, which must be UTF-8; raise SettingsError."""
    if any("\udc80" <= character <= "\udcff" for character in text):
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8 ({_OTHER_KIND})")
    return parse_env(text, path)


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
        text = read_bounded(path).decode()
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
    # They take 7 MiB, and most secrets are plain.
    from cryptography.hazmat.primitives import padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

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


_SETTING = "WEB_CONFIG_FILE"
_SECTIONS = {"tls_server_config", "basic_auth_users"}
_TLS_KEYS = {"cert_file", "key_file", "client_ca_file", "client_auth_type", "min_version"}
_CLIENT_AUTH = {"": False, "NoClientCert": False, "RequireAndVerifyClientCert": True}
_VERSIONS = {"": "tls1.2", "TLS12": "tls1.2", "TLS13": "tls1.3"}
_HASHES = ("$2a$", "$2b$", "$2y$")


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key, and the CA of client certificates if they are required."""

    certificate: Path
    key: Path
    client_ca: Path | None
    min_version: str


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Content of WEB_CONFIG_FILE."""

    tls: Tls | None = None
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """bcrypt hashes by user."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that TLS depends on."""
        if self.tls is None:
            return ()
        return tuple(filter(None, (self.tls.certificate, self.tls.key, self.tls.client_ca)))


def read_web_config(path: Path | None) -> WebConfig:
    """Parse the file, empty if ``path`` is None; raise SettingsError."""
    if path is None:
        return WebConfig()
    sections = _mapping(path, "the file", read_yaml(_SETTING, path), _SECTIONS)
    tls = sections.get("tls_server_config")
    return WebConfig(
        None if tls is None else _tls(path, tls), _users(path, sections.get("basic_auth_users"))
    )


def hook_link(settings: Settings, path: str = "/", **query: str) -> str:
    """Return the URL of one of the hook's pages for people.

    ``path`` begins with a slash and is unquoted, as in ``hook_link(settings, "/channels/loja",
    gateway="wpp")``. Raises SettingsError if the scheme depends on WEB_CONFIG_FILE and that is
    invalid.
    """
    arguments = f"?{urlencode(query)}" if query else ""
    address = settings.hook_external_url
    address = address or local_address(settings, settings.hook_listen, socket.gethostname())
    return f"{address}{quote(path)}{arguments}"


def local_address(settings: Settings, listen: Listen, machine: str = "") -> str:
    """Return the URL of a server for programs on this machine; raise SettingsError.

    ``machine`` is the host's name in it instead of loopback, if the server listens everywhere.
    """
    scheme = "https" if read_web_config(settings.web_config_file).tls else "http"
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    if listen.host in loopback:
        listen = replace(listen, host=machine or loopback[listen.host])
    return f"{scheme}://{listen}"


def _tls(path: Path, content: Any) -> Tls:
    given = _mapping(path, "tls_server_config", content, _TLS_KEYS)
    texts = {key: str(value) for key, value in given.items()}
    verify = _CLIENT_AUTH.get(texts.get("client_auth_type", ""))
    version = _VERSIONS.get(texts.get("min_version", ""))
    if verify is None:
        raise _wrong(path, f"client_auth_type must be {' or '.join(filter(None, _CLIENT_AUTH))}")
    if version is None:
        raise _wrong(path, f"min_version must be {' or '.join(filter(None, _VERSIONS))}")
    certificate, key, ca = (
        path.parent / texts.get(name, "") for name in ("cert_file", "key_file", "client_ca_file")
    )
    try:
        for file in (certificate, key, ca):
            refuse_pipe(file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if verify:
            context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise _wrong(path, f"the certificates cannot be used: {error}") from None
    return Tls(certificate, key, ca if verify else None, version)


def _users(path: Path, content: Any) -> dict[str, bytes]:
    users = _mapping(path, "basic_auth_users", content or {}, None)
    for name, password in users.items():
        if ":" in name or not isinstance(password, str) or not password.startswith(_HASHES):
            raise _wrong(path, f"basic_auth_users needs a hash of bcrypt for {name[:63]!r}")
    return {name: password.encode() for name, password in users.items()}


def _mapping(path: Path, what: str, content: Any, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise _wrong(path, f"{what} must have keys")
    unknown = sorted(content.keys() - known) if known is not None else []
    if unknown:
        raise _wrong(path, f"{what} has the key {unknown[0][:63]!r}, which is not supported")
    return content


def _wrong(path: Path, what: str) -> SettingsError:
    return SettingsError(f"{_SETTING}: {path}: {what}")
