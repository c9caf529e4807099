"""What proves that the repair of a channel that was silent has worked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconnect_hook.echo import UnableError
from reconnect_hook.models import Phase, ProbeOutcome, RepairCause
from reconnect_hook.schema import channel as channels
from reconnect_hook.schema import echoes
from tests.support import probing
from tests.support.message_logs import WrittenLog
from tests.support.probing import shorten_waits, world_of
from tests.support.world import Options, World
from zapwatch.channels import ByName
from zapwatch.config.readers import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.messages.message import make_token

_PROBE = ProbeSettings(ProbeKind.ECHO, ByName({}), 60.0, 15.0, 100, ByName({}), "ping")


class TestAfterARepair:
    """A silent channel is called, and ten seconds later it is asked, once."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Callable[..., World]]:
        """Make worlds whose channel ``loja`` is silent."""
        made: list[World] = []

        def make(kind: ProbeKind = ProbeKind.ECHO, *names: str, verify: float = 30.0) -> World:
            by_query = kind is ProbeKind.QUERY
            probe = replace(_PROBE, kind=kind)
            options = Options(can_query=by_query, cooldown=0, verify=verify, probe=probe)
            made.append(World(tmp_path, options))
            for name in names or ("loja", "obra", "casa"):
                made[-1].put(name)
            made[-1].gateway.gone.add("loja")
            return made[-1]

        yield make
        for one in made:
            one.close()

    @staticmethod
    def repaired(world: World, name: str = "loja") -> str:
        return world.repair(name, RepairCause.SILENT).outcome

    @staticmethod
    def sent(world: World) -> int:
        return sum(name == "send_text" for name, *_ in world.gateway.calls)

    def test_an_echo_that_is_heard_proves_it(self, make: Callable[..., World]) -> None:
        world = make()
        assert self.repaired(world) == "reconnected"
        assert world.gateway.calls_of("loja") == ["reconnect"]
        assert self.sent(world) == 1

    def test_a_query_that_passes_proves_less(self, make: Callable[..., World]) -> None:
        world = make(ProbeKind.QUERY)
        assert self.repaired(world) == "requested"
        assert world.gateway.calls_of("loja") == ["reconnect", "query"]

    @pytest.mark.parametrize("kind", [ProbeKind.QUERY, ProbeKind.ECHO])
    def test_who_is_still_dead_has_failed(
        self, make: Callable[..., World], kind: ProbeKind
    ) -> None:
        world = make(kind)
        world.gateway.heals = False
        assert self.repaired(world) == "failed"
        assert world.ended()[0].detail.startswith("after getQr too: ")
        row = world.row()
        assert row is not None
        assert row.failures == 1, "so the next repair comes, and people after three"

    def test_what_proves_nothing_leaves_it_requested(self, make: Callable[..., World]) -> None:
        world = make()
        world.gateway.gone |= {"obra", "casa"}
        assert self.repaired(world) == "requested"

    def test_a_message_by_itself_needs_no_probe(self, make: Callable[..., World]) -> None:
        world = make()
        world.later(5, world.message)
        assert self.repaired(world) == "reconnected"
        assert self.sent(world) == 0

    def test_the_proof_of_a_repair_counts_as_a_probe(self, make: Callable[..., World]) -> None:
        world = make(ProbeKind.QUERY)
        self.repaired(world)
        found = world.value(
            "whatsapp_channel_probes_total",
            gateway="wpp",
            channel="loja",
            kind="query",
            outcome="passed",
        )
        assert found == 1
        with world.hook.database.read() as connection:
            row = channels.c
            noted = connection.execute(sa.select(row.key, row.probe_kind, row.probe_outcome)).all()
        assert ("loja", "query", "passed") in [tuple(one) for one in noted]
        world.alert(cause=RepairCause.SUSPECT)
        world.run(60)
        assert world.gateway.calls_of("loja") == ["reconnect", "query"], "nor is it asked again"

    def test_an_echo_that_must_wait_for_that_of_another_is_sent_after_it(
        self, make: Callable[..., World]
    ) -> None:
        world = make()
        book = world.hook.probing.book
        world.later(9, lambda: book.reserve("obra", "casa", make_token("casa")))
        assert self.repaired(world) == "reconnected"
        assert self.sent(world) == 1

    def test_an_echo_waits_for_no_longer_than_a_repair_may_take(
        self, make: Callable[..., World]
    ) -> None:
        world = make()
        book = world.hook.probing.book
        for number in range(6):
            world.later(
                5 + 10.01 * number, lambda: book.reserve("obra", "casa", make_token("casa"))
            )
        assert self.repaired(world) == "requested"
        assert self.sent(world) == 0
        assert world.ended()[0].finished_at - world.ended()[0].accepted_at <= 40

    def test_an_echo_from_before_the_repair_proves_nothing_of_it(
        self, make: Callable[..., World]
    ) -> None:
        world = make()
        assert world.hook.probing.book.reserve("obra", "loja", make_token("loja")) is None
        assert self.repaired(world) == "reconnected"
        assert self.sent(world) == 1

    def test_whoever_leads_next_proves_it(self, make: Callable[..., World]) -> None:
        world = make()
        world.gateway.heals = False
        world.alert(cause=RepairCause.SILENT)
        world.run(20)
        row = world.row()
        assert row is not None
        assert row.phase is Phase.PROVING
        world.restart()
        world.run(300, until=lambda: bool(world.ended()))
        assert world.outcomes() == ["failed"]
        assert world.gateway.calls_of("loja").count("reconnect") == 1

    def test_who_could_not_send_is_proved_by_an_echo_from_whom_it_was_to_write_to(
        self, make: Callable[..., World]
    ) -> None:
        world = make(ProbeKind.ECHO, "loja", "obra")
        world.gateway.deaf.add("loja")
        world.gateway.gone.clear()
        world.alert("loja", RepairCause.SUSPECT)
        world.run(200)
        assert world.outcomes() == ["reconnected"]


@pytest.fixture
def world(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> Iterator[probing.World]:
    shorten_waits(monkeypatch)
    with world_of(tmp_path, sqlite_log) as made:
        yield made


def _lose(world: probing.World, sender: str, receiver: str) -> None:
    """Note an echo that was lost some seconds ago, and that no more are to be sent."""
    listed = world.listed()[receiver]
    token = make_token(receiver)
    world.book.begin(listed)
    assert world.book.reserve(sender, receiver, token) is None
    world.book.note_echo(token, sent=True)
    world.book.note_echo(token, heard=False)
    with world.database.write() as connection:
        connection.execute(sa.update(echoes).values(sent_at=echoes.c.sent_at - 30))
    world.book.end(receiver, ProbeKind.ECHO, ProbeOutcome.UNDECIDED, [listed])


@pytest.mark.parametrize("phase", [Phase.CALLING, Phase.VERIFYING, Phase.RESTARTING])
def test_what_was_lost_before_a_repair_speaks_against_nobody_after_it(
    world: probing.World, phase: Phase
) -> None:
    """The sender was dead then, and is heard now: that does not make it the fault of the other."""
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    world.book.begin(world.listed()["obra"])
    with world.database.write() as connection:
        under_way = sa.update(channels).where(channels.c.key == "obra").values(phase=phase)
        connection.execute(under_way)
    with pytest.raises(UnableError, match="repaired meanwhile"):
        world.probe("loja")


def test_what_was_lost_without_a_repair_does_if_it_is_lost_again(world: probing.World) -> None:
    world.simulator.deafen("loja")
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.FAILED, ["loja"])
    assert world.sent() == ["obra"]


def test_who_came_back_by_itself_gets_nobody_else_blamed(world: probing.World) -> None:
    """The sender was dead, and nobody has repaired it."""
    _lose(world, "obra", "loja")
    world.log.write("obra", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.PASSED, [])
    assert world.sent() == ["obra"]
    assert world.book.suspended() == set()


def test_who_was_heard_since_its_echo_was_lost_is_asked_anew(world: probing.World) -> None:
    """It was dead itself, and whoever wrote to it then is only quiet."""
    _lose(world, "obra", "loja")
    world.log.write("loja", age_seconds=0)
    assert world.found("loja") == (ProbeOutcome.PASSED, [])
    assert world.book.suspended() == set()
