"""Settings of both programs, from the environment, Zapwatch's ``.env`` and PixelHub's."""

from zapwatch.config.files import hook_link, parse_env, parse_pixelhub_env, read_secrets
from zapwatch.config.load import collect, load, merge, parse
from zapwatch.config.readers import Listen, MessageSourceKind, SettingsError, SilenceMode
from zapwatch.config.report import Report, compare, describe
from zapwatch.config.settings import SECRETS, GatewaySettings, Settings, Sources

__all__ = [
    "SECRETS",
    "GatewaySettings",
    "Listen",
    "MessageSourceKind",
    "Report",
    "Settings",
    "SettingsError",
    "SilenceMode",
    "Sources",
    "collect",
    "compare",
    "describe",
    "hook_link",
    "load",
    "merge",
    "parse",
    "parse_env",
    "parse_pixelhub_env",
    "read_secrets",
]
