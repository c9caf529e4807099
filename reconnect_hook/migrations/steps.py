"""Steps that do nothing where they were done already, so that one cut short can run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


def has_table(table: str) -> bool:
    """Whether there is such a table."""
    return sa.inspect(op.get_bind()).has_table(table)


def has_column(table: str, column: str) -> bool:
    """Whether the table has such a column."""
    return any(one["name"] == column for one in sa.inspect(op.get_bind()).get_columns(table))


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column unless it is there."""
    if not has_column(table, column.name):
        op.add_column(table, column)


def add_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Add an index unless there is one of that name."""
    if all(index["name"] != name for index in sa.inspect(op.get_bind()).get_indexes(table)):
        op.create_index(name, table, list(columns))
