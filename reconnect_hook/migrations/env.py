"""Runs the revisions in ``versions`` on the caller's connection.

To write a revision, use ``reconnect_hook.schema.configuration()`` as Alembic's configuration.
"""

from __future__ import annotations

from alembic import context

from reconnect_hook.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller's transaction spans all revisions, if the database has transactional DDL.
    transactional_ddl=False,
)
context.run_migrations()
