"""The settings of both programs: from the environment, then from an ``.env`` file as PixelHub's."""

from whatsapp.settings.changes import Changes, compare
from whatsapp.settings.env_file import SECRETS, parse_env, read_env_file, read_secrets
from whatsapp.settings.gateway import GatewaySettings, SilenceMode
from whatsapp.settings.messages import MessageSource
from whatsapp.settings.reader import Listen, SettingsError
from whatsapp.settings.settings import Settings, load, parse

__all__ = [
    "SECRETS",
    "Changes",
    "GatewaySettings",
    "Listen",
    "MessageSource",
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
