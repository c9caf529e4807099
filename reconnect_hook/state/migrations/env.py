"""Runs the steps in ``versions`` on the connection that the caller hands over.

To write a new step: ``reconnect_hook.state.upgrade.configuration()`` is what Alembic needs.
"""

from __future__ import annotations

from alembic import context

from reconnect_hook.state.schema import metadata
from reconnect_hook.state.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # The caller's transaction is around all of it, where the database can undo such changes.
    transactional_ddl=False,
)
context.run_migrations()
