"""The phone number in WhatsApp's name of an account."""

from __future__ import annotations

_LONGEST = 15  # digits of a phone number, by ITU-T E.164


def number_of(jid: object) -> str | None:
    """Return the digits of ``55...@c.us`` or ``55...:7@s.whatsapp.net``; None for anything else.

    ``@lid`` names an account without its number.
    """
    if not isinstance(jid, str):
        return None
    digits, _, server = jid.partition("@")
    digits = digits.partition(":")[0].removeprefix("+")
    known = server in {"", "c.us", "s.whatsapp.net"}
    return digits if known and _is_number(digits) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST
