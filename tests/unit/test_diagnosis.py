"""Who is dead, by what was asked and heard: whatever is lost, no channel that hears is blamed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconnect_hook.echo import DELIVERY_SECONDS, Evidence, find_dead

_LATER = DELIVERY_SECONDS + 1
_LOST = {("obra", "loja"): 0.0}


def test_two_failed_queries_prove_it() -> None:
    assert find_dead(Evidence(mute={"loja"})) == {"loja"}
    assert find_dead(Evidence(mute={"loja"}, heard={"loja": 0.0})) == set()


def test_a_lost_echo_alone_proves_nothing() -> None:
    assert find_dead(Evidence(lost=_LOST)) == set()
    assert find_dead(Evidence(lost={**_LOST, ("loja", "obra"): 1.0})) == set()
    third = Evidence(lost=_LOST, heard={"casa": _LATER})
    assert find_dead(third) == set(), "that the log works says nothing of the two"


def test_where_nobody_is_heard_it_may_be_the_log() -> None:
    answered = {"obra": 1.0, "loja": 1.0}
    both = Evidence(answered=answered, lost={**_LOST, ("loja", "obra"): 1.0})
    assert find_dead(both) == set()


def test_the_other_way_round_shows_who_only_no_longer_hears() -> None:
    evidence = Evidence(lost=_LOST, spoke={"loja": _LATER}, heard={"obra": _LATER})
    assert find_dead(evidence) == {"loja"}


def test_a_sender_that_is_connected_is_not_to_blame() -> None:
    heard = {"casa": _LATER}
    assert find_dead(Evidence(lost=_LOST, spoke={"obra": 1.0}, heard=heard)) == {"loja"}
    assert find_dead(Evidence(lost=_LOST, answered={"obra": 1.0}, heard=heard)) == {"loja"}


def test_a_receiver_that_hears_is_not_to_blame() -> None:
    assert find_dead(Evidence(lost=_LOST, heard={"loja": _LATER})) == {"obra"}
    late = Evidence(lost=_LOST, heard={"loja": _LATER, "obra": 1.0})
    assert find_dead(late) == set(), "it came late"


def test_a_log_that_is_behind_has_nobody_blamed() -> None:
    """What it tells is older than the echo that it does not tell of yet."""
    assert find_dead(Evidence(lost=_LOST, spoke={"obra": 1.0}, heard={"casa": 2.0})) == set()
    assert find_dead(Evidence(lost=_LOST, heard={"loja": 1.0})) == set()


def test_what_was_shown_before_an_echo_was_sent_says_nothing_of_it() -> None:
    heard = {"casa": _LATER}
    assert find_dead(Evidence(lost=_LOST, spoke={"obra": -1.0}, heard=heard)) == set()
    assert find_dead(Evidence(lost=_LOST, heard={**heard, "loja": -1.0})) == set()


_keys = st.sampled_from("abcd")
_sets = st.sets(_keys)


@st.composite
def _truths(draw: st.DrawFn) -> tuple[Evidence, set[str]]:
    """Draw which channels are dead or deaf, and what anybody can then have seen, and when."""
    gone, deaf = draw(_sets), draw(_sets)
    bad = gone | deaf
    alive = set("abcd") - bad
    moments = st.floats(-100, 100)
    pairs = {(a, b) for a, b in draw(st.sets(st.tuples(_keys, _keys))) if a != b}
    came = {(a, b) for a, b in pairs if a not in gone and b in alive}
    evidence = Evidence(
        heard={key: draw(moments) for key in sorted(draw(_sets) & alive)},
        answered={key: draw(moments) for key in sorted(draw(_sets) - gone)},
        mute=draw(_sets) & gone,
        lost={pair: draw(moments) for pair in sorted(pairs - came)},
    )
    for sender, receiver in sorted(came):
        evidence.spoke[sender] = evidence.heard[receiver] = draw(moments)
    return evidence, bad


@given(_truths())
def test_only_the_dead_are_ever_blamed(truth: tuple[Evidence, set[str]]) -> None:
    evidence, bad = truth
    assert find_dead(evidence) <= bad
