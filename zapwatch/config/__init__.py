"""The settings of both programs: from the environment, Zapwatch's ``.env``, then PixelHub's."""

from zapwatch.config.diff import Changes, compare
from zapwatch.config.files import parse_env, parse_pixelhub_env, read_secrets
from zapwatch.config.gateway import MessageSourceKind, SilenceMode
from zapwatch.config.load import Sources, collect, load, parse
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
    "Sources",
    "collect",
    "compare",
    "load",
    "parse",
    "parse_env",
    "parse_pixelhub_env",
    "read_secrets",
]
