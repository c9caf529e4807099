"""Turns texts into the settings of one gateway, row by row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL

from zapwatch.channels import NamedChannel
from zapwatch.config.gateway import MessageSourceKind, SilenceMode
from zapwatch.config.readers import Reader, SettingsError, UndecryptableError, decrypt
from zapwatch.config.settings import BY_KEY, BY_NAME, GatewaySettings, ProbeSettings, Setting
from zapwatch.gateways import BEARERS

if TYPE_CHECKING:
    from zapwatch.gateways.declaration import Declaration

_Values = TypeVar("_Values")

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108
"""Where a server on this machine has its socket: Debian's way, Red Hat's, and MySQL's own."""


def fill(
    of: type[_Values], read: Reader, row: Callable[[str], Setting], **known: object
) -> _Values:
    """Return the values of a type; ``row`` finds the setting of each field that is not known."""
    names = [field.name for field in fields(of) if field.name not in known]  # type: ignore[arg-type]
    return of(**known, **{name: row(name).read(read) for name in names})


def read_gateway(
    read: Reader,
    *,
    name: str,
    type_: str,
    silence_state_file: Path,
    channels: Sequence[NamedChannel] = (),
    requests_per_month: int | None = None,
    said: Mapping[str, str] | None = None,
    declaration: Declaration | None = None,
) -> GatewaySettings:
    """Return a gateway's settings by the names that they have in an ``.env``.

    ``channels`` have their secrets as they stand, ``said`` has the origin of each key that
    gateways.yaml has of it. Raises SettingsError.
    """
    # First of all: without it nothing else matters.
    base_url = BY_KEY["url"].read(read)
    in_use = type_ in BEARERS or (declaration is not None and declaration.auth.in_authorization)
    if in_use and BY_KEY["user"].read(read):
        raise read.wrong(
            "WPP_GATEWAY_USER",
            f"cannot be with the type {type_}, whose secret needs the same header",
        )
    messages, log_url, log_error = _messages(read)
    return fill(
        GatewaySettings,
        read,
        BY_KEY.__getitem__,
        name=name,
        type=type_,
        base_url=base_url,
        secret="" if channels else _secret(read, BY_KEY["secret"].read(read), type_),
        channels=tuple(
            replace(channel, secret=_secret(read, channel.secret, type_, f" of {channel.name}"))
            for channel in channels
        ),
        requests_per_month=requests_per_month,
        declaration=declaration,
        messages=messages,
        message_log_url=log_url,
        message_log_error=log_error,
        silence_mode=_silence_mode(read, messages),
        silence_state_file=silence_state_file,
        said=said or {},
        probe=fill(
            ProbeSettings,
            read,
            lambda field: BY_KEY[f"probe_{field}"],
            kind=BY_KEY["probe"].read(read),
        ),
    )


def _messages(read: Reader) -> tuple[MessageSourceKind, URL | None, str]:
    """Return the source that an ``.env`` names; where it is the log, its URL, or what is wrong."""
    source: MessageSourceKind = BY_KEY["messages"].read(read)
    if source is not MessageSourceKind.LOG:
        return source, None, ""
    try:
        log_url = _message_log_url(read)
    except SettingsError as error:
        return source, None, str(error)
    return (MessageSourceKind.NONE if log_url is None else source), log_url, ""


def _message_log_url(read: Reader) -> URL | None:
    def value(name: str) -> Any:
        return BY_NAME[name].read(read)

    text = read.text("MESSAGE_LOG_URL", "").lower()
    if text:
        return None if text == "none" else value("MESSAGE_LOG_URL")
    if not value("DB_HOST"):
        raise SettingsError(
            "DB_HOST is not set: name the message log's database (DB_HOST, DB_NAME, DB_USER, "
            "DB_PASS) or MESSAGE_LOG_URL; or choose another MESSAGE_SOURCE, such as events or none"
        )
    host = value("DB_HOST")
    sockets = {"unix_socket": SOCKETS} if host == "localhost" else {}
    return URL.create(
        "mysql+pymysql",
        username=value("DB_USER"),
        password=value("DB_PASS"),
        host=host,
        port=value("DB_PORT"),
        database=value("DB_NAME"),
        query={"charset": value("DB_CHARSET"), **sockets},
    )


def _secret(read: Reader, stored: str, type_: str, whose: str = "") -> str:
    label = read.called("WPP_GATEWAY_SECRET") + whose
    try:
        secret = decrypt(stored, BY_NAME["INFRA_SECRET_KEY"].read(read))
    except UndecryptableError as error:
        # PixelHub keeps the secret of its wrapper, and of no other gateway but by its mark.
        if type_ == "wrapper" or error.marked:
            raise SettingsError(
                f"{label} looks encrypted, and INFRA_SECRET_KEY does not decrypt it: is it the one "
                "that PixelHub uses? (If the secret is plain, put plain: before it)"
            ) from None
        secret = stored
    if not secret.isascii():
        raise SettingsError(
            f"{label} decrypts to something that no HTTP header can "
            "carry: is INFRA_SECRET_KEY the one that PixelHub uses?"
        )
    return secret


def _silence_mode(read: Reader, messages: MessageSourceKind) -> SilenceMode:
    mode: SilenceMode = BY_KEY["silence_mode"].read(read)
    if mode is SilenceMode.ADAPTIVE and not messages.has_echoes:
        raise read.wrong(
            "SILENCE_MODE",
            "is adaptive, which learns from a message log or from events: it cannot learn from the "
            f"message source {messages}",
        )
    return mode
