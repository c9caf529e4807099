"""What is said of the gateway, of the log, and of what was learned from it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from exporter.families import OfSnapshot
from exporter.silence.model import Model
from exporter.snapshot import GatewayState, LogState
from whatsapp.gateways.gateway import LeftOut


class Sources(OfSnapshot):
    """What is said of the gateway and the log as such."""

    def collect(self) -> Iterator[Metric]:
        """Return the families of the present snapshot."""
        snapshot = self.board.snapshot
        if snapshot.gateway is not None:
            yield from self._of_gateway(snapshot.gateway)
        if snapshot.log is not None:
            yield from self._of_log(snapshot.log)
        if snapshot.silence is not None:
            yield from self._of_silence(snapshot.silence)

    def _of_gateway(self, gateway: GatewayState) -> Iterator[Metric]:
        up = self.gauge("whatsapp_gateway_up", "1 if the last call for the channel list worked.")
        up.add_metric([self.gateway], gateway.up)
        yield up
        yield self._last_success(
            "whatsapp_gateway_last_success_timestamp_seconds",
            "When the channel list was last read, in Unix seconds.",
            gateway.last_success,
        )
        left_out = self.gauge(
            "whatsapp_gateway_channels_left_out",
            "Entries of the channel list that are no channel of their own, by what is wrong.",
            "reason",
        )
        for reason in LeftOut if gateway.up else ():
            left_out.add_metric([self.gateway, reason], gateway.left_out.get(reason, 0))
        yield left_out

    def _of_log(self, log: LogState) -> Iterator[Metric]:
        up = self.gauge(
            "whatsapp_message_log_up",
            "1 if the last poll of the log worked, and left no row unread.",
        )
        up.add_metric([self.gateway], log.up)
        yield up
        yield self._last_success(
            "whatsapp_message_log_last_success_timestamp_seconds",
            "When the message log was last read, in Unix seconds.",
            log.last_success,
        )
        rows = self.counter(
            "whatsapp_message_log_rows_read",
            "Rows of the message log that were read since the exporter started.",
        )
        rows.add_metric([self.gateway], log.view.rows_read if log.view else 0)
        yield rows

    def _of_silence(self, model: Model) -> Iterator[Metric]:
        for name, help_text, value in (
            (
                "whatsapp_silence_last_learned_timestamp_seconds",
                "When it was last learned how long channels may be silent, in Unix seconds.",
                model.learned_at,
            ),
            (
                "whatsapp_silence_learned_channels",
                "Of how many channels that was learned.",
                len(model.channels),
            ),
            (
                "whatsapp_silence_learned_messages",
                "From how many messages that was learned.",
                model.messages,
            ),
        ):
            family = self.gauge(name, help_text)
            family.add_metric([self.gateway], value)
            yield family

    def _last_success(self, name: str, help_text: str, at: float | None) -> GaugeMetricFamily:
        family = self.gauge(name, help_text)
        if at is not None:
            family.add_metric([self.gateway], at)
        return family
