"""Loads the settings of both programs from the environment and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches

from zapwatch.channels import NamedChannel
from zapwatch.config.files import (
    is_there,
    parse_own_env,
    parse_pixelhub_env,
    read_env_text,
    read_secrets,
)
from zapwatch.config.load_gateways import fill, read_gateway, read_gateways
from zapwatch.config.readers import Reader, SettingsError
from zapwatch.config.settings import (
    BY_NAME,
    ONE_GATEWAY,
    PIXELHUB,
    SECRETS,
    GatewaySettings,
    Settings,
    Sources,
)
from zapwatch.gateways import NAMED_CHANNELS, PUBLIC_URLS

_log = logging.getLogger("settings")

DEFAULT_ENV_FILE = ".env"
ENVIRONMENT = "the environment"
_NAMES = (*BY_NAME, *(f"{name}_FILE" for name in SECRETS))
_CLOSE = 0.85  # similarity of a misspelt name, as difflib measures it


def load(
    env_file: str | None,
    environ: Mapping[str, str] | None = None,
    *,
    pixelhub_env: str | None = None,
    needs_log: bool = True,
    quiet: bool = False,
) -> Settings:
    """Load the settings, log ambiguous values; raise SettingsError.

    ``env_file`` None means ``./.env`` if it exists; a named file must exist. Without ``needs_log``,
    errors in the settings of a message log are ignored.
    """
    sources = collect(env_file, environ, pixelhub_env=pixelhub_env)
    settings = parse(sources.values, needs_log=needs_log)
    for notice in () if quiet else sources.notices:
        _log.warning("%s", notice)
    return replace(settings, sources=sources)


def merge(running: Settings, read: Settings) -> Settings:
    """Return the settings after a reload: new gateways, unchanged settings of the program."""
    program = {field.name.upper() for field in fields(Settings)}

    def merged(of: Callable[[Sources], Mapping[str, str]]) -> dict[str, str]:
        old = {name: text for name, text in of(running.sources).items() if name in program}
        new = {name: text for name, text in of(read.sources).items() if name not in program}
        return old | new

    sources = replace(
        read.sources, values=merged(lambda s: s.values), origins=merged(lambda s: s.origins)
    )
    return replace(running, gateways=read.gateways, sources=sources)


def parse(values: Mapping[str, str], *, needs_log: bool = True) -> Settings:
    """Parse all settings; raise SettingsError at the first invalid one."""
    read = Reader(values)
    gateways = _gateways(read, values)
    for gateway in gateways:
        if needs_log and gateway.message_log_error:
            raise SettingsError(gateway.message_log_error)
    settings = fill(
        Settings,
        read,
        lambda field: BY_NAME[field.upper()],
        gateways=gateways,
        sources=Sources(values, {}),
    )
    floor, ceiling = settings.silence_floor_minutes, settings.silence_ceiling_hours
    if floor > ceiling * 60:
        raise SettingsError(
            f"SILENCE_FLOOR_MINUTES must be no more than SILENCE_CEILING_HOURS, not {floor:g} "
            f"minutes against {ceiling:g} hours"
        )
    return settings


def _gateways(read: Reader, values: Mapping[str, str]) -> tuple[GatewaySettings, ...]:
    file = BY_NAME["GATEWAYS_FILE"].read(read)
    if file:
        return read_gateways(file, values)
    kind = BY_NAME["WPP_GATEWAY_TYPE"].read(read)
    name = BY_NAME["WPP_GATEWAY_NAME"].read(read)
    channels: tuple[NamedChannel, ...] = ()
    if kind in NAMED_CHANNELS:
        # The secret belongs to the single channel, which has the gateway's name.
        url = read.text("WPP_GATEWAY_BASE_URL", PUBLIC_URLS.get(kind))
        read = Reader({**values, "WPP_GATEWAY_BASE_URL": url})
        channels = (NamedChannel(name, BY_NAME["WPP_GATEWAY_SECRET"].read(read)),)
    one = read_gateway(
        read,
        name=name,
        type_=kind,
        silence_state_file=BY_NAME["SILENCE_STATE_FILE"].read(read),
        channels=channels,
    )
    return (one,)


def collect(
    env_file: str | None,
    environ: Mapping[str, str] | None = None,
    *,
    pixelhub_env: str | None = None,
) -> Sources:
    """Merge the values of the environment and files; raise SettingsError.

    Precedence: environment, Zapwatch's own file, PixelHub's file; empty values do not count.
    ``env_file`` None means ``./.env`` if it exists. ``NAME_FILE`` has the precedence of its source,
    so that one in the environment wins over ``NAME`` in a file.
    """
    environment = os.environ if environ is None else environ
    ours, own, notices = _own(env_file)
    set_ = {name: value for name, value in environment.items() if value}
    named = Reader({**own, **set_})
    theirs = pixelhub_env or BY_NAME["PIXELHUB_ENV"].read(named)
    layers = [(ours, own), (ENVIRONMENT, set_)]
    if theirs:
        option = "PIXELHUB_ENV" if pixelhub_env is None else "--pixelhub-env"
        text = read_env_text(theirs, option)
        values = parse_pixelhub_env(text)
        notices += _differences(theirs, text, values, is_own=False)
        if named.text("GATEWAYS_FILE", ""):
            # GATEWAYS_FILE lists all gateways; PixelHub's single one does not count.
            values = {k: v for k, v in values.items() if k.removesuffix("_FILE") not in ONE_GATEWAY}
        layers.insert(0, (theirs, values))
    if pixelhub_env:
        layers.append(("--pixelhub-env", {"PIXELHUB_ENV": pixelhub_env}))
    return _merge(layers, notices)


def _own(env_file: str | None) -> tuple[str, dict[str, str], list[str]]:
    """Return path, values and notices of Zapwatch's own file."""
    path = env_file or DEFAULT_ENV_FILE
    if env_file is None and not is_there(path, "--env-file"):
        return path, {}, []
    text = read_env_text(path, "--env-file")
    values = parse_own_env(text, path)
    notices = [
        f"{path}: {name} is not a setting; similar ones: {', '.join(similar)}"
        for name in values
        if name not in _NAMES and (similar := get_close_matches(name.upper(), _NAMES, 3, _CLOSE))
    ]
    return path, values, notices + _differences(path, text, values, is_own=True)


def _merge(layers: list[tuple[str, dict[str, str]]], notices: list[str]) -> Sources:
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for source, layer in layers:
        for name, value in read_secrets(layer).items():
            if value or name not in values:
                values[name] = value
                origins[name] = source
                file = layer.get(f"{name}_FILE", "").strip() if name in SECRETS else ""
                if file:
                    origins[name] = f"{file}, which {source} names"
    return Sources(values, origins, tuple(notices))


def _differences(path: str, text: str, values: Mapping[str, str], *, is_own: bool) -> list[str]:
    """Return a notice if a file looks like the other kind and its rules give other values."""
    seems_own = _seems_own(values)
    if seems_own is None or seems_own is is_own:
        return []
    read = parse_pixelhub_env(text) if is_own else _read_as_own(text)
    names = [
        name
        for name in dict.fromkeys((*values, *read))
        if name in _NAMES and values.get(name, "") != read.get(name, "")
    ]
    if not names:
        return []
    kinds = ("Zapwatch's own", "PixelHub's") if is_own else ("PixelHub's", "Zapwatch's own")
    means = "PIXELHUB_ENV or --pixelhub-env" if is_own else "--env-file"
    line = (
        f"{path} is read by {kinds[0]} rules, and {', '.join(names)} would be different by "
        f"{kinds[1]}: name the file with {means}, or write what both read alike (one line for a "
        "key, no comment behind a value, quotes around a value with # and no backslash in quotes)"
    )
    return [line]


def _seems_own(values: Mapping[str, str]) -> bool | None:
    """Whether a file is Zapwatch's own, judged by its names; None if they do not show it.

    PixelHub's file has names unknown to Zapwatch, or no names that only Zapwatch uses.
    """
    names = {name.removeprefix("export ") for name in values}
    known = names.intersection(_NAMES)
    if not known & PIXELHUB:
        return None
    return known == names and bool(known - PIXELHUB)


def _read_as_own(text: str) -> Mapping[str, str]:
    """Parse a text by Zapwatch's own rules; empty if it is invalid."""
    try:
        return parse_own_env(text, "")
    except SettingsError:
        return {}
