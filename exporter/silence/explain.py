"""``python -m exporter explain CHANNEL``: a channel's profile and current silence threshold."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from exporter.silence.model import Bounds, Learned, Model, ModelError, Thresholds, bounds_of, load
from zapwatch.channels import Channel, Status, channel_key, folded, key_meant
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SilenceMode
from zapwatch.gateways.base import GatewayError
from zapwatch.gateways.registry import list_once
from zapwatch.messages.message import ActivitySnapshot, MessageLogError
from zapwatch.messages.source import lookback_hours, open_source

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_BARS = " ▁▂▃▄▅▆▇█"
_STEP = 3  # hours between two displayed thresholds
_A_MONDAY = datetime(2001, 1, 1)  # noqa: DTZ001 - local time, as the profile


def explain(settings: Settings, gateway: GatewaySettings, channel_id: str) -> list[str]:
    """Return lines that describe a gateway's channel and its threshold.

    Empty if the gateway does not list the channel; raises AmbiguousNameError.
    """
    bounds = bounds_of(settings)
    trouble = "nothing has been learned yet: the exporter does that in the background"
    model = None
    if gateway.silence_mode is SilenceMode.FIXED:
        trouble = "SILENCE_MODE is fixed"
    else:
        try:
            model = load(gateway.silence_state_file, bounds)
        except ModelError as error:
            trouble = str(error)
    known = model.channels if model else {}
    try:
        # Only the gateway has the name that the log uses for a channel.
        listed, assumed = {one.key: one for one in list_once(gateway)}, None
    except GatewayError:
        listed, assumed = {}, channel_id
    name = key_meant(channel_id, listed) or key_meant(channel_id, known) or assumed
    if name is None:
        return []
    channel = listed.get(name) or _unlisted(gateway, name, known)
    view, age = _look(settings, gateway, channel, has_list=assumed is None)
    last_message = view.last_message if view else {}
    threshold = Thresholds(gateway, bounds, can_query=False).of(channel, last_message, model)
    learned = model.of(channel) if model else None
    lines = [f"{channel_id}: may be silent for {_span(threshold.seconds)} ({threshold.mode})", age]
    if threshold.mode is SilenceMode.FIXED:
        lines.append(f"  fixed, since {_why_fixed(gateway, channel, model, learned, trouble)}")
    if model is not None and learned is not None:
        lines += _picture(model, learned, bounds)
    return lines


def _look(
    settings: Settings, gateway: GatewaySettings, channel: Channel, *, has_list: bool
) -> tuple[ActivitySnapshot | None, str]:
    """Return the channel's activity, None if unknown, and a line about it."""
    if gateway.messages is MessageSourceKind.ACTIVITY:
        return None, "  its activity is in the channel list, which is not read here"
    messages = open_source(settings, gateway)
    if messages is None:
        return None, "  there is no message log"
    try:
        view = messages.find([channel])
    except MessageLogError as error:
        return None, f"  the message log cannot be read: {error}"
    finally:
        messages.close()
    age = view.age(channel.key)
    if age is None:
        searched = _span(lookback_hours(settings, gateway) * 3600)
        where = "" if has_list else " under this name; the channel list cannot be read"
        return view, f"  no message in the last {searched}{where}"
    at = datetime.fromtimestamp(view.last_message[channel.key])  # noqa: DTZ006 - for the operator
    return view, f"  last message {at:%a %d %b %H:%M}, {_span(age)} ago"


def _unlisted(gateway: GatewaySettings, name: str, known: Collection[str]) -> Channel:
    """Return a channel that the gateway does not list now."""
    alias = next((one.id for one in gateway.channels if channel_key(one.name) == name), None)
    twins = [key for key in known if folded(key) == folded(name) and key != name]
    return Channel(name, Status.UNKNOWN, alias=alias, has_twin=bool(twins))


def _why_fixed(
    gateway: GatewaySettings,
    channel: Channel,
    model: Model | None,
    learned: Learned | None,
    trouble: str,
) -> str:
    if gateway.silent_hours_overrides.of(channel) is not None:
        return "SILENT_HOURS_OVERRIDES names it"
    if model is None:
        return trouble
    if learned is None:
        return "there were less than 7 days of its messages in the last 28, or it was not listed"
    return "its last message is not known"


def _picture(model: Model, learned: Learned, bounds: Bounds) -> Iterator[str]:
    at = datetime.fromtimestamp(model.learned_at)  # noqa: DTZ006 - for the operator
    yield f"  learned {at:%a %d %b %H:%M} from {learned.messages} messages of 28 days"
    yield f"  silent once {learned.level:.1f} busy minutes were to be expected and none came;"
    yield f"  a healthy channel does that about {bounds.false_alarms:g} x a month"
    yield f"  not before {_span(bounds.floor)}, and after {_span(bounds.ceiling)} at the latest"
    yield ""
    yield "  How busy it is, and below how long it may be silent after a message at that hour"
    yield (
        "       "
        + "".join(f"{hour:02}:00 ".ljust(2 * _STEP) for hour in range(0, 24, _STEP)).rstrip()
    )
    most = max(learned.profile.rates)
    for day, name in enumerate(_DAYS):
        rates = learned.profile.rates[24 * day : 24 * day + 24]
        yield f"  {name}  {''.join(2 * _bar(rate / most) for rate in rates)}".rstrip()
        yield (
            "       "
            + "".join(
                _span(learned.threshold(_local(24 * day + hour), bounds)).ljust(2 * _STEP)
                for hour in range(0, 24, _STEP)
            ).rstrip()
        )


def _bar(share: float) -> str:
    return _BARS[min(len(_BARS) - 1, round(share * (len(_BARS) - 1)))]


def _local(hour: int) -> float:
    """Return a time (Unix seconds) at that local hour of the week."""
    return _A_MONDAY.replace(day=1 + hour // 24, hour=hour % 24).timestamp()


def _span(seconds: float) -> str:
    """Format a duration, in at most 5 characters up to a week: 45m, 1h30, 26h."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02}" if hours < 10 and rest else f"{round(minutes / 60)}h"
