"""What the exporter publishes for a snapshot, metric by metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.pollers import GatewayState, LogState, StateStore
from exporter.silence.model import Learned, Model, Threshold
from exporter.silence.profile import WEEK_HOURS, Profile
from tests.support.samples import Metrics
from zapwatch import __version__
from zapwatch.channels import Channel, Status
from zapwatch.config import SilenceMode
from zapwatch.gateways.base import GatewayErrorKind, LeftOut, Operation
from zapwatch.messages.message import ActivitySnapshot, Direction
from zapwatch.metrics import MetricsPage

_SHOP = Channel("loja", Status.CONNECTED)
_OFFICE = Channel("Pixel12 Digital", Status.QR_REQUIRED)
_VIEW = ActivitySnapshot(
    now=10_000.0,
    last_message={"loja": 9_990.0, "Pixel12 Digital": 2_800.0, "gone": 1.0},
    messages={("loja", Direction.IN): 3, ("loja", Direction.OUT): 2, ("gone", Direction.IN): 9},
    rows_read=77,
    last_heard={"loja": 9_980.0, "Pixel12 Digital": 2_700.0, "gone": 1.0},
)
_UP = GatewayState(up=True, channels=(_SHOP, _OFFICE), last_success=1_700_000_000.0)
_DOWN = GatewayState(up=False, channels=_UP.channels, last_success=_UP.last_success)
_READ = LogState(up=True, view=_VIEW, last_success=1_700_000_001.0)
_UNREAD = LogState(up=False, view=_VIEW, last_success=_READ.last_success)

_OF_CHANNELS = {
    "whatsapp_channel_connected",
    "whatsapp_channel_status",
    "whatsapp_channel_seconds_since_last_message",
    "whatsapp_channel_last_message_timestamp_seconds",
    "whatsapp_channel_silence_threshold_seconds",
    "whatsapp_channel_silence_mode",
    "whatsapp_channel_messages_total",
    "whatsapp_channel_seconds_since_last_heard",
    "whatsapp_channel_probe_threshold_seconds",
}
_STATUSES = {"whatsapp_channel_connected", "whatsapp_channel_status"}
_AGES = {
    "whatsapp_channel_seconds_since_last_message",
    "whatsapp_channel_last_message_timestamp_seconds",
    "whatsapp_channel_seconds_since_last_heard",
}
_OF_GATEWAY = {
    "whatsapp_gateway_up",
    "whatsapp_gateway_last_success_timestamp_seconds",
    "whatsapp_gateway_channels_left_out",
    "whatsapp_gateway_request_duration_seconds_bucket",
    "whatsapp_gateway_request_duration_seconds_count",
    "whatsapp_gateway_request_duration_seconds_sum",
    "whatsapp_gateway_request_errors_total",
}
_OF_LOG = {
    "whatsapp_message_log_up",
    "whatsapp_message_log_last_success_timestamp_seconds",
    "whatsapp_message_log_poll_duration_seconds_bucket",
    "whatsapp_message_log_poll_duration_seconds_count",
    "whatsapp_message_log_poll_duration_seconds_sum",
    "whatsapp_message_log_rows_read_total",
}
_LEFT_OUT = "whatsapp_gateway_channels_left_out"
_INFO = "whatsapp_exporter_build_info"


def _threshold_of(
    channel: Channel, last_message: Mapping[str, float], model: Model | None
) -> Threshold:
    if model is None:
        return Threshold(5_400 if channel == _SHOP else 14_400, SilenceMode.FIXED)
    return Threshold(last_message.get(channel.key, 0.0) / 10, SilenceMode.ADAPTIVE)


def _suspicion_of(
    channel: Channel, last_heard: Mapping[str, float], model: Model | None, most: float
) -> float | None:
    if channel.id == "off":
        return None
    return most / 3 if model is None else last_heard[channel.key] / 20


class Published:
    """A state store and the metrics that are made of it."""

    def __init__(self, *, with_log: bool = True, list_is_log: bool = False) -> None:
        self.store = StateStore()
        self.metrics = ExporterMetrics(
            self.store,
            "wpp",
            _threshold_of,
            _suspicion_of,
            with_log=with_log,
            list_is_log=list_is_log,
        )
        self._collector = ExporterCollector([self.metrics])
        self._page = MetricsPage(make_registry(self._collector))

    def text(self, accept: str = "") -> str:
        self._page.refresh()
        return self._page.get(accept, "").body.decode()

    def scrape(self) -> Metrics:
        return Metrics(self.text())

    def names(self) -> set[str]:
        return {sample.name for family in self._collector.collect() for sample in family.samples}


@pytest.fixture
def published() -> Published:
    """Return metrics of sources that have been read."""
    read = Published()
    read.store.update(gateway=_UP, log=_READ)
    return read


def test_it_publishes_exactly_the_metrics_that_are_promised(published: Published) -> None:
    assert published.names() == _OF_CHANNELS | _OF_GATEWAY | _OF_LOG


def test_before_the_first_polls_nothing_is_said_of_channels_and_sources() -> None:
    published = Published()
    histograms = {name for name in _OF_GATEWAY | _OF_LOG if "_duration_seconds_" in name}
    assert published.names() == histograms | {"whatsapp_gateway_request_errors_total"}


@pytest.mark.parametrize(
    ("name", "shop", "office"),
    [
        ("connected", 1, 0),
        ("seconds_since_last_message", 10, 7_200),
        ("last_message_timestamp_seconds", 9_990, 2_800),
        ("seconds_since_last_heard", 20, 7_300),
        ("silence_threshold_seconds", 5_400, 14_400),
        ("probe_threshold_seconds", 1_800, 4_800),
    ],
)
def test_each_channel_has_its_value_under_the_gateways_spelling(
    published: Published, name: str, shop: float, office: float
) -> None:
    values = published.scrape().all(f"whatsapp_channel_{name}", gateway="wpp")
    assert values == {("loja",): shop, ("Pixel12 Digital",): office}


def test_status_and_direction_are_labels(published: Published) -> None:
    now = published.scrape()
    assert now.all("whatsapp_channel_status", gateway="wpp") == {
        ("loja", "connected"): 1,
        ("Pixel12 Digital", "qr_required"): 1,
    }
    assert now.all("whatsapp_channel_messages_total", gateway="wpp") == {
        ("loja", "in"): 3,
        ("loja", "out"): 2,
        ("Pixel12 Digital", "in"): 0,
        ("Pixel12 Digital", "out"): 0,
    }


@pytest.mark.parametrize("status", list(Status))
def test_only_connected_means_connected(published: Published, status: Status) -> None:
    published.store.update(gateway=GatewayState(up=True, channels=(Channel("loja", status),)))
    now = published.scrape()
    wanted = float(status is Status.CONNECTED)
    assert now.get("whatsapp_channel_connected", channel="loja") == wanted
    assert now.all("whatsapp_channel_status", channel="loja", gateway="wpp") == {(str(status),): 1}


def test_who_says_how_long_a_channel_may_be_silent_stands_beside_it(published: Published) -> None:
    mode = "whatsapp_channel_silence_mode"
    fixed = published.scrape().all(mode, gateway="wpp", mode="fixed")
    assert fixed == {("loja",): 1, ("Pixel12 Digital",): 1}
    profile = Profile([1.0] * WEEK_HOURS)
    channels = {"loja": Learned(profile, 2, 1, 30), "other": Learned(profile, 2, 1, 4)}
    published.store.update(silence=Model(1_700_000_002.0, channels))
    now = published.scrape()
    assert not now.all(mode, mode="fixed")
    assert now.get(mode, channel="loja", mode="adaptive") == 1
    assert now.get("whatsapp_channel_silence_threshold_seconds", channel="loja") == 999
    assert now.get("whatsapp_silence_last_learned_timestamp_seconds") == 1_700_000_002
    assert now.get("whatsapp_silence_learned_channels", gateway="wpp") == 2
    assert now.get("whatsapp_silence_learned_messages", gateway="wpp") == 34

    view = replace(_VIEW, last_message={**_VIEW.last_message, "loja": 10_000.0})
    published.store.update(log=replace(_READ, view=view))
    now = published.scrape()
    assert now.get("whatsapp_channel_silence_threshold_seconds", channel="loja") == 1000


def test_a_channel_that_is_never_asked_has_no_threshold_for_that(published: Published) -> None:
    off = Channel("off", Status.CONNECTED)
    published.store.update(gateway=GatewayState(up=True, channels=(_SHOP, off)), log=_READ)
    thresholds = published.scrape().all("whatsapp_channel_probe_threshold_seconds", gateway="wpp")
    assert thresholds == {("loja",): 1_800}


def test_each_source_has_its_values(published: Published) -> None:
    published.metrics.log_seconds.observe(0.2)
    published.metrics.observe_call(Operation.LIST, 42.0, GatewayErrorKind.TIMEOUT)
    now = published.scrape()
    for name, more, value in (
        ("gateway_up", {}, 1),
        ("gateway_last_success_timestamp_seconds", {}, 1_700_000_000),
        ("gateway_request_duration_seconds_sum", {"operation": "list"}, 42),
        ("gateway_request_duration_seconds_bucket", {"operation": "list", "le": "30.0"}, 0),
        ("gateway_request_duration_seconds_bucket", {"operation": "list", "le": "60.0"}, 1),
        ("message_log_up", {}, 1),
        ("message_log_last_success_timestamp_seconds", {}, 1_700_000_001),
        ("message_log_rows_read_total", {}, 77),
        ("message_log_poll_duration_seconds_count", {}, 1),
        ("message_log_poll_duration_seconds_bucket", {"le": "0.1"}, 0),
        ("message_log_poll_duration_seconds_bucket", {"le": "0.25"}, 1),
    ):
        assert now.get(f"whatsapp_{name}", gateway="wpp", **more) == value, name
    errors = now.all("whatsapp_gateway_request_errors_total", gateway="wpp", operation="list")
    assert errors == {
        (str(reason),): float(reason is GatewayErrorKind.TIMEOUT) for reason in GatewayErrorKind
    }
    assert now.all(_INFO) == {(__version__,): 1}


def test_what_proves_nothing_is_published_where_there_is_any(published: Published) -> None:
    apart = {
        "whatsapp_channel_undecryptable_messages_total",
        "whatsapp_message_log_unnamed_rows_total",
        "whatsapp_message_log_clock_offset_seconds",
    }
    assert not published.names() & apart
    seen = replace(_VIEW, undecryptable={"loja": 4, "stray": 1}, unnamed=7, clock_offset=-10_800.0)
    published.store.update(log=replace(_READ, view=seen))
    now = published.scrape()
    assert now.all("whatsapp_channel_undecryptable_messages_total", gateway="wpp") == {("loja",): 4}
    assert now.get("whatsapp_message_log_unnamed_rows_total", gateway="wpp") == 7
    assert now.get("whatsapp_message_log_clock_offset_seconds", gateway="wpp") == -10_800
    published.store.update(log=replace(_UNREAD, view=seen))
    assert published.names() & apart == apart - {"whatsapp_message_log_clock_offset_seconds"}


def test_a_failing_list_takes_away_what_only_it_knows_until_it_works_again(
    published: Published,
) -> None:
    everything = published.names()
    published.store.update(gateway=_DOWN)
    assert published.names() == everything - _STATUSES - {_LEFT_OUT}
    now = published.scrape()
    assert now.get("whatsapp_gateway_up") == 0
    assert now.get("whatsapp_gateway_last_success_timestamp_seconds") == 1_700_000_000
    assert now.get("whatsapp_channel_seconds_since_last_message", channel="loja") == 10
    published.store.update(gateway=_UP)
    assert published.names() == everything
    assert published.scrape().get("whatsapp_gateway_up") == 1


def test_a_failing_log_takes_the_ages_away_until_it_works_again(published: Published) -> None:
    everything = published.names()
    published.store.update(log=_UNREAD)
    assert published.names() == everything - _AGES
    now = published.scrape()
    assert now.get("whatsapp_message_log_up") == 0
    assert now.get("whatsapp_message_log_last_success_timestamp_seconds") == 1_700_000_001
    of_shop = {"channel": "loja", "direction": "in"}
    assert now.get("whatsapp_channel_messages_total", **of_shop) == 3, "a counter never goes back"
    published.store.update(log=_READ)
    assert published.names() == everything


def test_a_list_that_is_also_the_message_source_fails_once() -> None:
    published = Published(list_is_log=True)
    # Neither has worked so far, as at a start without the gateway.
    published.store.update(gateway=GatewayState(up=False), log=LogState(up=False))
    assert published.scrape().get("whatsapp_message_log_up") is None
    published.store.update(gateway=_UP, log=_READ)
    assert published.scrape().get("whatsapp_message_log_up") == 1
    published.store.update(gateway=_DOWN, log=replace(_READ, up=False))
    assert published.scrape().get("whatsapp_message_log_up") is None


def test_sources_that_never_worked_have_no_time_of_success() -> None:
    published = Published()
    published.store.update(gateway=GatewayState(up=False), log=LogState(up=False))
    now = published.scrape()
    assert now.get("whatsapp_gateway_up") == 0
    assert now.get("whatsapp_message_log_up") == 0
    assert now.get("whatsapp_message_log_rows_read_total") == 0
    last = {name for name in _OF_GATEWAY | _OF_LOG if "last_success" in name}
    assert not published.names() & (_OF_CHANNELS | last)


def test_without_a_message_log_there_are_no_metrics_of_one() -> None:
    published = Published(with_log=False)
    published.store.update(gateway=_UP)
    assert published.names() == _OF_GATEWAY | _STATUSES | {
        "whatsapp_channel_silence_threshold_seconds",
        "whatsapp_channel_silence_mode",
    }


def test_a_channel_that_was_never_heard_has_no_age(published: Published) -> None:
    new = Channel("new", Status.CONNECTED)
    published.store.update(gateway=GatewayState(up=True, channels=(_SHOP, new)), log=_READ)
    now = published.scrape()
    for name in _AGES:
        assert now.all(name, gateway="wpp").keys() == {("loja",)}
    of_new = {"channel": "new", "direction": "in"}
    assert now.get("whatsapp_channel_messages_total", **of_new) == 0


def test_a_channel_that_leaves_the_list_leaves_the_metrics(published: Published) -> None:
    published.store.update(gateway=GatewayState(up=True, channels=(_OFFICE,)))
    now = published.scrape()
    for name in _OF_CHANNELS:
        assert now.all(name), name
        assert not now.all(name, channel="loja"), name
    published.store.update(gateway=_UP)
    assert all(published.scrape().all(name, channel="loja") for name in _OF_CHANNELS)


@pytest.mark.parametrize(
    "channel",
    [
        *('a"} 1\nwhatsapp_gateway_up{gateway="wpp"} 0\n', "back\\slash\\", '"', "a,b=c{}"),
        *("# HELP x y", "50%\x7f", "loja ação 漢字 🏠", "e\u0301\u200b\u2028\u202e"),
        *("../../etc/passwd", "{{ $labels.channel }}", "x" * 255),
    ],
)
def test_any_id_is_one_label_value_in_both_formats(published: Published, channel: str) -> None:
    hostile = GatewayState(up=True, channels=(Channel(channel, Status.CONNECTED),))
    published.store.update(gateway=hostile, log=_READ)
    now = published.scrape()
    assert now.all("whatsapp_channel_connected", gateway="wpp") == {(channel,): 1}
    assert now.get("whatsapp_gateway_up", gateway="wpp") == 1
    page = published.text("application/openmetrics-text")
    connected = [
        sample.labels
        for family in parse(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == "whatsapp_channel_connected"
    ]
    assert connected == [{"gateway": "wpp", "channel": channel}]


def test_a_channel_that_is_left_out_is_named_as_long_as_it_is_listed(published: Published) -> None:
    published.store.update(gateway=replace(_UP, ignored=("Loja",)))
    assert published.scrape().all("whatsapp_channel_ignored", gateway="wpp") == {("Loja",): 1}
    published.store.update(gateway=_DOWN)
    assert published.scrape().all("whatsapp_channel_ignored", gateway="wpp") == {}


def test_entries_that_are_no_channel_are_counted_by_what_is_wrong(published: Published) -> None:
    published.store.update(gateway=replace(_UP, left_out={LeftOut.DUPLICATE: 2}))
    assert published.scrape().all(_LEFT_OUT, gateway="wpp") == {
        ("unusable_id",): 0,
        ("duplicate",): 2,
        ("over_limit",): 0,
    }
    published.store.update(gateway=_DOWN)
    assert published.scrape().all(_LEFT_OUT, gateway="wpp") == {}, "a failed list tells nothing"


def test_a_channel_of_which_nobody_tells_is_called_unknown_and_counted_for_nothing(
    published: Published,
) -> None:
    view = replace(_VIEW, last_message={_SHOP.key: 0}, counted=False)
    published.store.update(log=LogState(up=True, view=view))
    metrics = published.scrape()
    unknown = metrics.all("whatsapp_channel_activity_unknown", gateway="wpp")
    assert set(unknown) == {(channel.id,) for channel in _UP.channels if channel != _SHOP}
    assert metrics.all("whatsapp_channel_messages_total") == {}
    published.store.update(log=LogState(up=False, view=view))
    assert published.scrape().all("whatsapp_channel_activity_unknown") == {}
    published.store.update(log=_READ)
    assert published.scrape().all("whatsapp_channel_activity_unknown") == {}
