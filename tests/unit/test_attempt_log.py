"""The log of the last probes and repairs: its steps, its bounds, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconnect_hook.event_log import (
    KEPT_ATTEMPTS,
    AttemptKind,
    AttemptName,
    AttemptStep,
    AttemptSteps,
    LoggedAttempt,
    StepKind,
)
from reconnect_hook.models import Phase
from reconnect_hook.repository import append_attempts, prune_records
from tests.support.world import GATEWAY, Options, World
from zapwatch.channels import ByName, Status
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import GatewayErrorKind, QrKind

_REPAIR = AttemptKind.REPAIR


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., World]:
    """Make worlds with options."""

    def make(**options: Any) -> World:
        made = World(tmp_path, Options(**options))
        request.addfinalizer(made.close)
        made.put()
        return made

    return make


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def _told(world: World, channel: str = "loja") -> list[str]:
    """Return the steps of the channel's last attempt."""
    attempt = world.hook.history.logged(channel)[0]
    assert [step.at for step in attempt.steps] == sorted(step.at for step in attempt.steps)
    assert attempt.ended_at == attempt.steps[-1].at
    return [f"{attempt.kind} {attempt.outcome}", *(_line(step) for step in attempt.steps)]


def _line(step: AttemptStep) -> str:
    return f"{step.kind} {step.words}".strip()


class TestRepairs:
    """A repair is logged from who asked for it to how it ended."""

    def test_a_good_one_is_there_with_its_verification(self, world: World) -> None:
        world.put(status=Status.DISCONNECTED)
        world.gateway.on_call = lambda _call, channel: world.put(channel, Status.CONNECTED)
        world.repair()
        assert _told(world) == [
            "repair reconnected",
            "asked alertmanager",
            "listed disconnected",
            "called reconnect",
            "answered accepted",
            "verifying",
            "listed connected",
            "ended",
        ]

    def test_a_code_that_waits_ends_it(self, world: World) -> None:
        world.put(status=Status.DISCONNECTED)
        world.gateway.answer = QrKind.QR
        world.hook.actions.reconnect("loja")
        world.run(60, until=lambda: bool(world.ended()))
        assert _told(world)[1:] == [
            "asked page",
            "listed disconnected",
            "called reconnect",
            "answered qr",
            "ended",
        ]

    def test_a_call_that_fails_is_there_in_the_gateways_words(self, world: World) -> None:
        world.put(status=Status.DISCONNECTED)
        world.gateway.call_error = GatewayErrorKind.HTTP
        world.repair()
        told = _told(world)
        assert told[0] == "repair failed"
        assert told[4].startswith("failed ")
        assert "made up" in told[4]
        assert "made up" in told[5], "it is the detail of the outcome too"

    def test_lists_that_show_the_same_are_one_step(self, make: Callable[..., World]) -> None:
        world = make(verify=30.0)
        world.put(status=Status.DISCONNECTED)
        world.repair()
        assert _told(world)[-3:] == ["verifying", "listed disconnected", "ended"]

    def test_what_needs_no_call_costs_no_row(self, world: World) -> None:
        statements: list[str] = []
        sa.event.listen(
            world.hook.database._engine,
            "before_cursor_execute",
            lambda _c, _cursor, statement, *_: statements.append(statement),
        )
        for number in range(20):
            world.put(f"canal{number}")
            world.alert(f"canal{number}")
        world.run(120)
        assert world.outcomes("canal7") == ["recovered"]
        assert world.hook.history.logged("canal7") == []
        statements.pop()  # the question just asked
        assert not [one for one in statements if one.startswith("INSERT INTO attempt_log")]

    def test_a_leader_that_dies_leaves_the_rest_to_the_next(
        self, make: Callable[..., World]
    ) -> None:
        world = make(verify=30.0)
        world.put(status=Status.DISCONNECTED)
        world.alert()
        world.run(20, until=lambda: world.row().phase is Phase.VERIFYING)  # type: ignore[union-attr]
        world.restart()
        world.put(status=Status.CONNECTED)
        world.run(120, until=lambda: bool(world.ended()))
        assert _told(world)[-2:] == ["listed connected", "ended"]


class TestProbes:
    """A probe is logged too, also one that passes."""

    def _ask(self, world: World) -> list[str]:
        world.hook.actions.probe_now("loja")
        world.run(300, until=lambda: bool(world.hook.history.logged("loja")))
        return _told(world)

    def test_a_query_that_works(self, make: Callable[..., World]) -> None:
        world = make(can_query=True, probe=_probing(ProbeKind.QUERY))
        assert self._ask(world) == [
            "probe passed",
            "asked page",
            "listed connected",
            "queried loja",
            "ended",
        ]

    def test_a_query_that_fails_once_goes_on_later(self, make: Callable[..., World]) -> None:
        world = make(can_query=True, probe=_probing(ProbeKind.QUERY))
        world.gateway.gone.add("loja")
        told = self._ask(world)
        assert told[0] == "probe failed"
        kinds = [one.split()[0] for one in told[1:]]
        assert kinds == ["asked", "listed", "failed", "postponed", "listed", "failed", "ended"]

    def test_an_echo_that_arrives_and_one_that_does_not(self, make: Callable[..., World]) -> None:
        world = make(probe=_probing(ProbeKind.ECHO))
        for channel in ("obra", "vendas"):
            world.put(channel)
        told = self._ask(world)
        assert told[0] == "probe passed"
        assert told[-3].endswith("→ loja")
        assert told[-2:] == ["heard", "ended"]
        world.gateway.deaf.add("loja")
        world.skip(60)
        world.hook.actions.probe_now("loja")
        world.run(2_000, until=lambda: len(world.hook.history.logged("loja")) > 1)
        attempt = world.hook.history.logged("loja")[0]
        assert attempt.outcome == "failed"
        assert StepKind.LOST in [step.kind for step in attempt.steps]


def _probing(kind: ProbeKind) -> ProbeSettings:
    numbers = {"loja": "5500000000001", "obra": "5500000000002", "vendas": "5500000000003"}
    return ProbeSettings(kind, ByName({}), 60.0, 15.0, 6, ByName(numbers), "ping")


class TestBounds:
    """It stays small whatever happens."""

    def test_of_each_channel_the_last_attempts_are_kept(self, world: World) -> None:
        database = world.hook.database
        many = [
            LoggedAttempt(key, _REPAIR, "failed", at, (AttemptStep(at, StepKind.ENDED),))
            for key in ("loja", "obra")
            for at in [world.clock.time() - 1_000 + number for number in range(30)]
        ]
        database.transact(lambda connection: append_attempts(connection, GATEWAY, many))
        prune_records(database)
        kept = world.hook.history.logged("loja")
        assert [one.ended_at for one in kept] == [one.ended_at for one in many[29:9:-1]]
        with database.read() as connection:
            count = connection.scalar(sa.text("SELECT count(*) FROM attempt_log"))
        assert count == 2 * KEPT_ATTEMPTS
        world.skip(91 * 86400.0)
        prune_records(database)
        assert world.hook.history.logged("loja") == []

    def test_many_old_records_do_not_hold_up_the_work(self, world: World) -> None:
        database = world.hook.database
        ended = world.clock.time() - 91 * 86400.0
        steps = (AttemptStep(ended, StepKind.ENDED),)
        many = [LoggedAttempt(f"{n}", _REPAIR, "failed", ended, steps) for n in range(2500)]
        database.transact(lambda connection: append_attempts(connection, GATEWAY, many))

        counts = [2500]

        def is_done() -> bool:
            with database.read() as connection:
                counts.append(connection.scalar(sa.text("SELECT count(*) FROM attempt_log")))
            return counts[-1] == 0

        world.run(5, until=is_done)
        assert max(a - b for a, b in itertools.pairwise(counts)) == 1000
        assert counts[-1] == 0

    def test_of_very_many_steps_the_first_and_the_last_are_kept(self) -> None:
        before: dict[AttemptName, list[AttemptStep]] = {}
        for number in range(500):
            last = AttemptSteps(float(number), before)
            last.add(_REPAIR, "loja", StepKind.FAILED, "x" * 1_000)
            last.commit()
        end = AttemptSteps(500.0, before)
        end.end(_REPAIR, "loja", "failed", "")
        (attempt,) = end.ended
        assert len(attempt.steps) == 50
        assert [step.at for step in attempt.steps] == [*range(49), 500]
        assert attempt.steps[-1].kind is StepKind.ENDED
        assert len(str(attempt.as_row()["steps"]).encode()) < 65_536, "it fits MySQL's TEXT"

    def test_a_transaction_that_is_tried_again_adds_nothing_twice(self) -> None:
        before: dict[AttemptName, list[AttemptStep]] = {}
        for _ in range(3):
            tried = AttemptSteps(1.0, before)
            tried.begin(_REPAIR, "loja", "page", 1.0)
            tried.add(_REPAIR, "loja", StepKind.CALLED, "reconnect")
        tried.commit()
        for _ in range(3):
            tried = AttemptSteps(2.0, before)
            tried.end(_REPAIR, "loja", "failed", "")
        (attempt,) = tried.ended
        assert [step.kind for step in attempt.steps] == ["asked", "called", "ended"]
        tried.commit()
        none = AttemptSteps(3.0, before)
        none.end(_REPAIR, "loja", "failed", "")
        assert none.ended == [], "nothing was done since"
