"""How many messages there are: the shipped waits, 40 times as short."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.notifications import cases
from tests.notifications.alertmanager import Alertmanager
from tests.support.inbox import Inbox
from tests.support.waiting import wait_until


def alert(name: str, channel: str = "", gateway: str = "wpp") -> dict[str, Any]:
    """Return an alert that fires from now on; one of long ago would be told without a wait."""
    return {**cases.alert(name, gateway, channel), "startsAt": _now()}


def over(alert: dict[str, Any]) -> dict[str, Any]:
    return {**alert, "endsAt": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def test_an_episode_makes_one_message_and_its_end_another(tmp_path: Path) -> None:
    def told() -> list[str]:
        return [sent["attachments"][0]["title"] for sent in inbox.slacks]

    with Inbox() as inbox, Alertmanager(tmp_path, inbox, "en", faster=40) as alertmanager:
        brief = alert("WhatsAppChannelNeedsQrScan", "brief")
        lasting = alert("WhatsAppChannelNeedsQrScan", "lasting")
        alertmanager.post(brief, lasting)
        alertmanager.post(over(brief))
        wait_until(told, "the message about the lasting one")

        # Another channel, and one more complaint about the same one: nothing of it is news.
        other = alert("WhatsAppChannelNeedsQrScan", "other")
        failing = alert("WhatsAppReconnectFailing", "lasting")
        alertmanager.post(lasting, failing, other)
        wait_until(lambda: len(told()) == 2, "the message about the other one")
        assert told() == ["lasting: scan the QR code", "other: scan the QR code"]

        alertmanager.post(over(failing))
        alertmanager.post(over(lasting))
        wait_until(lambda: len(told()) == 3, "the message that it is over")
        # By the time of this one, any message that is not wanted has come too.
        alertmanager.post(alert("WhatsAppMessageLogDown"))
        wait_until(lambda: min(inbox.counts) == 4, "the message about the log")
    ended = told()[2]
    assert ended.startswith("lasting: no longer needs a QR code")
    assert told()[3] == "The message table of wpp cannot be read"
    assert inbox.counts == (4, 4, 4)
