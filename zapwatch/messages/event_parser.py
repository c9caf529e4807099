"""Parses posted events of gateways: channel, direction and time of messages.

Each adapter reads its gateway's own format. All other content is ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from zapwatch.channels import MAX_ID_LENGTH, channel_key
from zapwatch.clock import unix_seconds
from zapwatch.gateways.base import Gateway
from zapwatch.http import parse_json
from zapwatch.messages.payloads import find_token, is_for, message_id
from zapwatch.messages.webhook_log import Direction, is_untaken

_FIRST_TIME = 1_230_768_000.0  # 2009, the start of WhatsApp; earlier times are invalid


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


def parse(adapter: type[Gateway], body: bytes, now: float) -> list[Message]:
    """Return the messages in an event of a gateway of this type; raise EventError.

    The sender's copy of an echo is not a message. A message's own time counts if it is plausible,
    which is at most ``now``, the time of arrival; otherwise ``now`` counts.
    """
    try:
        event = parse_json(body)
    except (ValueError, RecursionError):
        raise EventError("this is not JSON") from None
    if not isinstance(event, dict):
        raise EventError("this is JSON, but no event: an object was expected")
    found = list(adapter.read_event(event))
    has_echo = bool(found) and find_token(body) is not None
    messages = []
    for said in found:
        key = channel_key(said.channel) if isinstance(said.channel, str) else ""
        if not 0 < len(key) <= MAX_ID_LENGTH:
            raise EventError("this event of a message names no channel: is the type right?")
        own = body if said.entry is None else json.dumps(said.entry).encode()
        echo = find_token(own) if has_echo else None
        if echo is not None and not (said.heard and is_for(echo, key)):
            continue
        # An echo to the sender's own number may be reported only once, before it is sent.
        untaken = echo is None and said.out and is_untaken(said.ack)
        heard = said.heard and not untaken
        direction = Direction.OUT if said.out else Direction.IN
        at, id_ = _time(said.at, now), message_id(said.id)
        messages.append(Message(key, direction, at, heard, id_, echo, said.readable))
    return messages


def _time(value: object, now: float) -> float:
    at = unix_seconds(value)
    return at if _FIRST_TIME <= at <= now else now
