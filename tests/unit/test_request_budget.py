"""A month's requests at a gateway that counts them."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.support.clock import HandMovedClock
from zapwatch.channels import Channel, NamedChannel, Status
from zapwatch.gateways.base import (
    ChannelList,
    GatewayError,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
)
from zapwatch.gateways.registry import MONTH_SECONDS, CallBudget, ListBudget
from zapwatch.gateways.whapi import WhapiGateway
from zapwatch.messages.message import Wanted

_PER_MONTH = 1000
_CHANNELS = 4
_LISTED = ChannelList((Channel("loja", Status.CONNECTED),))


class Asked:
    """Counts the lists that are asked for."""

    def __init__(self) -> None:
        self.times = 0
        self.error: GatewayError | None = None

    def __call__(self) -> ChannelList:
        self.times += 1
        if self.error is not None:
            raise self.error
        return _LISTED


def test_a_month_of_polls_and_repairs_costs_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted where the requests of both programs leave."""
    clock = HandMovedClock()
    asked: dict[str, list[str]] = {"exporter": [], "hook": []}
    named = [NamedChannel(name, f"the token of {name}") for name in ("a", "b", "c", "d")]
    gateways = {}
    for program, kind in (("exporter", ListBudget), ("hook", CallBudget)):

        def answer(_: str, path: str, *__: object, to: str = program, **___: object) -> object:
            asked[to].append(path)
            body = b'{"status": {"text": "ERROR"}}'
            return GatewayResponse(200, "application/json", body)

        budget = kind(_PER_MONTH, clock)
        gateways[program] = WhapiGateway("http://127.0.0.1:9", "", channels=named, budget=budget)
        monkeypatch.setattr(gateways[program]._http, "request", answer)
    # A poll each five minutes, and a channel that no repair brings back.
    for _ in range(int(MONTH_SECONDS // 300)):
        assert len(gateways["exporter"].list_channels().channels) == _CHANNELS
        with suppress(GatewayError):
            gateways["hook"].reconnect(Channel("a", Status.DISCONNECTED), silent=False)
        clock.forward(300)

    assert 0.95 * _PER_MONTH < sum(map(len, asked.values())) <= _PER_MONTH
    assert set(asked["exporter"]) == {"/health?wakeup=false"}
    assert set(asked["hook"]) == {"/health?wakeup=false", "/health?wakeup=true"}


def test_a_storm_of_calls_leaves_something_for_the_rest_of_the_month() -> None:
    clock = HandMovedClock()
    calls = CallBudget(_PER_MONTH, clock)
    assert sum(calls.take() for _ in range(1000)) == 25
    clock.forward(MONTH_SECONDS / 10)
    assert sum(calls.take() for _ in range(1000)) == 22


def test_whoever_only_looks_leaves_half_of_what_may_be_used_at_once() -> None:
    clock = HandMovedClock()
    budget = CallBudget(_PER_MONTH, clock)
    channels = [NamedChannel(name, "made up") for name in ("a", "b")]
    gateway = WhapiGateway("http://127.0.0.1:1", "", channels=channels, budget=budget)
    looks = 0
    while gateway.can_spare_list():
        looks += 1
        assert all(budget.take() for _ in channels)
    assert looks == 6
    assert sum(budget.take() for _ in range(1000)) == 13
    clock.forward(MONTH_SECONDS / 10)
    assert gateway.can_spare_list()


def test_the_last_list_serves_until_the_next_one_may_be_asked_for() -> None:
    clock, asked = HandMovedClock(), Asked()
    lists = ListBudget(_PER_MONTH, clock)
    # 750 requests for lists, four for each: 187 lists in 30 days, 3.87 hours apart.
    for _ in range(100):
        lists.listed(_CHANNELS, asked)
    assert asked.times == 1
    clock.forward(3.8 * 3600)
    lists.listed(_CHANNELS, asked)
    assert asked.times == 1
    clock.forward(0.1 * 3600)
    lists.listed(_CHANNELS, asked)
    assert asked.times == 2


@pytest.mark.parametrize(
    ("reason", "times"), [(GatewayErrorKind.UNAUTHORIZED, 1), (GatewayErrorKind.CONNECTION, 3)]
)
def test_a_failure_counts_unless_it_has_cost_nothing(reason: GatewayErrorKind, times: int) -> None:
    asked = Asked()
    asked.error = GatewayError(Operation.LIST, reason, "as the test says")
    lists = ListBudget(_PER_MONTH, HandMovedClock())
    for _ in range(3):
        with pytest.raises(GatewayError, match="as the test says"):
            lists.listed(_CHANNELS, asked)
    assert asked.times == times


def test_a_call_without_budget_is_not_made() -> None:
    class Empty(CallBudget):
        def take(self) -> bool:
            return False

    # Port 9 answers nothing: a call would fail in another way.
    gateway = WhapiGateway(
        "http://127.0.0.1:9",
        "",
        channels=[NamedChannel("loja", "a-token")],
        budget=Empty(_PER_MONTH),
    )

    with pytest.raises(GatewayError, match="requests_per_month leaves no request") as caught:
        gateway.qr("loja")
    assert caught.value.reason is GatewayErrorKind.LIMIT
    assert not caught.value.one_channel


def test_an_audit_leaves_the_repairs_what_they_need() -> None:
    budget = CallBudget(_PER_MONTH, HandMovedClock())
    named = [NamedChannel("loja", "a-token")]
    gateway = WhapiGateway("http://127.0.0.1:9", "", channels=named, budget=budget)
    while budget.spares(1):
        assert budget.take()
    with pytest.raises(GatewayError, match="requests_per_month is kept for repairs"):
        gateway.received(Channel("loja", Status.CONNECTED), Wanted(0.0, 1.0))
    assert budget.take()


def test_lists_leave_the_calls_and_qr_codes_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a repair waits, or is verified, its lists would use up in minutes what is left."""
    clock = HandMovedClock()
    budget = CallBudget(_PER_MONTH, clock)
    named = [NamedChannel("loja", "a-token")]
    gateway = WhapiGateway("http://127.0.0.1:9", "", channels=named, budget=budget)
    body = b'{"status": {"text": "ERROR"}}'
    answer = GatewayResponse(200, "application/json", body)
    monkeypatch.setattr(gateway._http, "request", lambda *_, **__: answer)
    for lists in (15, 1):
        for _ in range(lists):
            gateway.list_channels()
        with pytest.raises(GatewayError, match="requests_per_month is kept for calls") as caught:
            gateway.list_channels()
        assert caught.value.reason is GatewayErrorKind.LIMIT
        # Without a list for some hours, one may use the rest.
        while budget.take():
            pass
        clock.forward(10 * 3600)
    gateway.reconnect(Channel("loja", Status.DISCONNECTED), silent=False)


def test_a_list_that_needs_most_of_a_small_budget_is_read_at_the_start() -> None:
    # 25 calls a month for each channel: the burst is 2.5, and a list with activity costs 2.
    budget = CallBudget(100, HandMovedClock())
    assert budget.may_list(2)
    assert not budget.may_list(2)


def test_a_used_up_budget_brings_a_channel_back_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HandMovedClock()
    budget = CallBudget(_PER_MONTH, clock)
    named = [NamedChannel("loja", "a-token")]
    gateway = WhapiGateway("http://127.0.0.1:9", "", channels=named, budget=budget)
    asked: list[str] = []

    def answer(_: str, path: str, *__: object, **___: object) -> object:
        asked.append(path)
        return GatewayResponse(200, "application/json", b'{"status": {"text": "ERROR"}}')

    monkeypatch.setattr(gateway._http, "request", answer)
    gateway.list_channels()
    while budget.take():
        pass
    for _ in range(4 * 24 * 12):
        clock.forward(300)
        with suppress(GatewayError):
            (channel,) = gateway.list_channels().channels
            gateway.reconnect(channel, silent=False)
    assert "/health?wakeup=true" in asked
