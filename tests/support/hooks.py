"""Settings and state of a hook in a separate process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

SECRET = "0123456789abcdef-not-a-real-secret"
TOKEN = "not-a-real-token-of-the-hook"


def hook_settings(url: str, **more: str) -> dict[str, str]:
    """Return settings with state and log in their default places in the working directory."""
    return {
        "WPP_GATEWAY_BASE_URL": url,
        "WPP_GATEWAY_SECRET": SECRET,
        "WPP_GATEWAY_TIMEOUT": "30",
        "WPP_GATEWAY_QR_TIMEOUT": "30",
        "MESSAGE_LOG_URL": "none",
        "HOOK_TOKEN": TOKEN,
        "HOOK_LISTEN": "127.0.0.1:0",
        "RECONNECT_COOLDOWN_SECONDS": "0",
        "RECONNECT_VERIFY_SECONDS": "0",
        **more,
    }


def log_lines(directory: Path) -> list[str]:
    """Return the lines of the hook's log; none without a file."""
    path = directory / "logs" / "healthcheck-sessions.log"
    return path.read_text().splitlines() if path.exists() else []


def state(directory: Path, statement: str, **values: Any) -> Sequence[Any]:
    """Execute a statement on the hook's SQLite state, and return its rows."""
    engine = sa.create_engine(f"sqlite:///{directory}/var/reconnect-hook.sqlite3")
    try:
        with engine.begin() as connection:
            done = connection.execute(sa.text(statement), values)
            return done.all() if done.returns_rows else []
    finally:
        engine.dispose()
