"""Which thresholds count for a channel at this moment: the fixed ones or the learned ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.silence.model import Bounds, Model
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, Settings, SilenceMode
from zapwatch.config.gateway import ProbeKind


class Threshold(NamedTuple):
    """Seconds without a message, from when on a channel counts as silent, and who says so."""

    seconds: float
    mode: SilenceMode


def bounds_of(settings: Settings) -> Bounds:
    """Return what the settings say about learned thresholds."""
    return Bounds(
        settings.silence_false_alarms_per_month,
        settings.silence_floor_minutes * 60,
        settings.silence_ceiling_hours * 3600,
    )


class Thresholds:
    """The present threshold of each channel of one gateway. For one thread at a time.

    A learned one depends on when the last message came: at night silence is normal for longer.
    """

    def __init__(self, gateway: GatewaySettings, bounds: Bounds, *, can_query: bool) -> None:
        """Judge by the settings, on a gateway that has a safe query to probe with or has none."""
        self._gateway = gateway
        self._bounds = bounds
        self._can_query = can_query
        self._fixed = Threshold(gateway.silent_hours * 3600, SilenceMode.FIXED)
        self._overrides = {
            key: Threshold(hours * 3600, SilenceMode.FIXED)
            for key, hours in gateway.silent_hours_overrides.items()
        }
        self._model: Model | None = None
        self._known: dict[str, tuple[float, Threshold]] = {}
        self._suspicions: dict[str, tuple[float, float]] = {}

    def of(
        self, channel: Channel, last_message: Mapping[str, float], model: Model | None
    ) -> Threshold:
        """Return the channel's threshold.

        The fixed one counts where an operator has set it for this channel, where no last message
        is known, and where nothing has been learned.
        """
        key = channel.key
        last = last_message.get(key)
        learned = model.channels.get(key) if model else None
        if learned is None or last is None or key in self._overrides:
            return self._overrides.get(key, self._fixed)
        self._forget_other(model)
        # Most channels have had no message since they were last asked for.
        at, threshold = self._known.get(key, (None, None))
        if at != last or threshold is None:
            threshold = Threshold(learned.threshold(last, self._bounds), SilenceMode.ADAPTIVE)
            self._known[key] = last, threshold
        return threshold

    def suspicion(
        self, channel: Channel, last_heard: Mapping[str, float], model: Model | None, most: float
    ) -> float | None:
        """Return after how many seconds the channel is to be asked; None where it never is.

        That is never later than it counts as silent, which is after ``most`` seconds.
        """
        if self._gateway.probe.kind_of(channel, can_query=self._can_query) is ProbeKind.OFF:
            return None
        last = last_heard.get(channel.key)
        learned = model.channels.get(channel.key) if model else None
        if learned is None or last is None:
            return min(most, self._gateway.probe.after_minutes * 60)
        self._forget_other(model)
        at, seconds = self._suspicions.get(channel.key, (None, most))
        if at != last:
            seconds = learned.suspicion(last, self._bounds)
            self._suspicions[channel.key] = last, seconds
        return min(most, seconds)

    def _forget_other(self, model: Model | None) -> None:
        if model is not self._model:
            self._model = model
            self._known = {}
            self._suspicions = {}
