"""Who is dead, by what was asked and heard: whatever is lost, no channel that hears is blamed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconnect_hook.probes.blame import Evidence, dead


def test_two_failed_queries_prove_it() -> None:
    assert dead(Evidence(mute={"loja"})) == {"loja"}
    assert dead(Evidence(mute={"loja"}, heard={"loja"})) == set()


def test_a_lost_echo_alone_proves_nothing() -> None:
    assert dead(Evidence(lost={("obra", "loja")})) == set()
    assert dead(Evidence(lost={("obra", "loja"), ("loja", "obra")})) == set()
    third = Evidence(lost={("obra", "loja")}, heard={"casa"})
    assert dead(third) == set(), "that the log works says nothing of the two"


def test_where_nobody_is_heard_it_may_be_the_log() -> None:
    both = Evidence(answered={"obra", "loja"}, lost={("obra", "loja"), ("loja", "obra")})
    assert dead(both) == set()


def test_the_other_way_round_shows_who_only_no_longer_hears() -> None:
    assert dead(Evidence(lost={("obra", "loja")}, spoke={"loja"}, heard={"obra"})) == {"loja"}


def test_a_sender_that_is_connected_is_not_to_blame() -> None:
    assert dead(Evidence(lost={("obra", "loja")}, spoke={"obra"}, heard={"casa"})) == {"loja"}
    assert dead(Evidence(lost={("obra", "loja")}, answered={"obra"}, heard={"casa"})) == {"loja"}


def test_a_receiver_that_hears_is_not_to_blame() -> None:
    assert dead(Evidence(lost={("obra", "loja")}, heard={"loja"})) == {"obra"}
    late = Evidence(lost={("obra", "loja")}, heard={"loja", "obra"})
    assert dead(late) == set(), "it came late"


_keys = st.sampled_from("abcd")
_sets = st.sets(_keys)


@st.composite
def _truths(draw: st.DrawFn) -> tuple[Evidence, set[str]]:
    """Draw which channels are dead or deaf, and what anybody can then have seen."""
    gone, deaf = draw(_sets), draw(_sets)
    bad = gone | deaf
    alive = set("abcd") - bad
    pairs = {(a, b) for a, b in draw(st.sets(st.tuples(_keys, _keys))) if a != b}
    came = {(a, b) for a, b in pairs if a not in gone and b in alive}
    evidence = Evidence(
        heard=draw(st.sets(st.sampled_from(sorted(alive)))) if alive else set(),
        answered={key for key in draw(_sets) if key not in gone},
        mute={key for key in draw(_sets) if key in gone},
        lost=pairs - came,
    )
    evidence.heard |= {receiver for _, receiver in came}
    evidence.spoke |= {sender for sender, _ in came}
    return evidence, bad


@given(_truths())
def test_only_the_dead_are_ever_blamed(truth: tuple[Evidence, set[str]]) -> None:
    evidence, bad = truth
    assert dead(evidence) <= bad
