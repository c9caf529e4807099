"""Turns texts into the settings of both programs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from zapwatch.config.files import read_env_file, read_secrets
from zapwatch.config.gateways_yaml import read_gateways
from zapwatch.config.load_gateway import fill, read_gateway
from zapwatch.config.readers import Reader, SettingsError
from zapwatch.config.settings import BY_NAME, GatewaySettings, Settings


def load(env_file: str | None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings; raise SettingsError.

    A value in the environment wins over the file, an empty one does not count. ``env_file`` None
    means ``./.env`` where there is one; a file that was named must be there. A secret's file is
    read where it is named, so that one in the environment wins over a value in ``env_file``.
    """
    environment = os.environ if environ is None else environ
    values = read_secrets(read_env_file(env_file))
    values.update(read_secrets({k: v for k, v in environment.items() if v}))
    return parse(values)


def parse(values: Mapping[str, str]) -> Settings:
    """Return the settings that ``values`` hold; raise SettingsError at the first that is wrong."""
    read = Reader(values)
    floor_minutes, ceiling_hours = _silence_bounds(read)
    return fill(
        Settings,
        read,
        lambda field: BY_NAME[field.upper()],
        gateways=_gateways(read, values),
        silence_floor_minutes=floor_minutes,
        silence_ceiling_hours=ceiling_hours,
    )


def _gateways(read: Reader, values: Mapping[str, str]) -> tuple[GatewaySettings, ...]:
    file = BY_NAME["GATEWAYS_FILE"].read(read)
    if file:
        return read_gateways(file, values)
    one = read_gateway(
        read,
        name=BY_NAME["WPP_GATEWAY_NAME"].read(read),
        type_="wrapper",
        silence_state_file=BY_NAME["SILENCE_STATE_FILE"].read(read),
    )
    return (one,)


def _silence_bounds(read: Reader) -> tuple[float, float]:
    floor: float = BY_NAME["SILENCE_FLOOR_MINUTES"].read(read)
    ceiling: float = BY_NAME["SILENCE_CEILING_HOURS"].read(read)
    if floor > ceiling * 60:
        raise SettingsError(
            f"SILENCE_FLOOR_MINUTES must be no more than SILENCE_CEILING_HOURS, not {floor:g} "
            f"minutes against {ceiling:g} hours"
        )
    return floor, ceiling
