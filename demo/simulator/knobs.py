"""What can be set on a channel of the simulated gateway."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from demo.simulator import rules

Session = Literal["paired", "unpaired", "not_started", "dead"]
Status = Literal["connected", "disconnected", "qr_required", "initializing"]
ZombieAnswer = Literal["connected", "http_500", "qr"]
Start = Literal["works", "fails"]
Pairing = Literal["issued", "refused"]
Engine = Literal["NOWEB", "WEBJS"]
Posting = Literal["set", "wiped", "disabled", "unselected", "moved", "global"]
POSTING = ("set", "global")
WhatsApp = Literal["reachable", "refused", "unresolved"]
IdField = Literal["id", "name", "channel_id", "none"]
QrForm = Literal["base64", "data_url", "http_url"]

AS_IT_IS = "(as it is)"
"""`status_text` that shows the channel's real status in the list."""

MISSING = "(missing)"
"""`status_text` that leaves the key `status` out of the list."""

BAILEYS = "WHATSAPP-BAILEYS"
"""Evolution's name for a session of WhatsApp Web, the only kind that can be reconnected."""

QR_FIELDS = (
    "qr",
    "qr_base64",
    "qrcode",
    "base64Qrimg",
    "base64",
    "base64Image",
    "image",
    "qrcode_base64",
    "data",
    "data.qr",
    "data.base64",
    "data.base64Qrimg",
    "result",
    "result.qr",
    "result.base64",
    "result.base64Qrimg",
)
"""Every place in which the contract allows the QR code to be."""


@dataclass
class Knobs:
    """How one channel looks and behaves.

    `session` says what getQr does to a channel that is not connected: `paired` brings it back
    after `reconnect_seconds`, `unpaired` shows a QR code, `not_started` wants start-session first
    and then behaves like `after_start`, `dead` is accepted and never connects.

    `heals` and `zombie_answer` say what getQr does to a zombie; `heals` also what a restart does.

    `qr_seconds` is how long a QR code waits where starting a session shows it; null is for ever.
    `integration` other than the default is Evolution's for the official Business API.
    `start` is whether Chromium gets to the page, at WPPConnect Server: a start that `fails` stays
    initializing, and leaves a browser behind that makes each later one fail.
    `whatsapp` is the way to WhatsApp's servers, of Evolution's instances: while it is `refused` or
    `unresolved`, an instance reconnects by itself and shows `close` and `connecting` in turn, or
    `close` alone. One that is not `loaded` is listed, and its process has no state of it yet.
    `tells_activity` is whether WAHA tells when the session was last active. One that is
    `quiet` is well, but has no messages other than those of the API. An `old_core` answers as
    WAHA's Core of 2024.10 does: without API key and activity, and it refuses to start twice.
    `pairing` is what a wish for a pairing code comes to. A code lives for `code_seconds`, or as
    long as QR codes are shown, and is dead if it was issued for another number than `registered`.
    `stores` is whether messages are kept for lists of them: WAHA's and Evolution's settings have
    it. `posting` is how the webhook of their sessions is set: `wiped` as by evolution-api#2694, or
    `moved` elsewhere; a `global` one is in no answer. Whatever the gateway is, only one that is
    `set` or `global` posts. `engine` is WAHA's; of a WEBJS there is no list of all chats, and it
    filters no times.
    """

    name: str | None = None
    session: Session = "paired"
    after_start: Session = "paired"
    start_seconds: float = 0.0
    not_started_http: int = 200
    reconnect_seconds: float = 2.0
    initializing_answers: int = 0
    heals: bool = True
    zombie_answer: ZombieAnswer = "connected"
    qr_field: str = "qr"
    qr_form: QrForm = "base64"
    status_text: Any = AS_IT_IS
    id_field: IdField = "id"
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


class KnobSettings(TypedDict, total=False):
    """All that `PUT /sim/channels/{id}` takes: the knobs, and the state to be in at once."""

    name: str | None
    session: Session
    after_start: Session
    start_seconds: float
    not_started_http: Literal[200, 500]
    reconnect_seconds: float
    initializing_answers: int
    heals: bool
    zombie_answer: ZombieAnswer
    qr_field: str
    qr_form: QrForm
    status_text: Any
    id_field: IdField
    qr_seconds: float | None
    integration: str
    start: Start
    whatsapp: WhatsApp
    loaded: bool
    tells_activity: bool
    quiet: bool
    old_core: bool
    pairing: Pairing
    code_seconds: float | None
    registered: str | None
    stores: bool
    posting: Posting
    engine: Engine
    status: Status
    zombie: bool


RULES = {
    "name": rules.or_null(rules.TEXT),
    "session": rules.one_of(*get_args(Session)),
    "after_start": rules.one_of("paired", "unpaired", "dead"),
    "start_seconds": rules.AMOUNT,
    "not_started_http": rules.one_of(200, 500),
    "reconnect_seconds": rules.AMOUNT,
    "initializing_answers": rules.COUNT,
    "heals": rules.SWITCH,
    "zombie_answer": rules.one_of(*get_args(ZombieAnswer)),
    "qr_field": rules.one_of(*QR_FIELDS),
    "qr_form": rules.one_of(*get_args(QrForm)),
    "status_text": rules.ANYTHING,
    "id_field": rules.one_of(*get_args(IdField)),
    "qr_seconds": rules.or_null(rules.AMOUNT),
    "integration": rules.TEXT,
    "start": rules.one_of(*get_args(Start)),
    "whatsapp": rules.one_of(*get_args(WhatsApp)),
    "loaded": rules.SWITCH,
    "tells_activity": rules.SWITCH,
    "quiet": rules.SWITCH,
    "old_core": rules.SWITCH,
    "pairing": rules.one_of(*get_args(Pairing)),
    "code_seconds": rules.or_null(rules.AMOUNT),
    "registered": rules.or_null(rules.TEXT),
    "stores": rules.SWITCH,
    "posting": rules.one_of(*get_args(Posting)),
    "engine": rules.one_of(*get_args(Engine)),
    "status": rules.one_of(*get_args(Status)),
    "zombie": rules.SWITCH,
}
"""The rule for each setting of a channel."""
