"""Whether a gateway's last list failed, for all hooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column if it is missing."""
    columns = sa.inspect(op.get_bind()).get_columns("gateway")
    if all(column["name"] != "list_failed" for column in columns):
        failed = sa.Column("list_failed", sa.Boolean, nullable=False, server_default=sa.false())
        op.add_column("gateway", failed)
