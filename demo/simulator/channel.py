"""The state machine of one channel."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from demo.simulator.knobs import Knobs, Session, Status
from demo.simulator.rules import Refused

Reply = Literal["connected", "initializing", "not_started", "qr"]
"""The gateway's answer to a request for a QR code."""

ACTIONS = ("drop", "zombie", "deafen", "flap", "unpair", "scan", "connect", "kill_browser")
"""Actions on a phone, apart from the removal of its channel."""


class SimulatedChannel:
    """One WhatsApp session.

    Nothing runs in the background: methods take the current time, and `settle` first applies what
    is due since the last call. Not thread-safe.
    """

    def __init__(self, channel_id: str, status: Status) -> None:
        self.id = channel_id
        self.knobs = Knobs()
        self.status: Status = status
        self.zombie = False
        self.deaf = False
        self.failed = False
        self.number = ""
        self.webhook = ""
        self.phone = ""
        self.messages = 0
        self.active_at: float | None = None
        self.clients = 1 if status == "connected" else 0
        self.stored: Status = status
        self.stored_changes = 0
        self.looks = 0
        self.begun = status == "connected"
        self.start_failed = False
        self.browser_left = False
        self.pairing_code: str | None = None
        self._paired_for = ""
        self._code_until: float | None = None
        self._recovers_at: float | None = None
        self._qr_until: float | None = None
        self._started_at: float | None = None
        self._asked = False
        self._initializing_left = 0

    def settle(self, now: float) -> None:
        """Apply a reconnection that is due, and expire old QR and pairing codes."""
        if self._recovers_at is not None and now >= self._recovers_at:
            self._become("connected")
            self._recovers_at = None
            self.zombie = self.deaf = False
        if self._code_until is not None and now >= self._code_until:
            self.pairing_code = self._code_until = None
        if self._qr_until is not None and now >= self._qr_until:
            self._give_up()
            self._stand_still()
            self.failed = True

    def issue_code(self, number: str, code: str, now: float) -> None:
        """Allow the phone with this number to connect by entering the code."""
        self.pairing_code, self._paired_for = code, number
        life = self.knobs.code_seconds
        self._code_until = None if life is None else now + life

    def enter_code(self, code: str, now: float) -> None:
        """Enter a pairing code on the phone; raise Refused if it is not valid."""
        alive = self.status == "qr_required" and self.pairing_code == code.replace("-", "")
        if not alive or self.knobs.registered not in {None, self._paired_for}:
            raise Refused(409, f"channel {self.id!r} has no such pairing code")
        self.act("scan", now)

    def change(self, settings: Mapping[str, Any], now: float) -> None:
        """Set knobs, and put the channel at once into the requested status or zombie state.

        A change of `session` cancels what was pending.
        """
        if settings.get("session", self.knobs.session) != self.knobs.session:
            self._stand_still()
        was_reachable = self.reachable
        for name in settings.keys() - {"status", "zombie"}:
            setattr(self.knobs, name, settings[name])
        if self.reachable is not was_reachable and self.clients:
            self._lose_or_find_whatsapp()
        if "status" in settings:
            self._stand_still()
            self.zombie = self.deaf = False
            if settings["status"] == "disconnected":
                self._give_up()
            else:
                self._become(settings["status"])
        if settings.get("zombie"):
            self.act("zombie", now)
        elif "zombie" in settings and self.zombie:
            self._stand_still()
            self.zombie = self.deaf = False

    def act(self, action: str, now: float) -> None:
        """Apply one of the ACTIONS to the phone; raise Refused."""
        if action == "scan" and self.status != "qr_required":
            raise Refused(409, f"scan: no QR code of channel {self.id!r} is waiting to be scanned")
        if action == "kill_browser":
            self.browser_left = False
            return
        self._stand_still()
        self.zombie = action in {"zombie", "deafen"}
        self.deaf = action == "deafen"
        if action == "flap":
            self._become("initializing")
            self._recovers_at = now + self.knobs.reconnect_seconds
            return
        if action in {"drop", "unpair"}:
            self._give_up()
        else:
            self._become("connected")
        if action == "unpair":
            self.knobs.session = "unpaired"
        if action == "scan" or (action == "connect" and self.knobs.session == "unpaired"):
            self.knobs.session = "paired"

    def start_session(self, now: float) -> None:
        """Start the session; this only affects one in the state `not_started`."""
        if self._started_at is None:
            self._started_at = now + self.knobs.start_seconds

    def begin(self, now: float) -> None:
        """Start a disconnected session, for gateways that have a call for it.

        A paired one is initializing and then connected, an unpaired one shows a QR code, and a
        `dead` one stays initializing. A session that is not disconnected does not change.
        """
        if self.status != "disconnected":
            return
        session = self.knobs.session
        if session == "not_started":
            session = self.knobs.after_start
        self._stand_still()
        if self.knobs.start == "fails" or self.browser_left:
            self.start_failed = self.browser_left = True
            self._become("initializing")
            return
        if not self.reachable:
            self._become("initializing")
            return
        if session == "unpaired":
            self._become("qr_required")
            if self.knobs.qr_seconds is not None:
                self._qr_until = now + self.knobs.qr_seconds
            return
        self._become("initializing")
        if session == "paired":
            self._recovers_at = now + self.knobs.reconnect_seconds

    def close(self) -> None:
        """Close the session; it keeps its pairing."""
        stored = self.stored
        self._stand_still()
        self._give_up()
        self.stored = stored

    def restart(self, now: float) -> None:
        """Close the session and start it."""
        self.close()
        self.begin(now)

    def unpair(self, now: float) -> None:
        """Log the session out: it is disconnected, and shows a QR code when started."""
        self.act("unpair", now)

    def ask_qr(self, now: float) -> Reply:
        """Request the QR code, which makes the gateway try to reconnect.

        1. A zombie answers with its `zombie_answer`, and starts to reconnect.
        2. A session that was not started answers `not_started`, without any effect.
        3. The first call since the drop begins the attempt.
        4. The first `initializing_answers` calls of the attempt answer `initializing`.
        5. Then an unpaired session shows a QR code; any other answers `connected`, even if the
           list does not agree yet.
        """
        if self.zombie:
            return self._ask_zombie(now)
        session = self._session(now)
        if self.status != "connected":
            if session == "not_started":
                return "not_started"
            if not self._asked:
                self._begin_attempt(session, now)
        if self._initializing_left > 0:
            self._initializing_left -= 1
            return "initializing"
        if self.status != "connected" and session == "unpaired":
            self._become("qr_required")
            return "qr"
        return "connected"

    def snapshot(self, now: float) -> dict[str, Any]:
        """Describe the channel for the control API."""
        self.settle(now)
        return {
            "id": self.id,
            "status": self.status,
            "zombie": self.zombie,
            "deaf": self.deaf,
            "number": self.number,
            "alive": self.alive,
            "clients": self.clients,
        } | asdict(self.knobs)

    @property
    def reachable(self) -> bool:
        """Whether WhatsApp's servers are reachable."""
        return self.knobs.whatsapp == "reachable"

    @property
    def alive(self) -> bool:
        """Whether messages really arrive and leave."""
        return self.status == "connected" and not self.zombie

    @property
    def sends(self) -> bool:
        """Whether it can send: a deaf zombie can, but receives nothing."""
        return self.alive or (self.status == "connected" and self.deaf)

    def _session(self, now: float) -> Session:
        started = self._started_at is not None and now >= self._started_at
        if self.knobs.session == "not_started" and started:
            return self.knobs.after_start
        return self.knobs.session

    def _ask_zombie(self, now: float) -> Reply:
        if self.knobs.zombie_answer == "qr":
            self.act("unpair", now)
            self._become("qr_required")
            return "qr"
        if self._recovers_at is None:
            self._recovers_at = now + self.knobs.reconnect_seconds
        return "connected"

    def _begin_attempt(self, session: Session, now: float) -> None:
        self._asked = True
        self._initializing_left = self.knobs.initializing_answers
        if session == "paired":
            self._recovers_at = now + self.knobs.reconnect_seconds
        if session != "dead":
            self._become("initializing")

    def _stand_still(self) -> None:
        self._recovers_at = None
        self._started_at = None
        self._asked = False
        self._initializing_left = 0
        self._qr_until = self._code_until = self.pairing_code = None
        self.failed = self.start_failed = False

    def _lose_or_find_whatsapp(self) -> None:
        self._stand_still()
        if not self.reachable:
            self._become("initializing")
        elif self.knobs.session == "unpaired":
            self._become("qr_required")
        else:
            self._become("connected")

    def _give_up(self) -> None:
        self._become("disconnected")
        self.clients = 0
        self._store("disconnected")

    def _become(self, status: Status) -> None:
        self.status = status
        if status != "disconnected":
            self.begun = True
            self.clients = max(1, self.clients)
        if status in {"connected", "qr_required"}:
            self._store(status)

    def _store(self, status: Status) -> None:
        """Set the status in the gateway's database, which restarts do not change."""
        self.stored = status
        self.stored_changes += 1
