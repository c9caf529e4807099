"""The message log's table, exactly as in the contract, and its rows."""

import hashlib
import json
import uuid
from typing import Any

from sqlalchemy import Connection, Engine, column, insert, table, text

from demo.simulator.payloads import message_payload

_MARIADB = (
    """
    CREATE TABLE IF NOT EXISTS webhook_raw_logs (
        id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
        received_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        event_type VARCHAR(100) NULL,
        payload_hash VARCHAR(16) NULL,
        payload_json LONGTEXT NOT NULL,
        processed TINYINT(1) NOT NULL DEFAULT 0,
        event_id VARCHAR(36) NULL,
        error_message VARCHAR(500) NULL,
        created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        INDEX (event_type),
        INDEX (received_at),
        INDEX (payload_hash),
        INDEX (processed)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
    """,
)

_SQLITE = (
    """
    CREATE TABLE IF NOT EXISTS webhook_raw_logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        received_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        event_type VARCHAR(100) NULL,
        payload_hash VARCHAR(16) NULL,
        payload_json LONGTEXT NOT NULL,
        processed TINYINT(1) NOT NULL DEFAULT 0,
        event_id VARCHAR(36) NULL,
        error_message VARCHAR(500) NULL,
        created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP
    )
    """,
    *(
        f"CREATE INDEX IF NOT EXISTS webhook_raw_logs_{name} ON webhook_raw_logs ({name})"
        for name in ("event_type", "received_at", "payload_hash", "processed")
    ),
)

_TABLE = table(
    "webhook_raw_logs",
    *map(
        column,
        ("received_at", "event_type", "payload_hash", "payload_json", "event_id", "created_at"),
    ),
)

_AGO = {
    "sqlite": "datetime(CURRENT_TIMESTAMP, '-' || :age || ' seconds')",
    "mysql": "CURRENT_TIMESTAMP - INTERVAL :age SECOND",
    "mariadb": "CURRENT_TIMESTAMP - INTERVAL :age SECOND",
}


def create_message_log(engine: Engine) -> None:
    """Create the table `webhook_raw_logs` if it does not exist."""
    with engine.begin() as connection:
        for statement in _SQLITE if engine.dialect.name == "sqlite" else _MARIADB:
            connection.execute(text(statement))


def insert_message(
    connection: Connection,
    channel: str,
    *,
    event_type: str | None = "message",
    place: str = "sessionId",
    outgoing: bool = False,
    age_seconds: int = 0,
    payload: str | dict[str, Any] | None = None,
    words: str | None = None,
) -> int:
    """Insert one row as the webhook does, and return its id.

    The payload contains the channel at `place`, one of PLACES. `payload` replaces the whole
    payload, as an object or as text that need not be JSON. The row is `age_seconds` old by the
    database's clock. The caller commits.
    """
    if payload is None:
        payload = message_payload(
            channel, event_type or "", place=place, outgoing=outgoing, words=words
        )
    body = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    then = text(_AGO[connection.dialect.name]).bindparams(age=int(age_seconds))
    statement = insert(_TABLE).values(
        received_at=then,
        event_type=event_type,
        payload_hash=hashlib.sha256(body.encode()).hexdigest()[:16],
        payload_json=body,
        event_id=str(uuid.uuid4()),
        created_at=then,
    )
    return int(connection.execute(statement).lastrowid)
