"""Audit of a day with 20,000 messages, on a message log of a million rows.

    python -m benchmarks.message_audit [MESSAGES [ROWS]]

Builds the table in a real MariaDB, with a gateway that lists MESSAGES messages in pages of 200, of
them seven that never arrived. Prints the audit's cost: its statements with their plans and its
memory, and for comparison one statement that searches the whole table for the same ids. Takes
minutes.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa

from benchmarks.big_log import BigLog, Statements, big_log
from reconnect_hook.message_audit import Audit, MessageAuditor
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.config.readers import AuditMode
from zapwatch.gateways.helpers import Entry, read_chats
from zapwatch.messages.message import Received, Wanted
from zapwatch.messages.source import LogMessages
from zapwatch.messages.webhook_log import MessageLog

_MESSAGES = 20_000
_ROWS = 1_000_000
_MISSED = 7
_PAGE = 200
_TO_BE_FOUND = sa.text(
    "SELECT id, UNIX_TIMESTAMP(received_at) AS at FROM webhook_raw_logs"
    " WHERE received_at > NOW() - INTERVAL 23 HOUR AND event_type <> 'presence.update'"
    " ORDER BY id DESC LIMIT :count"
)
_NAMED = sa.text(
    "UPDATE webhook_raw_logs SET payload_json = JSON_SET(payload_json, '$.sessionId', 'loja',"
    " '$.id', CONCAT('3EB0', id)) WHERE id BETWEEN :first AND :last"
    " AND event_type <> 'presence.update'"
)
_SCAN = sa.text(
    "SELECT COUNT(*) FROM webhook_raw_logs WHERE JSON_VALUE(payload_json, '$.id') IN :ids"
).bindparams(sa.bindparam("ids", expanding=True))


def main() -> None:
    """Run the benchmark and print the results."""
    chosen = [int(text) for text in sys.argv[1:]]
    messages, rows = (*chosen, *(_MESSAGES, _ROWS)[len(chosen) :])
    with big_log() as log:
        log.fill(rows)
        arrived = _let_arrive(log, messages)
        print(f"{rows:,} rows, {log.gigabytes():.1f} GB; {len(arrived):,} messages of one channel")
        for count in (messages // 10, messages):
            _measure(log, arrived[:count], explain=count == messages)
        started = time.perf_counter()
        with log.writer.connect() as connection:
            ids = [id_ for id_, _ in arrived]
            found = connection.scalar(_SCAN, {"ids": ids})
        seconds = time.perf_counter() - started
        print(f"one statement over the whole table: {seconds:.1f} s, {found:,} found")


def _let_arrive(log: BigLog, count: int) -> list[tuple[str, float]]:
    """Set ids and channel of the newest rows; return ids and Unix times, the newest first."""
    with log.writer.begin() as connection:
        found = connection.execute(_TO_BE_FOUND, {"count": count}).all()
        connection.execute(_NAMED, {"first": found[-1].id, "last": found[0].id})
    return [(f"3EB0{row.id}", float(row.at)) for row in found]


def _measure(log: BigLog, arrived: Sequence[tuple[str, float]], *, explain: bool) -> None:
    reading = MessageLog(log.reader)
    statements = Statements(reading)
    counted = 0

    def count(*_: Any) -> None:
        nonlocal counted
        counted += 1

    sa.event.listen(reading._engine, "before_cursor_execute", count)  # noqa: SLF001 - as big_log
    lost = [(f"LOST{number}", at + 1) for number, (_, at) in enumerate(arrived[:_MISSED])]
    has = sorted([*arrived, *lost], key=lambda one: -one[1])
    started, used = time.perf_counter(), time.process_time()
    audit = _audit(reading, has)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    total = counted
    tracemalloc.start()  # after the timing, as it slows the audit down
    _audit(reading, has)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reading.close()
    print(
        f"  {audit.received:,} received, {len(audit.missed)} missed, {audit.result}: "
        f"{seconds:.1f} s, {used:.1f} s of CPU here, {total} statements, the longest "
        f"{statements.longest:.3f} s, {peak / 1e6:.1f} MB at most"
    )
    if explain:
        for statement, values in statements.kinds.values():
            for step in log.explain(statement, values):
                print(
                    f"    {step['table'] or '-'}: {step['type'] or '-'}, key {step['key'] or '-'}, "
                    f"rows {step['rows'] or '-'}, {step['Extra'] or '-'}"
                )


def _audit(reading: MessageLog, has: Sequence[tuple[str, float]]) -> Audit:
    def pages() -> Iterator[list[Entry]]:
        for begin in range(0, len(has), _PAGE):
            # A gateway's page, with texts that the audit discards.
            yield [
                Entry(at, id_, "text", "5500000000001@c.us", {"body": "palavra " * 80})
                for id_, at in has[begin : begin + _PAGE]
            ]

    def received(_channel: Channel, wanted: Wanted) -> Received:
        return read_chats([pages()], wanted)

    gateway: Any = SimpleNamespace(received=received, delivery_seconds=0.0)
    book: Any = SimpleNamespace(recorded=lambda *_: (set(), set()))
    source = LogMessages(reading, 3600)
    absent = cast("Any", None)
    auditor = MessageAuditor(
        book, gateway, source, absent, lambda *_: None, AuditMode.OFF, clock=Clock()
    )
    since = has[-1][1] - 60
    [(_, audit)] = auditor.audit([(Channel("loja", Status.CONNECTED), since)])
    return audit


if __name__ == "__main__":
    main()
