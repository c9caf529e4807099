"""The webhook's payloads in the message log: about a kilobyte each, all invented."""

import random
import secrets
from typing import Any

PLACES = (
    "sessionId",
    "session.id",
    "session.session",
    "data.session.id",
    "data.session.session",
    "metadata.channel_id",
    "metadata.sessionId",
    "channelId",
    "channel",
    "data.channel",
)
"""Fields that may contain the channel, in the contract's order."""

INCOMING_EVENTS = ("message", "onmessage", "message.received")
OUTGOING_EVENTS = ("onselfmessage", "message.sent", "message")
OTHER_EVENTS = ("connection.update", "presence.update", "meta_status")

# A separate generator: other code in this process may rely on the global sequence.
_chance = random.Random()
_OURS = "5500000000000"
_THEIRS = "5500000000001"
_SENTENCES = (
    "Good morning, is the flat on the second floor still to let?",
    "The invoice of this month has not reached me yet, could you send it again?",
    "Thank you, that was quick!",
    "We open at nine and close at six, on Saturdays at one.",
    "I'll pass by after lunch to sign the papers.",
    "Could you call me back about the website?",
    "The new logo looks much better in green.",
    "Please leave the key with the neighbour in number twelve.",
)


def message_payload(
    channel: str,
    event_type: str,
    *,
    place: str = "sessionId",
    outgoing: bool = False,
    words: str | None = None,
    id_: str | None = None,
) -> dict[str, Any]:
    """Return a message's payload that contains the channel at `place`.

    With a place under `data`, the message is under `data` too; with `metadata`, beside it.
    """
    if place not in PLACES:
        raise ValueError(f"unknown place {place!r}; known are {', '.join(PLACES)}")
    message = _message(outgoing=outgoing, words=words, id_=id_)
    outer, *inner = place.split(".")
    named: Any = channel
    for key in reversed(inner):
        named = {key: named}
    if outer == "data":
        return {"event": event_type, "data": named | message}
    if outer == "metadata":
        return {"event": event_type, "metadata": named, "message": message}
    return {"event": event_type, outer: named} | message


def other_payload(channel: str, event_type: str) -> dict[str, Any]:
    """Return the payload of an event without a message."""
    return {
        "event": event_type,
        "sessionId": channel,
        "data": {"id": f"{_OURS}@c.us", "state": _chance.choice(("open", "available", "unread"))},
    }


def _message(*, outgoing: bool, words: str | None, id_: str | None) -> dict[str, Any]:
    sender, receiver = (_OURS, _THEIRS) if outgoing else (_THEIRS, _OURS)
    said = _chance.sample(_SENTENCES, k=5)
    if words is not None:
        said.insert(0, words)
    return {
        "id": f"{str(outgoing).lower()}_{_THEIRS}@c.us_{id_ or secrets.token_hex(8).upper()}",
        "type": "chat",
        "from": f"{sender}@c.us",
        "to": f"{receiver}@c.us",
        "fromMe": outgoing,
        "body": " ".join(said),
        "ack": _chance.randint(1, 3),  # at least accepted by WhatsApp
        "isGroupMsg": False,
        "isMedia": False,
        "mentionedJidList": [],
        "sender": {
            "id": f"{sender}@c.us",
            "name": "Example Person",
            "shortName": "Example",
            "pushname": "Example",
            "isMe": outgoing,
            "isMyContact": True,
            "profilePicThumbObj": {"eurl": f"https://example.invalid/{secrets.token_hex(20)}.jpg"},
        },
        "chatId": f"{_THEIRS}@c.us",
        "quotedMsg": {"type": "chat", "body": _chance.choice(_SENTENCES)},
    }
