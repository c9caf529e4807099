"""From where it is known when a gateway's channels had messages."""

from __future__ import annotations

import enum

from sqlalchemy import URL

from whatsapp.settings.reader import Reader, SettingsError


class MessageSource(enum.StrEnum):
    """Who tells when a channel last had a message."""

    LOG = "log"
    """PixelHub's table ``webhook_raw_logs``."""
    EVENTS = "events"
    """The gateway itself, which posts its events to the exporter."""
    ACTIVITY = "activity"
    """The channel list, where the gateway reports activity or counts messages in it."""
    NONE = "none"
    """Nobody: a silent channel is not noticed."""


def read_message_source(read: Reader) -> tuple[MessageSource, URL | None]:
    """Return the source that an ``.env`` names, and the log's URL where that is the source."""
    text = read.text("MESSAGE_SOURCE", MessageSource.LOG)
    try:
        source = MessageSource(text.lower())
    except ValueError:
        known = ", ".join(MessageSource)
        raise read.wrong("MESSAGE_SOURCE", f"must be one of {known}, not {text!r}") from None
    if source is not MessageSource.LOG:
        return source, None
    log_url = _message_log_url(read)
    return (MessageSource.NONE if log_url is None else source), log_url


def _message_log_url(read: Reader) -> URL | None:
    if read.text("MESSAGE_LOG_URL", "").lower() == "none":
        return None
    if read.text("MESSAGE_LOG_URL", ""):
        return read.database("MESSAGE_LOG_URL")
    if not read.text("DB_HOST", ""):
        raise SettingsError(
            "DB_HOST is not set: name the message log's database (DB_HOST, DB_NAME, DB_USER, "
            "DB_PASS) or MESSAGE_LOG_URL; or choose another MESSAGE_SOURCE, such as events or none"
        )
    return URL.create(
        "mysql+pymysql",
        username=read.text("DB_USER"),
        password=read.verbatim("DB_PASS"),
        host=read.text("DB_HOST"),
        port=read.integer("DB_PORT", 3306, least=1, most=65535),
        database=read.text("DB_NAME", "pixel_hub"),
        query={"charset": read.charset("DB_CHARSET", "utf8mb4")},
    )
