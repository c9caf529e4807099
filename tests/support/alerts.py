"""Alertmanager's webhook payloads."""

from __future__ import annotations

import json
from typing import Any

_LABELS = {
    "alertname": "WhatsAppChannelDisconnected",
    "gateway": "wpp",
    "remediation": "reconnect",
    "severity": "warning",
}


def alert(channel: Any = "loja", status: Any = "firing", **labels: Any) -> dict[str, Any]:
    """Return one alert of a payload, without labels that are None."""
    wanted = {**_LABELS, "channel": channel, **labels}
    return {
        "status": status,
        "labels": {name: value for name, value in wanted.items() if value is not None},
        "annotations": {"summary": f"{channel} is not connected"},
        "startsAt": "2026-02-09T08:15:02.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1:9090/graph",
        "fingerprint": "0123456789abcdef",
    }


def payload(*alerts: Any, **more: Any) -> bytes:
    """Return a webhook payload of version 4 with these alerts."""
    whole = {
        "version": "4",
        "groupKey": '{}:{alertname="WhatsAppChannelDisconnected"}',
        "truncatedAlerts": 0,
        "receiver": "reconnect-hook",
        "status": "firing",
        "externalURL": "http://127.0.0.1:9093",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "alerts": list(alerts),
        **more,
    }
    return json.dumps(whole).encode()
