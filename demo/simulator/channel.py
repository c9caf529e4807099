"""One channel, and what happens to it over time."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from demo.simulator.errors import Refused
from demo.simulator.knobs import Knobs, Session, Status

Reply = Literal["connected", "initializing", "not_started", "qr", "invalid_qr"]
"""What the gateway has to say when it is asked for a QR code."""

ACTIONS = ("drop", "zombie", "deafen", "flap", "unpair", "scan", "connect", "kill_browser")
"""What can happen to a phone, apart from its channel being removed."""


class SimulatedChannel:
    """One WhatsApp session.

    Nothing runs in the background: every method is given the present time and first lets happen
    what should have happened since the last look. Not thread-safe by itself.
    """

    def __init__(self, channel_id: str, now: float, status: Status = "connected") -> None:
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
        self._since = now
        self._recovers_at: float | None = None
        self._stays_zombie = False
        self._closed_zombie = False
        self._qr_until: float | None = None
        self._started_at: float | None = None
        self._asked = False
        self._initializing_left = 0

    def settle(self, now: float) -> None:
        """Let a reconnection that is due by now happen, and a QR code be too old."""
        if self._recovers_at is not None and now >= self._recovers_at:
            self._become("connected", self._recovers_at)
            self._recovers_at = None
            self.zombie = self._stays_zombie
            self.deaf = self.deaf and self.zombie
            self._stays_zombie = False
        if self._code_until is not None and now >= self._code_until:
            self.pairing_code = self._code_until = None
        if self._qr_until is not None and now >= self._qr_until:
            self._give_up(self._qr_until)
            self._stand_still()
            self.failed = True

    def issue_code(self, number: str, code: str, now: float) -> None:
        """Let the phone of a number connect by typing a code."""
        self.pairing_code, self._paired_for = code, number
        life = self.knobs.code_seconds
        self._code_until = None if life is None else now + life

    def enter_code(self, code: str, now: float) -> None:
        """Type a pairing code on the phone."""
        self.settle(now)
        alive = self.status == "qr_required" and self.pairing_code == code.replace("-", "")
        if not alive or self.knobs.registered not in {None, self._paired_for}:
            raise Refused(409, f"channel {self.id!r} has no such pairing code")
        self.act("scan", now)

    def change(self, settings: Mapping[str, Any], now: float) -> None:
        """Set knobs, and put the channel at once into the status or zombie state asked for.

        Another kind of session begins anew: whatever the last one was about to do is off.
        """
        if settings.get("session", self.knobs.session) != self.knobs.session:
            self._stand_still()
        was_reachable = self.reachable
        for name in settings.keys() - {"status", "zombie"}:
            setattr(self.knobs, name, settings[name])
        if self.reachable is not was_reachable and self.clients:
            self._lose_or_find_whatsapp(now)
        if "status" in settings:
            self._stand_still()
            self.zombie = self.deaf = False
            if settings["status"] == "disconnected":
                self._give_up(now)
            else:
                self._become(settings["status"], now)
        if settings.get("zombie"):
            self.act("zombie", now)
        elif "zombie" in settings and self.zombie:
            self._stand_still()
            self.zombie = self.deaf = False

    def act(self, action: str, now: float) -> None:
        """Let one of the ACTIONS happen to the phone."""
        if action == "scan" and self.status != "qr_required":
            raise Refused(409, f"scan: no QR code of channel {self.id!r} is waiting to be scanned")
        if action == "kill_browser":
            self.browser_left = False
            return
        self._stand_still()
        self.zombie = action in {"zombie", "deafen"}
        self.deaf = action == "deafen"
        if action == "flap":
            self._become("initializing", now)
            self._recovers_at = now + self.knobs.reconnect_seconds
            return
        if action in {"drop", "unpair"}:
            self._give_up(now)
        else:
            self._become("connected", now)
        if action == "unpair":
            self.knobs.session = "unpaired"
        if action == "scan" or (action == "connect" and self.knobs.session == "unpaired"):
            self.knobs.session = "paired"

    def start_session(self, now: float) -> None:
        """Start the session, which matters only to one that was not started."""
        if self._started_at is None:
            self._started_at = now + self.knobs.start_seconds

    def begin(self, now: float) -> None:
        """Start a session that is down, as gateways do that have a call for it.

        A paired one is initializing and then connected, an unpaired one shows a QR code, and one
        that is `dead` starts for ever. Any that is not down goes on as it was.
        """
        if self.status != "disconnected":
            return
        session = self.knobs.session
        if session == "not_started":
            session = self.knobs.after_start
        stays = self._closed_zombie and not self.knobs.heals
        self._stand_still()
        self._stays_zombie = stays
        if self.knobs.start == "fails" or self.browser_left:
            self.start_failed = self.browser_left = True
            self._become("initializing", now)
            return
        if not self.reachable:
            self._become("initializing", now)
            return
        if session == "unpaired":
            self._become("qr_required", now)
            if self.knobs.qr_seconds is not None:
                self._qr_until = now + self.knobs.qr_seconds
            return
        self._become("initializing", now)
        if session == "paired":
            self._recovers_at = now + self.knobs.reconnect_seconds

    def close(self, now: float) -> None:
        """Close the session, and keep its pairing and whether it is a zombie."""
        zombie, stored = self.zombie, self.stored
        self._stand_still()
        self._closed_zombie = zombie
        self._give_up(now)
        self.stored = stored

    def restart(self, now: float) -> None:
        """Close the session and start it again."""
        self.close(now)
        self.begin(now)

    def unpair(self, now: float) -> None:
        """Log the session out: it is down, and wants a QR code when it is started."""
        self.act("unpair", now)

    def ask_qr(self, now: float) -> Reply:
        """Ask for the QR code, which makes the gateway try to reconnect.

        1. A zombie answers as `zombie_answer` says, and begins to heal if it can.
        2. A session that was not started says so, and nothing else happens.
        3. The first call since the drop begins the attempt.
        4. The first `initializing_answers` calls of the attempt learn that the browser starts.
        5. Then an unpaired session shows a QR code; any other claims to be connected, whether or
           not the list agrees by now.
        """
        self.settle(now)
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
            self._become("qr_required", now)
            return "qr"
        return "connected"

    def snapshot(self, now: float) -> dict[str, Any]:
        """Describe the channel for the control API."""
        self.settle(now)
        return {
            "id": self.id,
            "status": self.status,
            "status_seconds": round(now - self._since, 3),
            "zombie": self.zombie,
            "deaf": self.deaf,
            "number": self.number,
            "alive": self.alive,
            "recovering": self._recovers_at is not None,
            "clients": self.clients,
            "browser_left": self.browser_left,
        } | asdict(self.knobs)

    @property
    def reachable(self) -> bool:
        """Whether there is a way to WhatsApp's servers."""
        return self.knobs.whatsapp == "reachable"

    @property
    def alive(self) -> bool:
        """Whether messages really come and go."""
        return self.status == "connected" and not self.zombie

    @property
    def sends(self) -> bool:
        """Whether it has a way to WhatsApp: a deaf zombie has, and misses what comes in."""
        return self.alive or (self.status == "connected" and self.deaf)

    def _session(self, now: float) -> Session:
        started = self._started_at is not None and now >= self._started_at
        if self.knobs.session == "not_started" and started:
            return self.knobs.after_start
        return self.knobs.session

    def _ask_zombie(self, now: float) -> Reply:
        if self.knobs.zombie_answer == "qr":
            self.act("unpair", now)
            self._become("qr_required", now)
            return "qr"
        if self.knobs.heals and self._recovers_at is None:
            self._recovers_at = now + self.knobs.reconnect_seconds
        return "connected" if self.knobs.zombie_answer == "connected" else "invalid_qr"

    def _begin_attempt(self, session: Session, now: float) -> None:
        self._asked = True
        self._initializing_left = self.knobs.initializing_answers
        if session == "paired":
            self._recovers_at = now + self.knobs.reconnect_seconds
        if session != "dead":
            self._become("initializing", now)

    def _stand_still(self) -> None:
        self._recovers_at = None
        self._started_at = None
        self._asked = False
        self._initializing_left = 0
        self._stays_zombie = self._closed_zombie = False
        self._qr_until = self._code_until = self.pairing_code = None
        self.failed = self.start_failed = False

    def _lose_or_find_whatsapp(self, now: float) -> None:
        self._stand_still()
        if not self.reachable:
            self._become("initializing", now)
        elif self.knobs.session == "unpaired":
            self._become("qr_required", now)
        else:
            self._become("connected", now)

    def _give_up(self, since: float) -> None:
        self._become("disconnected", since)
        self.clients = 0
        self._store("disconnected")

    def _become(self, status: Status, since: float) -> None:
        if status != self.status:
            self.status = status
            self._since = since
        if status != "disconnected":
            self.begun = True
            self.clients = max(1, self.clients)
        if status in {"connected", "qr_required"}:
            self._store(status)

    def _store(self, status: Status) -> None:
        """Write what a gateway's database comes to hold, which hears nothing of restarts."""
        self.stored = status
        self.stored_changes += 1
