"""Keys of channels are exact: until here they were without letter case and blanks."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_NAMED = ("channel", "repair_log", "scan_links", "message_audit")
"""The tables with the gateway's spelling of each channel."""
_KEYS = (
    ("attempt_log", "key"),
    ("missed_message", "key"),
    ("echoes", "sender"),
    ("echoes", "receiver"),
)
"""Columns with a key alone."""


def upgrade() -> None:
    """Compute the keys again. Only rows change, so that one transaction holds it all."""
    connection, tables = op.get_bind(), sa.MetaData()
    tables.reflect(connection, only=[*_NAMED, *dict(_KEYS), "listed_channels"])
    exact: dict[tuple[str, str], str] = {}
    # The table of channels last: its spelling is the gateway's.
    for name in reversed(_NAMED):
        table = tables.tables[name]
        columns = sa.select(table.c.gateway, table.c.key, table.c.channel).distinct()
        for gateway, key, channel in connection.execute(columns).all():
            exact[gateway, key] = _exact(channel)
            mine = [table.c.gateway == gateway, table.c.key == key, table.c.channel == channel]
            _set(connection, table, table.c.key, exact[gateway, key], mine)
    for name, column_name in _KEYS:
        table = tables.tables[name]
        column = table.c[column_name]
        for gateway, key in connection.execute(sa.select(table.c.gateway, column).distinct()).all():
            mine = [table.c.gateway == gateway, column == key]
            _set(connection, table, column, exact.get((gateway, key), key), mine)
    table = tables.tables["listed_channels"]
    for gateway, noted in connection.execute(sa.select(table.c.gateway, table.c.channels)).all():
        listed = {_exact(entry[0]): entry for entry in json.loads(noted).values()}
        text = json.dumps(listed, sort_keys=True)
        _set(connection, table, table.c.channels, text, [table.c.gateway == gateway])


def _exact(channel: str) -> str:
    return unicodedata.normalize("NFC", channel.strip())


def _set(
    connection: sa.Connection,
    table: sa.Table,
    column: sa.Column[Any],
    value: str,
    mine: list[sa.ColumnElement[bool]],
) -> None:
    different = column != value
    connection.execute(sa.update(table).where(*mine, different).values({column.name: value}))
