"""deploy/ha/, in which things die and lose each other: one repair an episode all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.loop import PROGRAMS
from tests.support.cluster import Cluster
from tests.support.mariadb import MariaDb

_WHOLE = ["whole", "whole again", "whole once more"]
_CHANNELS = [
    *_WHOLE, "apart", "stateless", "taken over", "handed on", "crosswise", "restarted",
    *[f"{p} {n} {when}" for p in PROGRAMS for n in "ab" for when in ("dies", "dead")],
]  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDb) -> Iterator[Cluster]:
    name = mariadb.create_database()
    with Cluster(tmp_path_factory.mktemp("cluster"), mariadb.url(name), _CHANNELS) as made:
        yield made
        # What came late counts as well. One call was cut off, and was made once more.
        touched = [channel for channel in _CHANNELS if made.calls(channel)]
        assert {c: made.calls(c) for c in touched} == {c: 1 + (c == "handed on") for c in touched}
    mariadb.drop_database(name)


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The module's one cluster. Each test uses channels of its own and leaves all well."""
    return running


def test_two_of_everything_make_one_repair(cluster: Cluster) -> None:
    # What failed in another test may come late, and cannot be told apart: hence three tries.
    # Alertmanagers that did not agree would deliver twice each time.
    assert any(_tell_each_hook_once(cluster, channel) for channel in _WHOLE)


def _tell_each_hook_once(cluster: Cluster, channel: str) -> bool:
    cluster.wait_until_nothing_fires()
    before = [node.delivered() for node in cluster.nodes]
    cluster.simulator.drop(channel)
    cluster.wait_for_repair(channel)
    cluster.wait_for(
        lambda: all(node.delivered() > n for node, n in zip(cluster.nodes, before, strict=True)),
        "a delivery to each hook",
    )
    cluster.wait_until_nothing_fires()
    assert cluster.outcomes(channel) == ["reconnected"]
    return [node.delivered() for node in cluster.nodes] == [n + 1 for n in before]


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_of_two_dies_and_comes_back(cluster: Cluster, program: str) -> None:
    """First one, and as soon as it is back the other: then nobody is left but who came back."""
    for node in cluster.nodes:
        dies, dead = (f"{program} {node.name} {when}" for when in ("dies", "dead"))
        cluster.simulator.drop(dies)
        node.kill(program)
        # A channel whose alert goes on firing, so that whoever comes back finds it.
        cluster.simulator.unpair(dead)
        cluster.wait_for_repair(dies)
        cluster.wait_for_repair(dead)
        node.start(program)
        cluster.wait_until_joined()
        cluster.wait_for(node.answers, f"the programs of {node.name} to answer")
        cluster.wait_for(
            lambda: [one.asking().count(dead) for one in cluster.nodes] == [1, 1],  # noqa: B023
            "both Alertmanagers to know one alert, of whichever Prometheus",
        )
        if program == "reconnect_hook":
            cluster.wait_for(node.delivered, "what could not be delivered")
        cluster.simulator.scan(dead)
        assert cluster.outcomes(dies) == ["reconnected"]
        assert cluster.outcomes(dead) == ["qr_required"]


def test_what_drops_while_the_state_is_away_is_repaired_when_it_is_back(
    cluster: Cluster, mariadb: MariaDb
) -> None:
    mariadb.stop()
    cluster.wait_for(lambda: not any(n.is_ready() for n in cluster.nodes), "both hooks to notice")
    cluster.simulator.drop("restarted")
    cluster.wait_for(lambda: "restarted" in cluster.a.asking(), "its alert")
    mariadb.start()
    cluster.wait_for_repair("restarted")
    cluster.wait_for(lambda: all(n.is_ready() for n in cluster.nodes), "both hooks to be back")
    assert cluster.outcomes("restarted") == ["reconnected"]


def test_the_dead_mans_switch_is_let_go_when_no_prometheus_is_left(cluster: Cluster) -> None:
    def beats() -> bool:
        return cluster.heartbeat.beats > before

    before = cluster.heartbeat.beats
    cluster.a.kill("prometheus")
    cluster.wait_for(beats, "a beat with one Prometheus")
    cluster.b.kill("prometheus")
    # Many times as long as it waits between two beats, and longer than an alert lives unrenewed.
    cluster.wait_for(lambda: cluster.heartbeat.silent_for() > 8, "silence")
    before = cluster.heartbeat.beats
    for node in cluster.nodes:
        node.start("prometheus")
        cluster.wait_for(node.answers, f"Prometheus of {node.name} to be back")
    cluster.wait_for(beats, "a beat")


def test_only_aggregates_of_both_machines_are_stored_for_long(cluster: Cluster) -> None:
    count = f"gateway:whatsapp_channel_connected:count == {len(_CHANNELS)}"
    cluster.wait_for(
        lambda: {one["replica"] for one in cluster.stored(count)} == {"a", "b"},
        "both machines' count of channels",
    )
    names = {one["__name__"] for one in cluster.stored('{__name__!=""}')}
    assert {name.partition(":")[0].partition("_")[0] for name in names} == {"gateway"}


def test_an_alertmanager_here_and_a_hook_there_die(cluster: Cluster) -> None:
    cluster.a.kill("alertmanager")
    cluster.b.kill("reconnect_hook")
    cluster.simulator.drop("crosswise")
    cluster.wait_for_repair("crosswise")
    cluster.a.start("alertmanager")
    cluster.b.start("reconnect_hook")
    cluster.wait_until_joined()
    cluster.wait_for(cluster.b.is_ready, "the hook to be back")
    assert cluster.outcomes("crosswise") == ["reconnected"]


def test_alertmanagers_that_do_not_see_each_other_both_deliver(cluster: Cluster) -> None:
    cluster.a.gossip.cut()
    cluster.b.gossip.cut()
    cluster.wait_for(lambda: [n.partners() for n in cluster.nodes] == [0, 0], "both to be alone")
    cluster.wait_until_nothing_fires()
    before = sum(node.delivered() for node in cluster.nodes)
    cluster.simulator.drop("apart")
    cluster.wait_for_repair("apart")
    cluster.wait_for(
        lambda: sum(node.delivered() for node in cluster.nodes) >= before + 4,
        "two deliveries to each of two hooks",
    )
    cluster.a.gossip.mend()
    cluster.b.gossip.mend()
    cluster.wait_until_joined()
    assert cluster.outcomes("apart") == ["reconnected"]


def test_a_hook_that_is_cut_off_from_the_state_leaves_it_to_the_other(cluster: Cluster) -> None:
    cluster.a.state.cut()
    cluster.wait_for(lambda: not cluster.a.is_ready(), "the hook to notice")
    cluster.simulator.drop("stateless")
    cluster.wait_for_repair("stateless")
    cluster.a.state.mend()
    cluster.wait_for(cluster.a.is_ready, "the hook to be back")
    assert cluster.outcomes("stateless") == ["reconnected"]


def test_a_hook_that_is_cut_off_in_mid_repair_is_taken_over_without_another_call(
    cluster: Cluster,
) -> None:
    cluster.b.kill("reconnect_hook")
    cluster.simulator.fault("qr", "hang", times=1, channel="taken over", effect=True)
    cluster.simulator.drop("taken over")
    cluster.wait_for(lambda: cluster.calls("taken over"), "the call")
    cluster.a.state.cut()
    cluster.wait_for(lambda: not cluster.a.is_ready(), "the hook to notice")
    cluster.simulator.connect("taken over")
    cluster.b.start("reconnect_hook")
    cluster.wait_for(cluster.b.is_ready, "the other hook to be there")
    cluster.end_leases()
    cluster.wait_for_repair("taken over")
    cluster.simulator.clear_faults()
    cluster.a.state.mend()
    cluster.wait_for(
        lambda: "another hook leads gateway" in cluster.a.children.last_lines("reconnect_hook"),
        "the first hook to find out",
    )
    assert cluster.outcomes("taken over") == ["recovered"]


def test_a_hook_that_dies_in_mid_repair_is_followed_by_the_other(cluster: Cluster) -> None:
    cluster.b.kill("reconnect_hook")
    cluster.simulator.fault("qr", "hang", times=1, channel="handed on")
    cluster.simulator.drop("handed on")
    cluster.wait_for(lambda: cluster.calls("handed on"), "the call")
    cluster.a.kill("reconnect_hook")
    cluster.b.start("reconnect_hook")
    cluster.wait_for(cluster.b.is_ready, "the other hook to be there")
    cluster.end_leases()
    cluster.wait_for_repair("handed on")
    cluster.simulator.clear_faults()
    cluster.a.start("reconnect_hook")
    cluster.wait_for(cluster.a.is_ready, "the first hook to be back")
    assert cluster.outcomes("handed on") == ["reconnected"]
