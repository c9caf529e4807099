"""The exporter's pages."""

from __future__ import annotations

import gzip

import pytest
from flask.testing import FlaskClient

from exporter.app import create_app
from exporter.collector import ExporterMetrics
from exporter.exposition import MetricsPage, Texts
from exporter.silence.thresholds import Threshold
from exporter.snapshot import GatewayState, LogState, StateStore, waiting_for
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode

_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_UP = GatewayState(up=True, channels=(Channel("loja", Status.CONNECTED),))


@pytest.fixture
def board() -> StateStore:
    return StateStore()


def _client(board: StateStore, *, with_log: bool = True) -> FlaskClient:
    fixed = Threshold(1, SilenceMode.FIXED)
    metrics = ExporterMetrics(board, "wpp", lambda *_: fixed, lambda *_: 1.0, with_log=with_log)
    page = MetricsPage([Texts(board, metrics.sections)])
    return create_app(page, lambda: waiting_for(board.snapshot, with_log=with_log)).test_client()


@pytest.fixture
def client(board: StateStore) -> FlaskClient:
    return _client(board)


def test_the_text_format_is_the_usual_one(board: StateStore, client: FlaskClient) -> None:
    board.pin(gateway=_UP)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "Content-Encoding" not in answer.headers
    assert 'whatsapp_channel_connected{channel="loja",gateway="wpp"} 1.0\n' in answer.text
    assert "# EOF" not in answer.text
    assert "_created" not in answer.text


def test_who_accepts_openmetrics_gets_it(board: StateStore, client: FlaskClient) -> None:
    board.pin(gateway=_UP)
    answer = client.get("/metrics", headers={"Accept": _OPENMETRICS})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert 'whatsapp_channel_connected{channel="loja",gateway="wpp"} 1.0\n' in answer.text


def test_who_accepts_gzip_gets_the_same_page_compressed(
    board: StateStore, client: FlaskClient
) -> None:
    board.pin(gateway=_UP)
    plain = client.get("/metrics")
    packed = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert {"Accept", "Accept-Encoding"} <= set(packed.headers["Vary"].split(", "))


def test_the_landing_page_links_the_others(client: FlaskClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{path}"' in answer.text
        assert client.get(path).status_code != 404


def test_it_is_healthy_from_the_beginning(client: FlaskClient) -> None:
    assert client.get("/-/healthy").status_code == 200


@pytest.mark.parametrize("up", [True, False], ids=["good", "bad"])
def test_it_is_ready_after_the_first_poll_of_each_source_good_or_bad(
    board: StateStore, client: FlaskClient, up: bool
) -> None:
    answer = client.get("/-/ready")
    assert answer.status_code == 503
    assert answer.text == "Waiting for the channel list and the message log.\n"
    board.pin(log=LogState(up=up))
    answer = client.get("/-/ready")
    assert (answer.status_code, answer.text) == (503, "Waiting for the channel list.\n")
    board.pin(gateway=GatewayState(up=up))
    assert client.get("/-/ready").status_code == 200


def test_it_waits_for_the_log_as_well(board: StateStore, client: FlaskClient) -> None:
    board.pin(gateway=_UP)
    answer = client.get("/-/ready")
    assert (answer.status_code, answer.text) == (503, "Waiting for the message log.\n")


def test_it_waits_for_no_log_that_is_not_there(board: StateStore) -> None:
    client = _client(board, with_log=False)
    assert client.get("/-/ready").status_code == 503
    board.pin(gateway=_UP)
    assert client.get("/-/ready").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/static/x", "/..%2fetc/passwd"])
def test_there_is_nothing_else(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
def test_pages_can_only_be_read(client: FlaskClient, path: str) -> None:
    assert client.post(path).status_code == 405
    assert client.head(path).data == b""
