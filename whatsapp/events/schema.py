"""The tables of the store of events. No column holds a message's text or anybody's number."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from whatsapp.channels import MAX_ID_LENGTH
from whatsapp.echo import TOKEN_LENGTH

metadata = sa.MetaData()
# Identities differ by letters that a friendlier collation would take for the same.
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_KEY = sa.String(MAX_ID_LENGTH)
_SECONDS = sa.Double  # Unix seconds; 0 where there was none

last_messages = sa.Table(
    "last_messages",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("channel", _KEY, primary_key=True),
    sa.Column("last_in", _SECONDS, nullable=False),
    sa.Column("last_out", _SECONDS, nullable=False),
    # Of those, the last one that came through WhatsApp.
    sa.Column("last_heard", _SECONDS, nullable=False),
    # When this row was written, so that a reader finds what is new.
    sa.Column("written_at", _SECONDS, nullable=False, index=True),
    **_MYSQL,
)

hours = sa.Table(
    "message_hours",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("channel", _KEY, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),  # since 1970
    # One bit a minute that had a message, as a History has it; and how many messages.
    sa.Column("minutes", sa.BigInteger, nullable=False),
    sa.Column("messages", sa.BigInteger, nullable=False),
    sa.Index("message_hours_by_hour", "hour"),
    **_MYSQL,
)

heard_echoes = sa.Table(
    "heard_echoes",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    # Zapwatch has made it up (whatsapp/echo.py), and it tells which channel it was for.
    sa.Column("token", sa.String(TOKEN_LENGTH), primary_key=True),
    sa.Column("written_at", _SECONDS, nullable=False, index=True),
    **_MYSQL,
)

listening = sa.Table(
    "listening",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # always 1
    # When somebody was last there to take events.
    sa.Column("last_at", _SECONDS, nullable=False),
    **_MYSQL,
)

deaf = sa.Table(
    "deaf",
    metadata,
    # From when until when nobody was.
    sa.Column("begins", _SECONDS, primary_key=True, autoincrement=False),
    sa.Column("ends", _SECONDS, nullable=False),
    **_MYSQL,
)
