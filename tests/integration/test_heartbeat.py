"""Heartbeats at the hook: what calls HEARTBEAT_URL, and what is said when that fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from reconnect_hook.app import AUTH, Heartbeat, add_heartbeat
from reconnect_hook.auth import TokenAuth
from tests.support.alerts import payload
from tests.support.hooks import TOKEN
from tests.support.http_servers import Heartbeat as Service


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        yield made


def _client(heartbeat: Heartbeat) -> FlaskClient:
    app = Flask(__name__)
    app.extensions[AUTH] = TokenAuth(TOKEN)
    add_heartbeat(app, heartbeat)
    return app.test_client()


def _post(http: FlaskClient, status: str = "firing", token: str = TOKEN) -> int:
    watchdog: dict[str, Any] = {"status": status, "labels": {"alertname": "Watchdog"}}
    answer = http.post(
        "/heartbeat", data=payload(watchdog), headers={"Authorization": f"Bearer {token}"}
    )
    return answer.status_code


def test_a_firing_watchdog_with_the_token_calls_the_service(service: Service) -> None:
    heartbeat = Heartbeat(service.url)
    http = _client(heartbeat)
    assert heartbeat.is_set
    assert _post(http, token="wrong") == 401
    assert _post(http, status="resolved") == 200
    assert service.beats == 0
    assert _post(http) == 200
    assert service.beats == 1
    assert heartbeat.sent_at is not None
    assert heartbeat.error == ""


def test_without_an_address_a_heartbeat_is_noted_and_nothing_is_called() -> None:
    heartbeat = Heartbeat("")
    assert _post(_client(heartbeat)) == 200
    assert not heartbeat.is_set
    assert heartbeat.arrived_at is not None
    assert heartbeat.sent_at is None


def test_a_service_that_fails_is_named_once_without_its_address(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeat = Heartbeat(service.url)
    http = _client(heartbeat)
    service.status = 404
    with caplog.at_level(logging.INFO, "reconnect_hook"):
        # Alertmanager has done its part: it must not try again, nor count it as a failure.
        assert [_post(http), _post(http)] == [200, 200]
        assert heartbeat.error == "HTTP 404"
        assert heartbeat.sent_at is None
        service.status = 200
        assert _post(http) == 200
    assert [record.getMessage() for record in caplog.records] == [
        "HEARTBEAT_URL: HTTP 404",
        "HEARTBEAT_URL: heartbeats are accepted again",
    ]
    assert heartbeat.error == ""
