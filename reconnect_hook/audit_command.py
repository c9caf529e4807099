"""``python -m reconnect_hook audit``: compares messages now, and says which have not arrived."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime

from reconnect_hook.message_audit import Audit, AuditResult
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.scheduler import Scheduler, add_gateways
from reconnect_hook.supervisor import make_controller, open_store
from zapwatch.channels import Channel, channel_key
from zapwatch.cli import printable
from zapwatch.config import Settings, SettingsError
from zapwatch.db import StateError
from zapwatch.gateways.base import GatewayError

MISSED, UNKNOWN = 3, 1
"""The exit codes where messages are missing, and where that cannot be known of all."""


def run_audit(
    settings: Settings, channel: str | None, gateway: str | None, hours: float, *, as_json: bool
) -> int:
    """Audit one channel or all, of one gateway or all; raise SettingsError.

    Returns 0 where no message is missing, else MISSED or UNKNOWN.
    """
    names = [one.name for one in settings.gateways]
    if gateway is not None and gateway not in names:
        raise SettingsError(f"there is no gateway {gateway!r}, only {', '.join(names)}")
    store = open_store(settings)
    scheduler = Scheduler(store.database)
    add_gateways(store.database, names)
    since = time.time() - hours * 3600
    found: list[tuple[str, Channel, Audit]] = []
    failed = False
    for one in settings.gateways:
        if gateway not in (None, one.name):
            continue
        controller = make_controller(settings, one, store, HookMetrics(), scheduler)
        try:
            listed = [
                each
                for each in controller.client.list_channels().channels
                if channel is None or each.key == channel_key(channel)
            ]
            for each in listed:
                # One at a time: of thousands, somebody wants to see that it goes on.
                [(_, audit)] = controller.auditor.audit([(each, since)])
                controller.auditor.record(each, audit)
                found.append((one.name, each, audit))
                if not as_json:
                    _say(_lines(one.name, each, audit))
        except (GatewayError, StateError) as error:
            failed = True
            _say([f"{one.name}: {error}"])
        finally:
            controller.client.close()
    store.database.close()
    if as_json:
        _say(json.dumps({"audits": [_object(*one) for one in found]}, indent=2).splitlines())
    elif not found and not failed:
        _say(["no gateway lists such a channel; check --dry-run --verbose lists all"])
    results = {audit.result for _, _, audit in found}
    if AuditResult.MISSED in results:
        return MISSED
    return UNKNOWN if failed or not found or AuditResult.UNKNOWN in results else 0


def _lines(gateway: str, channel: Channel, audit: Audit) -> Sequence[str]:
    head = f"{gateway}: {channel.id}: {audit.result}: {audit.received} received"
    head += f", {len(audit.missed)} missed" if audit.missed else ""
    head += f" ({audit.why})" if audit.why else ""
    return [
        head,
        *(
            f"  {_time(one.at)} {one.kind} of a chat that ends in {one.chat or '?'}, id {one.id}"
            for one in audit.missed
        ),
    ]


def _object(gateway: str, channel: Channel, audit: Audit) -> dict[str, object]:
    return {
        "gateway": gateway,
        "channel": channel.id,
        "result": audit.result,
        "received": audit.received,
        "detail": audit.why,
        "missed": [
            {"id": one.id, "at": one.at, "kind": one.kind, "chat_ends_in": one.chat}
            for one in audit.missed
        ],
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")


def _say(lines: Sequence[str]) -> None:
    print("\n".join(map(printable, lines)), flush=True)  # noqa: T201 - the operator reads it
