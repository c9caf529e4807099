"""Alembic migrations of the state database. An interrupted revision can run again."""
