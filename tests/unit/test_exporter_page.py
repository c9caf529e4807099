"""The page of metrics: rendered once a snapshot, and only where something has changed."""

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

from exporter import exposition
from exporter.collector import ExporterMetrics
from exporter.exposition import MetricsPage, Section, Texts
from exporter.silence.thresholds import Threshold
from exporter.snapshot import GatewayState, LogState, StateStore
from tests.support.clock import HandMovedClock
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode

_OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
_UP = GatewayState(up=True, channels=(Channel("loja", Status.CONNECTED),))
_FORMS = [(accept, encoding) for accept in ("", _OPENMETRICS) for encoding in ("", "gzip")]


class Counting(Collector):
    """Counts how often it is collected; fails or waits where told so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = 0
        self.broken = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.times += 1
        assert self.may_go_on.wait(60)
        if self.broken:
            raise ValueError("out of order")
        yield GaugeMetricFamily(self.name, "How often.", self.times)


class Counted:
    """A page of two sections: one of everything, one of the gateway's state alone."""

    def __init__(self) -> None:
        self.board = StateStore()
        self.all, self.gateway = Counting("all"), Counting("gateway")
        registries = CollectorRegistry(), CollectorRegistry()
        registries[0].register(self.all)
        registries[1].register(self.gateway)
        sections = (
            Section(registries[0], lambda snapshot: (snapshot,)),
            Section(registries[1], lambda snapshot: (snapshot.gateway,)),
        )
        self.texts = [Texts(self.board, sections)]
        self.page = MetricsPage(self.texts)

    @property
    def times(self) -> tuple[int, int]:
        return self.all.times, self.gateway.times


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize("form", _FORMS)
def test_a_snapshot_is_rendered_once_when_it_is_pinned_and_not_when_it_is_asked_for(
    counted: Counted, form: tuple[str, str]
) -> None:
    first = counted.page.get(*form)
    assert all(counted.page.get(*form) is first for _ in range(10))
    assert counted.times == (1, 1)

    counted.board.pin(gateway=_UP)

    assert counted.times == (2, 2)
    second = counted.page.get(*form)
    assert second.body != first.body
    assert counted.page.get(*form) is second
    assert counted.times == (2, 2)


def test_a_section_of_which_nothing_has_changed_is_not_written_again(counted: Counted) -> None:
    counted.board.pin(gateway=_UP)
    counted.page.get("", "")
    counted.board.pin(log=LogState(up=True))
    counted.board.pin(log=LogState(up=False))

    assert counted.times == (3, 1)
    text = counted.page.get("", "").body.decode()
    assert "all 3.0" in text
    assert "gateway 1.0" in text


def test_nothing_is_rendered_that_nobody_asks_for(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandMovedClock()
    clock.rule(monkeypatch, "exporter.exposition")
    counted.board.pin(gateway=_UP)
    assert counted.times == (0, 0)

    counted.page.get("", "")
    clock.forward(exposition._KEEP_SECONDS - 1)
    counted.board.pin(log=LogState(up=True))
    assert counted.times == (2, 1)

    clock.forward(2)
    counted.board.pin(log=LogState(up=True))
    assert counted.times == (2, 1)
    assert b"all 3.0" in counted.page.get("", "").body


def test_forms_do_not_get_into_each_others_way(counted: Counted) -> None:
    bodies = [counted.page.get(*form).body for form in _FORMS for _ in range(3)]
    assert len(set(bodies)) == 4
    assert counted.times == (2, 2), "once for each format, compressed or not"
    # Clients with other words for the same thing make no rendering of their own.
    assert counted.page.get("text/html, */*;q=0.1", "identity").body in bodies
    assert counted.page.get(f"{_OPENMETRICS},*/*", "deflate, gzip").body in bodies
    assert counted.times == (2, 2)


def test_the_sections_make_one_valid_text_in_both_formats(counted: Counted) -> None:
    for encoding in ("", "gzip"):
        shown = counted.page.get(_OPENMETRICS, encoding)
        body = gzip.decompress(shown.body) if encoding else shown.body
        families = list(parse(body.decode()))  # type: ignore[no-untyped-call]
        assert [family.name for family in families] == [
            "all",
            "gateway",
            "whatsapp_exporter_build_info",
        ]
        assert body.count(b"# EOF") == 1
    assert b"EOF" not in counted.page.get("", "").body


def _two_gateways() -> MetricsPage:
    boards = {"wpp": StateStore(), "loja": StateStore()}
    threshold = Threshold(1, SilenceMode.FIXED)
    made = [
        Texts(
            board,
            ExporterMetrics(
                board, name, lambda *_: threshold, lambda *_: 1.0, with_log=name == "wpp"
            ).sections,
        )
        for name, board in boards.items()
    ]
    for board in boards.values():
        board.pin(gateway=_UP)
    return MetricsPage(made)


@pytest.mark.parametrize("form", _FORMS)
def test_all_gateways_stand_under_one_header_of_each_metric(form: tuple[str, str]) -> None:
    shown = _two_gateways().get(*form)
    body = gzip.decompress(shown.body) if form[1] else shown.body
    headers = [line for line in body.decode().splitlines() if line.startswith("# TYPE ")]
    assert len(headers) == len(set(headers))
    read = parse if form[0] else text_string_to_metric_families
    families = {family.name: family for family in read(body.decode())}
    of = {name: {s.labels.get("gateway") for s in f.samples} for name, f in families.items()}
    assert of["whatsapp_channel_connected"] == {"wpp", "loja"}
    assert of["whatsapp_message_log_poll_duration_seconds"] == {"wpp"}
    assert len(families["whatsapp_exporter_build_info"].samples) == 1


def test_a_gateway_that_is_shown_no_more_leaves_the_page(counted: Counted) -> None:
    other = Counted()
    other.all.name, other.gateway.name = "more", "other_gateway"
    counted.page.show([*counted.texts, *other.texts])
    assert b"more 1.0" in counted.page.get("", "").body
    counted.page.show(other.texts)
    body = counted.page.get("", "").body
    assert b"more 1.0" in body
    assert b"all 1.0" not in body


def test_what_one_gateway_pins_has_no_other_written_again(counted: Counted) -> None:
    other = Counted()
    counted.page.show([*counted.texts, *other.texts])
    counted.page.get("", "gzip")
    counted.board.pin(gateway=_UP)
    counted.page.get("", "gzip")
    assert (counted.times, other.times) == ((2, 2), (1, 1))


def test_the_last_page_is_handed_out_while_the_next_one_is_written(counted: Counted) -> None:
    before = counted.page.get("", "")
    counted.all.may_go_on.clear()
    pinning = threading.Thread(target=counted.board.pin, kwargs={"gateway": _UP})
    pinning.start()
    wait_until(lambda: counted.all.times == 2, 60, "the next page to be begun")

    assert counted.page.get("", "") is before

    counted.all.may_go_on.set()
    pinning.join(60)
    assert counted.page.get("", "") is not before


def test_a_page_that_cannot_be_rendered_is_told_and_does_not_stop_who_pins(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    counted.page.get("", "")
    counted.all.broken = True
    counted.board.pin(gateway=_UP)
    assert "cannot be rendered" in caplog.text
    with pytest.raises(ValueError, match="out of order"):
        counted.page.get("", "")

    counted.all.broken = False
    counted.board.pin(log=LogState(up=True))
    assert b"all" in counted.page.get("", "").body


def test_threads_that_pin_at_once_leave_the_newest_page(counted: Counted) -> None:
    counted.page.get("", "")
    rounds = 50

    def pin() -> None:
        for _ in range(rounds):
            counted.board.pin(log=LogState(up=True))

    threads = [threading.Thread(target=pin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert f"all {counted.all.times}.0".encode() in counted.page.get("", "").body
    assert counted.all.times <= 1 + 4 * rounds
