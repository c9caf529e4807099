"""The wrapper's well-formed answers, as in the contract."""

from typing import Any

from demo.simulator.knobs import Knobs, Status
from demo.simulator.responses import HttpAnswer

UNAUTHORIZED = HttpAnswer(401, {"success": False, "error": "Unauthorized: wrong gateway secret"})
NOT_FOUND = HttpAnswer(404, {"success": False, "error": "Channel not found"})
UNKNOWN_CALL = HttpAnswer(404, {"success": False, "error": "No such call"})
NO_CHANNEL_NAMED = HttpAnswer(400, {"success": False, "error": "The field 'channel' is missing"})
ALREADY_THERE = HttpAnswer(409, {"success": False, "error": "Channel already exists"})
NO_MESSAGE = HttpAnswer(400, {"success": False, "error": "The fields 'to' and 'text' are missing"})
NOT_SENT = HttpAnswer(500, {"success": False, "error": "WPPConnect could not send the message"})
CONNECTED = HttpAnswer(
    200,
    {
        "success": True,
        "qr": None,
        "status": "CONNECTED",
        "message": "The session is connected, no QR code is needed",
    },
)
INITIALIZING = HttpAnswer(200, {"success": True, "qr": None, "status": "INITIALIZING"})
STARTED = HttpAnswer(200, {"success": True, "message": "The session is starting"})
NOT_STARTED = HttpAnswer(
    200,
    {
        "success": False,
        "error": "Session not started. Use POST /api/channels/{id}/start-session",
    },
)
DELETED = HttpAnswer(200, {"success": True, "message": "The session was thrown away"})


def qr_code(text: str) -> HttpAnswer:
    """Answer with a QR code."""
    return HttpAnswer(200, {"success": True, "qr": text})


def created(channel_id: str) -> HttpAnswer:
    """Confirm a new channel with 201."""
    return HttpAnswer(201, {"success": True, "channel": {"id": channel_id, "name": channel_id}})


def sent(message_id: str) -> HttpAnswer:
    """Confirm a sent message with its id."""
    return HttpAnswer(200, {"success": True, "id": message_id})


def channel_list(entries: list[dict[str, Any]]) -> HttpAnswer:
    """Answer with the channel list."""
    return HttpAnswer(200, {"success": True, "channels": entries, "total": len(entries)})


def list_entry(channel_id: str, knobs: Knobs, status: Status) -> dict[str, Any]:
    """Return a channel's entry in the list, modified by its knobs."""
    entry = {"id": channel_id, "name": channel_id} if knobs.lists_id else {}
    return entry | knobs.shown("status", status)
