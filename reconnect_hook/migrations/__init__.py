"""Alembic migrations of the state database, and their idempotent operations.

An interrupted revision can run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem


def add_table(table: str, *columns: SchemaItem, **options: Any) -> None:
    """Add a table if it is missing."""
    if not sa.inspect(op.get_bind()).has_table(table):
        op.create_table(table, *columns, **options)


def add_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Add an index if its name is missing."""
    if all(index["name"] != name for index in sa.inspect(op.get_bind()).get_indexes(table)):
        op.create_index(name, table, list(columns))


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column if its name is missing."""
    if all(one["name"] != column.name for one in sa.inspect(op.get_bind()).get_columns(table)):
        op.add_column(table, column)
