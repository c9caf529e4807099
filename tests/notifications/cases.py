"""The alerts of which examples of messages are kept in ``examples/``."""

from __future__ import annotations

from typing import Any

from zapwatch.alertmanager import TEST_ALERT

BEGAN = "2026-02-09T08:15:02Z"
ENDED = "2026-02-09T09:20:32Z"

_RUNBOOK = "http://127.0.0.1:9862/docs/runbook/"
QR_SEEN = "The gateway has answered a repair with a QR code."
HOSTILE = "<b>&<!channel>*_`[a](b)\u202e\r\nBcc: c\"'"


def alert(name: str, gateway: str, channel: str = "", **annotations: str) -> dict[str, Any]:
    """Return an alert as Prometheus sends it while it fires."""
    labels = {"alertname": name, "gateway": gateway, "severity": "critical"}
    return {
        "labels": {**labels, **({"channel": channel} if channel else {})},
        "annotations": {
            "summary": f"the summary of {name}",
            "description": f"the description of {name}",
            "runbook_url": f"{_RUNBOOK}{name}",
            **annotations,
        },
        "startsAt": BEGAN,
        "generatorURL": "http://127.0.0.1:9090/graph",
    }


def over(alert: dict[str, Any]) -> dict[str, Any]:
    """Return the same alert when it has ended."""
    return {**alert, "endsAt": ENDED}


CASES: dict[str, list[dict[str, Any]]] = {
    "qr": [alert("WhatsAppChannelNeedsQrScan", "wpp", "Loja Centro", description=QR_SEEN)],
    "qr_seen_only": [alert("WhatsAppChannelNeedsQrScan", "wpp", "imobsites")],
    "failing": [
        alert(
            "WhatsAppReconnectFailing",
            "wpp",
            "Pixel12 Digital",
            description="Zapwatch has tried 3 times in a row. It has been down for 47m 12s.",
        )
    ],
    "disconnected": [
        alert(
            "WhatsAppReconnectFailing",
            "wpp",
            "Pixel12 Digital",
            description="It has been down for 1h 2m 48s.",
        )
    ],
    "gone": [alert("WhatsAppChannelGone", "evo", "Loja Sul")],
    "still_silent": [alert("WhatsAppChannelStillSilent", "evo", "Loja Norte")],
    "flapping": [alert("WhatsAppChannelFlapping", "waha", "Loja Centro")],
    "delivery": [
        alert(
            "WhatsAppDeliveryBroken",
            "evo",
            "Loja Centro",
            description="Fault of the session's webhook, by its settings: gone.",
        )
    ],
    "missed": [alert("WhatsAppMessagesMissed", "waha", "Loja Sul")],
    "left_out": [
        alert("WhatsAppChannelsLeftOut", "waha", description="1, reason duplicate. Rename."),
        alert("WhatsAppChannelsLeftOut", "wppc", description="2, reason over_limit. Divide."),
    ],
    "unknown": [alert("WhatsAppGatewayUnknown", "loja")],
    "many": [
        alert("WhatsAppChannelNeedsQrScan", "wpp", f"Loja {number}", description=QR_SEEN)
        for number in range(1, 8)
    ],
    # Of another gateway, or it would hold all the others back.
    "gateway": [alert("WhatsAppGatewayDown", "other")],
    "test": [alert(TEST_ALERT, "")],
    "hook": [alert("WhatsAppReconnectHookDown", "")],
    "hostile": [
        alert(
            "WhatsAppChannelNeedsQrScan", f"gate {HOSTILE}", f"Loja {HOSTILE}", description=QR_SEEN
        )
    ],
    "own": [
        alert(
            f"Own {HOSTILE}",
            "wpp",
            summary=f"summary {HOSTILE}",
            description=f"description {HOSTILE}",
            runbook_url="javascript:alert(1)",
        )
    ],
}

# The longest names there can be, of the character that takes the most room when it is escaped.
LONGEST = [
    alert("WhatsAppChannelNeedsQrScan", "&" * 255, f"{'&' * 250}{number}", description=QR_SEEN)
    for number in range(20)
]
