"""The wrapper's answers, as in the contract; some of them are faults of every API."""

from typing import Any

from demo.simulator.responses import HttpAnswer


def ok(**more: Any) -> HttpAnswer:
    """Answer with success."""
    return HttpAnswer(200, {"success": True, **more})


def error(status: int, words: str) -> HttpAnswer:
    """Refuse a call."""
    return HttpAnswer(status, {"success": False, "error": words})


def channel_list(entries: list[dict[str, Any]]) -> HttpAnswer:
    """Answer with the channel list."""
    return ok(channels=entries, total=len(entries))


UNAUTHORIZED = error(401, "Unauthorized: wrong gateway secret")
NOT_FOUND = error(404, "Channel not found")
