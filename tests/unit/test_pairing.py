"""Pairing codes: the number as people type it, the code, and how often one may be asked for."""

from __future__ import annotations

from typing import cast

import pytest

from reconnect_hook.dashboard.qr import (
    MOST_PAIRINGS,
    PAIRINGS_SECONDS,
    PairingLimitError,
    QrWatches,
)
from tests.support.clock import HandMovedClock
from zapwatch.gateways.base import Calls, Failure, Gateway, GatewayResponse, PairingCode
from zapwatch.gateways.helpers import other_form, phone_number, read_pairing_code
from zapwatch.gateways.wppconnect import SocketEvents


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("5500000000001", "5500000000001"),
        (" +55 (00) 0000-0001 ", "550000000001"),
        ("55.00.0000.0001", "550000000001"),
        ("0055 11", None),
        ("0123456789", None),
        ("1234567", None),
        ("1" * 16, None),
        ("call me", None),
        ("\u0661" * 12, None),
        ("", None),
    ],
)
def test_a_number_is_read_as_people_type_it(typed: str, number: str | None) -> None:
    assert phone_number(typed) == number


@pytest.mark.parametrize(
    ("number", "other"),
    [
        ("5511900000001", "551100000001"),
        ("551190000001", "5511990000001"),
        ("5511990000001", "551190000001"),
        ("551130000001", None),  # a landline
        ("5500000000001", None),  # no such area
        ("14155550100", None),
        ("351900000001", None),
    ],
)
def test_a_brazilian_mobile_number_has_another_form(number: str, other: str | None) -> None:
    assert other_form(number) == other


@pytest.mark.parametrize(
    ("told", "code"),
    [("ABCD-1234", "ABCD-1234"), ("ABCD1234", "ABCD-1234"), ("123-456", "123-456")],
)
def test_a_code_is_read_in_all_forms_and_kept_out_of_repr(told: str, code: str) -> None:
    made = read_pairing_code(told, 60.0)
    assert (made.code, made.seconds) == (code, 60.0)
    assert code not in repr(made)


@pytest.mark.parametrize(
    "told",
    [None, "", 12345678, "abcd-1234", "ABCD-12345", "ABCD-123", "123456", "<b>ABCD</b>", []],
)
def test_what_is_no_code_is_a_failure(told: object) -> None:
    with pytest.raises(Failure):
        read_pairing_code(told, 60.0)


class _Pairing:
    def pairing_code(self, _channel: str, _phone: str) -> PairingCode:
        return PairingCode("ABCD-1234", 60.0)


def test_the_codes_of_a_channel_are_limited_and_of_others_they_are_not() -> None:
    clock = HandMovedClock()
    watches = QrWatches(cast(Gateway, _Pairing()), lambda _: None, clock)
    for _ in range(MOST_PAIRINGS):
        watches.pair("loja", "5500000000001")
    with pytest.raises(PairingLimitError) as caught:
        watches.pair("loja", "5500000000001")
    watches.pair("oficina", "5500000000001")
    clock.forward(caught.value.seconds)
    watches.pair("loja", "5500000000001")
    clock.forward(PAIRINGS_SECONDS)
    for _ in range(MOST_PAIRINGS):
        watches.pair("loja", "5500000000001")


class _Socket:
    """A socket.io that tells these packets, one answer for each text."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.sent: list[object] = []

    def get(self, _path: str) -> GatewayResponse:
        return GatewayResponse(200, "text/plain", self._answers.pop(0).encode())

    def send(self, _method: str, _path: str, body: object) -> None:
        """Take a packet."""
        self.sent.append(body)


@pytest.mark.parametrize(
    "strange",
    [
        "42",
        "42nonsense",
        "42{}",
        "42[]",
        "42null",
        '42["phoneCode"]',
        '42["phoneCode", "ABCD-EFGH"]',
        '42["phoneCode", {"phone": "550000000002", "data": "ZZZZ-ZZZZ"}]',
        "42" + "[" * 100_000,
    ],
    ids=lambda strange: strange[:30],
)
def test_strange_packets_of_a_socket_do_no_harm(strange: str) -> None:
    code = '42["phoneCode", {"phone": 550000000001, "data": "ABCD-EFGH"}]'
    socket = _Socket('0{"sid": "a"}', "40", f"2\x1e{strange}\x1e{code}")
    events = SocketEvents(cast(Calls, socket))
    assert events.wait_for_code("550000000001") == "ABCD-EFGH"
    assert socket.sent == [40, 3], "it joins, and answers the ping"


@pytest.mark.parametrize("opened", ["", "0", "0[]", "0{}", "<html>", "0" + "[" * 100_000])
def test_what_is_no_socket_is_a_failure(opened: str) -> None:
    with pytest.raises(Failure):
        SocketEvents(cast(Calls, _Socket(opened, opened)))
