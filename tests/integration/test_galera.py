"""The hooks' state on Galera, each hook at a node of its own: still one repair a channel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reconnect_hook.queue import Jobs

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.backoff import Backoff
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Job
from reconnect_hook.repository import ChannelRepository
from tests.support.galera import galera
from tests.support.mariadb import MariaDb
from tests.support.states import firing
from tests.support.threads import at_once
from tests.support.waiting import wait_until
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

    opened = wait_until(open_, 30, "the tables to arrive")
    assert opened
    return opened


def _accept(database: Database, channels: list[str]) -> list[str]:
    """Return the verdicts on a payload, sent again as Alertmanager does while the answer is 503."""
    intake = AlertWriter(database, "wpp", Backoff(300))

    def send() -> list[str]:
        try:
            return [str(verdict) for verdict in intake.accept([firing(c) for c in channels])]
        except UnavailableError:
            return []

    return wait_until(send, 30, "the state to take it")


def _claim(jobs: Jobs) -> Job | None:
    """Claim a repair as a worker does, which tries again when the state is not to be had."""

    def claim() -> tuple[Job | None] | None:
        try:
            return (jobs.claim(),)
        except UnavailableError:
            return None

    claimed = wait_until(claim, 30, "the state to answer")
    assert claimed
    return claimed[0]


def _waiting(state: Database) -> int:
    return ChannelRepository(state, "wpp").queue().waiting


def test_alerts_at_two_nodes_at_once_make_one_repair_a_channel(states: list[Database]) -> None:
    for number in range(10):
        names = [f"channel {number}", f"other {number}"]
        verdicts = at_once(*[lambda d=d, n=names: _accept(d, n) for d in states * 4])
        assert sum(answer.count("accepted") for answer in verdicts) == 2
    wait_until(lambda: [_waiting(s) for s in states] == [20, 20], 30, "all to arrive")


def test_claims_at_two_nodes_at_once_never_get_the_same_repair(states: list[Database]) -> None:
    names = [f"channel {number}" for number in range(8)]
    _accept(states[0], names)
    wait_until(lambda: _waiting(states[1]) == 8, 30, "them to arrive")
    holders = [Jobs(state, "wpp", Backoff(0)) for state in states * 4]
    claimed = [job for job in at_once(*[lambda h=h: _claim(h) for h in holders]) if job]
    while (late := _claim(holders[0])) is not None:
        claimed.append(late)
    assert sorted(job.channel for job in claimed) == names


def test_a_node_that_dies_takes_nothing_with_it(
    nodes: tuple[MariaDb, MariaDb], states: list[Database]
) -> None:
    _accept(states[1], ["loja"])
    nodes[1].kill()
    assert _accept(states[0], ["escola"]) == ["accepted"]
    assert _waiting(states[0]) == 2
    nodes[1].start()
    wait_until(lambda: _waiting(states[1]) == 2, 30, "it to catch up")
