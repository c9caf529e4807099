"""What the wrapper's answers mean: every shape of a list and of a QR code."""

from __future__ import annotations

import base64
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.gateway import Observed
from tests.support.raw_server import RawServer, answering
from zapwatch.gateways import base
from zapwatch.gateways.base import (
    Failure,
    GatewayErrorKind,
    GatewayResponse,
    LeftOut,
    QrAnswer,
    QrKind,
)
from zapwatch.gateways.wrapper import parse_list, parse_qr

_PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
_INVALID, _HTTP = GatewayErrorKind.INVALID, GatewayErrorKind.HTTP


def _answer(body: Any, status: int = 200) -> GatewayResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return GatewayResponse(status, "application/json", raw)


class TestList:
    @pytest.mark.parametrize(
        ("body", "channel_id"),
        [
            ({"channels": [{"id": "a", "name": "b", "channel_id": "c"}]}, "a"),
            ({"channels": [{"name": "b", "channel_id": "c"}]}, "b"),
            ({"channels": [{"channel_id": "c"}]}, "c"),
            ({"channels": [{"id": "", "name": "b"}]}, "b"),
            ({"channels": [{"id": "  ", "name": None, "channel_id": "c"}]}, "c"),
            ({"channels": [{"id": None, "name": "b"}]}, "b"),
            ({"channels": [{"id": ["a"], "name": "b"}]}, "b"),
            ({"channels": [{"id": True, "name": "b"}]}, "b"),
            ({"channels": [{"id": 5, "name": "b"}]}, "5"),
            ({"channels": [{"id": 0}]}, "0"),
            ({"channels": [{"id": " Pixel12 Digital "}]}, " Pixel12 Digital "),
            ({"data": {"channels": [{"id": "under data"}]}}, "under data"),
            (b'\xef\xbb\xbf{"channels": [{"id": "a"}]}', "a"),
        ],
    )
    def test_the_id_is_the_first_of_three_fields_that_holds_one(
        self, body: Any, channel_id: str
    ) -> None:
        assert [c.id for c in parse_list(_answer(body)).channels] == [channel_id]

    def test_entries_that_are_no_channels_are_counted_and_passed_over(self) -> None:
        ids = ("..", "a\nb", "x" * 300, "x" * 1_000_000, "\ud800", " ", "", None)
        bad: list[object] = [
            *({"id": one} for one in ids),
            {},
            {"status": "connected"},
            None,
            "obra",
            7,
            [],
        ]
        good = [{"id": "loja"}, {"id": "obra", "status": "disconnected"}]
        listed = parse_list(_answer({"channels": [good[0], *bad, good[1]]}))
        assert [c.id for c in listed.channels] == ["loja", "obra"]
        assert listed.left_out == {LeftOut.UNUSABLE_ID: len(bad)}

    def test_entries_are_one_channel_if_their_names_are_the_same_in_one_unicode_form(self) -> None:
        ids = ("Loja 1", "loja1", "loja1", "S\u00e3o", "Sa\u0303o", "sa\u0303o", "obra", "obra ")
        entries = [{"id": one, "status": "connected"} for one in ids]
        listed = parse_list(_answer({"channels": entries}))
        assert [(c.id, c.has_twin) for c in listed.channels] == [
            ("Loja 1", True),
            ("loja1", True),
            ("S\u00e3o", True),
            ("sa\u0303o", True),
            ("obra", False),
        ]
        assert listed.left_out == {LeftOut.DUPLICATE: 3}

    def test_of_too_many_channels_it_is_always_the_same_that_are_watched(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "MAX_CHANNELS", 3)
        ids = ["b", "e", "d", "a", "c", "a "]
        for entries in (ids, ids[::-1]):
            listed = parse_list(_answer({"channels": [{"id": channel} for channel in entries]}))
            assert {channel.key for channel in listed.channels} == {"a", "b", "c"}
            assert listed.left_out == {LeftOut.DUPLICATE: 1, LeftOut.OVER_LIMIT: 2}

    @pytest.mark.parametrize(
        "body",
        [
            {"success": True},
            {"success": True, "channels": None},
            {"success": True, "channels": {"id": "loja"}},
            {"success": True, "channels": "loja"},
            {"success": True, "data": [{"id": "loja"}]},
            {"success": True, "data": {"channels": 1}},
            {"success": True, "channels": [{}, None]},
            {"success": False, "channels": [{"id": "loja"}]},
        ],
    )
    def test_what_is_no_list_of_channels_is_invalid(self, body: Any) -> None:
        with pytest.raises(Failure) as caught:
            parse_list(_answer(body))
        assert caught.value.reason is _INVALID

    @pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain"])
    @pytest.mark.parametrize(
        ("status", "words"),
        [
            *((status, "a firewall or proxy in between refused") for status in (401, 403)),
            *((status, "its gateway does not") for status in (502, 503, 504)),
            *((status, "an HTML page instead of JSON") for status in (200, 404, 500, 522)),
        ],
    )
    def test_the_page_of_a_firewall_or_proxy_is_told_from_a_wrong_secret(
        self, status: int, words: str, content_type: str
    ) -> None:
        body = b"\n<html>Please wait</html>"
        page = answering(body, status=status, content_type=content_type)
        with RawServer(page) as server, Observed(server.url) as observed:
            error = observed.failure("list")
            assert error.reason is GatewayErrorKind.HTML
            assert words in error.detail

    @pytest.mark.parametrize("parse", [parse_list, parse_qr])
    def test_an_error_nested_as_deeply_as_can_just_be_read_does_not_crash(
        self, parse: Callable[[GatewayResponse], object]
    ) -> None:
        limit = sys.getrecursionlimit()
        for depth in range(limit - 300, limit + 1, 5):
            nested = '{"a":' * depth + "1" + "}" * depth
            with pytest.raises(Failure):
                parse(_answer(f'{{"success": false, "error": {nested}}}'.encode()))


class TestQrCode:
    @pytest.mark.parametrize(
        "image", [_PNG, f"data:image/png;base64,{_PNG}", "http://gateway.example.com/qr.png"]
    )
    def test_a_qr_code_is_found_in_every_field_and_form(self, image: str) -> None:
        fields = (
            *("qr", "qr_base64", "qrcode", "base64Qrimg", "base64", "base64Image", "image"),
            "qrcode_base64",
        )
        for field in (*fields, "data", "result"):
            found = parse_qr(_answer({"success": True, field: image}))
            assert found == QrAnswer(QrKind.QR, image), field
        for outer, inner in itertools.product(("data", "result"), fields):
            found = parse_qr(_answer({"success": True, outer: {inner: image}}))
            assert found == QrAnswer(QrKind.QR, image), (outer, inner)

    def test_a_qr_code_beside_fields_of_other_kinds_is_found(self) -> None:
        other = {"qr": None, "base64": "", "image": 7, "qrcode": "loading"}
        found = parse_qr(_answer({**other, "data": {"qr": f" {_PNG}\n"}}))
        assert found == QrAnswer(QrKind.QR, _PNG)

    @pytest.mark.parametrize(
        ("status", "body", "meaning"),
        [
            # A code counts more than a status or a message, and a success more than its words.
            (
                200,
                {"success": True, "qr": _PNG, "status": "CONNECTED", "message": "or start-session"},
                QrKind.QR,
            ),
            (
                200,
                {"success": True, "qr": None, "message": "connected, no start-session is needed"},
                QrKind.ACCEPTED,
            ),
            (200, {"success": True, "qr": None, "message": "Session not started"}, QrKind.ACCEPTED),
            (200, {"status": " Initializing"}, QrKind.INITIALIZING),
            (200, {"success": True, "data": {"status": "INITIALIZING"}}, QrKind.INITIALIZING),
            # A session that was not started is known by its words, wherever they are.
            (200, {"success": False, "error": "Session not started"}, QrKind.NOT_STARTED),
            (500, {"success": False, "error": "SESSION NOT STARTED."}, QrKind.NOT_STARTED),
            (500, {"success": False, "error": {"message": "start-session"}}, QrKind.NOT_STARTED),
            (500, {"success": False, "error": ["Use /start-session"]}, QrKind.NOT_STARTED),
            (500, {"error": True, "message": "Session not started"}, QrKind.NOT_STARTED),
            (500, {"error": "x" * 500 + " Session not started"}, QrKind.NOT_STARTED),
            (401, {"error": "start-session: Session not started"}, GatewayErrorKind.UNAUTHORIZED),
            (403, {"error": "start-session: Session not started"}, GatewayErrorKind.UNAUTHORIZED),
            (404, {"error": "start-session: Session not started"}, _HTTP),
            (502, {"error": "start-session: Session not started"}, _HTTP),
            (504, {"error": "start-session: Session not started"}, _HTTP),
            # An older wrapper's error for a session that is connected.
            (500, {"error": "Invalid QR code response from server"}, QrKind.ACCEPTED),
            (200, {"success": False, "error": "Invalid QR code response from server"}, _INVALID),
        ],
    )
    def test_each_answer_has_its_meaning(
        self, status: int, body: Any, meaning: QrKind | GatewayErrorKind
    ) -> None:
        try:
            found: object = parse_qr(_answer(body, status)).kind
        except Failure as failure:
            found = failure.reason
        assert found is meaning
