"""The tables of the first release.

A new database gets the tables of ``reconnect_hook.schema`` as they are now, so later revisions find
their changes made.
"""

from __future__ import annotations

from alembic import op

from reconnect_hook.schema import metadata

revision = "0012"
down_revision = None


def upgrade() -> None:
    """Add the tables and indexes that are missing."""
    connection = op.get_bind()
    metadata.create_all(connection)
    for table in metadata.tables.values():
        for index in table.indexes:
            index.create(connection, checkfirst=True)
