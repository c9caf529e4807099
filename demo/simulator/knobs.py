"""Settings of a channel of the simulated gateway."""

from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

Session = Literal["paired", "unpaired", "not_started", "dead"]
AfterStart = Literal["paired", "unpaired", "dead"]
Status = Literal["connected", "disconnected", "qr_required", "initializing"]
ZombieAnswer = Literal["connected", "qr"]
Start = Literal["works", "fails"]
Pairing = Literal["issued", "refused"]
Engine = Literal["NOWEB", "WEBJS"]
Posting = Literal["set", "wiped", "disabled", "unselected", "moved", "global"]
POSTING = ("set", "global")
WhatsApp = Literal["reachable", "refused", "unresolved"]

AS_IT_IS = "(as it is)"
"""`status_text` that lists the channel's real status."""

MISSING = "(missing)"
"""`status_text` that omits the key `status` from the list."""

BAILEYS = "WHATSAPP-BAILEYS"
"""Evolution's name for a session of WhatsApp Web, the only kind that can be reconnected."""


@dataclass
class Knobs:
    """One channel's appearance and behaviour.

    `session` is the effect of getQr on a channel that is not connected: `paired` reconnects it
    after `reconnect_seconds`, `unpaired` shows a QR code, `not_started` requires start-session
    first and then behaves like `after_start`, `dead` is accepted and never connects.

    `zombie_answer` is the effect of getQr on a zombie. `qr_text` is what getQr shows instead of an
    image. A channel that has no `lists_id` is in the list without its id.

    `qr_seconds` is the lifetime of the QR code of a started session; null is unlimited.
    `integration` other than the default is Evolution's for the official Business API.
    `start` is whether WPPConnect Server's Chromium reaches the page: a start that `fails` stays
    initializing, and leaves a browser behind that makes each later start fail.
    `whatsapp` is the connection of Evolution's instances to WhatsApp: while it is `refused`, an
    instance reconnects by itself and shows `close` and `connecting` in turn; while `unresolved`,
    only `close`. An instance that is not `loaded` is listed, but its process has no state yet.
    `tells_activity` is whether WAHA reports when the session was last active. A `quiet` channel is
    healthy, but has only the API's own messages. An `old_core` behaves like WAHA's Core of
    2024.10: without API key and activity, and it refuses to start twice.
    `pairing` is the result of a request for a pairing code. A code is valid for `code_seconds`, or
    as long as QR codes are shown, and only if it was issued for the number `registered`.
    `stores` is whether messages are kept for message lists, a setting of WAHA and Evolution.
    `posting` is the webhook setting of their sessions: `wiped` as by evolution-api#2694, or `moved`
    elsewhere; a `global` one is in no answer. With any gateway, only `set` and `global` post.
    `engine` is WAHA's; WEBJS has no list of all chats, and does not filter by time.
    """

    session: Session = "paired"
    after_start: AfterStart = "paired"
    start_seconds: float = 0.0
    reconnect_seconds: float = 2.0
    initializing_answers: int = 0
    zombie_answer: ZombieAnswer = "connected"
    qr_text: str | None = None
    status_text: Any = AS_IT_IS
    lists_id: bool = True
    qr_seconds: float | None = None
    integration: str = BAILEYS
    start: Start = "works"
    whatsapp: WhatsApp = "reachable"
    loaded: bool = True
    tells_activity: bool = True
    quiet: bool = False
    old_core: bool = False
    pairing: Pairing = "issued"
    code_seconds: float | None = None
    registered: str | None = None
    stores: bool = True
    posting: Posting = "set"
    engine: Engine = "NOWEB"

    def shown(self, name: str, status: Any) -> dict[str, Any]:
        """Return the field of an answer that has the status, as `status_text` changes it."""
        if self.status_text == MISSING:
            return {}
        return {name: status if self.status_text == AS_IT_IS else self.status_text}


SETTINGS = get_type_hints(Knobs) | {"status": Status, "zombie": bool}
"""Types of the settings of `PUT /sim/channels/{id}`: the knobs, and the state to enter at once."""
