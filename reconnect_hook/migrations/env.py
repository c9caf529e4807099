"""Runs the steps in ``versions`` on the connection that the caller hands over.

To write a new step: ``reconnect_hook.migrate.configuration()`` is what Alembic needs.
"""

from __future__ import annotations

from alembic import context

from reconnect_hook.migrate import VERSION_TABLE
from reconnect_hook.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller's transaction is around all of it, where the database can undo such changes.
    transactional_ddl=False,
)
context.run_migrations()
