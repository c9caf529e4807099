"""Parses the settings of gateways, from an ``.env`` or from ``gateways.yaml``.

Each entry of ``gateways.yaml`` is read like an ``.env`` with shorter names; for missing keys, the
values of the ``.env`` apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from sqlalchemy import URL

from zapwatch.channels import NamedChannel, channel_key, is_usable_id
from zapwatch.config.files import UndecryptableError, decrypt, read_secrets, secret_in
from zapwatch.config.readers import (
    MessageSourceKind,
    Reader,
    ReplayMode,
    SettingsError,
    SilenceMode,
    UniqueKeys,
    read_yaml,
)
from zapwatch.config.settings import (
    BY_KEY,
    BY_NAME,
    ONE_GATEWAY,
    GatewaySettings,
    ProbeSettings,
    Setting,
)
from zapwatch.gateways import BEARERS, NAMED_CHANNELS, PUBLIC_URLS, TYPES

if TYPE_CHECKING:
    from zapwatch.gateways.declaration import Declaration

_Values = TypeVar("_Values")

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108
"""Socket paths of a server on this machine: Debian, Red Hat, and MySQL's default."""

_ONLY_HERE = ("channels", "requests_per_month")
"""Keys for gateways whose channels are listed here; an ``.env`` cannot set them."""

_CHANNEL_KEYS = ("name", "secret", "secret_file", "id")
_FEWEST_REQUESTS = 100  # per month and channel: the least that suffices for repairs
_MOST_REQUESTS = 999_999_999

KEYS = frozenset(
    {
        "name",
        "type",
        *_ONLY_HERE,
        *BY_KEY,
        *(f"{row.key}_file" for row in BY_KEY.values() if row.secret),
    }
)
"""All keys of an entry."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def fill(
    of: type[_Values], read: Reader, row: Callable[[str], Setting], **known: object
) -> _Values:
    """Build an instance; ``row`` returns the setting to read for each field outside ``known``."""
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
    said: Mapping[str, tuple[str, str]] | None = None,
    declaration: Declaration | None = None,
) -> GatewaySettings:
    """Return a gateway's settings, read by their names in an ``.env``; raise SettingsError.

    ``channels`` have their secrets as written, perhaps encrypted; ``said`` is the text and the
    origin of each key that gateways.yaml sets.
    """
    # Read first, so that a missing URL is the first error.
    base_url = BY_KEY["url"].read(read)
    in_use = type_ in BEARERS or (declaration is not None and declaration.auth.in_authorization)
    if in_use and BY_KEY["user"].read(read):
        raise read.wrong(
            "WPP_GATEWAY_USER",
            f"cannot be with the type {type_}, whose secret needs the same header",
        )
    replay: ReplayMode = BY_KEY["replay"].read(read)
    if replay is ReplayMode.AUTO and not BY_KEY["replay_url"].read(read):
        raise read.wrong(
            "MESSAGE_REPLAY", f"is auto, and {read.called('MESSAGE_REPLAY_URL')} is not set"
        )
    secret = "" if channels else _secret(read, BY_KEY["secret"].read(read), type_)
    if declaration is not None and declaration.holds(secret.rpartition(":")[2]):
        raise read.wrong(
            "WPP_GATEWAY_SECRET",
            f"is part of a call of the type {type_}: only its auth may carry it",
        )
    messages, log_url, log_error = _messages(read)
    return fill(
        GatewaySettings,
        read,
        BY_KEY.__getitem__,
        name=name,
        type=type_,
        base_url=base_url,
        secret=secret,
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
    """Return the message source, the URL of its log if it is one, and the error in that URL."""
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
        # PixelHub stores its wrapper's secret; other gateways' only with the encryption mark.
        if type_ == "wrapper" or error.marked:
            raise SettingsError(
                f"{label} looks encrypted, and INFRA_SECRET_KEY does not decrypt it: is it the one "
                "that PixelHub uses? (If the secret is plain, put plain: before it)"
            ) from None
        secret = stored
    if not secret.isascii():
        raise SettingsError(
            f"{label} decrypts to characters that are not allowed in "
            "an HTTP header: is INFRA_SECRET_KEY the one that PixelHub uses?"
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


def read_gateways(path: str, values: Mapping[str, str]) -> tuple[GatewaySettings, ...]:
    """Return the gateways of a file; raise SettingsError.

    ``values`` are the settings of the ``.env``, in which secrets from files are already read.
    """
    for name in ONE_GATEWAY:
        if values.get(name, "").strip():
            raise SettingsError(
                f"{name} and GATEWAYS_FILE are both set: name all gateways in {path}, and remove "
                f"{' and '.join(ONE_GATEWAY)}"
            )
    shared = {name: value for name, value in values.items() if name not in ONE_GATEWAY}
    gateways: dict[str, GatewaySettings] = {}
    entries, types = _entries(path)
    for number, entry in enumerate(entries, 1):
        gateway = _gateway(path, number, entry, shared, types)
        if gateway.name in gateways:
            raise SettingsError(f"{path}: two gateways are named {gateway.name}")
        gateways[gateway.name] = gateway
    return tuple(gateways.values())


def _entries(path: str) -> tuple[list[Any], Mapping[str, Declaration]]:
    """Return a file's entries, and the user-defined types of its ``types_file``."""
    read = read_yaml("GATEWAYS_FILE", Path(path), _Loader)
    entries = read.get("gateways") if isinstance(read, dict) else None
    if not isinstance(entries, list) or not entries:
        raise SettingsError(f"{path} must begin with gateways: and list them, each with a -")
    _check_known(path, read, ("gateways", "types_file"))
    return entries, _types(path, read["types_file"]) if "types_file" in read else {}


def _check_known(where: str, keys: Iterable[Any], known: Sequence[str]) -> None:
    for key in keys:
        if key not in known:
            raise SettingsError(f"{where}: {key!r} is not known; known: {', '.join(known)}")


def _types(path: str, file: Any) -> Mapping[str, Declaration]:
    # A late import: only a types_file needs it.
    from zapwatch.gateways.declaration import read_file  # noqa: PLC0415

    types = read_file(Path(_text(f"{path}: types_file", file)))
    for name in types:
        if name in TYPES:
            raise SettingsError(f"{file}: {name} is a type that Zapwatch has; choose another name")
    return types


class _Loader(UniqueKeys, yaml.BaseLoader):
    """Loader that keeps every value as text, like an ``.env``: 012 stays 012, and no stays no."""


def _gateway(
    path: str,
    number: int,
    entry: Any,
    shared: Mapping[str, str],
    types: Mapping[str, Declaration],
) -> GatewaySettings:
    where = f"{path}, gateway {number}"
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must have keys: name, type, url and secret at least")
    name = entry.get("name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingsError(
            f"{where}: name must be 1 to 63 letters, digits, dots, - or _, not {name!r}"
        )
    where = f"{path}, gateway {name}"
    _check_known(where, entry, sorted(KEYS))
    kind = entry.get("type", "")
    if isinstance(kind, str) and kind in PUBLIC_URLS:
        entry = {"url": PUBLIC_URLS[kind], **entry}
    called = {
        row.name: f"{where}: {row.key}" for row in BY_KEY.values() if row.secret or row.key in entry
    }
    texts = _as_settings(where, entry, called)
    read = Reader({**shared, **texts}, called)
    if not isinstance(kind, str) or kind not in {*TYPES, *types}:
        known = ", ".join((*TYPES, *types))
        raise SettingsError(f"{where}: type must be one of {known}, not {kind!r}")
    named = kind in NAMED_CHANNELS
    _check_keys(where, entry, read, kind, named=named)
    state: Path = BY_NAME["SILENCE_STATE_FILE"].read(read)
    channels = _channels(where, entry.get("channels")) if named else ()
    return read_gateway(
        read,
        name=name,
        type_=kind,
        silence_state_file=state.with_stem(f"{state.stem}-{name}"),
        channels=channels,
        declaration=types.get(kind),
        requests_per_month=_requests_per_month(where, entry, len(channels)),
        said={
            key: (texts[row.name], _origin(path, entry, key))
            for key, row in BY_KEY.items()
            if row.name in texts
        },
    )


def _check_keys(
    where: str, entry: Mapping[str, Any], read: Reader, kind: str, *, named: bool
) -> None:
    """Raise SettingsError if a key is missing or belongs to other types of gateways."""
    for key in ("secret", "secret_file") if named else _ONLY_HERE:
        if key in entry:
            instead = ": each of its channels has a secret of its own" if named else ""
            raise SettingsError(f"{where}: {key} is not for the type {kind}{instead}")
    for key in ("url",) if named else ("url", "secret"):
        if not read.text(BY_KEY[key].name, ""):
            raise SettingsError(f"{where}: {key} is missing")


def _requests_per_month(where: str, entry: Mapping[str, Any], channels: int) -> int | None:
    if "requests_per_month" not in entry:
        return None
    label = f"{where}: requests_per_month"
    read = Reader({label: _text(label, entry["requests_per_month"])})
    return read.integer(label, least=_FEWEST_REQUESTS * channels, most=_MOST_REQUESTS)


def _channels(where: str, entries: Any) -> tuple[NamedChannel, ...]:
    """Return an entry's channels, their secrets as written, perhaps encrypted."""
    if not isinstance(entries, list) or not entries:
        raise SettingsError(
            f"{where}: channels must list them, each with a -, name and secret or secret_file"
        )
    channels: list[NamedChannel] = []
    names: set[str] = set()
    for number, entry in enumerate(entries, 1):
        channel = _channel(f"{where}, channel {number}", entry)
        own = {channel_key(name) for name in (channel.name, channel.id) if name}
        for what, taken in (
            ("name or id", not own.isdisjoint(names)),
            ("secret", channel.secret in {one.secret for one in channels}),
        ):
            if taken:
                raise SettingsError(f"{where}, channel {number}: another one has this {what}")
        names |= own
        channels.append(channel)
    return tuple(channels)


def _channel(where: str, entry: Any) -> NamedChannel:
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must have keys: name, and secret or secret_file")
    _check_known(where, entry, _CHANNEL_KEYS)
    for key, value in entry.items():
        if not _text(f"{where}: {key}", value).strip():
            raise SettingsError(f"{where}: {key} is empty")
    name, other_name, file = (entry.get(key) for key in ("name", "id", "secret_file"))
    if name is None:
        raise SettingsError(f"{where}: name is missing")
    for one in filter(None, (name, other_name)):
        if not is_usable_id(one):
            raise SettingsError(f"{where}: {one!r} cannot be a channel's name")
    if (file is None) == ("secret" not in entry):
        raise SettingsError(f"{where}: one of secret and secret_file is needed")
    label = f"{where}: secret"
    secret = entry["secret"] if file is None else secret_in(file.strip(), f"{label}_file")
    return NamedChannel(name, Reader({label: secret}).header(label), other_name)


def _origin(path: str, entry: Mapping[str, Any], key: str) -> str:
    return path if key in entry else f"{entry[f'{key}_file'].strip()}, which {path} names"


def _as_settings(where: str, entry: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, str]:
    """Translate an entry to the names and values of an ``.env``."""
    values = {}
    for key, row in BY_KEY.items():
        if key in entry:
            values[row.name] = _text(f"{where}: {key}", entry[key], row)
        if row.secret and f"{key}_file" in entry:
            values[f"{row.name}_FILE"] = _text(f"{where}: {key}_file", entry[f"{key}_file"])
    return read_secrets(values, called)


def _text(label: str, value: Any, row: Setting | None = None) -> str:
    if isinstance(value, str):
        return value
    by_channel = row.by_channel if row else ""
    if row and row.listed and isinstance(value, list):
        if all(isinstance(one, str) and "," not in one for one in value):
            return ",".join(value)
        raise SettingsError(f"{label} must be a list of channels")
    if by_channel and isinstance(value, dict):
        if all(isinstance(one, str) and "," not in channel for channel, one in value.items()):
            return ",".join(f"{channel}={one}" for channel, one in value.items())
        raise SettingsError(f"{label} must be {by_channel}")
    raise SettingsError(f"{label} must be one value, not a list or more keys")
