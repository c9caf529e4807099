"""The hooks' state on Galera, each hook at a node of its own: still one repair a channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest
import sqlalchemy as sa

from reconnect_hook.alerts import AlertWriter
from reconnect_hook.models import Backoff, Phase
from reconnect_hook.repository import (
    Lead,
    LostLeadError,
    add_gateways,
    read_gateway,
    store_rows,
)
from reconnect_hook.schema import open_state
from tests.support.galera import galera
from tests.support.mariadb import MariaDb
from tests.support.states import firing, open_rows
from tests.support.threads import at_once
from tests.support.waiting import wait_until
from tests.support.world import GATEWAY
from zapwatch.db import Database, StateError, UnavailableError


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[MariaDb, MariaDb]]:
    with galera() as both:
        yield both


@pytest.fixture
def states(nodes: tuple[MariaDb, MariaDb]) -> Iterator[list[Database]]:
    name = nodes[0].create_database()
    databases = [_open(node, name) for node in nodes]
    yield databases
    for database in databases:
        database.close()


def _open(node: MariaDb, name: str) -> Database:
    """Open a database as systemd has a hook do it: the tables may still be on their way here."""

    def open_() -> Database | None:
        try:
            return open_state(node.url(name))
        except StateError:
            return None

    opened = wait_until(open_, "the tables to arrive")
    assert opened
    return opened


def _accept(database: Database, channels: list[str]) -> list[str]:
    """Return the verdicts on a payload, sent again as Alertmanager does while the answer is 503."""
    intake = AlertWriter(database, GATEWAY, Backoff(300))

    def send() -> list[str]:
        try:
            return [str(verdict) for verdict in intake.accept([firing(c) for c in channels])]
        except UnavailableError:
            return []

    return wait_until(send, "the state to take it")


def _waiting(state: Database) -> int:
    with state.read() as connection:
        return len(open_rows(connection, GATEWAY))


def test_alerts_at_two_nodes_at_once_make_one_repair_a_channel(states: list[Database]) -> None:
    for number in range(10):
        names = [f"channel {number}", f"other {number}"]
        counted = at_once(*[lambda d=d, n=names: _accept(d, n) for d in states * 4])
        assert {one for answer in counted for one in answer} <= {"accepted", "coalesced"}
    wait_until(lambda: [_waiting(s) for s in states] == [20, 20], "all to arrive")


def _take(state: Database) -> Lead | None:
    """Take the lead as a hook does: the cluster lets one of those who try at once have it."""
    lead = Lead(state, GATEWAY)
    with suppress(LostLeadError, UnavailableError):
        with state.read() as connection:
            lead.take(read_gateway(connection, GATEWAY))
        lead.renew()
        return lead
    return None


def _claim(lead: Lead) -> list[str]:
    """Claim what nobody has claimed; nothing where the lead has gone to somebody else."""

    def work(connection: sa.Connection, _seen: object, at: float) -> list[str]:
        free = [row for row in open_rows(connection, GATEWAY, lock=True) if row.phase is Phase.IDLE]
        for row in free:
            row.phase, row.next_at = Phase.CALLING, at + 1
        store_rows(connection, GATEWAY, free)
        return [row.channel for row in free]

    with suppress(LostLeadError, UnavailableError):
        return lead.write(work)
    return []


def test_claims_at_two_nodes_at_once_never_get_the_same_repair(states: list[Database]) -> None:
    add_gateways(states[0], [GATEWAY])
    names = [f"channel {number}" for number in range(8)]
    _accept(states[0], names)
    wait_until(lambda: _waiting(states[1]) == 8, "them to arrive")
    claimed: list[str] = []
    epochs: list[int] = []
    for _ in range(10):
        leads = [one for one in at_once(*[partial(_take, s) for s in states * 2]) if one]
        epochs += [one.epoch for one in leads]
        found = at_once(*[partial(_claim, one) for one in leads]) if leads else []
        claimed += [name for some in found for name in some]

    def claim_the_rest() -> bool:
        lead = _take(states[0])
        claimed.extend(_claim(lead) if lead else [])
        return len(claimed) >= len(names)

    wait_until(claim_the_rest, "the state to answer")
    assert len(set(epochs)) == len(epochs), "no lead was given twice"
    assert sorted(claimed) == names


def test_a_node_that_dies_takes_nothing_with_it(
    nodes: tuple[MariaDb, MariaDb], states: list[Database]
) -> None:
    _accept(states[1], ["loja"])
    nodes[1].kill()
    assert _accept(states[0], ["escola"]) == ["accepted"]
    assert _waiting(states[0]) == 2
    nodes[1].start()
    wait_until(lambda: _waiting(states[1]) == 2, "it to catch up")
