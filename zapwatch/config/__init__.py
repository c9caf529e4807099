"""The settings of both programs: from the environment, then from an ``.env`` file as PixelHub's."""

from zapwatch.config.diff import Changes, compare
from zapwatch.config.files import parse_env, read_env_file, read_secrets
from zapwatch.config.gateway import MessageSourceKind, SilenceMode
from zapwatch.config.load import load, parse
from zapwatch.config.readers import Listen, SettingsError
from zapwatch.config.settings import SECRETS, GatewaySettings, Settings

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
