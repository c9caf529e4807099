"""An answer of a gateway, and what all gateways' answers have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whatsapp.channels import Channel
from whatsapp.gateways.gateway import MAX_CHANNELS, ChannelList, LeftOut, Reason


class Failure(Exception):  # noqa: N818 - GatewayError is what callers see
    """Why a call did not work; the detail may be long, and may repeat what was sent."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, whole but not yet looked into."""

    status: int
    content_type: str
    raw: bytes = field(repr=False)

    @property
    def is_html(self) -> bool:
        """Whether it is a proxy's page rather than the gateway's words."""
        return "html" in self.content_type.lower() or self.raw.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """Return the parsed body, or None where it is not JSON."""
        try:
            return json.loads(self.raw)
        except (ValueError, RecursionError):
            return None

    def checked(self) -> dict[str, Any]:
        """Return the JSON object of a successful answer; raise Failure for any other."""
        parsed = self.checked_json()
        if not isinstance(parsed, dict):
            raise Failure(Reason.INVALID, "JSON that is not an object")
        return parsed

    def checked_list(self) -> list[Any]:
        """Return the JSON list of a successful answer; raise Failure for any other."""
        parsed = self.checked_json()
        if not isinstance(parsed, list):
            raise Failure(Reason.INVALID, "JSON that is not a list")
        return parsed

    def checked_json(self) -> Any:
        """Return the JSON of a successful answer; raise Failure for any other."""
        parsed = self.json()
        said = _said(parsed)
        if self.status in (401, 403):
            raise Failure(Reason.UNAUTHORIZED, f"HTTP {self.status}, wrong secret?{said}")
        if self.status in range(300, 400):
            raise Failure(Reason.HTTP, f"HTTP {self.status}, a redirect: wrong base URL?")
        if self.is_html:
            raise Failure(Reason.HTML, f"HTTP {self.status} with an HTML page instead of JSON")
        if not self.is_success:
            raise Failure(Reason.HTTP, f"HTTP {self.status}{said}")
        if not self.raw.strip():
            raise Failure(Reason.INVALID, f"HTTP {self.status} with an empty body")
        if parsed is None:
            raise Failure(Reason.INVALID, f"HTTP {self.status} with a body that is not JSON")
        if isinstance(parsed, dict) and parsed.get("success") is False:
            raise Failure(Reason.INVALID, f"the gateway answered success=false{said}")
        return parsed

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status says that it worked."""
        return self.status in range(200, 300)


def _said(parsed: Any) -> str:
    said = words(parsed)
    return f": {said}" if said else ""


def words(parsed: Any) -> str:
    """Return what a gateway says in ``error``, ``message`` and ``response.message``.

    Each may be any JSON.
    """
    if not isinstance(parsed, dict):
        return ""
    values = [parsed.get(name) for name in ("error", "message")]
    if isinstance(parsed.get("response"), dict):
        values.append(parsed["response"].get("message"))
    return "; ".join(_text(value) for value in values if value and not isinstance(value, bool))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply)"


def gather(found: Iterable[Channel | None]) -> ChannelList:
    """Return the channels among the entries of a list; None stands for an entry that is none."""
    channels: dict[str, Channel] = {}
    left_out: Counter[LeftOut] = Counter()
    for channel in found:
        if channel is None:
            left_out[LeftOut.UNUSABLE_ID] += 1
        elif channels.setdefault(channel.key, channel) is not channel:
            # Two sessions whose ids differ in letter case alone cannot be told apart in the log.
            left_out[LeftOut.DUPLICATE] += 1
    if not channels:
        raise Failure(Reason.INVALID, "no channel found in the list")
    # By their keys, so that it is the same ones each time, however the gateway sorts its list.
    for key in sorted(channels)[MAX_CHANNELS:]:
        del channels[key]
        left_out[LeftOut.OVER_LIMIT] += 1
    return ChannelList(tuple(channels.values()), left_out)


def expect_success(answer: Answer) -> None:
    """Accept any answer that does not say that the call failed."""
    answer.checked()


def expect_image(answer: Answer) -> bytes:
    """Return the body of an answer that succeeded and is no page."""
    if not answer.is_success or answer.is_html:
        raise Failure(Reason.HTTP, f"HTTP {answer.status} instead of an image")
    return answer.raw
