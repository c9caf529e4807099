"""Alembic migrations of the state database.

A revision changes only what is not changed yet: an interrupted one runs again, and a new database
has the newest tables before the second revision.
"""
