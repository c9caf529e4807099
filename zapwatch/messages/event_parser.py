"""Parses posted events of gateways: channel, direction and time of messages.

The formats are those of WPPConnect Server 2.10, Evolution API 2.3, WAHA 2026, Whapi 1.8, and of the
wrapper's payloads in ``webhook_raw_logs``. All other content is ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zapwatch.channels import MAX_ID_LENGTH, channel_key
from zapwatch.clock import unix_seconds
from zapwatch.http import parse_json
from zapwatch.messages.payloads import find_token, is_for, is_whapi_event, whapi_messages
from zapwatch.messages.webhook_log import (
    CHANNEL_PATHS,
    CIPHERTEXT,
    MESSAGE_EVENTS,
    Direction,
    is_untaken,
)

if TYPE_CHECKING:
    from zapwatch.gateways.declaration import EventPaths

_FIRST_TIME = 1_230_768_000.0  # 2009, the start of WhatsApp; earlier times are invalid

_WRITTEN_BY_GATEWAY = {"message.sent", "send.message"}
"""Events that a gateway generates when its own API is used to send."""


_STATE_EVENTS = {
    "wppconnect": re.compile(rb'"event"\s*:\s*"(?:status-find|closesession|logoutsession)"'),
    "evolution": re.compile(
        rb'"event"\s*:\s*"(?:connection\.update|(?:status|logout|remove)\.instance)"'
    ),
    "waha": re.compile(rb'"event"\s*:\s*"session\.status"'),
    "whapi": re.compile(rb'"type"\s*:\s*"channel"'),
}
"""Patterns of events about a session's state, by type of gateway; the wrapper has none."""


class EventError(Exception):
    """The body is not an event of this gateway. ``str()`` is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Message:
    """Message of a channel; ``at`` is in Unix seconds.

    ``heard``: it came through WhatsApp or was accepted by WhatsApp, rather than only requested at
    the gateway. ``id`` identifies a message that is reported twice; only a keyed hash of it is
    stored. ``echo`` is the token of an echo that the channel has received (see payloads.py). A
    message that is not ``readable`` could not be decrypted.
    """

    key: str
    direction: Direction
    at: float
    heard: bool
    id: str | None = None
    echo: str | None = None
    readable: bool = True


@dataclass(frozen=True, slots=True)
class _Said:
    """Message of an event before validation; ``at`` and ``ack`` are in the gateway's format."""

    channel: object
    direction: Direction
    at: object
    heard: bool
    id: object
    entry: object = None
    """The message itself, if the event has several."""
    ack: object = None
    readable: bool = True


def parse(kind: str, body: bytes, now: float, events: EventPaths | None = None) -> list[Message]:
    """Return the messages in an event of a gateway of this type; raise EventError.

    ``events`` are the paths of a declared gateway. The sender's copy of an echo is not a message.
    A message's own time counts if it is plausible, which is at most ``now``, the time of arrival;
    otherwise ``now`` counts.
    """
    try:
        event = parse_json(body)
    except (ValueError, RecursionError):
        raise EventError("this is not JSON") from None
    if not isinstance(event, dict):
        raise EventError("this is JSON, but no event: an object was expected")
    found = _SHAPES[kind](event) if events is None else _as_declared(events, event)
    all_said = found if isinstance(found, list) else [found] if found else []
    has_echo = bool(all_said) and find_token(body) is not None
    messages = []
    for said in all_said:
        key = channel_key(said.channel) if isinstance(said.channel, str) else ""
        if not 0 < len(key) <= MAX_ID_LENGTH:
            raise EventError(f"this event of a message names no channel as one of {kind} does")
        own = body if said.entry is None else json.dumps(said.entry).encode()
        echo = find_token(own) if has_echo else None
        if echo is not None and not (said.heard and is_for(echo, key)):
            continue
        # An echo to the sender's own number may be reported only once, before it is sent.
        untaken = echo is None and said.direction is Direction.OUT and is_untaken(said.ack)
        heard = said.heard and not untaken
        at, id_ = _time(said.at, now), _text(said.id)
        messages.append(Message(key, said.direction, at, heard, id_, echo, said.readable))
    return messages


def is_about_state(kind: str, body: bytes) -> bool:
    """Whether an event without messages may report a change of a session's state."""
    pattern = _STATE_EVENTS.get(kind)
    return pattern is not None and pattern.search(body) is not None


def _of_wppconnect(event: Mapping[str, Any]) -> _Said | None:
    """Read `{"event", "session", ...}`, with the message's fields at the same level."""
    name = event.get("event")
    if name not in ("onmessage", "onselfmessage"):
        return None
    out = _from_me(event, default=name == "onselfmessage")
    at = event.get("timestamp", event.get("t"))
    return _Said(
        event.get("session"),
        _way(out=out),
        at,
        heard=True,
        id=event.get("id"),
        ack=event.get("ack"),
        readable=event.get("type") != CIPHERTEXT,
    )


def _of_evolution(event: Mapping[str, Any]) -> list[_Said] | None:
    """Read `{"event", "instance", "data": {"key": {...}, "messageTimestamp": s}}`.

    ``data`` may be a list of messages.
    """
    name = event.get("event")
    if name not in ("messages.upsert", "send.message"):
        return None
    data = event.get("data")
    several = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    sent = name in _WRITTEN_BY_GATEWAY
    said = []
    for one in several or [data if isinstance(data, dict) else {}]:
        key = _object(one, "key")
        ack = one.get("status")
        said.append(
            _Said(
                event.get("instance"),
                _way(out=_from_me(key, default=sent)),
                _sent_at(one),
                not sent,
                key.get("id"),
                one if several else None,
                # Baileys' numbers are one higher than the others'.
                ack - 1 if isinstance(ack, int) and not isinstance(ack, bool) else ack,
                readable=not _is_stub(one),
            )
        )
    return said


def _is_stub(message: Mapping[str, Any]) -> bool:
    """Whether this is Baileys' placeholder for a message that it could not decrypt."""
    return message.get("messageStubType") in (2, "CIPHERTEXT")


def _sent_at(data: Mapping[str, Any]) -> object:
    at = data.get("messageTimestamp")
    # A 64-bit number may be split into two halves.
    return at.get("low") if isinstance(at, dict) else at


def _of_waha(event: Mapping[str, Any]) -> _Said | None:
    """Read `{"event", "session", "timestamp": ms, "payload": {"fromMe", "source", ...}}`.

    The event's time is the one at which WAHA received the message. The message's own time is much
    earlier if the message waited for the session.
    """
    if event.get("event") not in ("message", "message.any"):
        return None
    message = _object(event, "payload")
    out = _from_me(message, default=False)
    by_itself = out and message.get("source") == "api"
    at = event.get("timestamp", message.get("timestamp"))
    of_engine = _object(message, "_data")
    return _Said(
        event.get("session"),
        _way(out=out),
        at,
        not by_itself,
        message.get("id"),
        ack=message.get("ackName") or message.get("ack"),
        readable=not _is_stub(of_engine) and of_engine.get("type") != CIPHERTEXT,
    )


def _of_wrapper(event: Mapping[str, Any]) -> _Said | None:
    """Read a payload of ``webhook_raw_logs``, by the same rules as webhook_log.py."""
    name = next((event[n] for n in ("event", "event_type", "type") if event.get(n)), None)
    direction = MESSAGE_EVENTS.get(name.lower()) if isinstance(name, str) else None
    if direction is None or not isinstance(name, str):
        return None
    channel = next(filter(None, (_scalar(event, path) for path in CHANNEL_PATHS)), None)
    raw = _object(_object(event, "raw"), "payload")
    places = [event, *(_object(event, name) for name in ("message", "data")), raw]
    out = direction is Direction.OUT or any(place.get("fromMe") is True for place in places)
    times = (place.get(field) for place in places for field in ("timestamp", "t"))
    ids = (place.get("id") for place in places)
    return _Said(
        channel,
        _way(out=out),
        next((at for at in times if at is not None), None),
        name.lower() not in _WRITTEN_BY_GATEWAY,
        next(filter(_text, ids), None),
        ack=next((place["ack"] for place in places if place.get("ack") is not None), None),
        readable=all(place.get("type") != CIPHERTEXT for place in places),
    )


def _of_whapi(event: Mapping[str, Any]) -> list[_Said]:
    """Read an event of Whapi; payloads.py shows its format."""
    if not is_whapi_event(event):
        return []
    return [
        _Said(event.get("channel_id"), _way(out=one.out), one.at, one.heard, one.id, one.entry)
        for one in whapi_messages(event)
    ]


def _as_declared(paths: EventPaths, event: Mapping[str, Any]) -> list[_Said]:
    """Read an event by the paths of a declared gateway."""
    if not paths.when.of(event):
        return []
    items = paths.items.of(event)
    return [
        _Said(
            paths.channel.of(event),
            _way(out=bool(paths.out.of(one))),
            paths.at.of(one) if paths.at else None,
            paths.heard is None or bool(paths.heard.of(one)),
            paths.id.of(one) if paths.id else None,
            one,
        )
        for one in (items if isinstance(items, list) else [])
        if isinstance(one, dict)
    ]


_SHAPES: Mapping[str, Callable[[Mapping[str, Any]], _Said | list[_Said] | None]] = {
    "wrapper": _of_wrapper,
    "wppconnect": _of_wppconnect,
    "evolution": _of_evolution,
    "waha": _of_waha,
    "whapi": _of_whapi,
}


def _object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def _scalar(event: Mapping[str, Any], path: str) -> str | None:
    """Return the text or number at a path such as ``$.session.id``, None without one."""
    value: object = event
    for name in path.split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return str(value) if isinstance(value, str | int | float) else None


def _from_me(message: Mapping[str, Any], *, default: bool) -> bool:
    value = message.get("fromMe")
    return value if isinstance(value, bool) else default


def _way(*, out: bool) -> Direction:
    return Direction.OUT if out else Direction.IN


def _text(value: object) -> str | None:
    """Return a message's id; WPPConnect's may be an object."""
    if isinstance(value, dict):
        value = value.get("_serialized")
    return value if isinstance(value, str) and value else None


def _time(value: object, now: float) -> float:
    at = unix_seconds(value)
    return at if _FIRST_TIME <= at <= now else now
