"""What each kind of gateway posts of its own accord: a message, and events that prove nothing."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from demo.simulator.messages import SimulatedMessage
from demo.simulator.payloads import OTHER_EVENTS, message_payload, other_payload

Event = dict[str, Any]

_SOMEBODY = "5500000000001"
_WORDS = "See you at nine?"


def _wppconnect(message: SimulatedMessage, at: float) -> Event:
    return {
        "event": "onselfmessage" if message.outgoing else "onmessage",
        "session": message.channel,
        "id": f"{str(message.outgoing).lower()}_{_SOMEBODY}@c.us_{message.id}",
        "body": message.words or _WORDS,
        "type": "chat",
        "t": int(at),
        "timestamp": int(at),
        "from": f"{message.sender or _SOMEBODY}@c.us",
        "fromMe": message.outgoing,
    }


def _evolution(message: SimulatedMessage, at: float) -> Event:
    key = {
        "remoteJid": f"{_SOMEBODY}@s.whatsapp.net",
        "fromMe": message.outgoing,
        "id": message.id,
    }
    return {
        "event": "send.message" if message.by_api else "messages.upsert",
        "instance": message.channel,
        "data": {
            "key": key,
            "message": {"conversation": message.words or _WORDS},
            "messageType": "conversation",
            "messageTimestamp": int(at),
        },
        "sender": f"{message.sender or _SOMEBODY}@s.whatsapp.net",
        "apikey": "an-api-key-that-nobody-must-keep",
    }


def _waha(message: SimulatedMessage, at: float) -> Event:
    return {
        "id": f"evt_{secrets.token_hex(13)}",
        "event": "message.any",
        "session": message.channel,
        "engine": "NOWEB",
        "timestamp": int(at * 1000),
        "payload": {
            "id": f"{str(message.outgoing).lower()}_{_SOMEBODY}@c.us_{message.id}",
            "timestamp": int(at),
            "from": f"{message.sender or _SOMEBODY}@c.us",
            "fromMe": message.outgoing,
            "source": "api" if message.by_api else "app",
            "body": message.words or _WORDS,
        },
    }


def _wrapper(message: SimulatedMessage, at: float) -> Event:
    name = "message.sent" if message.by_api else "onselfmessage" if message.outgoing else "message"
    payload = message_payload(
        message.channel, name, outgoing=message.outgoing, words=message.words or _WORDS
    )
    return payload | {"id": message.id, "timestamp": int(at)}


def _evolution_state(channel: str) -> Event:
    return {
        "event": "connection.update",
        "instance": channel,
        "data": {"instance": channel, "state": "connecting", "statusReason": 200},
        "destination": "http://127.0.0.1:9861/messages/evo",
        "date_time": "2026-01-01T00:00:00.000Z",
        "server_url": "http://127.0.0.1:8080",
        "apikey": None,
    }


def _waha_status(channel: str) -> Event:
    versions = {"version": "2024.10.8", "engine": "NOWEB", "tier": "CORE", "browser": "chromium"}
    return {
        "event": "session.status",
        "session": channel,
        "me": None,
        "payload": {"name": channel, "status": "WORKING"},
        "engine": "NOWEB",
        "environment": versions,
    }


MESSAGES: Mapping[str, Callable[[SimulatedMessage, float], Event]] = {
    "wrapper": _wrapper,
    "wppconnect": _wppconnect,
    "evolution": _evolution,
    "waha": _waha,
}
"""How each API reports a message that came at a time, in Unix seconds."""

OTHERS: Mapping[str, Callable[[str], Event]] = {
    "wrapper": lambda channel: other_payload(channel, OTHER_EVENTS[0]),
    "wppconnect": lambda channel: {"event": "onpresencechanged", "session": channel},
    "evolution": _evolution_state,
    "waha": _waha_status,
}
"""What each posts by the hundred, also of a zombie."""
