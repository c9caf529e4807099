"""TLS and passwords of the web server, in Prometheus' format, and links to the hook."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml

from zapwatch.config.readers import Listen, SettingsError, is_nested_too_deep, unreadable
from zapwatch.config.settings import Settings

_SETTING = "WEB_CONFIG_FILE"
_SECTIONS = {"tls_server_config", "basic_auth_users"}
_TLS_KEYS = {"cert_file", "key_file", "client_ca_file", "client_auth_type", "min_version"}
_CLIENT_AUTH = {"": False, "NoClientCert": False, "RequireAndVerifyClientCert": True}
_VERSIONS = {"": "tls1.2", "TLS12": "tls1.2", "TLS13": "tls1.3"}
_HASHES = ("$2a$", "$2b$", "$2y$")
_MOST_BYTES = 1024 * 1024


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
    try:
        text = path.read_bytes()
        if len(text) > _MOST_BYTES or is_nested_too_deep(text):
            raise _wrong(path, "is too large, or its brackets nest too deep")
        content = yaml.safe_load(text)
    except (OSError, ValueError) as error:
        raise unreadable(_SETTING, str(path), error) from None
    except (yaml.YAMLError, RecursionError):
        raise _wrong(path, "is not YAML") from None
    sections = _mapping(path, "the file", content, _SECTIONS)
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
    return f"{settings.hook_external_url or _listening(settings)}{quote(path)}{arguments}"


def local_address(settings: Settings, listen: Listen) -> str:
    """Return the URL of a server for programs on this machine; raise SettingsError."""
    scheme = "https" if read_web_config(settings.web_config_file).tls else "http"
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return f"{scheme}://{replace(listen, host=loopback.get(listen.host, listen.host))}"


def _listening(settings: Settings) -> str:
    """Return the hook's URL, with the machine's name if it listens on all addresses."""
    where = settings.hook_listen
    scheme = "https" if read_web_config(settings.web_config_file).tls else "http"
    if where.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        return f"{scheme}://{socket.gethostname()}:{where.port}"
    return f"{scheme}://{where}"


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
