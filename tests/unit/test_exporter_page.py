"""The page of metrics: rendered once for each change; gateways on it come and go."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.pollers import GatewayState, StateStore
from exporter.silence.model import Threshold
from tests.support.clock import HandMovedClock
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode
from zapwatch.gateways.base import GatewayErrorKind, Operation
from zapwatch.metrics import GatewayMetrics, MetricsPage

_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_UP = GatewayState(up=True, channels=(Channel("loja", Status.CONNECTED),))
_FORMATS = [(accept, encoding) for accept in ("", _OPENMETRICS) for encoding in ("", "gzip")]


class Counting(Collector):
    """Counts how often it is collected; fails or waits on request."""

    def __init__(self) -> None:
        self.times = 0
        self.broken = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def describe(self) -> list[Metric]:
        return [GaugeMetricFamily("times", "How often.")]

    def collect(self) -> Iterator[Metric]:
        self.times += 1
        assert self.may_go_on.wait(60)
        if self.broken:
            raise ValueError("out of order")
        yield GaugeMetricFamily("times", "How often.", self.times)


class Counted:
    """A page of one metric: how often it was rendered."""

    def __init__(self) -> None:
        self.clock = HandMovedClock()
        self.collector = Counting()
        registry = CollectorRegistry()
        registry.register(self.collector)
        self.page = MetricsPage(registry, clock=self.clock)

    @property
    def times(self) -> int:
        return self.collector.times

    def body(self, accept: str = "", encoding: str = "") -> bytes:
        return self.page.get(accept, encoding).body


@pytest.fixture
def counted() -> Counted:
    return Counted()


class TestCache:
    @pytest.mark.parametrize("wanted", _FORMATS)
    def test_a_change_is_rendered_once_however_many_scrapes_come(
        self, counted: Counted, wanted: tuple[str, str]
    ) -> None:
        first = counted.page.get(*wanted)
        assert all(counted.page.get(*wanted) is first for _ in range(10))
        assert counted.times == 1
        counted.page.refresh()
        second = counted.page.get(*wanted)
        assert second.body != first.body
        assert counted.page.get(*wanted) is second
        assert counted.times == 2

    def test_a_format_is_rendered_until_nobody_has_scraped_it_for_five_minutes(
        self, counted: Counted
    ) -> None:
        counted.page.refresh()
        assert counted.times == 0
        counted.body()
        counted.clock.forward(299)
        counted.page.refresh()
        assert counted.times == 2
        counted.clock.forward(2)
        counted.page.refresh()
        assert counted.times == 2
        assert b"times 3.0" in counted.body()

    def test_each_format_is_rendered_once_compressed_or_not(self, counted: Counted) -> None:
        bodies = [counted.body(*wanted) for wanted in _FORMATS for _ in range(3)]
        assert len(set(bodies)) == 4
        # Clients with other words for the same format make no rendering of their own.
        assert counted.body("text/html, */*;q=0.1", "identity") in bodies
        assert counted.body(f"{_OPENMETRICS},*/*", "deflate, gzip") in bodies
        assert counted.times == 4
        counted.page.refresh()
        assert counted.times == 6, "once for each of text and OpenMetrics"
        for accept in ("", _OPENMETRICS):
            assert gzip.decompress(counted.body(accept, "gzip")) == counted.body(accept)

    def test_names_are_rendered_for_their_request_and_leave_the_cache_alone(
        self, counted: Counted
    ) -> None:
        first = counted.page.get("", "")
        assert b"times 2.0" in counted.page.get("", "", ["times"]).body
        assert counted.page.get("", "", ["other"]).body == b""
        assert counted.page.get("", "") is first


class TestRendering:
    def test_the_last_page_is_handed_out_while_the_next_one_is_rendered(
        self, counted: Counted
    ) -> None:
        before = counted.page.get("", "")
        counted.collector.may_go_on.clear()
        rendering = threading.Thread(target=counted.page.refresh)
        rendering.start()
        wait_until(lambda: counted.times == 2, "the next rendering to begin")
        assert counted.page.get("", "") is before
        counted.collector.may_go_on.set()
        rendering.join(60)
        assert counted.page.get("", "") is not before

    def test_a_change_during_a_rendering_is_rendered_after_it(self, counted: Counted) -> None:
        counted.body()
        counted.collector.may_go_on.clear()
        counted.page.start()
        counted.page.invalidate()
        wait_until(lambda: counted.times == 2, "the rendering to begin")
        counted.page.invalidate()
        counted.page.invalidate()
        counted.collector.may_go_on.set()
        wait_until(lambda: b"times 3.0" in counted.body(), "the change to be rendered")

    def test_a_page_that_cannot_be_rendered_is_logged_and_rendered_again(
        self, counted: Counted, caplog: pytest.LogCaptureFixture
    ) -> None:
        counted.body()
        counted.collector.broken = True
        counted.page.refresh()
        assert "cannot be rendered" in caplog.text
        with pytest.raises(ValueError, match="out of order"):
            counted.body()
        counted.collector.broken = False
        counted.page.refresh()
        assert b"times" in counted.body()


class TestSeveralGateways:
    def _metrics(self, name: str, *, with_log: bool = False) -> ExporterMetrics:
        fixed = Threshold(1, SilenceMode.FIXED)
        store = StateStore()
        store.update(gateway=_UP)
        return ExporterMetrics(store, name, lambda *_: fixed, lambda *_: 1.0, with_log=with_log)

    @pytest.mark.parametrize("wanted", _FORMATS)
    def test_all_gateways_stand_under_one_header_of_each_metric(
        self, wanted: tuple[str, str]
    ) -> None:
        gateways = [self._metrics("wpp", with_log=True), self._metrics("loja")]
        shown = MetricsPage(make_registry(ExporterCollector(gateways))).get(*wanted)
        body = gzip.decompress(shown.body) if wanted[1] else shown.body
        headers = [line for line in body.decode().splitlines() if line.startswith("# TYPE ")]
        assert len(headers) == len(set(headers))
        read = parse if wanted[0] else text_string_to_metric_families
        families = {family.name: family for family in read(body.decode())}
        of = {name: {s.labels.get("gateway") for s in f.samples} for name, f in families.items()}
        assert of["whatsapp_channel_connected"] == {"wpp", "loja"}
        assert of["whatsapp_gateway_request_duration_seconds"] == {"wpp", "loja"}
        assert of["whatsapp_message_log_poll_duration_seconds"] == {"wpp"}
        assert len(families["whatsapp_exporter_build_info"].samples) == 1

    def test_each_gateway_counts_its_own_calls_at_every_rendering(self) -> None:
        gateways = [self._metrics("wpp"), self._metrics("loja")]
        gateways[0].observe_call(Operation.LIST, 1.0, GatewayErrorKind.TIMEOUT)
        page = MetricsPage(make_registry(ExporterCollector(gateways)))
        errors = "whatsapp_gateway_request_errors_total"
        for _ in range(2):
            body = page.get("", "").body.decode()
            for name, count in (("wpp", 1), ("loja", 0)):
                labels = f'gateway="{name}",operation="list",reason="timeout"'
                assert body.count(f"{errors}{{{labels}}} {count}.0\n") == 1
            page.refresh()

    def test_a_gateway_that_is_shown_no_more_leaves_the_page(self) -> None:
        wpp, loja = self._metrics("wpp"), self._metrics("loja")
        collector = ExporterCollector([wpp, loja])
        page = MetricsPage(make_registry(collector))
        assert b'gateway="wpp"' in page.get("", "").body
        collector.show([loja])
        page.refresh()
        body = page.get("", "").body
        assert b'gateway="loja"' in body
        assert b'gateway="wpp"' not in body


_COUNT = "whatsapp_gateway_request_duration_seconds_count"
_ERRORS = "whatsapp_gateway_request_errors_total"


def _of(registry: CollectorRegistry, gateway: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.labels["gateway"] == gateway and sample.name in {_COUNT, _ERRORS}
    }


def test_a_gateway_that_is_forgotten_stays_so_whatever_still_ends() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry, [Operation.LIST])
    observe, other = metrics.of("loja"), metrics.of("wpp")
    # WhatsAppGatewayUnknown reads from it which gateways a hook has.
    assert _of(registry, "loja")[_COUNT] == 0
    observe(Operation.LIST, 1.0, None)
    assert _of(registry, "loja")[_COUNT] == 1

    metrics.forget("loja")
    observe(Operation.LIST, 90.0, GatewayErrorKind.TIMEOUT)
    other(Operation.LIST, 1.0, None)
    assert _of(registry, "loja") == {}
    assert _of(registry, "wpp")[_COUNT] == 1

    metrics.of("loja")(Operation.LIST, 1.0, None)
    assert _of(registry, "loja") == {_COUNT: pytest.approx(1), _ERRORS: 0}
