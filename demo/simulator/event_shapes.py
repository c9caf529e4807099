"""Events that each kind of gateway posts: of a message, and others, which prove nothing."""

import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from demo.simulator.apis.openwa import openwa_id
from demo.simulator.apis.whapi import whapi_id, whapi_row
from demo.simulator.messages import SimulatedMessage
from demo.simulator.payloads import OTHER_EVENTS, message_payload, other_payload

Event = dict[str, Any]

_SOMEBODY = "5500000000001"
_WORDS = "See you at nine?"


def _wppconnect(message: SimulatedMessage, at: float) -> Event:
    return {
        "event": "onselfmessage" if message.outgoing else "onmessage",
        "session": message.channel,
        **wppconnect_row(message, at),
    }


def wppconnect_row(message: SimulatedMessage, at: float) -> Event:
    """Return a message in the shape of events and lists."""
    return {
        "id": message.serialized,
        "body": message.words or _WORDS,
        "type": message.kind,
        "t": int(at),
        "timestamp": int(at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "fromMe": message.outgoing,
    }


def _evolution(message: SimulatedMessage, at: float) -> Event:
    return {
        "event": "send.message" if message.by_api else "messages.upsert",
        "instance": message.channel,
        "data": evolution_row(message, at),
        "sender": f"{message.sender or _SOMEBODY}@s.whatsapp.net",
        "apikey": "an-api-key-that-must-not-be-kept",
    }


def evolution_row(message: SimulatedMessage, at: float) -> Event:
    """Return a message in the shape of events and lists."""
    key = {
        "remoteJid": message.chat.replace("@c.us", "@s.whatsapp.net"),
        "fromMe": message.outgoing,
        "id": message.id,
    }
    return {
        "key": key,
        "message": {"conversation": message.words or _WORDS},
        "messageType": "conversation" if message.kind == "chat" else f"{message.kind}Message",
        "messageTimestamp": int(at),
    }


def _waha(message: SimulatedMessage, at: float) -> Event:
    return {
        "id": f"evt_{secrets.token_hex(13)}",
        "event": "message.any",
        "session": message.channel,
        "engine": "NOWEB",
        "timestamp": int(at * 1000),
        "payload": {"source": "api" if message.by_api else "app", **waha_row(message, at)},
    }


def waha_row(message: SimulatedMessage, at: float) -> Event:
    """Return a message in the shape of events and lists."""
    kind = "conversation" if message.kind == "chat" else f"{message.kind}Message"
    return {
        "id": message.serialized,
        "timestamp": int(at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "fromMe": message.outgoing,
        "hasMedia": message.kind == "image",
        "body": message.words or _WORDS,
        "_data": {"message": {kind: {}}}
        | ({"messageStubType": 2} if message.kind == "ciphertext" else {}),
    }


def _whapi(message: SimulatedMessage, at: float) -> Event:
    return {
        "messages": [whapi_row(message, at)],
        "event": {"type": "messages", "event": "post"},
        "channel_id": whapi_id(message.channel),
    }


def _gowa(message: SimulatedMessage, at: float) -> Event:
    return {
        "event": "message",
        "device_id": f"{_SOMEBODY}@s.whatsapp.net",
        "session_id": message.channel,
        "payload": {
            "id": message.id,
            "is_from_me": message.outgoing,
            "timestamp": dt.datetime.fromtimestamp(int(at), dt.UTC).isoformat(),
            "from": f"{message.sender or _SOMEBODY}@s.whatsapp.net",
            "body": message.words or _WORDS,
        },
    }


def _openwa(message: SimulatedMessage, at: float) -> Event:
    chat = f"{message.sender or _SOMEBODY}@c.us"
    return {
        "event": "message.sent" if message.outgoing else "message.received",
        "timestamp": dt.datetime.fromtimestamp(at, dt.UTC).isoformat(),
        "sessionId": openwa_id(message.channel),
        "data": {
            "id": f"{str(message.outgoing).lower()}_{chat}_{message.id}",
            "chatId": chat,
            "from": chat,
            "timestamp": int(at),
            "body": message.words or _WORDS,
        },
    }


def _wuzapi(message: SimulatedMessage, at: float) -> Event:
    return {
        "type": "Message",
        "event": {
            "Info": {
                "ID": message.id,
                "IsFromMe": message.outgoing,
                "Timestamp": dt.datetime.fromtimestamp(int(at), dt.UTC).isoformat(),
                "Chat": f"{message.sender or _SOMEBODY}@s.whatsapp.net",
            },
            "Message": {"conversation": message.words or _WORDS},
        },
        "instanceName": message.channel,
        "userID": "0123456789abcdef",
    }


def _wwebjs(message: SimulatedMessage, at: float) -> Event:
    return {
        "dataType": "message_create",
        "data": {"message": wwebjs_row(message, at)},
        "sessionId": message.channel,
    }


def wwebjs_row(message: SimulatedMessage, at: float) -> Event:
    """Return a message as events and lists have it."""
    return {
        "id": {
            "fromMe": message.outgoing,
            "id": message.id,
            "_serialized": message.serialized,
        },
        "fromMe": message.outgoing,
        "timestamp": int(at),
        "from": f"{message.sender}@c.us" if message.sender else message.chat,
        "body": message.words or _WORDS,
        "type": message.kind,
    }


def _whapi_status(channel: str) -> Event:
    return {
        "health": {"start_at": 1_770_000_000, "uptime": 60, "status": {"code": 4, "text": "AUTH"}},
        "event": {"type": "channel", "event": "post"},
        "channel_id": whapi_id(channel),
    }


def _wrapper(message: SimulatedMessage, at: float) -> Event:
    name = "message.sent" if message.by_api else "onselfmessage" if message.outgoing else "message"
    payload = message_payload(
        message.channel, name, outgoing=message.outgoing, words=message.words or _WORDS
    )
    return payload | {"id": message.id, "timestamp": int(at), "type": message.kind}


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
    "whapi": _whapi,
    "gowa": _gowa,
    "openwa": _openwa,
    "wuzapi": _wuzapi,
    "wwebjs-api": _wwebjs,
}
"""Each API's event for a message and its time in Unix seconds."""

OTHERS: Mapping[str, Callable[[str], Event]] = {
    "wrapper": lambda channel: other_payload(channel, OTHER_EVENTS[0]),
    "wppconnect": lambda channel: {"event": "onpresencechanged", "session": channel},
    "evolution": _evolution_state,
    "waha": _waha_status,
    "whapi": _whapi_status,
    "gowa": lambda channel: {"event": "message.ack", "session_id": channel},
    "openwa": lambda channel: {"event": "message.ack", "sessionId": openwa_id(channel), "data": {}},
    "wuzapi": lambda channel: {"type": "ReadReceipt", "event": {}, "instanceName": channel},
    "wwebjs-api": lambda channel: {"dataType": "message_ack", "data": {}, "sessionId": channel},
}
"""Each API's most frequent other event, which is posted for zombies too."""
