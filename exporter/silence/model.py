"""The model: silence thresholds learned from all channels' histories, and which one applies."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import tzinfo
from functools import lru_cache, partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from exporter.silence.profile import (
    MONTH_DAYS,
    WEEK_HOURS,
    WEEKS,
    WEIGHTS,
    Measured,
    Profile,
    Week,
    hardly_speaks,
    hour_of_week,
    level_for,
    local_hours,
    profile_of,
    shape_of,
    week_of,
    weeks_ago,
)
from zapwatch.channels import ByName, Channel, folded
from zapwatch.config import GatewaySettings, Settings, SilenceMode
from zapwatch.config.readers import ProbeKind, refuse_pipe
from zapwatch.gateways.base import MAX_CHANNELS
from zapwatch.messages.history import HOURS, Gap, History

_LEAST_DAYS = 7.0  # of history, the minimum to learn a channel
_OUTLIER = 3.0  # times the level that one gap a month passes: longer gaps are ignored
# Share of the allowed false alarms: future weeks match the profile less than the past weeks from
# which it was made. The back-test determined the value.
_PRUDENCE = 0.6
# Accepted wrong suspicions per month: each costs a probe, not a reconnection.
_SUSPICIONS = 60.0
_RECENT_WEEKS = 2
_CLEARLY_SHORTER = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """The operator's limits: false alarms per channel and month, minimum and maximum in seconds."""

    false_alarms: float
    floor: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Learned:
    """One channel's profile and two levels, and the number of messages behind them.

    At ``level`` it counts as silent, at ``suspect_level``, which is never higher, as suspect.
    """

    profile: Profile
    level: float
    suspect_level: float
    messages: int

    def threshold(self, last_message: float, bounds: Bounds, zone: tzinfo | None = None) -> float:
        """Return how many seconds of silence after ``last_message`` (Unix seconds) are normal."""
        return _seconds(self.profile, self.level, hour_of_week(last_message, zone), bounds)

    def suspicion(self, last_heard: float, bounds: Bounds, zone: tzinfo | None = None) -> float:
        """Return the seconds from ``last_heard`` (Unix seconds) until the channel is probed."""
        return _seconds(self.profile, self.suspect_level, hour_of_week(last_heard, zone), bounds)


def learn(
    histories: Mapping[str, History],
    bounds: Bounds,
    zone: tzinfo | None = None,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, Learned]:
    """Return the learned channels, without those that have less than 7 days of history.

    All histories must end at the same time. ``pause`` is called after each step of some
    milliseconds.
    """
    hours: list[int] = []
    known = {}
    shapes = []
    for key, history in histories.items():
        hours = hours or local_hours(history, zone)
        span = history.span()
        if span is not None and HOURS * 60 - span.start >= _LEAST_DAYS * 1440:
            known[key] = history
            shapes.append(shape_of(week_of(history, hours, (), WEEKS)))
            pause()
    pooled = [sum(column) / len(shapes) for column in zip(*shapes, strict=True)]
    learned = {}
    for key, history in known.items():
        learned[key] = _learn_one(history, hours, pooled, bounds)
        pause()
    return learned


def _learn_one(
    history: History, hours: Sequence[int], pooled: Sequence[float], bounds: Bounds
) -> Learned:
    gaps = [
        gap
        for gap in history.gaps()
        # Shorter gaps are below the floor and cause no alarm.
        if 60 * (gap.end - gap.start) > bounds.floor
    ]
    window = _look_at(WEEKS, history, gaps, hours, pooled, bounds)
    recent = _look_at(_RECENT_WEEKS, history, gaps, hours, pooled, bounds)
    is_shorter = recent.usual_threshold(bounds) < _CLEARLY_SHORTER * window.usual_threshold(bounds)
    # If a channel has moved to other hours, older weeks only blur its profile. Silence since then
    # would look the same.
    if is_shorter and any(history.busy_minutes()[-WEEK_HOURS:]):
        window = recent
    level = level_for(window.measured, _PRUDENCE * bounds.false_alarms)
    suspect_level = min(level, level_for(window.measured, _SUSPICIONS))
    return Learned(window.profile, level, suspect_level, history.messages)


@dataclass(frozen=True, slots=True)
class _Window:
    """The last weeks' profile, and the gaps measured by it."""

    profile: Profile
    measured: Sequence[Measured]

    def usual_threshold(self, bounds: Bounds) -> float:
        """Return the mean threshold in seconds at one false alarm a month, weighted by rate."""
        level, rates = level_for(self.measured, 1), self.profile.rates
        total = sum(
            rate * _seconds(self.profile, level, hour, bounds) for hour, rate in enumerate(rates)
        )
        return total / sum(rates)


def _look_at(
    weeks: int,
    history: History,
    gaps: Sequence[Gap],
    hours: Sequence[int],
    pooled: Sequence[float],
    bounds: Bounds,
) -> _Window:
    gaps = [gap for gap in gaps if weeks_ago(gap.end // 60) < weeks]
    week = week_of(history, hours, (), weeks)
    profile = profile_of(week, pooled)
    measured = _measure(gaps, hours, week, profile, math.inf)
    limit = _OUTLIER * level_for(measured, 1)
    ignored = {gap for gap, one in zip(gaps, measured, strict=True) if one.expected > limit > 0}
    if ignored:
        gaps = [gap for gap in gaps if gap not in ignored]
        week = week_of(history, hours, ignored, weeks)
        profile = profile_of(week, pooled)
        measured = _measure(gaps, hours, week, profile, math.inf)
    if not hardly_speaks(measured):
        # An alarm would have ended a gap at the ceiling.
        measured = _measure(gaps, hours, week, profile, bounds.ceiling / 3600)
    return _Window(profile, measured)


def _measure(
    gaps: Sequence[Gap], hours: Sequence[int], week: Week, profile: Profile, most: float
) -> list[Measured]:
    """Return the expectation for the first ``most`` hours of each gap."""
    per_month = MONTH_DAYS * 24 / (sum(week.seen) or 1)
    measured = []
    for gap in gaps:
        hour, minute = divmod(gap.start, 60)
        length = (gap.end - gap.start) / 60
        expected = profile.expected(hours[hour] + minute / 60, min(length, most))
        measured.append(Measured(expected, WEIGHTS[weeks_ago(hour)] * per_month, length))
    return measured


def _seconds(profile: Profile, level: float, start: float, bounds: Bounds) -> float:
    seconds = 3600 * profile.hours_until(start, level)
    return min(max(seconds, bounds.floor), bounds.ceiling)


_VERSION = 2


class ModelError(Exception):
    """The state file is unusable. ``str()`` is one line with the reason."""


@dataclass(frozen=True, slots=True)
class Model:
    """Learned channels by key. ``learned_at`` is in Unix seconds of this machine."""

    learned_at: float
    channels: Mapping[str, Learned]

    def of(self, channel: Channel) -> Learned | None:
        """Return what was learned of a channel."""
        # The keys of earlier checkouts are folded.
        learned = self.channels.get(channel.key)
        return learned or (None if channel.has_twin else self.channels.get(folded(channel.key)))

    @property
    def messages(self) -> int:
        """Number of messages behind the model."""
        return sum(learned.messages for learned in self.channels.values())


def _learned_for(bounds: Bounds) -> dict[str, Any]:
    """Return what a model depends on; hours of the week are local ones."""
    return asdict(bounds) | {"zone": [time.timezone, time.altzone]}


def save(path: Path, model: Model, bounds: Bounds) -> None:
    """Replace the file atomically; raise OSError."""
    content = {
        "version": _VERSION,
        "bounds": _learned_for(bounds),
        "learned_at": model.learned_at,
        "channels": {
            key: {
                "level": learned.level,
                "suspect_level": learned.suspect_level,
                "messages": learned.messages,
                "rates": [float(f"{rate:.6g}") for rate in learned.profile.rates],
            }
            for key, learned in model.channels.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Readable by its owner only: it shows the channels' names and working hours.
    with NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        new = Path(file.name)
        try:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def load(path: Path, bounds: Bounds) -> Model | None:
    """Return the saved model, None if there is no file; raise ModelError.

    A model that was learned for other ``bounds``, or in another time zone, is unusable.
    """
    try:
        refuse_pipe(path)
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is not JSON") from None
    try:
        if content["version"] != _VERSION:
            raise ModelError(f"{path} was written by another version")
        if content["bounds"] != _learned_for(bounds):
            raise ModelError(f"{path} was learned for other settings, or another time zone")
        channels = {key: _learned(value) for key, value in content["channels"].items()}
        return Model(_number(content["learned_at"]), channels)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ModelError(f"{path} has invalid contents") from None


def _learned(value: Any) -> Learned:
    rates = [_number(rate) for rate in value["rates"]]
    if len(rates) != WEEK_HOURS or min(rates) <= 0:
        raise ValueError
    return Learned(
        Profile(rates),
        _number(value["level"]),
        _number(value["suspect_level"]),
        int(_number(value["messages"])),
    )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


class Threshold(NamedTuple):
    """Seconds without a message until a channel counts as silent, and the mode that set them."""

    seconds: float
    mode: SilenceMode


def bounds_of(settings: Settings) -> Bounds:
    """Return the bounds of learned thresholds, in seconds, from the settings."""
    return Bounds(
        settings.silence_false_alarms_per_month,
        settings.silence_floor_minutes * 60,
        settings.silence_ceiling_hours * 3600,
    )


class Thresholds:
    """The current threshold of each channel of one gateway. Not thread-safe.

    A learned one depends on the time of the last message: at night longer silences are normal.
    """

    def __init__(self, gateway: GatewaySettings, bounds: Bounds, *, can_query: bool) -> None:
        """``can_query`` if the gateway has a safe query to probe with."""
        self._probe_after = gateway.probe.after_minutes * 60
        self._bounds = bounds
        # Kept by channel, since most are the same at the next rendering.
        self._kind_of = lru_cache(MAX_CHANNELS)(partial(gateway.probe.kind_of, can_query=can_query))
        self._fixed = Threshold(gateway.silent_hours * 3600, SilenceMode.FIXED)
        self._overrides = ByName(
            {
                key: Threshold(hours * 3600, SilenceMode.FIXED)
                for key, hours in gateway.silent_hours_overrides.items()
            }
        )
        self._model: Model | None = None
        self._known: dict[str, tuple[float, Threshold]] = {}
        self._suspicions: dict[str, tuple[float, float]] = {}

    def of(
        self, channel: Channel, last_message: Mapping[str, float], model: Model | None
    ) -> Threshold:
        """Return the channel's threshold.

        The fixed one applies if an operator has set it for this channel, if no last message is
        known, or if nothing has been learned.
        """
        key = channel.key
        last = last_message.get(key)
        learned = model.of(channel) if model else None
        override = self._overrides.of(channel)
        if learned is None or last is None or override:
            return override or self._fixed
        self._forget_other(model)
        # Most channels have had no message since the last call.
        at, threshold = self._known.get(key, (None, None))
        if at != last or threshold is None:
            threshold = Threshold(learned.threshold(last, self._bounds), SilenceMode.ADAPTIVE)
            self._known[key] = last, threshold
        return threshold

    def suspicion(
        self, channel: Channel, last_heard: Mapping[str, float], model: Model | None, most: float
    ) -> float | None:
        """Return after how many seconds the channel is probed; None if it never is.

        At most ``most``, the seconds after which the channel counts as silent.
        """
        if self._kind_of(channel) is ProbeKind.OFF:
            return None
        last = last_heard.get(channel.key)
        learned = model.of(channel) if model else None
        if learned is None or last is None:
            return min(most, self._probe_after)
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
