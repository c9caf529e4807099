"""The wrapper's well-formed answers, as in the contract."""

from typing import Any, NamedTuple

from demo.simulator.knobs import AS_IT_IS, MISSING, Knobs, Status


class WrapperAnswer(NamedTuple):
    """An HTTP status and its JSON body."""

    status: int
    body: Any


UNAUTHORIZED = WrapperAnswer(401, {"success": False, "error": "Unauthorized: wrong gateway secret"})
NOT_FOUND = WrapperAnswer(404, {"success": False, "error": "Channel not found"})
UNKNOWN_CALL = WrapperAnswer(404, {"success": False, "error": "No such call"})
NO_CHANNEL_NAMED = WrapperAnswer(400, {"success": False, "error": "The field 'channel' is missing"})
ALREADY_THERE = WrapperAnswer(409, {"success": False, "error": "Channel already exists"})
NO_MESSAGE = WrapperAnswer(
    400, {"success": False, "error": "The fields 'to' and 'text' are missing"}
)
NOT_SENT = WrapperAnswer(500, {"success": False, "error": "WPPConnect could not send the message"})
INVALID_QR = WrapperAnswer(500, {"success": False, "error": "Invalid QR code response from server"})
CONNECTED = WrapperAnswer(
    200,
    {
        "success": True,
        "qr": None,
        "status": "CONNECTED",
        "message": "The session is connected, no QR code is needed",
    },
)
INITIALIZING = WrapperAnswer(200, {"success": True, "qr": None, "status": "INITIALIZING"})
STARTED = WrapperAnswer(200, {"success": True, "message": "The session is starting"})
DELETED = WrapperAnswer(200, {"success": True, "message": "The session was thrown away"})


def not_started(status: int) -> WrapperAnswer:
    """Answer with HTTP 200 or 500 that start-session has to be called first."""
    words = "Session not started. Use POST /api/channels/{id}/start-session"
    return WrapperAnswer(status, {"success": False, "error": words})


def qr_code(field: str, value: str) -> WrapperAnswer:
    """Answer with a QR code in the given field, which may be nested (`data.qr`)."""
    body: Any = value
    for key in reversed(field.split(".")):
        body = {key: body}
    return WrapperAnswer(200, {"success": True} | body)


def created(channel_id: str) -> WrapperAnswer:
    """Confirm a new channel with 201."""
    return WrapperAnswer(201, {"success": True, "channel": {"id": channel_id, "name": channel_id}})


def sent(message_id: str) -> WrapperAnswer:
    """Confirm a sent message with its id."""
    return WrapperAnswer(200, {"success": True, "id": message_id})


def channel_list(entries: list[dict[str, Any]]) -> WrapperAnswer:
    """Answer with the channel list."""
    return WrapperAnswer(200, {"success": True, "channels": entries, "total": len(entries)})


def list_entry(channel_id: str, knobs: Knobs, status: Status) -> dict[str, Any]:
    """Return a channel's entry in the list, modified by its knobs."""
    entry: dict[str, Any] = {}
    if knobs.id_field == "id":
        entry = {"id": channel_id, "name": knobs.name or channel_id}
    elif knobs.id_field != "none":
        entry = {knobs.id_field: channel_id}
    if knobs.status_text == AS_IT_IS:
        entry["status"] = status
    elif knobs.status_text != MISSING:
        entry["status"] = knobs.status_text
    return entry
