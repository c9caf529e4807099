"""The settings of both programs: from the environment, then from an ``.env`` file as PixelHub's."""

from zapwatch.config.diff import Changes, compare
from zapwatch.config.gateway import GatewaySettings, MessageSourceKind, SilenceMode
from zapwatch.config.readers import (
    SECRETS,
    Listen,
    SettingsError,
    parse_env,
    read_env_file,
    read_secrets,
)
from zapwatch.config.settings import Settings, load, parse

__all__ = [
    "SECRETS",
    "Changes",
    "GatewaySettings",
    "Listen",
    "MessageSourceKind",
    "Settings",
    "SettingsError",
    "SilenceMode",
    "compare",
    "load",
    "parse",
    "parse_env",
    "read_env_file",
    "read_secrets",
]
