"""The exporter's pages."""

from __future__ import annotations

import gzip

import pytest
from flask.testing import FlaskClient

from exporter.app import create_app
from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.pollers import GatewayState, LogState, StateStore, waiting_for
from exporter.silence.model import Threshold
from zapwatch import __version__
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode
from zapwatch.metrics import MetricsPage

_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_UP = GatewayState(up=True, channels=(Channel("loja", Status.CONNECTED),))


@pytest.fixture
def store() -> StateStore:
    return StateStore()


def _client(store: StateStore, *, with_log: bool = True) -> FlaskClient:
    fixed = Threshold(1, SilenceMode.FIXED)
    metrics = ExporterMetrics(store, "wpp", lambda *_: fixed, lambda *_: 1.0, with_log=with_log)
    page = MetricsPage(make_registry(ExporterCollector([metrics])))
    return create_app(page, lambda: waiting_for(store.snapshot, with_log=with_log)).test_client()


@pytest.fixture
def client(store: StateStore) -> FlaskClient:
    return _client(store)


def test_the_text_format_is_the_usual_one(store: StateStore, client: FlaskClient) -> None:
    store.update(gateway=_UP)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "Content-Encoding" not in answer.headers
    assert 'whatsapp_channel_connected{channel="loja",gateway="wpp"} 1.0\n' in answer.text
    assert "# EOF" not in answer.text
    assert "_created" not in answer.text


def test_who_accepts_openmetrics_gets_it(store: StateStore, client: FlaskClient) -> None:
    store.update(gateway=_UP)
    answer = client.get("/metrics", headers={"Accept": _OPENMETRICS})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert 'whatsapp_channel_connected{channel="loja",gateway="wpp"} 1.0\n' in answer.text


def test_who_accepts_gzip_gets_the_same_page_compressed(
    store: StateStore, client: FlaskClient
) -> None:
    store.update(gateway=_UP)
    names = {"name[]": "whatsapp_channel_connected"}
    plain = client.get("/metrics", query_string=names)
    packed = client.get("/metrics", query_string=names, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert {"Accept", "Accept-Encoding"} <= set(packed.headers["Vary"].split(", "))


def test_only_the_series_that_are_named_are_shown(store: StateStore, client: FlaskClient) -> None:
    client.get("/metrics")
    store.update(gateway=_UP)
    names = ["whatsapp_channel_connected", "whatsapp_exporter_build_info", "nothing"]
    answer = client.get("/metrics", query_string={"name[]": names})
    samples = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert sorted(samples) == [
        'whatsapp_channel_connected{channel="loja",gateway="wpp"} 1.0',
        f'whatsapp_exporter_build_info{{version="{__version__}"}} 1.0',
    ]
    count = "whatsapp_gateway_request_duration_seconds_count"
    answer = client.get(
        "/metrics", query_string={"name[]": count}, headers={"Accept": _OPENMETRICS}
    )
    assert answer.text.splitlines()[2:] == [
        f'{count}{{gateway="wpp",operation="list"}} 0.0',
        "# EOF",
    ]


def test_the_process_and_its_python_are_shown(client: FlaskClient) -> None:
    text = client.get("/metrics").text
    for name in ("process_resident_memory_bytes ", "process_open_fds ", "python_info{"):
        assert f"\n{name}" in text
    assert '\npython_gc_collections_total{generation="0"} ' in text


def test_the_landing_page_links_the_others(client: FlaskClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{path}"' in answer.text
        assert client.get(path).status_code != 404


def test_it_is_not_healthy_while_a_source_is_no_more_polled(
    client: FlaskClient, dead_threads: list[str]
) -> None:
    assert client.get("/-/healthy").status_code == 200
    dead_threads.append("channel list")
    answer = client.get("/-/healthy")
    assert (answer.status_code, answer.text) == (503, "No longer at work: channel list.\n")


@pytest.mark.parametrize("up", [True, False], ids=["good", "bad"])
def test_it_is_ready_after_the_first_poll_of_each_source_good_or_bad(
    store: StateStore, client: FlaskClient, up: bool
) -> None:
    answer = client.get("/-/ready")
    assert answer.status_code == 503
    assert answer.text == "Waiting for the channel list and the message log.\n"
    store.update(log=LogState(up=up))
    answer = client.get("/-/ready")
    assert (answer.status_code, answer.text) == (503, "Waiting for the channel list.\n")
    store.update(gateway=GatewayState(up=up))
    assert client.get("/-/ready").status_code == 200


def test_it_waits_for_no_log_that_is_not_there(store: StateStore) -> None:
    client = _client(store, with_log=False)
    assert client.get("/-/ready").status_code == 503
    store.update(gateway=_UP)
    assert client.get("/-/ready").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/-/", "/static/x", "/..%2fetc/passwd"])
def test_there_is_nothing_else(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
def test_pages_can_only_be_read(client: FlaskClient, path: str) -> None:
    assert client.post(path).status_code == 405
    assert client.head(path).data == b""
