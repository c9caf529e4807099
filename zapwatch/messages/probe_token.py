"""The token in a message that one of the operator's channels writes to another, to hear it there.

It tells whose ears the message is for. So a row of the log shows by itself whether it is an echo
that its channel has received, or only the sender's own note of it, in whatever event that came.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from zapwatch.channels import channel_key

MARK = "zapwatch-echo-"
"""What all tokens begin with: nothing in it that JSON, HTML or a chat would write differently."""

TOKEN_LENGTH = len(MARK) + 8 + 1 + 16
"""Characters."""

MOST_BYTES = 65536
"""That the payload of an echo has at most: it is short, and others may hold 16 MB of media."""

_TOKEN = re.compile(rf"{MARK}([0-9a-f]{{8}})-[0-9a-f]{{16}}")
_TOKEN_IN_BYTES = re.compile(_TOKEN.pattern.encode())


def make_token(receiver: str) -> str:
    """Return a new token for an echo that the channel ``receiver`` (an id or a key) is to hear."""
    return f"{MARK}{_short(receiver)}-{secrets.token_hex(8)}"


def is_token(text: str) -> bool:
    """Whether a text is a token, and not only begins like one."""
    return _TOKEN.fullmatch(text) is not None


def find_token(payload: bytes) -> str | None:
    """Return the first token in what a gateway tells of a message, None where there is none."""
    if len(payload) > MOST_BYTES:
        return None
    found = _TOKEN_IN_BYTES.search(payload)
    return found[0].decode() if found else None


def is_for(token: str, key: str) -> bool:
    """Whether an echo with this token was meant for the ears of the channel ``key``."""
    found = _TOKEN.fullmatch(token)
    return found is not None and found[1] == _short(key)


def _short(channel: str) -> str:
    # No channel's name in a chat: whoever reads it there needs not know what channels there are.
    return hashlib.sha256(channel_key(channel).encode()).hexdigest()[:8]
